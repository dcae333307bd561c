"""Beds against radar picks: sampling maps at points, and scoring every product by the same rules.

**Elevation** is compared pick by pick: GMT ``grdtrack`` samples each map at the picks, bicubically, in pixel
registration, as in Leong & Horgan (2020).

**Roughness** is compared on cells. The picks' heights are reduced to their median in each cell of the output grid (as
by GMT's ``blockmedian``), and so are the heights that each product has at those same picks. Then one rule for all,
radar included: the population standard deviation over the radar cells in the 5 x 5 neighbourhood of a radar cell, where
there are at least 8 of them. The neighbourhood of a single flight line holds 5 cells, so where fewer than half of the
cells see 8 the fewest are 5; which one was used is reported. So a map is never charged with relief beside the line,
where radar has nothing to say, and artefacts of gridding the radar play no part.

**Spectral slope** is that of the along-track elevation at the picks, averaged in bins of one output cell; scattered
picks have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid, require_same_datum
from deepbedmap_tf.scoring.metrics import METRICS, rmse, skill, spectral_slope_along
from deepbedmap_tf.scoring.roughness import MIN_COUNT, roughness, shared_roughness

FloatArray = NDArray[np.float64]
Scores = dict[str, float | int | dict[str, float]]

LINE_MIN_COUNT = 5
"""Fewest cells of a neighbourhood along a single flight line: as many as a straight line has in 5 x 5."""

SPEED_CLASSES = ((0.0, 50.0), (50.0, 200.0), (200.0, 500.0), (500.0, float("inf")))
"""Ice speed, m/yr, in which errors are told apart."""


@dataclass(frozen=True)
class Product:
    """One bed to be compared.

    Attributes
    ----------
    name
        Key in ``metrics.json`` and column in ``profile.csv``.
    label
        What tables and figures call it.
    bed
        Elevation (y, x), m, on its own grid; NaN where there is none.
    colour
        GMT colour of its lines.
    """

    name: str
    label: str
    bed: xr.DataArray
    colour: str = "black"


def gmt_grid(array: xr.DataArray, unit: float = 1.0) -> xr.DataArray:
    """Make the pixel-registered, northward copy of a map that GMT reads right.

    Parameters
    ----------
    array
        Dims (y, x), cell centres.
    unit
        Coordinates are divided by it: 1000 draws axes in km.

    Notes
    -----
    PyGMT turns a southward y round by slicing, which silently resets the registration to gridline and shrinks the
    map. So y is sorted here and the registration set last.
    """
    import pygmt  # noqa: F401  (registers the accessor)

    grid = xr.DataArray(
        np.asarray(array.values, dtype=np.float32),
        dims=("y", "x"),
        coords={"y": array["y"].values / unit, "x": array["x"].values / unit},
    ).sortby("y")
    grid.gmt.registration = 1
    grid.gmt.gtype = 0
    return grid


def sample(array: xr.DataArray, x: NDArray[np.floating], y: NDArray[np.floating], how: str = "c") -> FloatArray:
    """Sample a map at points by GMT ``grdtrack``.

    Parameters
    ----------
    array
        Dims (y, x).
    x, y
        Shape (points,), m, in the map's coordinates.
    how
        GMT's interpolation: ``c`` bicubic, ``l`` bilinear, ``n`` nearest. The value is exact at a cell's centre.
        Next to missing cells GMT weighs those that are there, if they make up half of the weight.

    Returns
    -------
    ndarray
        Shape (points,); NaN outside the map's edges and in holes.
    """
    import pygmt

    points = pd.DataFrame({"x": np.asarray(x, np.float64), "y": np.asarray(y, np.float64)})
    if points.empty:
        return np.empty(0)
    sampled = pygmt.grdtrack(
        grid=gmt_grid(array), points=points, newcolname="value", interpolation=how, no_skip=True, verbose="error"
    )
    values: FloatArray = sampled["value"].to_numpy(dtype=np.float64)
    return values


def rasterise(grid: Grid, x: NDArray[np.floating], y: NDArray[np.floating], values: NDArray[np.floating]) -> FloatArray:
    """Median of the finite values in each cell of a grid; NaN in cells without, points outside left out."""
    row, column, inside = _cells(grid, x, y)
    inside &= np.isfinite(values)
    cells = pd.Series(np.asarray(values, np.float64)[inside]).groupby(row[inside] * grid.shape[1] + column[inside])
    median = cells.median()
    result = np.full(grid.shape[0] * grid.shape[1], np.nan)
    result[median.index.to_numpy()] = median.to_numpy()
    return result.reshape(grid.shape)


def fewest_cells(radar: FloatArray) -> int:
    """Tell scattered radar cells (8) from a single flight line (5): see the module's rule for roughness."""
    cells = np.isfinite(radar)
    return MIN_COUNT if np.isfinite(roughness(radar)).sum() >= 0.5 * cells.sum() else LINE_MIN_COUNT


