"""An error that is drawn from known numbers is found again, and covered on cells that were not fitted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from data_files import region_content, write_region

from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.calibration import calibration_cells, check, correlation_range, fit
from deepbedmap_tf.inference.pick_index import PickIndex
from deepbedmap_tf.inference.realisations import relief, texture

GRID = Grid.from_bounds((0, 0, 60e3, 50e3), 250)
ABOUT = {"symmetries": 8, "region": "somewhere", "resolution": 250.0}


@pytest.fixture(scope="module")
def truth() -> tuple[np.ndarray, np.ndarray, PickIndex]:
    """Mean bed and spread of known worth, and a dense survey of what they are wrong about."""
    generator = np.random.default_rng(0)
    gain = np.linspace(10, 150, GRID.shape[1])
    mean = (gain * texture(GRID, GRID, 0, 1, 4000.0)).astype(np.float32)
    spread = np.abs(generator.normal(10, 4, GRID.shape)).astype(np.float32)
    sigma = np.sqrt(15**2 + (1.5 * spread) ** 2 + (0.4 * relief(mean)) ** 2)
    bed = mean + sigma * texture(GRID, GRID, 1, 1, 2500.0)
    row, column = np.nonzero(generator.random(GRID.shape) < 0.4)
    measured = bed[row, column] + 10 * generator.normal(size=row.size)
    picks = pd.DataFrame({"x": GRID.x[column], "y": GRID.y[row], "bed": measured, "thickness": 1000.0})
    return mean, spread, PickIndex.of_picks(picks, GRID)


def test_known_numbers_are_found(truth: tuple[np.ndarray, np.ndarray, PickIndex]) -> None:
    found = fit(*truth, **ABOUT)
    assert found.floor == pytest.approx(15, rel=0.25)
    assert found.spread == pytest.approx(1.5, rel=0.25)
    assert found.relief == pytest.approx(0.4, rel=0.1)
    assert found.range == pytest.approx(2500, rel=0.15)
    assert found.factor_50 == pytest.approx(0.674, abs=0.05)
    assert found.factor_90 == pytest.approx(1.645, abs=0.08)


def test_other_blocks_are_covered(truth: tuple[np.ndarray, np.ndarray, PickIndex]) -> None:
    mean, spread, picks = truth
    west = picks.column < GRID.shape[1] // 2
    covered = check(mean, spread, picks.take(~west), fit(mean, spread, picks.take(picks.row % 50 < 25), **ABOUT))
    assert covered["coverage_50"] == pytest.approx(0.5, abs=0.04)
    assert covered["coverage_90"] == pytest.approx(0.9, abs=0.03)


def test_range_of_errors_with_noise_on_them() -> None:
    error = texture(GRID, GRID, 2, 5, 3000.0) + 0.7 * np.random.default_rng(1).normal(size=GRID.shape)
    # The kernel of the texture ends at its range, which costs some of it.
    assert correlation_range(error) == pytest.approx(12, rel=0.2)
    with pytest.raises(DataError, match="too few"):
        correlation_range(np.full((5, 5), np.nan))


def test_cells_held_out_for_testing_calibrate_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("region")
    content = region_content(folder, cells=24)
    xmin, _, _, ymax = content["bounds"]
    box = [xmin, ymax - 8000, xmin + 4000, ymax]
    region = load_region(write_region(folder, {**content, "holdout": {"test": [box]}}), folder)
    free = calibration_cells({}, region)
    np.testing.assert_array_equal(free, ~region.held_out)
    assert 0 < region.held_out.sum() < free.size
