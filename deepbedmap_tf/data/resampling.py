"""Rasters brought from one grid to another on aligned cell centres, and gaps filled by a named rule.

Every method is separable and linear, so that resampling is ``rows @ values @ columns.T`` with one sparse weight
matrix an axis. The same matrices applied to the mask tell which results touch an invalid cell: nothing invalid is
ever averaged in (nodata of -9999 beside 500 m does not become -4749.5 m).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from scipy import ndimage, sparse

from deepbedmap_tf.errors import DataError, GridError, NoDataError
from deepbedmap_tf.grid import Grid

Method = Literal["nearest", "bilinear", "cubic", "average"]
FillRule = Literal["none", "nearest", "zero"]

METHODS: tuple[str, ...] = ("nearest", "bilinear", "cubic", "average")
FILL_RULES: tuple[str, ...] = ("none", "nearest", "zero")

# A weight below this is rounding of coordinates, not a contribution.
_NEGLIGIBLE = 1e-6


def resample(array: xr.DataArray, grid: Grid, method: str) -> xr.DataArray:
    """Bring a raster to other cells of the same CRS.

    Parameters
    ----------
    array
        Shape (rows, columns) or (rows, columns, bands), NaN where invalid.
    grid
        Cells of the result; its datum is not looked at, the result keeps that of `array`.
    method
        ``nearest``; ``bilinear`` and ``cubic`` (Keys 1981, a = -0.5) take the value at the centre of the new cell;
        ``average`` is the mean over the area of the new cell, and is bilinear where new cells are not larger
        than the old.

    Returns
    -------
    xarray.DataArray
        float32. Linear fields pass through exactly. A result is NaN outside the source's cells and where a cell
        that carries weight is NaN; cubic falls back to bilinear where only its wider stencil meets NaN;
        average wants half of the area valid.

    Raises
    ------
    GridError
        When the method is unknown or the CRS differs.
    """
    source = Grid.of(array)
    if method not in METHODS:
        raise GridError(f"resampling {method!r} is not known; known are {', '.join(METHODS)}")
    if source.crs != grid.crs:
        raise GridError(f"'{array.name}' is in {source.crs}, expected {grid.crs}; reproject it first")
    if method == "average" and grid.resolution <= source.resolution * (1 + _NEGLIGIBLE):
        method = "bilinear"
    values = np.asarray(array, np.float32)
    layers = values[..., np.newaxis] if values.ndim == 2 else values
    result = np.stack([_resample_layer(layers[..., i], source, grid, method) for i in range(layers.shape[-1])], -1)
    attributes = {k: v for k, v in array.attrs.items() if k not in ("units", "crs", "resolution", "vertical_datum")}
    target = grid.with_datum(source.vertical_datum)
    result = result[..., 0] if values.ndim == 2 else result
    return target.dataarray(result, str(array.name), array.attrs.get("units", "1"), **attributes)


def sample(array: xr.DataArray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear values of a raster (rows, columns) at points; NaN outside and beside NaN that carries weight."""
    grid = Grid.of(array)
    values = np.asarray(array, np.float64)
    valid = np.isfinite(values)
    row, row_weights, inside_rows = _neighbours(
        (grid.y[0] - np.asarray(y, np.float64)) / grid.resolution, grid.shape[0]
    )
    column, column_weights, inside_columns = _neighbours(
        (np.asarray(x, np.float64) - grid.x[0]) / grid.resolution, grid.shape[1]
    )
    total = np.zeros(row[0].shape)
    usable = inside_rows & inside_columns
    for r, row_weight in zip(row, row_weights, strict=True):
        for c, column_weight in zip(column, column_weights, strict=True):
            weight = row_weight * column_weight
            counts = np.abs(weight) > _NEGLIGIBLE
            usable &= ~counts | valid[r, c]
            total += np.where(counts & valid[r, c], weight * np.nan_to_num(values[r, c]), 0.0)
    return np.where(usable, total, np.nan)