@dataclass(frozen=True)
class Comparison:
    """Scores of every product along a transect, and the profile they come from.

    Attributes
    ----------
    scores
        Product name to its scores; ``radar`` holds roughness and spectral slope alone.
    profile
        One row a pick: distance, x, y, radar, each product's bed, and ``roughness_<name>`` columns.
    min_count
        Fewest cells behind a roughness.
    roughness_cells
        Cells with a roughness.
    """

    scores: dict[str, Scores]
    profile: pd.DataFrame
    min_count: int
    roughness_cells: int


def compare(
    picks: pd.DataFrame,
    products: Sequence[Product],
    grid: Grid,
    speed: NDArray[np.floating] | None = None,
    scattered: bool = False,
) -> Comparison:
    """Score products against radar picks.

    Parameters
    ----------
    picks
        Columns x, y, bed (m, the products' datum); optionally distance (m along the track, steps between its
        pieces counted).
    products
        Beds to score; the skill of each is against the one named ``bicubic``.
    grid
        Cells on which roughness is measured, at the output resolution.
    speed
        Ice speed at the picks, m/yr, for the RMSE by speed class.
    scattered
        The picks follow no line, so distance orders them and no more: they have no spectrum along a track.

    Raises
    ------
    DataError
        When a column is missing, or no pick lies on any product.
    """
    check_datums(products, picks.attrs.get("vertical_datum"), "picks")
    missing = [column for column in ("x", "y", "bed") if column not in picks]
    if missing:
        raise DataError(f"the transect's picks have no column '{missing[0]}'; expected x, y, bed (m)")
    x, y, radar = (picks[column].to_numpy(dtype=np.float64) for column in ("x", "y", "bed"))
    distance = picks["distance"].to_numpy(np.float64) if "distance" in picks else np.full(radar.shape, np.nan)
    track = np.full(radar.shape, np.nan) if scattered else distance
    sampled = {product.name: sample(product.bed, x, y) for product in products}
    # One set of picks for all, so that no product is excused from a hard place by having no value there.
    common = np.isfinite(radar) & np.all([np.isfinite(values) for values in sampled.values()], axis=0)
    if not common.any():
        raise DataError(
            f"none of the {radar.size} picks of the transect lies where all of {', '.join(sampled)} have a bed; "
            "check the region's bounds against the picks"
        )
    truth = np.where(common, radar, np.nan)
    cells = rasterise(grid, x, y, truth)
    min_count = fewest_cells(cells)
    profile = pd.DataFrame({"distance": distance, "x": x, "y": y, "radar": radar, **sampled})

    roughness_radar = shared_roughness(cells, cells, min_count=min_count)[0]
    scores: dict[str, Scores] = {"radar": {"count": int(common.sum())}}
    profile["roughness_radar"] = _at(grid, roughness_radar, x, y)
    for name, values in sampled.items():
        result: Scores = {metric.name: metric.compute(values, truth) for metric in METRICS}
        result["skill"] = skill(values, truth, sampled.get("bicubic", values))
        result["count"] = int(common.sum())
        read = rasterise(grid, x, y, np.where(common, values, np.nan))
        rough = shared_roughness(read, cells, min_count=min_count)[0]
        result |= _roughness_scores(rough, roughness_radar)
        result["spectral_slope"] = _track_slope(values, truth, track, grid.resolution)
        if speed is not None:
            result["rmse_by_speed"] = rmse_by_class(values, truth, speed)
        profile[f"roughness_{name}"] = _at(grid, rough, x, y)
        scores[name] = result
    scored = np.isfinite(roughness_radar)
    scores["radar"]["roughness"] = float(roughness_radar[scored].mean()) if scored.any() else float("nan")
    scores["radar"]["spectral_slope"] = _track_slope(radar, truth, track, grid.resolution)
    if speed is not None:
        scores["radar"]["count_by_speed"] = count_by_class(speed[common])
    return Comparison(scores, profile, min_count, int(scored.sum()))


