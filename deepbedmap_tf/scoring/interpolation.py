"""Cubic interpolation between cell centres, and the filling that it needs where cells are missing."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import distance_transform_edt

FloatArray = NDArray[np.float64]

EdgeRule = Literal["not-a-knot", "natural"]


def fill_nearest(values: ArrayLike) -> FloatArray:
    """Fill each NaN with the value of the nearest finite cell of its own map.

    Parameters
    ----------
    values
        Shape (..., rows, columns). A map with no finite cell stays NaN.

    Returns
    -------
    ndarray
        Same shape, float64.
    """
    filled = np.array(values, dtype=np.float64)
    maps = filled.reshape(-1, *filled.shape[-2:])
    for index in np.flatnonzero(~np.isfinite(maps).all(axis=(1, 2))):
        missing = ~np.isfinite(maps[index])
        if missing.all():
            continue
        nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
        maps[index] = maps[index][tuple(nearest)]
    return maps.reshape(filled.shape)


def upsample(values: ArrayLike, ratio: int, edge: EdgeRule = "not-a-knot") -> FloatArray:
    """Interpolate maps to cells `ratio` times smaller over the same area, by cubic splines through cell centres.

    Parameters
    ----------
    values
        Shape (..., rows, columns), finite (a map of NaN stays NaN).
    ratio
        Small cells along a side of each cell.
    edge
        What happens at and beyond the outermost centres, half a cell inside the edge: ``not-a-knot`` carries the
        cubic of the two outermost intervals on, so that every polynomial of degree 3 in x and in y is reproduced
        up to the edge; ``natural`` lets the curvature end in zero there.

    Returns
    -------
    ndarray
        Shape (..., rows * ratio, columns * ratio), float64.

    Examples
    --------
    >>> upsample([[0.0, 2.0, 4.0, 6.0]], 2)[0].round(9).tolist()
    [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    """
    result = np.array(values, dtype=np.float64)
    lost = np.isnan(result).any(axis=(-2, -1), keepdims=True)
    result = np.where(lost, 0.0, result)
    for axis in (-2, -1):
        size = result.shape[axis]
        targets = (np.arange(size * ratio) + 0.5) / ratio - 0.5
        if size == 1:
            result = np.repeat(result, ratio, axis=axis)
        else:
            result = CubicSpline(np.arange(size), result, axis=axis, bc_type=edge)(targets)
    return np.where(lost, np.nan, result)


def block_mean(values: ArrayLike, size: int) -> FloatArray:
    """Mean over blocks of `size` x `size` cells, of the finite ones; NaN where a block has none.

    Parameters
    ----------
    values
        Shape (..., rows, columns), both multiples of `size`.
    """
    array = np.asarray(values, dtype=np.float64)
    rows, columns = array.shape[-2] // size, array.shape[-1] // size
    blocks = array.reshape(*array.shape[:-2], rows, size, columns, size)
    valid = np.isfinite(blocks)
    count = valid.sum(axis=(-3, -1))
    total = np.where(valid, blocks, 0).sum(axis=(-3, -1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def to_ratio(values: ArrayLike, ratio: int, target: int) -> FloatArray:
    """Bring maps with `ratio` cells per coarse cell to `target` cells per coarse cell.

    Finer maps are averaged by area (2.5 cells of 100 m make one of 250 m exactly), coarser ones interpolated by
    `upsample` after `fill_nearest`, and blanked again where their own cell was missing.
    """
    array = np.asarray(values, dtype=np.float64)
    if ratio == target:
        return array
    if ratio < target and target % ratio == 0:
        factor = target // ratio
        return np.where(np.isfinite(repeat(array, factor)), upsample(fill_nearest(array), factor), np.nan)
    common = int(np.lcm(ratio, target))
    return block_mean(repeat(array, common // ratio), common // target)


def repeat(values: NDArray[np.floating], ratio: int) -> FloatArray:
    """Copy each cell into `ratio` x `ratio` small ones."""
    return np.asarray(values.repeat(ratio, axis=-2).repeat(ratio, axis=-1), dtype=np.float64)
