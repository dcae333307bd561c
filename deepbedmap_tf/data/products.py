"""Bed products of an embedded world, made from its sparse surveys as the real ones were from theirs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from deepbedmap_tf.data.ice import Flow
from deepbedmap_tf.data.survey import Sampler, Track, grid_picks
from deepbedmap_tf.grid import Grid

Real = NDArray[np.float64]


class BedMachineLike(NamedTuple):
    """The 500 m product.

    Attributes
    ----------
    bed
        m above the ellipsoid.
    error
        Its stated error, m.
    source
        2 where streamlines carried the picks (the place of mass conservation), 3 where they were interpolated.
    """

    bed: Real
    error: Real
    source: NDArray[np.int8]


def sparse_bed(grid: Grid, track: Track, picks: pd.DataFrame) -> Real:
    """BEDMAP2-like bed: nothing but block medians of a sparse survey under a tension spline.

    Parameters
    ----------
    grid
        1 km cells.
    track
        Positions of the picks, m.
    picks
        As `deepbedmap_tf.data.survey.pick` makes them.
    """
    return grid_picks(track.x, track.y, (picks["ELEVATION"] - picks["BOTTOM"]).to_numpy(), grid)


def bedmachine_like(
    grid: Grid, track: Track, picks: pd.DataFrame, flow_grid: Grid, flow: Flow, length: float = 1_200.0
) -> BedMachineLike:
    """Grid a somewhat denser survey and spread it along streamlines where ice is fast.

    A stand-in for mass conservation, which ties ice thickness along flow lines: in fast flow the gridded bed is
    averaged along the streamline (Gaussian weights), elsewhere only smoothed. No dense survey enters.

    Parameters
    ----------
    grid
        500 m cells.
    track, picks
        All picks of the old and the recent survey.
    flow_grid, flow
        Large-scale ice.
    length
        Standard deviation of the average along the flow, m.
    """
    coarse = grid.coarsen(2)
    bed = sparse_bed(coarse, track, picks)
    smooth = gaussian_filter(bed, 0.75, mode="nearest")
    dx, dy = (Sampler(flow_grid, part).on(coarse) for part in (flow.direction_x, flow.direction_y))
    speed = Sampler(flow_grid, flow.speed).on(coarse)
    fast = 1 / (1 + (60.0 / np.maximum(speed, 1e-3)) ** 3)
    steps = round(2.5 * length / coarse.resolution)
    start = np.stack(np.meshgrid(np.arange(coarse.shape[0]), np.arange(coarse.shape[1]), indexing="ij")).astype(float)
    total, weight = smooth.copy(), 1.0
    for sign in (1.0, -1.0):
        position = start.copy()
        for step in range(1, steps + 1):
            across, down = (map_coordinates(part, position, order=1, mode="nearest") for part in (dx, -dy))
            position[0] += sign * down
            position[1] += sign * across
            share = float(np.exp(-((step * coarse.resolution / length) ** 2) / 2))
            total += share * map_coordinates(smooth, position, order=1, mode="nearest")
            weight += share
    blended = smooth + fast * (total / weight - smooth)
    bed_500 = Sampler(coarse, blended).on(grid)
    distance = _distance_to_picks(coarse, track)
    error = Sampler(coarse, 15.0 + np.minimum(0.02 * distance, 150.0)).on(grid)
    source = np.where(Sampler(coarse, fast).on(grid) > 0.5, 2, 3).astype(np.int8)
    return BedMachineLike(bed_500, np.maximum(error, 10.0), source)


def _distance_to_picks(grid: Grid, track: Track) -> Real:
    xmin, _, _, ymax = grid.bounds
    empty = np.ones(grid.shape, dtype=bool)
    rows = np.clip(((ymax - track.y) / grid.resolution).astype(int), 0, grid.shape[0] - 1)
    columns = np.clip(((track.x - xmin) / grid.resolution).astype(int), 0, grid.shape[1] - 1)
    empty[rows, columns] = False
    return np.asarray(distance_transform_edt(empty) * grid.resolution)
