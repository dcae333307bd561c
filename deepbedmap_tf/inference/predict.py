"""Predict the bed of a region: one window in one pass of the network, or an area of any size in blocks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.cache import digest, file_sha256
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import SCALE, Region, load_region
from deepbedmap_tf.errors import DataError, NoDataError
from deepbedmap_tf.grid import Bounds
from deepbedmap_tf.inference.products import require_writable, write_netcdf
from deepbedmap_tf.inference.tiling import BLOCK, HALO, plan_blocks, snap_outward

if TYPE_CHECKING:
    from deepbedmap_tf.inference.export import SuperResolution

_LOGGER = logging.getLogger(__name__)


class Predictor(Protocol):
    """Anything that turns inputs into a bed, such as `inference.export.SuperResolution`."""

    config: GeneratorConfig

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return (n, 4(h-2), 4(w-2), 1) for inputs (n, height, width, bands) by name."""


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
    inputs = batch_of_one(region.inputs(bounds, model.config.inputs))
    for name, values in inputs.items():
        invalid = ~np.isfinite(values)
        if invalid.any() and not model.config.normalise:
            raise DataError(
                f"input {name!r} of region {region.name} has {invalid.sum()} invalid values and this model takes none "
                "(normalise: false); give the input a fill rule in the region file, or use a model with normalise: true"
            )
    window = region.grid if bounds is None else region.grid.window(bounds)
    bed = model(inputs)[0, ..., 0]
    known = np.isfinite(inputs["bed_lowres"][0, 1:-1, 1:-1, 0])
    bed = np.where(known.repeat(SCALE, axis=0).repeat(SCALE, axis=1), bed, np.float32(np.nan))
    return window.with_datum(region.vertical_datum).dataarray(bed, "bed", "m")


def predict_region(
    model: Predictor,
    region: Region,
    bounds: Bounds | None = None,
    *,
    block: int = BLOCK,
    halo: int | None = None,
    progress: bool | None = None,
) -> xr.DataArray:
    """Predict the bed of a region, or a part of it, of any size.

    The area is cut into blocks that lie where they lie whatever the bounds. The inputs of each are read with a halo
    of context, as far as the region goes; what is beyond the region's edge comes from each input's margin and fill
    rule. The halo's prediction is thrown away. Memory and work of a block are the same however large the region.

    Parameters
    ----------
    model
        From `inference.export.load_model`.
    region
        Where the inputs come from.
    bounds
        Edges (xmin, ymin, xmax, ymax), metres; widened to whole low-resolution cells. The whole region by default.
    block
        Side of a block in low-resolution cells.
    halo
        Low-resolution cells of context on each side: by default the model's own (``halo`` in model.json), or `HALO`.
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
    from tqdm import tqdm

    coarse = region.grid.coarsen(SCALE)
    window = coarse
    if bounds is not None:
        snapped = snap_outward(coarse, bounds)
        if not np.allclose(snapped, bounds, rtol=0, atol=1e-6 * coarse.resolution):
            _LOGGER.info(
                "bounds widened from %s to whole low-resolution cells: %s", list(bounds), [float(v) for v in snapped]
            )
        window = coarse.window(snapped)
    _compare_resolution(model, region)
    context = _halo_of(model) if halo is None else halo
    grid = window.refine(SCALE).with_datum(region.vertical_datum)
    bed = np.full(grid.shape, np.nan, np.float32)
    blocks = plan_blocks(coarse, window, block, context)
    empty: list[NoDataError] = []
    hidden = None if progress is None else not progress
    for each in tqdm(blocks, desc="predicting", unit="block", disable=hidden):
        try:
            part = predict_window(model, region, each.context)
        except NoDataError as error:
            empty.append(error)
            continue
        rows, columns = _place(each.core, grid.bounds, grid.resolution)
        inner_rows, inner_columns = _place(each.core, each.context, grid.resolution)
        bed[rows, columns] = part.to_numpy()[inner_rows, inner_columns]
    if len(empty) == len(blocks):
        raise empty[0]
    if empty:
        _LOGGER.warning("%d of %d blocks have no data and stay NaN; the first: %s", len(empty), len(blocks), empty[0])
    return grid.dataarray(bed, "bed", "m", halo=context, empty_blocks=len(empty))


def predict_to_file(
    model_path: Path | str,
    region_file: Path | str,
    data_dir: Path | str | None,
    bounds: Sequence[float] | None,
    out: Path | str,
    progress: bool | None = None,
) -> Path:
    """Run what ``deepbedmap predict`` offers: load a model and a region, predict, and write the map.

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
    out
        File to write, ending in ``.nc``; folders that it names are made.
    progress
        As for `predict_region`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DeepBedMapError
        Whatever is wrong with the model, the region, its data or the bounds; nothing is written then.
    """
    from deepbedmap_tf.inference.export import load_model

    # What needs no computing is checked first.
    out = require_writable(Path(out))
    region = load_region(region_file, data_dir)
    limits: Bounds | None = None
    if bounds is not None:
        xmin, ymin, xmax, ymax = (float(edge) for edge in bounds)
        limits = (xmin, ymin, xmax, ymax)
        snap_outward(region.coarse_grid, limits)
    model = load_model(model_path)
    bed = predict_region(model, region, limits, progress=progress)
    command = f"deepbedmap predict --model {model.name} --region {Path(region_file).name}"
    if bounds is not None:
        command += f" --bounds {' '.join(f'{edge:.12g}' for edge in bounds)}"
    return write_netcdf(bed, out, describe(model, region, f"{command} --out {out.name}"))


def describe(model: SuperResolution, region: Region, command: str) -> dict[str, Any]:
    """Collect what a map says of itself: what it was made from, with what, and how far to trust it.

    Parameters
    ----------
    model, region
        What the map is made with.
    command
        Command line that makes it.

    Returns
    -------
    dict
        Metadata as `inference.products.write_netcdf` takes them.
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
        "input_files": region.input_sources,
        "citations": sorted({*region.citations, *model.metadata.get("citations", ())}),
        "command": command,
    }


def model_sha256(folder: Path) -> str:
    """Hash of an exported model: of the names and contents of the files of its SavedModel."""
    from deepbedmap_tf.inference.export import VERSION_FOLDER

    root = folder / VERSION_FOLDER
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return digest({str(path.relative_to(root)): file_sha256(path) for path in files})


def _halo_of(model: Predictor) -> int:
    return int(getattr(model, "metadata", {}).get("halo", HALO))


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


def _place(part: Bounds, whole: Bounds, cell: float) -> tuple[slice, slice]:
    """Rows and columns of a part of a map."""
    top, bottom = round((whole[3] - part[3]) / cell), round((whole[3] - part[1]) / cell)
    left, right = round((part[0] - whole[0]) / cell), round((part[2] - whole[0]) / cell)
    return slice(top, bottom), slice(left, right)
