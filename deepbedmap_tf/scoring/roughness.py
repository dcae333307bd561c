"""Bed roughness: the population standard deviation of elevation in a 5 x 5 neighbourhood.

One definition serves full maps, maps with holes and sparse radar cells: the standard deviation over the finite
cells of the neighbourhood of a finite cell, where there are at least `min_count` of them. Two products are only
ever compared after each has been blanked where the other has no value, so that map and radar are measured with
the same cells.
"""

from __future__ import annotations

from typing import overload

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
WINDOW = 5
"""Cells along a side of the neighbourhood: 1250 m at 250 m (Leong & Horgan 2020, section 4.3)."""

MIN_COUNT = 8
"""Fewest cells that make a standard deviation worth having."""


@overload
def roughness(bed: xr.DataArray, window: int = ..., min_count: int = ...) -> xr.DataArray: ...
@overload
def roughness(bed: NDArray[np.floating], window: int = ..., min_count: int = ...) -> FloatArray: ...
def roughness(
    bed: xr.DataArray | NDArray[np.floating], window: int = WINDOW, min_count: int = MIN_COUNT
) -> xr.DataArray | FloatArray:
    """Population standard deviation of the bed in a square neighbourhood of each cell.

    Parameters
    ----------
    bed
        Elevation, shape (..., rows, columns), m; NaN where there is none.
    window
        Cells along a side of the neighbourhood, odd.
    min_count
        Fewest finite cells in it; with fewer the result is NaN. The neighbourhoods of edge cells are cut off at
        the edge (15 of 25 cells on a side, 9 in a corner).

    Returns
    -------
    array
        Same shape and kind as `bed`, m; NaN where `bed` is NaN. float64 for arrays, the DataArray's own type for a
        DataArray.

    Notes
    -----
    Two passes, mean first, so that a bed of a thousand metres with centimetres on it keeps its digits.

    Examples
    --------
    >>> ramp = np.tile(np.arange(7.0), (7, 1))
    >>> round(float(roughness(ramp)[3, 3]) ** 2, 9)
    2.0
    """
    if isinstance(bed, xr.DataArray):
        values = _standard_deviation(bed.values, window, min_count).astype(bed.dtype)
        result = bed.copy(data=values).rename("roughness")
        kept = {key: value for key, value in bed.attrs.items() if key in ("crs", "synthetic")}
        result.attrs = {**kept, "units": "m", "long_name": f"bed roughness, standard deviation in {window} x {window}"}
        return result
    return _standard_deviation(np.asarray(bed), window, min_count)


def _standard_deviation(bed: NDArray[np.floating], window: int, min_count: int) -> FloatArray:
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number of cells")
    half = window // 2
    valid = np.isfinite(bed)
    edges = [(0, 0)] * (bed.ndim - 2) + [(half, half), (half, half)]
    values = np.pad(np.where(valid, bed, 0).astype(np.float64), edges)
    counted = np.pad(valid, edges)
    rows, columns = bed.shape[-2:]
    shifts = [
        (..., slice(row, row + rows), slice(column, column + columns))
        for row in range(window)
        for column in range(window)
    ]
    count, total = np.zeros(bed.shape, dtype=np.int64), np.zeros(bed.shape)
    for shift in shifts:
        count += counted[shift]
        total += values[shift]
    enough = valid & (count >= max(min_count, 1))
    mean = total / np.maximum(count, 1)
    squares = np.zeros(bed.shape)
    for shift in shifts:
        squares += np.where(counted[shift], values[shift] - mean, 0) ** 2
    result: FloatArray = np.where(enough, np.sqrt(squares / np.maximum(count, 1)), np.nan)
    return result


def shared_roughness(
    prediction: ArrayLike, truth: ArrayLike, window: int = WINDOW, min_count: int = MIN_COUNT
) -> tuple[FloatArray, FloatArray]:
    """Roughness of two beds measured with the same cells.

    Both are blanked where either has no value. For sparse radar cells as truth this is the rule of sparse
    scoring: over the radar cells in the neighbourhood of each radar cell, at least `min_count` of them, with the
    map sampled on the same cells.

    Parameters
    ----------
    prediction, truth
        Shape (..., rows, columns), m.

    Returns
    -------
    tuple
        Roughness of each, same shape, m; NaN in the same places.
    """
    first, second = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"prediction has shape {first.shape}, truth {second.shape}; expected the same")
    both = np.isfinite(first) & np.isfinite(second)
    blank = [np.where(both, values, np.nan) for values in (first, second)]
    return _standard_deviation(blank[0], window, min_count), _standard_deviation(blank[1], window, min_count)


def mean_roughness(bed: ArrayLike, window: int = WINDOW, min_count: int = MIN_COUNT) -> float:
    """Mean of the roughness map, m; NaN where no neighbourhood holds enough cells."""
    values = _standard_deviation(np.asarray(bed, dtype=np.float64), window, min_count)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def roughness_ratio(prediction: ArrayLike, truth: ArrayLike, window: int = WINDOW, min_count: int = MIN_COUNT) -> float:
    """Mean roughness of the prediction over that of the truth, on the same cells: 1 is right, below 1 too smooth."""
    first, second = shared_roughness(prediction, truth, window, min_count)
    scored = np.isfinite(second)
    if not scored.any() or not second[scored].mean() > 0:
        return float("nan")
    return float(first[scored].mean() / second[scored].mean())


def roughness_rmse(prediction: ArrayLike, truth: ArrayLike, window: int = WINDOW, min_count: int = MIN_COUNT) -> float:
    """Root mean square difference of the two roughness maps, m: is it rough in the right places?"""
    first, second = shared_roughness(prediction, truth, window, min_count)
    difference = (first - second)[np.isfinite(second)]
    return float(np.sqrt(np.mean(difference**2))) if difference.size else float("nan")


def roughness_along(
    elevation: ArrayLike, distance: ArrayLike, length: float = 1250.0, min_count: int = 5
) -> FloatArray:
    """Population standard deviation of elevation along a track, within half a `length` before and behind.

    Parameters
    ----------
    elevation
        Shape (samples,), m; NaN where there is none.
    distance
        Position along the track, shape (samples,), m, ascending.
    length
        Length of the window, m.
    min_count
        Fewest finite samples in it.

    Returns
    -------
    ndarray
        Shape (samples,), m; NaN where `elevation` is NaN or the window holds too few samples.
    """
    values, along = np.asarray(elevation, dtype=np.float64), np.asarray(distance, dtype=np.float64)
    if np.any(np.diff(along) < 0):
        raise ValueError("distance along the track goes backwards; sort the samples by it")
    valid = np.isfinite(values)
    result = np.full(values.shape, np.nan)
    if not valid.any():
        return result
    known, places = values[valid] - values[valid].mean(), along[valid]
    tolerance = 1e-9 * max(length, 1.0)
    start = np.searchsorted(places, places - length / 2 - tolerance)
    end = np.searchsorted(places, places + length / 2 + tolerance, side="right")
    count = end - start
    sums, squares = (np.concatenate([[0.0], np.cumsum(known**power)]) for power in (1, 2))
    mean = (sums[end] - sums[start]) / count
    variance = np.maximum((squares[end] - squares[start]) / count - mean**2, 0)
    result[valid] = np.where(count >= min_count, np.sqrt(variance), np.nan)
    return result
