"""What a super-resolved bed has to beat: bicubic interpolation, and a regression that sees one place at a time."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepbedmap_tf.grid import Grid
from deepbedmap_tf.scoring.interpolation import EdgeRule, fill_nearest, repeat, upsample
from deepbedmap_tf.scoring.regression import BoostedRegression

__all__ = ["RATIO", "BoostedRegression", "bicubic"]

RATIO = 4
"""Output cells per cell of the low-resolution bed, along one axis."""


MissingRule = Literal["mask", "nearest"]


@overload
def bicubic(
    bed_lowres: xr.DataArray, margin: int = ..., ratio: int = ..., edge: EdgeRule = ..., missing: MissingRule = ...
) -> xr.DataArray: ...
@overload
def bicubic(
    bed_lowres: NDArray[np.floating],
    margin: int = ...,
    ratio: int = ...,
    edge: EdgeRule = ...,
    missing: MissingRule = ...,
) -> NDArray[np.float64]: ...
def bicubic(
    bed_lowres: xr.DataArray | NDArray[np.floating],
    margin: int = 1,
    ratio: int = RATIO,
    edge: EdgeRule = "not-a-knot",
    missing: MissingRule = "mask",
) -> xr.DataArray | NDArray[np.float64]:
    """Interpolate the low-resolution bed, with its margin, to the output cells inside the margin.

    Parameters
    ----------
    bed_lowres
        Shape (..., rows, columns), m, NaN where there is none: an array, or a DataArray (y, x) with cell centres.
    margin
        Coarse cells around the area wanted, cut off after they have served as context.
    ratio
        Output cells along a side of a coarse cell.
    edge
        Rule at the outer edge of the margin, see `upsample`. With ``not-a-knot`` polynomials up to degree 3 in
        each direction come out exactly.
    missing
        A spline reaches everywhere, so a missing coarse cell first takes the height of the nearest one there is.
        ``mask`` then blanks the output cells inside it, ``nearest`` keeps them.

    Returns
    -------
    array
        Shape (..., ratio * (rows - 2 * margin), ratio * (columns - 2 * margin)), m. A DataArray comes with the
        output cells' centres, the attributes of `bed_lowres` and its data type; an array is float64.

    Raises
    ------
    ValueError
        When nothing is left inside the margin.
    """
    values = np.asarray(bed_lowres, dtype=np.float64)
    rows, columns = values.shape[-2:]
    if min(rows, columns) <= 2 * margin:
        raise ValueError(
            f"the low-resolution bed has {rows} x {columns} cells, expected more than {2 * margin} along each side: "
            f"a margin of {margin} all round and something inside it"
        )
    fine = upsample(fill_nearest(values), ratio, edge)
    if missing == "mask":
        fine = np.where(np.isfinite(repeat(values, ratio)), fine, np.nan)
    cut = margin * ratio
    fine = fine[..., cut : fine.shape[-2] - cut, cut : fine.shape[-1] - cut]
    if not isinstance(bed_lowres, xr.DataArray):
        return fine
    grid = Grid.of(bed_lowres).refine(ratio).pad(-cut)
    result = grid.dataarray(
        fine.astype(bed_lowres.dtype), "bed", "m", long_name="bed elevation, bicubic from the low-resolution bed"
    )
    result.attrs = {**bed_lowres.attrs, **result.attrs}
    return result
