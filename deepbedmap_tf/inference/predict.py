"""Predict the bed of a region: one window in one pass of the network, or an area of any size in blocks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from deepbedmap_tf.data.cache import digest, file_sha256
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.inference.cluster import Resources, choose, fitting_block, memory_need
from deepbedmap_tf.inference.engine import finished_map, run_in_memory
from deepbedmap_tf.inference.halo import halo_for
from deepbedmap_tf.inference.kit import PREDICTION, Job, Kit, Predictor, margin
from deepbedmap_tf.inference.layers import variables
from deepbedmap_tf.inference.manifest import Manifest
from deepbedmap_tf.inference.map_inputs import map_sources, require_ice
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.pick_index import PICK_ROLES, mapped_picks
from deepbedmap_tf.inference.products import require_writable, write_map
from deepbedmap_tf.inference.realisations import stored_uncertainty
from deepbedmap_tf.inference.tasks import predict_inputs
from deepbedmap_tf.inference.tiling import HALO, SCALE, Plan, default_block, place_in, snap_outward
from deepbedmap_tf.inference.work import MANIFEST, prediction_shape, work_folder

if TYPE_CHECKING:
    from deepbedmap_tf.inference.export import SuperResolution

_LOGGER = logging.getLogger(__name__)

# What a map does not depend on: what is learned from and measured against, and where it lies.
_NOT_OF_THE_MAP = {"title", "citations", "target", "references", "transects", "holdout", "tiling"}


@dataclass(frozen=True)
class Cut:
    """How an area is cut into blocks, as far as the user says.

    Attributes
    ----------
    block
        Side of a block in low-resolution cells; by default what keeps the halo's share small and fits into memory.
    halo
        Low-resolution cells of context on each side: by default what was measured (model.json), or `HALO`.
    blend
        Low-resolution cells over which neighbours pass into each other, for a smaller halo; 0 cuts hard.
    batch
        Blocks that go through the network together.
    """

    block: int | None = None
    halo: int | None = None
    blend: int = 0
    batch: int = 1


@dataclass(frozen=True)
class MapSettings:
    """All of a map that is not model, region or file.

    Attributes
    ----------
    options
        What it is made with.
    cut
        How it is cut.
    resources
        Who makes it; nothing of this changes a cell.
    restart
        Throw away what an earlier run left.
    """

    options: MapOptions = field(default_factory=MapOptions)
    cut: Cut = Cut()
    resources: Resources = field(default_factory=Resources)
    restart: bool = False


def predict_window(model: Predictor, region: Region, bounds: Bounds | None = None) -> xr.DataArray:
    """Predict the bed on the output cells of a window.

    Parameters
    ----------
    model
        From `inference.export.load_model`.
    region
        Where the inputs come from.
    bounds
        Edges of the window, metres, on edges of low-resolution cells; the whole region by default.

    Returns
    -------
    xarray.DataArray
        Bed, metres in the region's datum, NaN where the low-resolution bed is unknown.

    Raises
    ------
    DataError
        When an input has gaps and the model was trained without validity channels, or no cell is valid.
    """
    bed = predict_inputs(model, [region.inputs(bounds, model.config.inputs)], region)[0, 0]
    window = region.grid if bounds is None else region.grid.window(bounds)
    return window.with_datum(region.vertical_datum).dataarray(bed, "bed", "m")


def predict_region(
    model: Predictor,
    region: Region,
    bounds: Bounds | None = None,
    *,
    block: int | None = None,
    halo: int | None = None,
    blend: int = 0,
    batch: int = 1,
    progress: bool | None = None,
) -> xr.DataArray:
    """Predict the bed of a region, or a part of it, in memory; `predict_to_files` makes maps that don't fit there.

    The area is cut into blocks that lie where they lie whatever the bounds. The inputs of each are read with a halo
    of context, as far as the region goes; what is beyond the region's edge comes from each input's margin and fill
    rule. The halo's prediction is thrown away.

    Parameters
    ----------
    model
        From `inference.export.load_model`.
    region
        Where the inputs come from.
    bounds
        Edges (xmin, ymin, xmax, ymax), metres; widened to whole low-resolution cells. The whole region by default.
    block, halo, blend, batch
        As in `Cut`.
    progress
        Show a bar; by default where standard error is a terminal.

    Returns
    -------
    xarray.DataArray
        Bed, metres in the region's datum, float32; NaN where the low-resolution bed is unknown and in blocks for
        which an input has no value at all.

    Raises
    ------
    GridError
        When the bounds leave the region.
    DataError
        When a file can't be read, or no block has data.
    """
    _compare_resolution(model, region)
    context = _halo_of(model, region) if halo is None else halo
    window = _window_of(region, bounds)
    plan = Plan(_coarse(region), window, block or default_block(context), context, blend, batch)
    arrays = {"bed": np.full(plan.area.refine(SCALE).shape, np.nan, np.float32)}
    if plan.joins:
        arrays[PREDICTION] = np.full((1, *prediction_shape(plan)), np.nan, np.float32)
    outcome = run_in_memory(Kit(model, region, plan, MapOptions(), arrays), progress)
    grid = window.refine(SCALE).with_datum(region.vertical_datum)
    bed = arrays["bed"][place_in(grid.bounds, plan.area.bounds, grid.resolution)]
    return grid.dataarray(bed, "bed", "m", halo=context, empty_blocks=len(outcome.empty))


def predict_to_files(
    model_path: Path | str,
    region_file: Path | str,
    data_dir: Path | str | None,
    bounds: Sequence[float] | None,
    outs: Sequence[Path | str],
    settings: MapSettings | None = None,
    progress: bool | None = None,
) -> list[Path]:
    """Run what ``deepbedmap predict`` offers: load a model and a region, predict, and write the map.

    The map grows in a folder ``<first file>.partial``. A run that ends early leaves it there, and the same call goes
    on with it: the result is the same to the last bit. Memory is bounded by the size of a block.

    Parameters
    ----------
    model_path
        ``saved_models/<name>``.
    region_file
        ``configs/regions/<name>.yml``.
    data_dir
        Folder that the region file's paths start from; the root of the checkout by default.
    bounds
        As for `predict_region`.
    outs
        Files to write, ending in ``.nc``, ``.tif`` or ``.zarr``; folders that they name are made.
    settings
        The rest.
    progress
        Show bars; by default where standard error is a terminal.

    Returns
    -------
    list of Path
        The files, and a STAC item beside them.

    Raises
    ------
    DeepBedMapError
        Whatever is wrong with the model, the region, its data or the bounds, or with the run that was begun.
    """
    from deepbedmap_tf.inference.export import load_model

    settings = settings or MapSettings()
    # What needs no computing is checked first.
    files = require_writable([Path(out) for out in outs])
    region = load_region(region_file, data_dir)
    window = _window_of(region, None if bounds is None else _four(bounds))
    model = load_model(model_path)
    _compare_resolution(model, region)
    if settings.options.honour_picks is not None and not mapped_picks(region):
        raise ConfigError(
            f"region {region.name} names no picks of role {' or '.join(PICK_ROLES)}, which --honour-picks needs"
        )
    # How far off the model is decides about realisations: measured anew, it makes another map.
    error = stored_uncertainty(model.metadata, region.name) if settings.options.realisations else None
    folder = work_folder(files[0].absolute())
    plan = _plan(model, region, window, settings, folder)
    need = memory_need(model.config, plan.size, plan.halo, plan.batch)
    job = Job(
        key="",
        model=str(Path(model_path).resolve()),
        data_dir=str(region.data_dir.resolve()),
        store="",
        region=region.settings.model_dump(mode="json"),
        plan=plan,
        options=settings.options,
    )
    wanted = variables(region, settings.options)
    sources = map_sources(region, model.config)
    require_ice(region, window)
    content = {
        "model": {"name": model.name, "sha256": model_sha256(model.folder)},
        "region": region.settings.model_dump(mode="json", exclude=_NOT_OF_THE_MAP),
        "inputs": sources,
        "options": settings.options.as_dict(),
        "variables": [each.name for each in wanted],
        **({} if error is None else {"uncertainty": error}),
    }
    command = f"deepbedmap predict --model {model.name} --region {Path(region_file).name}"
    if bounds is not None:
        command += f" --bounds {' '.join(f'{edge:.12g}' for edge in bounds)}"
    command += "".join(f" --out {path.name}" for path in files)
    with finished_map(
        folder,
        job,
        content,
        wanted,
        lambda tasks: choose(settings.resources, tasks, need),
        restart=settings.restart,
        progress=progress,
    ) as made:
        metadata = describe(model, region, sources, command)
        metadata |= {"halo": plan.halo, "block": plan.size, "blend": plan.blend, "empty_blocks": made.empty}
        metadata |= {"skipped_blocks": made.skipped, "options": settings.options.as_dict()}
        metadata |= {} if error is None else {"uncertainty": error}
        grid = window.refine(SCALE).with_datum(region.vertical_datum)
        return write_map(made.store, grid, wanted, files, metadata, progress)


def describe(model: SuperResolution, region: Region, sources: dict[str, str], command: str) -> dict[str, Any]:
    """Collect what a map says of itself: what it was made from, with what, and how far to trust it.

    Parameters
    ----------
    model, region
        What the map is made with.
    sources
        From `map_sources`.
    command
        Command line that makes it.

    Returns
    -------
    dict
        Metadata as `inference.products.write_map` takes them.
    """
    learned = sorted(
        {
            f"{store.get('label', 'unknown')} ({store['region']})"
            for store in model.metadata.get("training_data", {}).get("stores", ())
            if store.get("region")
        }
    )
    notes = []
    resolution = _trained_resolution(model)
    if resolution is not None and resolution != region.resolution:
        notes.append(f"The model was trained at {resolution:g} m and is used at {region.resolution:g} m.")
    if region.synthetic:
        notes.append("SYNTHETIC: region of an embedded world, nothing here was observed.")
    elif model.synthetic:
        notes.append("The model was trained on a SYNTHETIC world alone.")
    return {
        "title": f"{region.title}: bed elevation by conditional super-resolution",
        "region": region.name,
        "resolution": region.resolution,
        "synthetic": "region" if region.synthetic else "model" if model.synthetic else "no",
        "comment": " ".join(notes),
        "model": model.name,
        "model_sha256": model_sha256(model.folder),
        "model_trained_on": learned,
        "input_files": sources,
        "citations": sorted({*region.citations, *model.metadata.get("citations", ())}),
        "command": command,
    }


def model_sha256(folder: Path) -> str:
    """Hash of an exported model: of the names and contents of the files of its SavedModel."""
    from deepbedmap_tf.inference.export import VERSION_FOLDER

    root = folder / VERSION_FOLDER
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return digest({str(path.relative_to(root)): file_sha256(path) for path in files})


def _window_of(region: Region, bounds: Bounds | None) -> Grid:
    """Low-resolution cells that bounds touch; says so where they had to be widened."""
    coarse = _coarse(region)
    if bounds is None:
        return coarse
    snapped = snap_outward(coarse, bounds)
    if not np.allclose(snapped, bounds, rtol=0, atol=1e-6 * coarse.resolution):
        _LOGGER.info(
            "bounds widened from %s to whole low-resolution cells: %s", list(bounds), list(map(float, snapped))
        )
    return coarse.window(snapped)


def _coarse(region: Region) -> Grid:
    return region.grid.coarsen(SCALE)


def _four(bounds: Sequence[float]) -> Bounds:
    xmin, ymin, xmax, ymax = (float(edge) for edge in bounds)
    return (xmin, ymin, xmax, ymax)


def _plan(model: Predictor, region: Region, window: Grid, settings: MapSettings, folder: Path) -> Plan:
    cut, limit = settings.cut, settings.resources.memory_limit
    processes = settings.resources.workers or 1
    halo = _halo_of(model, region) if cut.halo is None else cut.halo
    size = cut.block
    if size is None and not settings.restart and (folder / MANIFEST).exists():
        # A map that was begun keeps its blocks, whatever memory there is now.
        size = int(Manifest.read(folder / MANIFEST).content["plan"]["size"])
    if size is None:
        size = fitting_block(model.config, halo, limit, processes, cut.batch)
    around = margin(settings.options, region.resolution)
    plan = Plan(_coarse(region), window, size, halo, cut.blend, cut.batch, around)
    need = processes * memory_need(model.config, size, halo, cut.batch) / 1e9
    if limit is not None and need > limit:
        raise ConfigError(
            f"blocks of {size} cells with a halo of {halo} take {need:.1f} GB in {processes} process(es), "
            f"--memory-limit is {limit:g}; choose a smaller --block (with --restart where a "
            "map was begun) or fewer --workers"
        )
    return plan


def _halo_of(model: Predictor, region: Region) -> int:
    measured = halo_for(getattr(model, "metadata", {}), region.name)
    return HALO if measured is None else measured


def _trained_resolution(model: Predictor) -> float | None:
    resolution = getattr(model, "metadata", {}).get("resolution")
    return None if resolution is None else float(resolution)


def _compare_resolution(model: Predictor, region: Region) -> None:
    trained = _trained_resolution(model)
    if trained is not None and trained != region.resolution:
        _LOGGER.warning(
            "the model was trained at %g m, region %s is at %g m: what it learned of one scale is used at another",
            trained,
            region.name,
            region.resolution,
        )
