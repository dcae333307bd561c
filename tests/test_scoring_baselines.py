"""The bicubic bed is exact on cubics and aligned on cell centres; the boosted regression learns what it can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.scoring.baselines import BoostedRegression, bicubic
from deepbedmap_tf.scoring.features import cell_features
from deepbedmap_tf.scoring.interpolation import block_mean, fill_nearest, to_ratio, upsample


def _coarse(rows: int = 7, columns: int = 9) -> Grid:
    return Grid.from_bounds((-1500e3, -500e3, -1500e3 + columns * 1000, -500e3 + rows * 1000), 1000)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=16, max_size=16), st.integers(4, 9), st.integers(4, 9))
def test_cubics_come_out_exactly(coefficients: list[float], rows: int, columns: int) -> None:
    grid = _coarse(rows, columns)
    weights = np.reshape(coefficients, (4, 4))

    def height(of: Grid) -> np.ndarray:
        x, y = np.meshgrid((of.x + 1500e3) / 5000, (of.y + 500e3) / 5000)
        return 100 * np.polynomial.polynomial.polyval2d(x, y, weights)

    fine = bicubic(grid.dataarray(height(grid), "bed", "m"))
    expected_grid = grid.pad(-1).refine(4)
    assert Grid.of(fine) == expected_grid
    assert np.allclose(fine.values, height(expected_grid), atol=1e-7)


def test_ramp_of_coordinates_is_not_shifted() -> None:
    grid = _coarse()
    for axis in ("x", "y"):
        ramp = np.meshgrid(grid.x, grid.y)[axis == "y"]
        fine = bicubic(grid.dataarray(ramp, "bed", "m"))
        expected = np.meshgrid(fine["x"], fine["y"])[axis == "y"]
        assert np.allclose(fine.values, expected, atol=1e-6)


def test_array_and_stack_of_tiles() -> None:
    tiles = np.random.default_rng(0).normal(size=(3, 11, 11)).astype(np.float32)
    fine = bicubic(tiles)
    assert fine.shape == (3, 36, 36)
    assert fine.dtype == np.float64
    assert np.allclose(fine[1], bicubic(tiles[1]), atol=1e-12)


def test_mean_is_nearly_kept() -> None:
    bed = np.random.default_rng(1).normal(size=(40, 40)) * 100
    assert block_mean(bicubic(bed), 4).mean() == pytest.approx(bed[1:-1, 1:-1].mean(), abs=0.5)


def test_edge_rules_differ_only_near_the_edge() -> None:
    bed = np.random.default_rng(2).normal(size=(30, 30)) * 100
    difference = np.abs(bicubic(bed) - bicubic(bed, edge="natural"))
    assert difference[0].max() > 1
    assert difference[40:-40, 40:-40].max() < 1e-3


def test_missing_cells_are_blanked_not_smeared() -> None:
    bed = np.full((7, 7), 500.0)
    bed[3, 3] = np.nan
    fine = bicubic(bed)
    assert np.isnan(fine[8:12, 8:12]).all()
    assert np.isfinite(fine).sum() == fine.size - 16
    # The gap takes no part: its neighbours stay at their height.
    assert np.allclose(fine[np.isfinite(fine)], 500.0)
    assert np.allclose(bicubic(bed, missing="nearest"), 500.0)
    assert np.isnan(bicubic(np.full((5, 5), np.nan))).all()


def test_margin_without_inside_is_refused() -> None:
    with pytest.raises(ValueError, match="2 x 9 cells"):
        bicubic(np.zeros((2, 9)))


def test_fill_nearest_takes_the_nearest() -> None:
    row = np.array([[1.0, np.nan, np.nan, np.nan, 9.0]])
    assert fill_nearest(row)[0, [1, 3]].tolist() == [1.0, 9.0]


def test_area_mean_from_ten_to_four_cells() -> None:
    # Mean of a ramp over 2.5 cells is its value in their middle.
    ramp = np.tile(np.arange(20.0), (10, 1))
    expected = (np.arange(8) + 0.5) * 2.5 - 0.5
    assert np.allclose(to_ratio(ramp, 10, 4)[0], expected, atol=0.11)
    assert to_ratio(np.arange(100.0).reshape(10, 10), 10, 4).mean() == pytest.approx(49.5, abs=1e-12)


def test_upsample_of_a_single_cell_repeats_it() -> None:
    assert upsample([[5.0]], 4).tolist() == [[5.0] * 4] * 4


def _world(seed: int, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tiles whose surface shows the bed's fine relief, in a tenth of its height."""
    generator = np.random.default_rng(seed)
    coarse = generator.normal(size=(count, 11, 11)) * 100
    fine = np.cumsum(generator.normal(size=(count, 44, 44)) * 4, axis=2)
    fine -= block_mean(fine, 4).repeat(4, 1).repeat(4, 2)
    bed = upsample(coarse, 4) + fine
    surface = 1000 + 0.1 * fine
    surface = surface.repeat(5, 1).repeat(5, 2).reshape(count, 110, 2, 110, 2).mean(axis=(2, 4))
    inputs = {
        "bed_lowres": coarse[..., None],
        "surface": surface[..., None],
        "velocity": np.stack([np.full((count, 22, 22), 100.0), np.zeros((count, 22, 22))], axis=-1),
        "accumulation": np.full((count, 11, 11, 1), 500.0),
    }
    return inputs, bed[:, 4:-4, 4:-4, None]


