"""Make a region of continental extent from what is at hand: 22000 x 18000 output cells of 250 m.

The bed and the mean surface are BedMachine's on 5 km (``../shared/data/continent``), resampled by cubics; relief of the
surface below 5 km, velocity and accumulation are the embedded world's, SYNTHETIC, laid side by side and mirrored. The
low-resolution bed covers the continent; the others cover a part, and the files are empty around it: enough to plan the
whole and to run what is representative.

    .venv/bin/python scripts/continent.py --data ../shared/data/continent --out FOLDER
    deepbedmap bench-map --model saved_models/default --region FOLDER/continent.yml --data-dir FOLDER \
        --bounds ... (as it says)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import rasterio
import xarray as xr
import yaml

from deepbedmap_tf.data.rasters import open_raster
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.data.resampling import resample
from deepbedmap_tf.grid import ELLIPSOID, Grid

ROOT = Path(__file__).resolve().parents[1]
BOUNDS = (-2_700_000, -2_200_000, 2_800_000, 2_300_000)
PART = (-1_000_000, -600_000, -100_000, 100_000)
STRIP = 50_000


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the 5 km files.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
def main(data: Path, out: Path) -> None:
    """Write rasters and the region file."""
    out.mkdir(parents=True, exist_ok=True)
    world = load_region(ROOT / "configs/regions/synthetic.yml")
    continent = Grid.from_bounds(BOUNDS, 1000)
    part = continent.window(PART)
    bed, surface = (
        open_raster(data / f"BedMachine_{name}_5k_wgs.nc", vertical_datum=ELLIPSOID, crs="EPSG:3031").read()
        for name in ("bed", "surface")
    )
    write(out / "bed_1km.tif", continent, [continent], lambda grid: resample(bed, grid, "cubic").to_numpy()[np.newaxis])
    inputs = world.inputs()
    relief = inputs["surface"] - smoothed(inputs["surface"])
    wide = part.pad(2)
    strips = [wide.window((wide.bounds[0], low, wide.bounds[2], min(low + STRIP, wide.bounds[3])))
              for low in np.arange(wide.bounds[1], wide.bounds[3], STRIP)]  # fmt: skip
    layers = {
        "surface_100m.tif": (
            10,
            lambda grid: resample(surface, grid, "cubic").to_numpy()[np.newaxis] + mirrored(relief, grid),
        ),
        "velocity_500m.tif": (2, lambda grid: mirrored(inputs["velocity"], grid)),
        "accumulation_1km.tif": (1, lambda grid: mirrored(inputs["accumulation"], grid)),
    }
    for name, (ratio, values) in layers.items():
        write(out / name, continent.refine(ratio), [strip.refine(ratio) for strip in strips], values)
    (out / "continent.yml").write_text(yaml.safe_dump(content(world), sort_keys=False), encoding="utf-8")
    click.echo(
        f"{out / 'continent.yml'}; with --data-dir {out}; the part with data is --bounds {' '.join(map(str, PART))}"
    )


def content(world: Region) -> dict[str, object]:
    """The region file."""
    return {
        "name": "continent",
        "title": "SYNTHETIC continent: BedMachine at 5 km resampled, relief and other fields of the embedded world",
        "synthetic": True,
        "world": world.settings.world,
        "resolution": 250,
        "bounds": list(BOUNDS),
        "citations": ["Morlighem et al. (2020), doi:10.1038/s41561-019-0510-8, resampled from 5 km", *world.citations],
        "inputs": {
            "bed_lowres": {"path": "bed_1km.tif", "vertical_datum": ELLIPSOID},
            "surface": {"path": "surface_100m.tif", "vertical_datum": ELLIPSOID},
            "velocity": {"path": "velocity_500m.tif", "variables": ["1", "2"], "units": "m yr-1"},
            "accumulation": {"path": "accumulation_1km.tif", "units": "kg m-2 yr-1"},
        },
        "target": {"kind": "raster", "path": "bed_1km.tif", "vertical_datum": ELLIPSOID},
    }


def smoothed(field: xr.DataArray) -> xr.DataArray:
    """The field as 5 km cells hold it."""
    grid = Grid.of(field)
    xmin, _, _, ymax = grid.bounds
    rows, columns = (int(size * grid.resolution // 5000) for size in grid.shape)
    coarse = Grid.from_bounds((xmin, ymax - 5000 * rows, xmin + 5000 * columns, ymax), 5000)
    return resample(resample(field, coarse, "average"), grid, "bilinear")


def mirrored(field: xr.DataArray, grid: Grid) -> np.ndarray:
    """The field laid side by side, every second one mirrored, on any cells of its size; (bands, rows, columns)."""
    values = np.nan_to_num(field.to_numpy())
    rows, columns = (
        np.abs((np.floor(place / grid.resolution).astype(int) + size) % (2 * size) - size) % size
        for place, size in zip((grid.y, grid.x), values.shape[:2], strict=True)
    )
    cut = values[np.ix_(rows, columns)]
    return np.moveaxis(cut, -1, 0) if cut.ndim == 3 else cut[np.newaxis]


def write(path: Path, grid: Grid, parts: list[Grid], values: Callable[[Grid], np.ndarray]) -> None:
    """Write parts of a GeoTIFF that is empty elsewhere."""
    bands = len(values(parts[0]))
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": bands, "height": grid.shape[0], "width": grid.shape[1],
        "crs": grid.crs, "transform": grid.transform, "nodata": np.nan, "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "deflate", "zlevel": 1, "predictor": 3, "SPARSE_OK": "TRUE", "BIGTIFF": "YES",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        for part in parts:
            row = round((grid.bounds[3] - part.bounds[3]) / grid.resolution)
            column = round((part.bounds[0] - grid.bounds[0]) / grid.resolution)
            window = rasterio.windows.Window(column, row, part.shape[1], part.shape[0])
            file.write(values(part).astype(np.float32), window=window)


if __name__ == "__main__":
    main()
