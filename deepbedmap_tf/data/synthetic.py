"""The embedded world: a synthetic sector of Antarctica, written to files like those of real products.

One seed and `WorldParameters` give a bed, the ice that flows over it, what instruments see of both, and the surveys
and products made from that. `docs/synthetic.md` says what is in it and what is not.
"""

from __future__ import annotations

import json
import logging
import shutil
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepbedmap_tf.data.cache import cache_directory
from deepbedmap_tf.data.instruments import reference_layers, surface_texture, velocity_error
from deepbedmap_tf.data.products import bedmachine_like, sparse_bed
from deepbedmap_tf.data.survey import Sampler, Track, join, parallel_lines, pick, polyline
from deepbedmap_tf.data.terrain import random_stream
from deepbedmap_tf.data.world import World, simulate
from deepbedmap_tf.data.world_files import write_geotiff, write_netcdf, write_picks
from deepbedmap_tf.data.world_parameters import GENERATOR_VERSION, SurveyBox, WorldParameters
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import ELLIPSOID, Grid

__all__ = ["SurveyBox", "World", "WorldParameters", "make_world", "simulate", "world_folder"]

Real = NDArray[np.float64]

_LOGGER = logging.getLogger(__name__)

# Files reach a little beyond the sector: the network sees one coarse cell of margin, splines a few more.
_FILE_MARGIN = 4_000.0
# Grid of MEaSUREs NSIDC-0754: cell centres at -2800000 + 450 i.
_VELOCITY_SPACING, _VELOCITY_ORIGIN = 450.0, -2_800_000.0


def world_folder(parameters: WorldParameters) -> Path:
    """Folder of a world in the cache, whether it has been made or not."""
    return cache_directory() / "worlds" / parameters.digest()


