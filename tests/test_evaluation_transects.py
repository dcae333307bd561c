"""Sampling at points and scores along a track, against exact values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.evaluation.transects import (
    LINE_MIN_COUNT,
    Product,
    class_name,
    compare,
    fewest_cells,
    gmt_grid,
    rasterise,
    rmse_by_class,
    sample,
)
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.scoring.roughness import MIN_COUNT

GRID = Grid.from_bounds((-10_000, 2000, 0, 10_000), 250, vertical_datum="ellipsoid:WGS84")


def _bed(values: np.ndarray) -> xr.DataArray:
    return GRID.dataarray(values.astype(np.float32), "bed", "m")


def _noise(seed: int = 0) -> xr.DataArray:
    return _bed(np.random.default_rng(seed).normal(size=GRID.shape) * 100 - 900)


def test_cells_come_out_exactly_at_their_centres() -> None:
    bed = _noise()
    x, y = np.meshgrid(GRID.x, GRID.y)
    for how in ("c", "l", "n"):
        assert np.array_equal(sample(bed, x.ravel(), y.ravel(), how).astype(np.float32), bed.values.ravel()), how


def test_registration_is_pixel_and_all_rows_reach_gmt() -> None:
    import pygmt

    text = pygmt.grdinfo(gmt_grid(_noise()), per_column="n")
    assert [float(value) for value in text.split()[:4]] == [-10_000, 0, 2000, 10_000]
    text = pygmt.grdinfo(gmt_grid(_noise(), unit=1000), per_column="n")
    assert [float(value) for value in text.split()[:4]] == [-10, 0, 2, 10]


def test_slopes_are_sampled_without_a_shift() -> None:
    x, y = np.meshgrid(GRID.x, GRID.y)
    places = np.random.default_rng(1).uniform((-9000, 3000), (-1000, 9000), (50, 2))
    # Bicubic convolution keeps a plane; half a cell of shift would be 125 m.
    assert np.allclose(sample(_bed(x), *places.T), places[:, 0], atol=0.01)
    assert np.allclose(sample(_bed(y), *places.T), places[:, 1], atol=0.01)


def test_outside_and_in_holes_there_is_nothing() -> None:
    bed = _noise()
    bed.values[10:20, 10:20] = np.nan
    x, y = np.array([-10_100.0, -9990.0, GRID.x[15]]), np.array([5000.0, 2010.0, GRID.y[15]])
    assert np.isfinite(sample(bed, x, y)).tolist() == [False, True, False]
    assert sample(bed, np.empty(0), np.empty(0)).size == 0


def test_cells_take_the_median_of_their_picks() -> None:
    x = np.array([-9999.0, -9800, -9900, -5, 700, -9999])
    y = np.array([9999.0, 9999, 9760, 2001, 2001, 9999])
    values = np.array([1.0, 2, 90, 7, 8, np.nan])
    cells = rasterise(GRID, x, y, values)
    assert cells[0, 0] == 2
    assert cells[-1, -1] == 7
    assert np.isfinite(cells).sum() == 2


def test_a_line_needs_fewer_cells_than_scattered_picks() -> None:
    line = np.full((40, 40), np.nan)
    line[20] = 1
    assert fewest_cells(line) == LINE_MIN_COUNT
    scattered = np.where(np.random.default_rng(2).random((40, 40)) < 0.5, 1.0, np.nan)
    assert fewest_cells(scattered) == MIN_COUNT


def _line(bed: xr.DataArray, offset: float = 0.0) -> pd.DataFrame:
    x = np.arange(-9500, -500, 50.0)
    y = np.full(x.shape, GRID.y[15])
    return pd.DataFrame({"x": x, "y": y, "bed": sample(bed, x, y) + offset, "distance": x - x[0]})


def test_the_radar_itself_scores_perfectly_and_a_shift_is_all_bias() -> None:
    bed, smooth = _noise(), _bed(np.full(GRID.shape, -900.0))
    picks = _line(bed)
    products = (Product("deepbedmap", "D", bed), Product("bicubic", "B", smooth), Product("higher", "H", bed + 40))
    result = compare(picks, products, GRID)
    scores = result.scores
    assert scores["deepbedmap"]["rmse"] == pytest.approx(0, abs=1e-9)
    assert scores["deepbedmap"]["roughness_ratio"] == pytest.approx(1, abs=1e-9)
    assert scores["deepbedmap"]["skill"] == pytest.approx(1, abs=1e-9)
    assert scores["deepbedmap"]["spectral_slope"] == scores["radar"]["spectral_slope"]
    assert scores["bicubic"]["roughness"] == pytest.approx(0, abs=1e-9)
    assert scores["bicubic"]["skill"] == 0
    for key in ("rmse", "mae", "bias"):
        assert scores["higher"][key] == pytest.approx(40, abs=1e-3)
    assert scores["higher"]["roughness_rmse"] == pytest.approx(0, abs=1e-3)
    assert result.min_count == LINE_MIN_COUNT
    # A straight line: the roughness of a cell is that of itself and two cells on each side.
    cells = rasterise(GRID, picks["x"], picks["y"], picks["bed"])[15]
    middle = [float(np.std(cells[column - 2 : column + 3])) for column in range(4, 36)]
    of_radar = result.profile.groupby(np.floor((picks["x"] + 10_000) / 250))["roughness_radar"].first()
    assert np.allclose(of_radar.loc[4:35], middle, atol=1e-9)


def test_all_products_are_scored_on_the_same_picks() -> None:
    bed = _noise()
    holed = bed.copy(deep=True)
    holed.values[:, 20:] = np.nan
    result = compare(_line(bed), (Product("bicubic", "B", bed + 1), Product("holed", "H", holed)), GRID)
    assert result.scores["bicubic"]["count"] == result.scores["holed"]["count"] < 110
    assert len(result.profile) == 180


def test_scattered_picks_have_no_spectrum_along_them() -> None:
    bed = _noise()
    result = compare(_line(bed), (Product("bicubic", "B", bed),), GRID, scattered=True)
    assert np.isnan(result.scores["radar"]["spectral_slope"])
    assert np.isnan(result.scores["bicubic"]["spectral_slope"])


def test_speed_classes_share_out_every_pick() -> None:
    truth, prediction = np.zeros(4), np.array([1.0, 2.0, 3.0, 4.0])
    speed = np.array([10.0, 50.0, 499.0, 5000.0])
    assert rmse_by_class(prediction, truth, speed) == {"<50": 1.0, "50-200": 2.0, "200-500": 3.0, ">500": 4.0}
    assert class_name(0, 50) == "<50"
    bed = _noise()
    picks = _line(bed)
    result = compare(picks, (Product("bicubic", "B", bed + 3),), GRID, np.linspace(0, 1000, len(picks)))
    assert sum(result.scores["radar"]["count_by_speed"].values()) == len(picks)
    assert result.scores["bicubic"]["rmse_by_speed"][">500"] == pytest.approx(3, abs=1e-3)


def test_bad_picks_are_one_line() -> None:
    bed = _noise()
    with pytest.raises(DataError, match="no column 'bed'"):
        compare(_line(bed).drop(columns="bed"), (Product("bicubic", "B", bed),), GRID)
    with pytest.raises(DataError, match="none of the 180 picks"):
        compare(_line(bed).assign(x=1e6), (Product("bicubic", "B", bed),), GRID)