def test_boosted_regression_learns_from_the_surface(request: pytest.FixtureRequest) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    # More threads than idle processors make the trees wait for each other, many times longer than they compute.
    limits = pytest.importorskip("threadpoolctl").threadpool_limits(1, user_api="openmp")
    request.addfinalizer(limits.restore_original_limits)
    inputs, bed = _world(0, 40)
    bed[0, :5] = np.nan
    held_out, truth = _world(1, 6)
    regression = BoostedRegression(max_cells=8_000, iterations=25, learning_rate=0.2, leaves=8).fit(inputs, bed)
    predicted = regression.predict(held_out)
    assert predicted.shape == truth.shape
    assert predicted.dtype == np.float32
    base = bicubic(held_out["bed_lowres"][..., 0])[..., None]
    assert np.sqrt(np.mean((predicted - truth) ** 2)) < 0.5 * np.sqrt(np.mean((base - truth) ** 2))
    again = (
        BoostedRegression(max_cells=8_000, iterations=25, learning_rate=0.2, leaves=8)
        .fit(inputs, bed)
        .predict(held_out)
    )
    assert np.array_equal(again, predicted)
    with pytest.raises(DataError, match="learned from"):
        regression.predict({name: held_out[name] for name in ("bed_lowres", "surface")})


def test_boosted_regression_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, bed = _world(2, 1)
    with pytest.raises(RuntimeError, match="fit"):
        BoostedRegression().predict(inputs)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.ensemble", None)
    with pytest.raises(DataError, match="scikit-learn"):
        BoostedRegression().fit(inputs, bed)


def test_regression_without_any_bed_is_refused() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is a development dependency")
    inputs, bed = _world(3, 1)
    with pytest.raises(DataError, match="no cell"):
        BoostedRegression().fit(inputs, np.full_like(bed, np.nan))


def test_features_know_no_position_and_turn_with_the_flow() -> None:
    inputs, _ = _world(4, 1)
    features = cell_features(inputs)
    higher = {**inputs, "bed_lowres": inputs["bed_lowres"] + 700, "surface": inputs["surface"] + 700}
    for name, values in cell_features(higher).items():
        assert np.allclose(values, features[name], atol=1e-6), name
    # A quarter turn of everything, velocity included, turns every feature along.
    turned = {name: np.rot90(values, axes=(1, 2)).copy() for name, values in inputs.items()}
    vx, vy = turned["velocity"][..., 0].copy(), turned["velocity"][..., 1].copy()
    turned["velocity"] = np.stack([-vy, vx], axis=-1)
    for name, values in cell_features(turned).items():
        assert np.allclose(values, np.rot90(features[name], axes=(1, 2)), atol=1e-6), name


def test_features_are_nan_where_their_input_is_missing() -> None:
    inputs, _ = _world(5, 1)
    inputs["velocity"][0, 8:10, 8:10] = np.nan
    features = cell_features(inputs)
    assert np.isnan(features["velocity_speed"][0, 12:16, 12:16]).all()
    assert np.isfinite(features["surface_thickness"]).all()
