"""Realisations: functions of seed, number and cell alone, as uncertain as they say, correlated as they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.augment import transform
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.realisations import (
    REACH,
    Calibration,
    predict_members,
    realise,
    relief,
    texture,
    uncertainty,
)

WHOLE = Grid.from_bounds((-1600e3, -600e3, -1400e3, -450e3), 250)
CALIBRATION = Calibration(20.0, 0.5, 0.2, 5000.0, 0.6, 1.7, 8, "somewhere", 1000, 250.0)


class Downstream:
    """A stand-in that turns with its inputs: the low-resolution bed and, along the flow, the surface's rise."""

    config = GeneratorConfig(normalise=True)

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        bed = inputs["bed_lowres"][:, 1:-1, 1:-1]
        along = np.gradient(inputs["bed_lowres"][..., 0], axis=(1, 2))
        velocity = sum(inputs["velocity"][:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
        rise = (along[1] * velocity[..., 0] - along[0] * velocity[..., 1])[:, 1:-1, 1:-1, np.newaxis]
        # What turns with nothing: a slope to the east of the window as it comes.
        tilt = self.skew * np.linspace(-1, 1, bed.shape[2])[np.newaxis, np.newaxis, :, np.newaxis]
        return (bed + 0.01 * rise + tilt).repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture
def window() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "bed_lowres": generator.normal(-500, 100, (2, 12, 9, 1)),
        "velocity": generator.normal(0, 100, (2, 24, 18, 2)),
    }


def test_symmetries_turn_back(window: dict[str, np.ndarray]) -> None:
    mean, spread = predict_members(Downstream(), window)
    np.testing.assert_allclose(mean, Downstream()(window)[..., 0], rtol=1e-6)
    assert spread.max() < 1e-3


def test_mean_and_spread_are_those_of_the_members(window: dict[str, np.ndarray]) -> None:
    mean, spread = predict_members([Downstream(30.0), Downstream(10.0)], window, 4)
    members = []
    for model in (Downstream(30.0), Downstream(10.0)):
        for symmetry in range(4):
            turned = {name: transform(values, symmetry, name == "velocity") for name, values in window.items()}
            back = (0, 1, 2, 5)[symmetry]
            members.append(transform(model(turned), back)[..., 0])
    np.testing.assert_allclose(mean, np.mean(members, axis=0), rtol=1e-5)
    np.testing.assert_allclose(spread, np.std(members, axis=0, ddof=1), rtol=1e-4)
    # A tilt to the east is one to the west, north or south for others: it goes out of the mean over all eight.
    whole, _ = predict_members(Downstream(30.0), window)
    np.testing.assert_allclose(whole, predict_members(Downstream(), window)[0], atol=1e-3)


def test_texture_has_unit_variance_and_the_correlation_asked_for() -> None:
    grid = WHOLE.window((-1568e3, -546e3, -1440e3, -482e3))
    draws = np.stack([texture(grid, WHOLE, number, 3, 5000.0) for number in range(6)]).astype(np.float64)
    assert draws.mean() == pytest.approx(0, abs=0.03)
    assert draws.std() == pytest.approx(1, abs=0.03)
    for lag in (1, 2, 4, 8):
        expected = np.exp(-3 * lag * 250 / 5000)
        for found in (np.mean(draws[:, lag:] * draws[:, :-lag]), np.mean(draws[..., lag:] * draws[..., :-lag])):
            assert found / draws.var() == pytest.approx(expected, abs=0.05)
    diagonal = np.mean(draws[:, 3:, 3:] * draws[:, :-3, :-3]) / draws.var()
    assert diagonal == pytest.approx(np.exp(-3 * 3 * 2**0.5 * 250 / 5000), abs=0.05)


def test_a_cell_is_the_same_in_every_window() -> None:
    whole = texture(WHOLE, WHOLE, 1, 7, 1000.0)
    for box in ((-1600e3, -600e3, -1590e3, -590e3), (-1530e3, -512e3, -1466e3, -470e3)):
        grid = WHOLE.window(box)
        row, column = round((-450e3 - box[3]) / 250), round((box[0] + 1600e3) / 250)
        part = whole[row : row + grid.shape[0], column : column + grid.shape[1]]
        np.testing.assert_array_equal(texture(grid, WHOLE, 1, 7, 1000.0), part)


def test_realisations_are_repeatable_and_distinct() -> None:
    grid = WHOLE.window((-1550e3, -550e3, -1530e3, -530e3))
    bed = gaussian_filter(np.random.default_rng(1).normal(size=grid.shape), 3).astype(np.float32) * 100
    sigma = np.full(grid.shape, 25.0, np.float32)
    drawn = [realise(bed, sigma, grid, WHOLE, number, seed, 5000.0) for seed in (0, 1) for number in range(5)]
    assert all(each.dtype == np.float32 for each in drawn)
    for first in range(10):
        for second in range(first):
            assert np.sqrt(np.mean((drawn[first] - drawn[second]) ** 2)) > 15
    np.testing.assert_array_equal(drawn[3], realise(bed, sigma, grid, WHOLE, 3, 0, 5000.0))


def test_uncertainty_by_hand() -> None:
    bed = np.tile(np.arange(60.0), (60, 1))
    spread = np.full(bed.shape, 10.0)
    found = uncertainty(bed, spread, CALIBRATION)
    slope = np.std(np.arange(25.0))
    assert found[30, 30] == pytest.approx(np.sqrt(20**2 + 5**2 + (0.2 * slope) ** 2))
    half = uncertainty(bed, spread, CALIBRATION, remaining=np.full(bed.shape, 0.25))
    np.testing.assert_allclose(half, found / 2, rtol=1e-6)


def test_relief_minds_only_known_cells_within_reach() -> None:
    bed = np.random.default_rng(2).normal(-900, 50, (70, 80))
    bed[20:24, 30:60] = np.nan
    found = relief(bed)
    assert np.isnan(found[21, 40])
    for row, column in ((25, 45), (50, 12), (2, 3)):
        around = bed[max(row - REACH, 0) : row + REACH + 1, max(column - REACH, 0) : column + REACH + 1]
        assert found[row, column] == pytest.approx(np.nanstd(around), rel=1e-6)
    np.testing.assert_allclose(relief(bed[10:50, 5:70])[12:-12, 12:-12], found[22:38, 17:58], rtol=1e-7)


def test_calibration_comes_from_the_model() -> None:
    stored: dict[str, Any] = {"name": "x", "uncertainty": {"somewhere": CALIBRATION.as_dict()}}
    assert Calibration.of_model(stored, "somewhere") == CALIBRATION
    assert Calibration.of_model(stored, "elsewhere").region == "somewhere"
    with pytest.raises(ConfigError, match="deepbedmap calibrate"):
        Calibration.of_model({"name": "x"}, "somewhere")
    with pytest.raises(ConfigError, match="1 to 8"):
        predict_members(Downstream(), {}, 9)
