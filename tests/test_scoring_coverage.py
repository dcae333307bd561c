"""Coverage of Gaussians of known width, and spreads fitted to errors of known size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from deepbedmap_tf.scoring.coverage import (
    coverage,
    fit_variance,
    gaussian_factor,
    interval_factors,
    member_coverage,
)

NUMBER = 200_000


@pytest.fixture(scope="module")
def generator() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_gaussians_are_covered_as_their_width_says(level: float, generator: np.random.Generator) -> None:
    sigma = generator.uniform(5, 50, NUMBER)
    truth = generator.normal(0, 1000, NUMBER)
    prediction = truth + sigma * generator.normal(size=NUMBER)
    assert coverage(prediction, truth, sigma, level) == pytest.approx(level, abs=0.005)
    # Half as wide as it should be.
    expected = 2 * norm.cdf(gaussian_factor(level) / 2) - 1
    assert coverage(prediction, truth, sigma / 2, level) == pytest.approx(expected, abs=0.005)
    assert interval_factors(prediction, truth, sigma)[level] == pytest.approx(gaussian_factor(level), rel=0.02)


def test_error_of_the_radar_widens_the_interval(generator: np.random.Generator) -> None:
    truth = np.zeros(NUMBER)
    measured = generator.normal(0, 12, NUMBER)
    prediction = generator.normal(0, 9, NUMBER)
    assert coverage(prediction, measured, np.full(NUMBER, 9.0), 0.9, truth_error=12.0) == pytest.approx(0.9, abs=0.005)
    assert coverage(prediction, truth, np.full(NUMBER, 9.0), 0.9) == pytest.approx(0.9, abs=0.005)


def test_factors_make_any_error_covered(generator: np.random.Generator) -> None:
    error = generator.laplace(0, 20, NUMBER)
    sigma = np.full(NUMBER, 28.0)
    factors = interval_factors(error, np.zeros(NUMBER), sigma)
    assert factors[0.5] * 28 == pytest.approx(20 * np.log(2), rel=0.02)
    assert coverage(error, np.zeros(NUMBER), sigma, 0.9, factor=factors[0.9]) == pytest.approx(0.9, abs=1e-4)


def test_cells_without_a_value_do_not_count() -> None:
    prediction, truth = [0.0, 1.0, 0.0, np.nan], [0.0, np.nan, 5.0, 0.0]
    assert coverage(prediction, truth, 1.0, 0.5) == 0.5
    assert np.isnan(coverage([np.nan], [1.0], [1.0], 0.5))
    assert np.isnan(member_coverage([[np.nan]], [1.0], 0.5))


def test_members_of_the_right_spread_cover(generator: np.random.Generator) -> None:
    members = generator.normal(size=(99, 4000))
    assert member_coverage(members, generator.normal(size=4000), 0.9) == pytest.approx(0.9, abs=0.025)
    assert member_coverage(members, generator.normal(size=4000) * 2, 0.9) == pytest.approx(
        2 * norm.cdf(gaussian_factor(0.9) / 2) - 1, abs=0.03
    )


def test_variance_of_known_parts_is_found(generator: np.random.Generator) -> None:
    relief, spread = generator.gamma(2, 20, NUMBER), generator.gamma(3, 5, NUMBER)
    sigma = np.sqrt(15**2 + (0.4 * relief) ** 2 + (1.5 * spread) ** 2)
    error = sigma * generator.normal(size=NUMBER) + 10 * generator.normal(size=NUMBER)
    error[:10] = np.nan
    found = fit_variance(error, [relief, spread], 10.0)
    np.testing.assert_allclose(found, [15, 0.4, 1.5], rtol=0.05)


def test_a_predictor_that_tells_nothing_gets_nothing(generator: np.random.Generator) -> None:
    error = generator.normal(0, 30, NUMBER)
    found = fit_variance(error, [generator.gamma(2, 20, NUMBER)])
    assert found[0] == pytest.approx(30, rel=0.03)
    assert found[1] < 0.1
    with pytest.raises(ValueError, match="expected more"):
        fit_variance([1.0], [[1.0]])
