"""Gridded picks kept in the cache, so that they are gridded once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.data.gridding import grid_picks
from deepbedmap_tf.errors import GridError
from deepbedmap_tf.grid import Grid

_LOGGER = logging.getLogger(__name__)


def grid_picks_once(
    picks: Callable[[], pd.DataFrame], grid: Grid, *, tension: float, mask_cells: float, place: Path
) -> xr.DataArray:
    """Grid picks as `gridding.grid_picks` does, or read what was gridded before.

    Parameters
    ----------
    picks
        Reads the picks; called only when they have to be gridded.
    grid, tension, mask_cells
        As for `gridding.grid_picks`.
    place
        File of the cache, whose name tells everything that the result depends on.
    """
    try:
        with np.load(place) as stored:
            bed, measured = stored["bed"], stored["measured"]
        return grid.dataarray(bed, "bed", "m").assign_coords(measured=(("y", "x"), measured))
    except (OSError, ValueError, KeyError, EOFError, GridError):
        _LOGGER.info("gridding picks, once; kept as %s", place)
    gridded = grid_picks(picks(), grid, tension=tension, mask_cells=mask_cells)
    with written_beside(place) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, bed=gridded.to_numpy(), measured=gridded["measured"].to_numpy())
    return gridded