def check_datums(products: Sequence[Product], datum: str | None, name: str) -> None:
    """Refuse to compare heights above different datums.

    Parameters
    ----------
    products
        Beds; each says its datum in ``attrs["vertical_datum"]``.
    datum, name
        Datum of what they are compared with, None if it is not stated, and its name for the message.

    Raises
    ------
    DatumError
        When two datums differ, or one product says its datum and another does not. Where nobody says anything, as
        with plain arrays, there is nothing to compare.
    """
    stated = [(product.name, product.bed.attrs.get("vertical_datum")) for product in products]
    stated += [(name, datum)] if datum is not None else []
    if any(found is not None for _, found in stated):
        first, wanted = stated[0]
        for other, found in stated[1:]:
            require_same_datum(wanted, found, (first, other))


def class_name(low: float, high: float) -> str:
    """Name a speed class as a table does: ``<50``, ``50-200``, ``>500``."""
    if np.isinf(high):
        return f">{low:g}"
    return f"<{high:g}" if low == 0 else f"{low:g}-{high:g}"


def rmse_by_class(
    prediction: NDArray[np.floating], truth: NDArray[np.floating], speed: NDArray[np.floating]
) -> dict[str, float]:
    """RMSE in each class of ice speed, m; NaN in a class without places."""
    return {
        class_name(low, high): rmse(prediction, np.where((speed >= low) & (speed < high), truth, np.nan))
        for low, high in SPEED_CLASSES
    }


def count_by_class(speed: NDArray[np.floating]) -> dict[str, float]:
    """Places in each class of ice speed."""
    return {class_name(low, high): int(((speed >= low) & (speed < high)).sum()) for low, high in SPEED_CLASSES}


def _roughness_scores(rough: FloatArray, reference: FloatArray) -> Mapping[str, float]:
    scored = np.isfinite(rough) & np.isfinite(reference)
    if not scored.any():
        return dict.fromkeys(("roughness", "roughness_ratio", "roughness_rmse"), float("nan"))
    mean, wanted = float(rough[scored].mean()), float(reference[scored].mean())
    return {
        "roughness": mean,
        "roughness_ratio": mean / wanted if wanted > 0 else float("nan"),
        "roughness_rmse": float(np.sqrt(np.mean((rough[scored] - reference[scored]) ** 2))),
    }


def _cells(
    grid: Grid, x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Row and column of the cell that each point lies in, and whether that cell is on the grid."""
    xmin, _, _, ymax = grid.bounds
    column = np.floor((np.asarray(x, np.float64) - xmin) / grid.resolution).astype(np.int64)
    row = np.floor((ymax - np.asarray(y, np.float64)) / grid.resolution).astype(np.int64)
    inside = (row >= 0) & (row < grid.shape[0]) & (column >= 0) & (column < grid.shape[1])
    return row, column, inside


def _at(grid: Grid, values: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Value of the cell that each point lies in; NaN outside."""
    row, column, inside = _cells(grid, x, y)
    return np.where(inside, values[np.where(inside, row, 0), np.where(inside, column, 0)], np.nan)


def _track_slope(values: FloatArray, truth: FloatArray, distance: FloatArray, spacing: float) -> float:
    shared = np.where(np.isfinite(truth), values, np.nan)
    return spectral_slope_along(shared, distance, spacing)
