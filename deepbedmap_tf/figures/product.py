"""A map as a picture: what went in, what came out, how rough it is, and how far it is from a measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from deepbedmap_tf.data.region import SCALE
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.figures.panels import Panels
from deepbedmap_tf.figures.style import (
    BED_COLOURS,
    CONFIGURATION,
    FORMATS,
    ROUGHNESS_COLOURS,
    colour_range,
    round_step,
    save,
)
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.scoring.roughness import WINDOW, roughness

MOST_CELLS = 1600
"""Cells along the longer side of a figure; of a larger map, means over 4, 8, 12, ... cells are drawn."""


def draw_product(product: Path, path: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Draw a map that ``deepbedmap predict`` wrote.

    Four panels: the low-resolution bed, the bed, its roughness, and the spread of its error where the map has one,
    else the distance to the nearest radar pick. Memory is bounded by the chunks of the file and the size of the figure.

    Parameters
    ----------
    product
        NetCDF or Zarr with all variables.
    path
        File without its ending.
    formats
        Endings.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    DataError
        When the file is no such map, or its bed is unknown throughout.
    """
    import pygmt

    with _opened(product) as dataset:
        fields = product_fields(dataset, product)
        title, datum = dataset.attrs.get("title", product.stem), dataset["bed"].attrs.get("vertical_datum", "")
    bed = fields["bed"]
    layout = Panels(Grid.of(bed).bounds, 4)
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        low, high, step = colour_range([bed.values, fields["bed_lowres"].values])
        pygmt.makecpt(cmap=BED_COLOURS, series=(low, high), background=True)
        heights = f", above {datum.replace(':', ' ')}" if datum else ""
        layout.map(figure, 0, fields["bed_lowres"], f"Low-resolution bed{heights}", "m", 2 * step, shading=True)
        layout.map(figure, 1, bed, f"Bed{heights}", "m", 2 * step, shading=True)
        most, step = _from_zero(fields["roughness"])
        pygmt.makecpt(cmap=ROUGHNESS_COLOURS, series=(0, most), background=True, truncate=[0, 0.95])
        length = WINDOW * _cell(dataset) / 1000
        layout.map(figure, 2, fields["roughness"], f"Roughness of the bed over {length:g} km", "m", step)
        if "bed_uncertainty" in fields:
            most, step = _from_zero(fields["bed_uncertainty"])
            pygmt.makecpt(cmap=ROUGHNESS_COLOURS, series=(0, most), background=True, truncate=[0, 0.95])
            layout.map(figure, 3, fields["bed_uncertainty"], "Standard deviation of the bed's error", "m", step)
        elif "distance_to_pick" in fields:
            distance = fields["distance_to_pick"] / 1000
            most, step = _from_zero(distance)
            pygmt.makecpt(cmap=BED_COLOURS, series=(0, most), reverse=True, background=True)
            layout.map(figure, 3, distance, "Distance to the nearest radar pick", "km", step)
        layout.title(figure, title)
    return save(figure, path, formats)


def _from_zero(field: xr.DataArray) -> tuple[float, float]:
    """End of a colour range from 0 that holds nearly all of a field, and the step to annotate it by."""
    # A field that is the same everywhere has no range of its own.
    most = max(float(np.nanpercentile(field.values, 98)), 1e-3)
    step = round_step(most / 5)
    return step * math.ceil(most / step), step


def _opened(product: Path) -> xr.Dataset:
    if not product.exists():
        raise DataError(f"{product} does not exist; expected a map that deepbedmap predict wrote, *.nc or *.zarr")
    try:
        return xr.open_zarr(product) if product.is_dir() else xr.open_dataset(product, chunks={})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{product} can't be read as NetCDF or Zarr ({' '.join(str(error).split())[:120]}); expected a map that "
            "deepbedmap predict wrote, *.nc or *.zarr"
        ) from error


def _cell(dataset: xr.Dataset) -> float:
    return abs(float(dataset["x"][1] - dataset["x"][0]))


def product_fields(dataset: xr.Dataset, product: Path) -> dict[str, xr.DataArray]:
    """Load what is drawn of a map.

    Parameters
    ----------
    dataset
        The map, in chunks.
    product
        Its file, for messages.

    Returns
    -------
    dict
        ``bed``, ``roughness`` and what the map has of ``bed_uncertainty`` and ``distance_to_pick``, all of one shape:
        of a map with more than `MOST_CELLS` along a side, means over squares of cells. ``bed_lowres`` on its own cells,
        or on those of the others where these are larger.

    Raises
    ------
    DataError
        When a variable is missing or the bed is unknown throughout.
    """
    lacking = [name for name in ("bed", "coarse_residual") if name not in dataset]
    if lacking:
        raise DataError(
            f"{product} has no variable {lacking[0]!r}; expected a map that deepbedmap predict wrote, *.nc or *.zarr"
        )
    longest = max(dataset["bed"].shape)
    every = 1 if longest <= MOST_CELLS else SCALE * -(-longest // (SCALE * MOST_CELLS))
    bed = dataset["bed"]
    rough = bed.copy(
        data=bed.data.map_overlap(
            lambda values: roughness(values).astype(np.float32), depth=WINDOW // 2, boundary="none", dtype=np.float32
        )
    )
    wanted = {"bed": bed, "residual": dataset["coarse_residual"], "roughness": rough}
    wanted |= {name: dataset[name] for name in ("bed_uncertainty", "distance_to_pick") if name in dataset}
    loaded = {name: _thinned(field, every) for name, field in wanted.items()}
    if not np.isfinite(loaded["bed"]).any():
        raise DataError(f"the bed of {product} is unknown throughout; there is nothing to draw")
    residual = loaded.pop("residual")
    own = SCALE if every == 1 else 1
    means = [field.coarsen(y=own, x=own).mean() for field in (loaded["bed"], residual)]
    loaded["bed_lowres"] = means[0] - means[1]
    return loaded


def _thinned(field: xr.DataArray, every: int) -> xr.DataArray:
    if every == 1:
        return field.compute()
    return field.coarsen(y=every, x=every, boundary="trim").mean().compute()
