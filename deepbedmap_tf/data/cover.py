"""What covers the bed: the flags of BedMachine Antarctica, read from a mask or made from another field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.schema import CoverSettings
from deepbedmap_tf.errors import ConfigError, NoDataError
from deepbedmap_tf.grid import Grid

UNKNOWN, OCEAN, ICE_FREE_LAND, GROUNDED_ICE, FLOATING_ICE, LAKE_VOSTOK = range(-1, 5)
COVER_FLAGS = {
    UNKNOWN: "unknown",
    OCEAN: "ocean",
    ICE_FREE_LAND: "ice_free_land",
    GROUNDED_ICE: "grounded_ice",
    FLOATING_ICE: "floating_ice",
    LAKE_VOSTOK: "lake_vostok",
}
"""Names of the flags: those of BedMachine, and one for cells of which no file tells."""


def read_cover(reader: FieldReader, layers: Sequence[CoverSettings], grid: Grid, region: str) -> xr.DataArray:
    """Read what covers the bed on the cells of a grid, each from the nearest cell of the first layer that knows it.

    Parameters
    ----------
    reader
        Of the region's fields.
    layers
        As the region file has them under `mask`.
    grid
        Cells wanted.
    region
        Name of the region, for messages.

    Returns
    -------
    xarray.DataArray
        int8, flags of `COVER_FLAGS`; `UNKNOWN` beyond the files and where they have no value.

    Raises
    ------
    ConfigError
        When there is no layer.
    """
    if not layers:
        raise ConfigError(f"region {region} has no mask; name one under `mask` of the region file")
    cells = grid.with_datum(None)
    cover = np.full(grid.shape, UNKNOWN, np.int8)
    for layer in layers:
        try:
            values = reader.on_grid(layer, cells, "mask").to_numpy()
        except NoDataError:
            # Beyond this file there may be another's cells; if not, nothing is known.
            continue
        cover = np.where(cover == UNKNOWN, _flags(values, layer), cover)
    return cells.dataarray(cover, "mask", "1")


def _flags(values: np.ndarray, layer: CoverSettings) -> np.ndarray:
    result = np.full(values.shape, UNKNOWN, np.int8)
    if not layer.flags:
        known = np.isin(values, [flag for flag in COVER_FLAGS if flag != UNKNOWN])
        result[known] = values[known].astype(np.int8)
        return result
    for each in reversed(layer.flags):
        with np.errstate(invalid="ignore"):
            result[(values >= each.low) & (values < each.high)] = each.flag
    return result
