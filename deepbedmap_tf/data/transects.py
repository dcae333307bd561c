"""Picks chosen for a transect and put in order along it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from deepbedmap_tf.data.gridding import cells_of
from deepbedmap_tf.data.pick_entries import in_box
from deepbedmap_tf.grid import Bounds, Grid


def chosen_picks(
    picks: pd.DataFrame, grid: Grid, segment: str | None, bounds: Bounds | None, area: np.ndarray | None
) -> np.ndarray:
    """Tell which picks belong to a flight segment, a box and an area of a grid's cells; None takes all of them.

    Parameters
    ----------
    picks
        Table with ``x``, ``y`` in metres, all of them on the grid, and ``segment``.
    grid, area
        Cells, and which of them count: boolean, shape of the grid.
    segment
        Flight and segment, such as ``20141121_05``.
    bounds
        Box (xmin, ymin, xmax, ymax), edges included.
    """
    kept = np.ones(len(picks), bool)
    if segment is not None:
        kept &= (picks["segment"] == segment).to_numpy()
    if bounds is not None:
        kept &= in_box(picks, bounds)
    if area is not None:
        row, column = cells_of(picks, grid)
        kept &= area[row, column]
    return kept


def order_along(picks: pd.DataFrame, order: Literal["track", "principal"] = "track") -> pd.DataFrame:
    """Order picks and add their ``distance`` along the line, in metres from the first.

    Parameters
    ----------
    picks
        Table with ``x`` and ``y`` in metres.
    order
        ``track`` keeps the order and adds up the steps; ``principal`` sorts scattered picks by their place along
        the direction in which they extend most, so that the distance is that place.

    Examples
    --------
    >>> order_along(pd.DataFrame({"x": [0.0, 3.0, 3.0], "y": [0.0, 4.0, 0.0]}))["distance"].tolist()
    [0.0, 5.0, 9.0]
    """
    x, y = picks["x"].to_numpy(np.float64), picks["y"].to_numpy(np.float64)
    if order == "track":
        distance = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
        return picks.assign(distance=distance).reset_index(drop=True)
    centred = np.column_stack([x - x.mean(), y - y.mean()])
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    # Towards the east, so that the same picks always run the same way.
    direction = direction if direction[0] >= 0 else -direction
    along = centred @ direction
    ordered = picks.assign(distance=along - along.min()).sort_values("distance", kind="stable")
    return ordered.reset_index(drop=True)