def make_world(parameters: WorldParameters, folder: Path | None = None, progress: bool = True) -> Path:
    """Make the files of a world, unless they are there already.

    Parameters
    ----------
    parameters
        What to make; the same parameters give the same arrays.
    folder
        Where to; by default `world_folder`. It appears complete or not at all: files are written beside and the
        folder is renamed at the end, so two processes may make the same world.
    progress
        Show a progress bar.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    DataError
        When the folder can't be written, or holds something else.
    """
    from tqdm import tqdm

    folder = Path(folder) if folder is not None else world_folder(parameters)
    if (folder / "world.json").is_file():
        return folder
    if folder.exists():
        raise DataError(f"{folder} exists but holds no world.json; remove it or choose another folder for the world")
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        beside.mkdir(parents=True)
        with tqdm(total=6, desc="making the embedded world", unit="step", disable=not progress, leave=False) as bar:
            world = simulate(parameters)
            bar.update(2)
            tracks = _fly(world, parameters, beside)
            bar.update()
            _write_products(world, parameters, tracks, beside)
            bar.update()
            _write_observations(world, parameters, beside)
            bar.update()
            _write_truth(world, parameters, beside)
            bar.update()
        description = {"generator_version": GENERATOR_VERSION, "parameters": parameters.model_dump(mode="json")}
        (beside / "world.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        try:
            beside.rename(folder)
        except OSError:
            if not (folder / "world.json").is_file():
                raise
            _LOGGER.info("%s was made by another process meanwhile", folder)
    except OSError as error:
        raise DataError(
            f"cannot write the embedded world to {folder}: {error.strerror or error}; free some space or set "
            "DEEPBEDMAP_CACHE_DIR to another folder"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _file_grid(parameters: WorldParameters, resolution: float, datum: str | None = None) -> Grid:
    xmin, ymin, xmax, ymax = parameters.bounds
    m = _FILE_MARGIN
    return Grid.from_bounds((xmin - m, ymin - m, xmax + m, ymax + m), resolution, vertical_datum=datum)


def _fly(world: World, parameters: WorldParameters, folder: Path) -> dict[str, tuple[Track, pd.DataFrame]]:
    """Fly all surveys and write their picks; returns the sparse ones."""
    p = parameters
    surface, bed = Sampler(world.wave_grid, world.surface), Sampler(world.grid, world.bed)

    def measure(name: str, tracks: list[Track], date: int, segment: int) -> tuple[Track, pd.DataFrame]:
        track = join(tracks)
        random = random_stream(p.seed, f"picks {name} {segment}")
        return track, pick(track, surface, bed, date, segment, p.pick_error, p.pick_error_line_share, random)

    wide = _file_grid(p, 1000).bounds
    random = random_stream(p.seed, "sparse lines")
    old = [
        parallel_lines(wide, azimuth, spacing, 4 * p.pick_spacing, random, p.old_gaps, 10_000.0)
        for azimuth, spacing in ((90.0, p.old_spacing), (0.0, 2.5 * p.old_spacing))
    ]
    recent = [
        parallel_lines(wide, azimuth, spacing, 2 * p.pick_spacing, random, 0.05, 3_000.0)
        for azimuth, spacing in ((75.0, p.recent_spacing), (-10.0, 2.5 * p.recent_spacing))
    ]
    sparse = {"old": measure("old", old, 20041220, 1), "recent": measure("recent", recent, 20121023, 2)}
    for name, (_, picks) in sparse.items():
        write_picks(folder / f"picks_{name}.csv", picks)
    dense = []
    random = random_stream(p.seed, "dense lines")
    for number, box in enumerate(p.dense_boxes, start=1):
        lines = [
            parallel_lines(box.bounds, azimuth, spacing, p.pick_spacing, random, 0.01)
            for azimuth, spacing in ((box.azimuth, p.dense_spacing), (box.azimuth + 90.0, 10 * p.dense_spacing))
        ]
        dense.append(measure("dense", lines, 20180108, number)[1])
    if dense:
        write_picks(folder / "picks_dense.csv", pd.concat(dense, ignore_index=True))
    if p.transect:
        _, picks = measure("transect", [polyline(p.transect, p.pick_spacing)], 20141121, 5)
        write_picks(folder / "picks_transect.csv", picks)
    return sparse


def _write_products(
    world: World, parameters: WorldParameters, surveys: dict[str, tuple[Track, pd.DataFrame]], folder: Path
) -> None:
    p = parameters
    km = _file_grid(p, 1000)
    layers = reference_layers(km, p)
    bed = sparse_bed(km, *surveys["old"])
    geoid = km.with_datum("geoid:EIGEN-GL04C")
    write_geotiff(folder / "bed_lowres_1km.tif", geoid, bed - layers.geoid_gl04c, "m", "bed above the GL04C geoid")
    write_geotiff(
        folder / "geoid_gl04c_1km.tif", km.with_datum(ELLIPSOID), layers.geoid_gl04c, "m", "GL04C geoid above WGS84"
    )

    half = km.refine(2)
    track = join([surveys["old"][0], surveys["recent"][0]])
    picks = pd.concat([surveys["old"][1], surveys["recent"][1]], ignore_index=True)
    product = bedmachine_like(half, track, picks, world.wave_grid, world.flow)
    geoid_6c4, firn = (Sampler(km, layer).on(half) for layer in (layers.geoid_6c4, layers.firn))
    geoid_6c4 = np.round(geoid_6c4)
    top = Sampler(world.wave_grid, world.surface).on(half) - firn - geoid_6c4
    bed_half = np.minimum(product.bed - geoid_6c4, top - 1.0)
    mask = np.full(half.shape, 2, dtype=np.int8)
    above = "ice equivalent, above the EIGEN-6C4 geoid"
    write_netcdf(
        folder / "bedmachine_500m.nc",
        half,
        {
            "mask": (mask, {"long_name": "mask", "flag_values": np.arange(5, dtype=np.int8),
                            "flag_meanings": "ocean ice_free_land grounded_ice floating_ice lake_vostok"}),
            "firn": (firn, {"long_name": "firn air content", "units": "meters"}),
            "surface": (top, {"long_name": f"ice surface elevation, {above}", "units": "meters",
                              "standard_name": "surface_altitude"}),
            "thickness": (top - bed_half, {"long_name": "ice thickness", "units": "meters",
                                           "standard_name": "land_ice_thickness"}),
            "bed": (bed_half, {"long_name": "bed topography above the EIGEN-6C4 geoid", "units": "meters",
                               "standard_name": "bedrock_altitude"}),
            "errbed": (product.error, {"long_name": "bed topography/ice thickness error", "units": "meters"}),
            "source": (product.source, {"long_name": "data source", "flag_values": np.array([2, 3], dtype=np.int8),
                                        "flag_meanings": "mass_conservation interpolation"}),
            "geoid": (geoid_6c4.astype(np.int16), {"long_name": "EIGEN-6C4 geoid - WGS84 ellipsoid difference",
                                                   "standard_name": "geoid_height_above_reference_ellipsoid",
                                                   "units": "meters", "geoid": "eigen-6c4"}),
        },
        "mapping",
        "BedMachine-like product",
    )  # fmt: skip


def _write_observations(world: World, parameters: WorldParameters, folder: Path) -> None:
    p = parameters
    km = _file_grid(p, 1000)
    fallen = Sampler(world.wave_grid, world.flow.accumulation).on(km)
    write_geotiff(folder / "accumulation_1km.tif", km, fallen, "kg m-2 yr-1", "snow accumulation")

    fine = km.refine(10).with_datum(ELLIPSOID)
    speed = Sampler(world.wave_grid, world.flow.speed).on(fine)
    surface = Sampler(world.wave_grid, world.surface).on(fine) + surface_texture(fine, speed, p)
    write_geotiff(folder / "surface_100m.tif", fine, surface, "m", "snow surface above the WGS84 ellipsoid")

    # Centres on the product's own lattice, which is none of the other grids'.
    half = _VELOCITY_SPACING / 2
    edges = [_VELOCITY_ORIGIN + 450.0 * np.floor((edge - _VELOCITY_ORIGIN) / 450.0) - half for edge in km.bounds]
    lattice = Grid.from_bounds((edges[0], edges[1], edges[2] + 450.0, edges[3] + 450.0), _VELOCITY_SPACING)
    errors = velocity_error(lattice, p)
    variables: dict[str, tuple[NDArray[np.generic], dict[str, object]]] = {}
    for axis, velocity, error in zip("xy", (world.velocity_x, world.velocity_y), errors, strict=True):
        values = Sampler(world.wave_grid, velocity).on(lattice) + error
        variables[f"V{axis.upper()}"] = (
            values,
            {"long_name": f"Ice velocity in {axis} direction", "units": "meter/year",
             "standard_name": f"land_ice_{axis}_velocity"},
        )  # fmt: skip
        stated = np.full(lattice.shape, p.velocity_noise)
        variables[f"ERR{axis.upper()}"] = (
            stated,
            {"long_name": f"Error of velocity in {axis} direction", "units": "meter/year"},
        )
    write_netcdf(folder / "velocity_450m.nc", lattice, variables, "coord_system", "ice velocity")


def _write_truth(world: World, parameters: WorldParameters, folder: Path) -> None:
    grid = _file_grid(parameters, world.grid.resolution, ELLIPSOID)
    flow = world.flow
    on_wave = {
        "surface": (world.surface, "m", "ice surface above the WGS84 ellipsoid"),
        "speed": (np.hypot(world.velocity_x, world.velocity_y), "m yr-1", "surface speed"),
        "slip": (flow.slip, "1", "sliding over deformational surface speed, large scale"),
    }
    on_bed = {
        "bed": (world.bed, "m", "bed above the WGS84 ellipsoid"),
        "bed_smooth": (world.bed_smooth, "m", "large-scale bed above the WGS84 ellipsoid"),
    }
    variables: dict[str, tuple[NDArray[np.generic], dict[str, object]]] = {}
    for source, group in ((world.grid, on_bed), (world.wave_grid, on_wave)):
        for name, (values, units, long_name) in group.items():
            same_cells = source.resolution == grid.resolution
            inside = _cut(source, values, grid) if same_cells else Sampler(source, values).on(grid)
            variables[name] = (inside, {"long_name": long_name, "units": units})
    write_netcdf(folder / "truth_250m.nc", grid, variables, "mapping", "truth")


def _cut(source: Grid, values: Real, target: Grid) -> Real:
    """Take the cells of `target` out of a larger grid with the same cells."""
    (left, _, _, top), (xmin, _, _, ymax) = source.bounds, target.bounds
    row, column = round((top - ymax) / source.resolution), round((xmin - left) / source.resolution)
    return values[row : row + target.shape[0], column : column + target.shape[1]]