def _neighbours(position: np.ndarray, size: int) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Two neighbouring cells of each position, their linear weights, and whether the position is on the axis."""
    inside = (position >= -0.5 - _NEGLIGIBLE) & (position <= size - 0.5 + _NEGLIGIBLE)
    base = np.clip(np.floor(np.where(inside, position, 0) + _NEGLIGIBLE), 0, max(size - 2, 0)).astype(int)
    share = np.where(inside, position - base, 0.0) if size > 1 else np.zeros_like(position)
    return [base, np.minimum(base + 1, size - 1)], [1 - share, share], inside


def fill_gaps(array: xr.DataArray, rule: str, limit: float | None = None) -> xr.DataArray:
    """Fill invalid cells by a named rule and record which cells were valid before.

    Parameters
    ----------
    array
        Shape (rows, columns) or (rows, columns, bands).
    rule
        ``none`` leaves NaN; ``nearest`` takes the nearest valid cell; ``zero`` writes 0.
    limit
        Distance in metres beyond which a gap stays NaN.

    Returns
    -------
    xarray.DataArray
        With a coordinate ``valid`` (rows, columns): True where every band was valid before the filling.

    Raises
    ------
    DataError
        When no cell is valid.
    """
    if rule not in FILL_RULES:
        raise DataError(f"fill rule {rule!r} is not known; known are {', '.join(FILL_RULES)}")
    values = np.array(array, np.float32)
    valid = np.isfinite(values) if values.ndim == 2 else np.isfinite(values).all(axis=-1)
    if not valid.any():
        bounds = [round(edge, 3) for edge in Grid.of(array).bounds]
        raise NoDataError(f"'{array.name}' has no valid cell within {bounds}; expected data there, choose other bounds")
    if rule != "none" and not valid.all():
        distance, nearest = ndimage.distance_transform_edt(~valid, return_indices=True)
        filled = ~valid if limit is None else ~valid & (distance * Grid.of(array).resolution <= limit)
        values[filled] = 0.0 if rule == "zero" else values[nearest[0][filled], nearest[1][filled]]
    # A cell with one band missing has no use: both components of a velocity, or none.
    values[~np.isfinite(values) if values.ndim == 2 else ~np.isfinite(values).all(axis=-1)] = np.nan
    result = array.copy(data=values).assign_coords(valid=(("y", "x"), valid))
    result.attrs["fill"] = rule
    return result


def axis_weights(
    first: float, step: float, size: int, centres: np.ndarray, method: str, cell: float
) -> sparse.csr_matrix:
    """Weights of the cells of one axis in each of the new cells.

    Parameters
    ----------
    first, step, size
        Centre of the first cell, distance between cells (its sign is the direction), number of cells.
    centres
        Centres of the new cells.
    method
        As in `resample`.
    cell
        Side of the new cells.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape (new cells, cells). Rows of new cells outside are empty; all others sum to 1.
    """
    position = (np.asarray(centres, np.float64) - first) / step
    if method == "average":
        return _area_weights(position, cell / abs(step), size)
    inside = (position >= -0.5 - _NEGLIGIBLE) & (position <= size - 0.5 + _NEGLIGIBLE)
    if method == "nearest":
        stencil = [(np.clip(np.ceil(position - 0.5), 0, size - 1), np.ones_like(position))]
    else:
        base = np.clip(np.floor(position + _NEGLIGIBLE), 0, max(size - 2, 0))
        t = position - base
        if size == 1:
            stencil = [(base, np.ones_like(t))]
        elif method == "bilinear":
            stencil = [(base, 1 - t), (base + 1, t)]
        else:
            # Keys' kernel with a = -0.5: exact for parabolas.
            stencil = [
                (base - 1, ((-0.5 * t + 1) * t - 0.5) * t),
                (base, (1.5 * t - 2.5) * t * t + 1),
                (base + 1, ((-1.5 * t + 2) * t + 0.5) * t),
                (base + 2, (0.5 * t - 0.5) * t * t),
            ]
    rows = np.arange(position.size)
    matrix = sparse.csr_matrix((position.size, size), dtype=np.float64)
    for index, weight in stencil:
        weight = np.where(inside & (np.abs(weight) > _NEGLIGIBLE), weight, 0.0)
        for taken, factor in _within(index.astype(int), size):
            matrix = matrix + sparse.csr_matrix((weight * factor, (rows, taken)), shape=(position.size, size))
    matrix.eliminate_zeros()
    total = np.asarray(matrix.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(np.divide(1.0, total, out=np.zeros_like(total), where=inside)) @ matrix)


def _within(index: np.ndarray, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Express stencil cells one beyond an end by straight continuation of the last two, so that ramps stay ramps."""
    low, high = index < 0, index > size - 1
    out = low | high
    edge = np.clip(index, 0, size - 1)
    inner = np.where(low, min(1, size - 1), np.where(high, max(size - 2, 0), edge))
    return [(edge, np.where(out, 2.0, 1.0)), (inner, np.where(out, -1.0, 0.0))]


def _area_weights(position: np.ndarray, width: float, size: int) -> sparse.csr_matrix:
    low, high = position - width / 2 + 0.5, position + width / 2 + 0.5
    first = np.floor(low + _NEGLIGIBLE).astype(int)
    matrix = sparse.csr_matrix((position.size, size), dtype=np.float64)
    rows = np.arange(position.size)
    for offset in range(int(np.ceil(width)) + 1):
        cell = first + offset
        overlap = np.minimum(high, cell + 1) - np.maximum(low, cell)
        weight = np.where((cell >= 0) & (cell < size) & (overlap > _NEGLIGIBLE), overlap / width, 0.0)
        matrix = matrix + sparse.csr_matrix((weight, (rows, np.clip(cell, 0, size - 1))), shape=matrix.shape)
    matrix.eliminate_zeros()
    return matrix


def _apply(rows: sparse.csr_matrix, values: np.ndarray, columns: sparse.csr_matrix) -> np.ndarray:
    return np.asarray((columns @ (rows @ values).T).T)


def _resample_layer(values: np.ndarray, source: Grid, grid: Grid, method: str) -> np.ndarray:
    columns = axis_weights(source.x[0], source.resolution, source.shape[1], grid.x, method, grid.resolution)
    rows = axis_weights(source.y[0], -source.resolution, source.shape[0], grid.y, method, grid.resolution)
    valid = np.isfinite(values)
    # Heights minus their mean keep the digits of float32 through the sums; the nearest value stays as it is.
    centred = method != "nearest" and valid.any()
    centre = float(values[valid].mean(dtype=np.float64)) if centred else 0.0
    result = _apply(rows, np.where(valid, values - centre, 0.0), columns)
    if method == "average":
        share = _apply(rows, valid.astype(np.float64), columns)
        kept = share >= 0.5 - _NEGLIGIBLE
        result = np.divide(result, share, out=np.full_like(result, np.nan), where=kept) + centre
        return result.astype(np.float32)
    reached = np.outer(np.diff(rows.indptr) > 0, np.diff(columns.indptr) > 0)
    touched = reached & (_apply(abs(rows), (~valid).astype(np.float64), abs(columns)) < _NEGLIGIBLE**2 / 2)
    result = np.where(touched, result + centre, np.nan).astype(np.float32)
    if method == "cubic" and (reached & ~touched).any():
        result = np.where(touched, result, _resample_layer(values, source, grid, "bilinear"))
    return result
