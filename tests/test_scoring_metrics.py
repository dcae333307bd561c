"""Point-by-point scores against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deepbedmap_tf.scoring import metrics

NAN = float("nan")
heights = arrays(np.float64, (4, 5), elements=st.floats(-3000, 3000))


def test_errors_by_hand() -> None:
    prediction, truth = [3.0, -1.0, 5.0, NAN], [0.0, 3.0, NAN, 7.0]
    assert metrics.rmse(prediction, truth) == pytest.approx(np.sqrt((9 + 16) / 2), abs=1e-12)
    assert metrics.mae(prediction, truth) == pytest.approx(3.5, abs=1e-12)
    assert metrics.bias(prediction, truth) == pytest.approx(-0.5, abs=1e-12)


def test_weights_by_hand() -> None:
    prediction, truth, weights = [3.0, 4.0, 100.0], [0.0, 0.0, 0.0], [3.0, 1.0, 0.0]
    assert metrics.rmse(prediction, truth, weights) == pytest.approx(np.sqrt((3 * 9 + 16) / 4), abs=1e-12)
    assert metrics.mae(prediction, truth, weights) == pytest.approx(13 / 4, abs=1e-12)


def test_nothing_to_score_is_nan_not_zero() -> None:
    for compute in (metrics.rmse, metrics.mae, metrics.bias, metrics.psnr):
        assert np.isnan(compute([NAN, 1.0], [2.0, NAN]))


def test_float32_at_depth_is_computed_in_float64() -> None:
    truth = np.full((300, 300), -1500.0, np.float32)
    prediction = truth + np.float32(0.25)
    assert metrics.rmse(prediction, truth) == 0.25


def test_other_shapes_and_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        metrics.rmse([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="weight"):
        metrics.rmse([1.0], [1.0], [-1.0])


@given(heights, heights)
def test_rmse_joins_bias_and_spread(prediction: np.ndarray, truth: np.ndarray) -> None:
    error = metrics.rmse(prediction, truth)
    spread = float(np.std(prediction - truth))
    assert error**2 == pytest.approx(metrics.bias(prediction, truth) ** 2 + spread**2, rel=1e-9, abs=1e-9)
    assert error >= metrics.mae(prediction, truth) - 1e-9


def test_skill_is_the_share_of_the_baselines_rmse_saved() -> None:
    truth, baseline, prediction = np.zeros(4), np.full(4, 10.0), np.full(4, -7.0)
    assert metrics.skill(prediction, truth, baseline) == pytest.approx(0.3, abs=1e-12)
    assert metrics.skill(baseline, truth, baseline) == 0.0
    assert metrics.skill(truth, truth, baseline) == 1.0


def test_skill_scores_both_on_the_same_places() -> None:
    truth, baseline = np.zeros(3), np.array([10.0, 10.0, 500.0])
    assert metrics.skill(np.array([5.0, 5.0, NAN]), truth, baseline) == pytest.approx(0.5, abs=1e-12)


def test_psnr_by_hand() -> None:
    truth = np.array([0.0, 1000.0])
    # 20 log10(1000 / 10) = 40 dB; a given range replaces that of the truth.
    assert metrics.psnr(truth + 10, truth) == pytest.approx(40.0, abs=1e-9)
    assert metrics.psnr(truth + 10, truth, value_range=100) == pytest.approx(20.0, abs=1e-9)
    assert metrics.psnr(truth, truth) == float("inf")


def test_ssim_of_equal_beds_is_one_and_is_stable_at_depth() -> None:
    bed = np.random.default_rng(0).normal(size=(40, 40)) * 30
    noisy = bed + np.random.default_rng(1).normal(size=bed.shape) * 10
    assert metrics.ssim(bed, bed) == pytest.approx(1.0, abs=1e-12)
    assert metrics.ssim(noisy - 1500, bed - 1500) == pytest.approx(metrics.ssim(noisy, bed), abs=1e-9)
    assert 0.5 < metrics.ssim(noisy, bed) < 0.99


def test_ssim_of_one_window_by_its_formula() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.normal(size=(2, 9, 9)) * 50 - 700
    signal = np.ptp(second)
    c1, c2 = (0.01 * signal) ** 2, (0.03 * signal) ** 2
    # The heights that enter the luminance term are taken relative to the mean of the truth.
    m1, m2 = first.mean() - second.mean(), 0.0
    covariance = np.mean((first - first.mean()) * (second - second.mean()))
    expected = (2 * m1 * m2 + c1) * (2 * covariance + c2) / ((m1**2 + c1) * (first.var() + second.var() + c2))
    assert metrics.ssim(first, second) == pytest.approx(expected, abs=1e-9)


def test_ssim_leaves_windows_with_gaps_out() -> None:
    bed = np.random.default_rng(3).normal(size=(20, 20))
    holed = bed.copy()
    holed[10, 10] = np.nan
    assert metrics.ssim(holed, bed) == pytest.approx(1.0, abs=1e-9)
    assert np.isnan(metrics.ssim(np.full((9, 9), np.nan), bed[:9, :9]))
