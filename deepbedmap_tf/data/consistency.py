"""Whether the bed and the surface of a region, from two products, can both be right."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import xarray as xr

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid

_LOGGER = logging.getLogger(__name__)

# Rounding of products to whole metres, on either side.
_TOLERANCE = 1.0
# Fewer cells than these tell nothing of a product as a whole.
_ENOUGH = 16
_SAID: set[str] = set()


def require_surface_above_bed(fields: Mapping[str, xr.DataArray], region: str) -> None:
    """Find low-resolution cells whose mean surface lies below their bed; say how many, or refuse the fields.

    Some such cells are nothing unusual: around rock and along coasts two products differ by what each resolves. They
    stay as they are, are counted in ``attrs["cells_below_bed"]`` of the surface, and are said once a region with the
    place of the worst. Where most of the cells are such, one of the two fields is not what the region file takes it
    for.

    Parameters
    ----------
    fields
        Inputs of the network over one window, in one datum. Only cells that no rule has filled are compared; nothing
        is done where ``bed_lowres`` or ``surface`` is not among them.
    region
        Name of the region, for messages.

    Raises
    ------
    DataError
        When the surface lies below the bed in more than half of the cells.
    """
    if "bed_lowres" not in fields or "surface" not in fields:
        return
    bed, surface = fields["bed_lowres"], fields["surface"]
    ratio = surface.shape[0] // bed.shape[0]
    rows, columns = bed.shape
    blocks = _measured(surface).reshape(rows, ratio, columns, ratio).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    known = np.isfinite(blocks)
    count = known.sum(axis=-1)
    enough = count >= (ratio * ratio + 1) // 2
    mean = np.divide(np.where(known, blocks, 0).sum(axis=-1), count, out=np.full(bed.shape, np.nan), where=enough)
    thickness = mean - _measured(bed)
    compared = int(np.isfinite(thickness).sum())
    below = thickness < -_TOLERANCE
    surface.attrs["cells_below_bed"] = int(below.sum())
    if not below.any():
        return
    row, column = np.unravel_index(np.nanargmin(thickness), thickness.shape)
    grid = Grid.of(bed)
    what = (
        f"the surface lies below the bed in {int(below.sum())} of {compared} low-resolution cells, by "
        f"{-thickness[row, column]:.0f} m at x {grid.x[column]:.0f}, y {grid.y[row]:.0f}"
    )
    if compared >= _ENOUGH and below.sum() > compared / 2:
        raise DataError(
            f"region {region}: {what}; check variable, units and vertical_datum of surface and bed_lowres, which may "
            "be exchanged"
        )
    _say(region, what)


def _measured(field: xr.DataArray) -> np.ndarray:
    """Values of a field where no rule has filled it, NaN elsewhere."""
    values = field.to_numpy().astype(np.float64)
    return np.where(field["valid"].to_numpy(), values, np.nan) if "valid" in field.coords else values


def _say(region: str, what: str) -> None:
    # Once a region: the windows of a map would say it as often.
    if region not in _SAID:
        _SAID.add(region)
        _LOGGER.warning("%s: %s; they are kept as they are", region, what)
