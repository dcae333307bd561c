"""Roughness against exact standard deviations and a brute-force reading of the rule for sparse cells."""

from __future__ import annotations

import numpy as np
import pytest

from deepbedmap_tf.grid import Grid
from deepbedmap_tf.scoring.roughness import (
    mean_roughness,
    roughness,
    roughness_along,
    roughness_ratio,
    roughness_rmse,
    shared_roughness,
)


def test_ramp_is_as_rough_as_five_steps() -> None:
    ramp = 3.0 * np.tile(np.arange(9.0), (7, 1))
    # Population variance of -2..2 is 2.
    assert roughness(ramp)[2:-2, 2:-2] == pytest.approx(3 * np.sqrt(2), abs=1e-12)


def test_checkerboard() -> None:
    board = 10.0 * (np.indices((9, 9)).sum(axis=0) % 2)
    # 13 cells of one kind, 12 of the other.
    assert roughness(board)[4, 4] == pytest.approx(10 * np.sqrt(13 * 12) / 25, abs=1e-12)


def test_a_constant_is_smooth_at_any_depth() -> None:
    assert roughness(np.full((8, 8), -1523.7)).max() < 1e-11


def test_small_relief_at_depth_keeps_its_digits() -> None:
    relief = np.random.default_rng(0).normal(size=(12, 12)) * 1e-3
    assert roughness(relief - 2000) == pytest.approx(roughness(relief), abs=1e-9)


def test_stack_is_done_map_by_map() -> None:
    stack = np.random.default_rng(1).normal(size=(3, 8, 9))
    assert np.array_equal(roughness(stack)[1], roughness(stack[1]))


def test_fewest_cells() -> None:
    bed = np.random.default_rng(2).normal(size=(10, 10))
    assert np.isfinite(roughness(bed, min_count=9)).all()
    corners_lost = roughness(bed, min_count=10)
    assert np.isnan(corners_lost[0, 0])
    assert np.isfinite(corners_lost[0, 1])
    assert np.isfinite(roughness(bed, min_count=25)).sum() == 36


def test_even_window_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        roughness(np.zeros((6, 6)), window=4)


def test_dataarray_keeps_its_grid_and_says_metres() -> None:
    grid = Grid.from_bounds((0, 0, 2000, 2500), 250, vertical_datum="ellipsoid:WGS84")
    bed = grid.dataarray(np.random.default_rng(3).normal(size=grid.shape).astype(np.float32), "bed", "m")
    result = roughness(bed)
    assert Grid.of(result).with_datum(None) == grid.with_datum(None)
    assert result.attrs["units"] == "m"
    assert "vertical_datum" not in result.attrs
    assert result.dtype == np.float32


def _brute_force(values: np.ndarray, known: np.ndarray, fewest: int) -> dict[tuple[int, int], float]:
    result = {}
    for row, column in zip(*np.nonzero(known), strict=True):
        near = [
            values[r, c]
            for r in range(max(row - 2, 0), min(row + 3, values.shape[0]))
            for c in range(max(column - 2, 0), min(column + 3, values.shape[1]))
            if known[r, c]
        ]
        if len(near) >= fewest:
            result[row, column] = float(np.sqrt(np.mean((np.array(near) - np.mean(near)) ** 2)))
    return result


@pytest.mark.parametrize("fewest", [5, 8])
def test_sparse_cells_by_brute_force(fewest: int) -> None:
    generator = np.random.default_rng(4)
    bed, radar = generator.normal(size=(2, 30, 30)) * 40 - 900
    known = generator.random((30, 30)) < 0.35
    radar = np.where(known, radar, np.nan)
    of_map, of_radar = shared_roughness(bed, radar, min_count=fewest)
    for computed, values in ((of_map, bed), (of_radar, radar)):
        expected = _brute_force(values, known, fewest)
        assert {tuple(place) for place in np.argwhere(np.isfinite(computed))} == set(expected)
        for place, value in expected.items():
            assert computed[place] == pytest.approx(value, abs=1e-9)
    ratio = np.mean(list(_brute_force(bed, known, fewest).values())) / np.mean(
        list(_brute_force(radar, known, fewest).values())
    )
    assert roughness_ratio(bed, radar, min_count=fewest) == pytest.approx(ratio, rel=1e-12)


def test_ratio_and_rmse_of_scaled_relief() -> None:
    truth = np.random.default_rng(5).normal(size=(20, 20)) * 30
    assert roughness_ratio(truth * 0.25 - 300, truth) == pytest.approx(0.25, rel=1e-9)
    expected = 0.75 * np.sqrt(np.mean(roughness(truth) ** 2))
    assert roughness_rmse(truth * 0.25 - 300, truth) == pytest.approx(expected, rel=1e-9)
    assert np.isnan(roughness_ratio(truth, np.zeros_like(truth)))


def test_nothing_known_is_nan() -> None:
    nothing = np.full((6, 6), np.nan)
    assert np.isnan(mean_roughness(nothing))
    assert np.isnan(roughness_ratio(nothing, nothing))
    assert np.isnan(roughness_rmse(nothing, nothing))


def test_along_a_track_of_even_steps() -> None:
    distance = np.arange(0, 10_000, 250.0)
    elevation = 7.0 * np.arange(distance.size)
    result = roughness_along(elevation, distance, length=1000)
    assert result[2:-2] == pytest.approx(7 * np.sqrt(2), abs=1e-9)
    assert np.isnan(result[0])
    with pytest.raises(ValueError, match="backwards"):
        roughness_along(elevation, distance[::-1])
