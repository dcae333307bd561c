"""How far a bed is from the truth: error, skill and structure, over arrays where NaN means "not scored".

Every function takes a prediction and a truth of the same shape, in metres, as numpy arrays or DataArrays, and
computes in float64. A place counts where both are finite and the weight, if any, is positive. Nothing left to
score gives NaN, never 0. Error is always prediction minus truth, so a positive bias is a bed that lies too high.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from deepbedmap_tf.scoring.roughness import mean_roughness, roughness, roughness_ratio, roughness_rmse
from deepbedmap_tf.scoring.spectrum import spectral_slope, spectral_slope_along

__all__ = [
    "METRICS",
    "Metric",
    "bias",
    "mae",
    "mean_roughness",
    "paired",
    "psnr",
    "rmse",
    "roughness",
    "roughness_ratio",
    "roughness_rmse",
    "skill",
    "spectral_slope",
    "spectral_slope_along",
    "ssim",
]

FloatArray = NDArray[np.float64]


def paired(
    prediction: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Flatten to the places that count.

    Parameters
    ----------
    prediction, truth
        Arrays of one shape, m; NaN where there is nothing to score.
    weights
        Non-negative weights that broadcast against them; None weighs all places alike.

    Returns
    -------
    tuple
        Prediction, truth and weights, each of shape (places,), float64.

    Raises
    ------
    ValueError
        When the shapes differ or a weight is negative.
    """
    first, second = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"prediction has shape {first.shape}, truth {second.shape}; expected the same")
    weight = np.ones(first.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = np.broadcast_to(weight, first.shape)
    if np.any(weight < 0):
        raise ValueError(f"a weight is {np.nanmin(weight)}, expected none below 0")
    scored = np.isfinite(first) & np.isfinite(second) & (weight > 0)
    return first[scored], second[scored], weight[scored]


def _mean(values: FloatArray, weights: FloatArray) -> float:
    return float(np.average(values, weights=weights)) if values.size else float("nan")


def rmse(prediction: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Root of the mean squared error, m.

    Examples
    --------
    >>> rmse([1.0, 2.0, float("nan")], [1.0, 4.0, 9.0])
    1.4142135623730951
    """
    first, second, weight = paired(prediction, truth, weights)
    return float(np.sqrt(_mean((first - second) ** 2, weight)))


def mae(prediction: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean absolute error, m."""
    first, second, weight = paired(prediction, truth, weights)
    return _mean(np.abs(first - second), weight)


def bias(prediction: ArrayLike, truth: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean of prediction minus truth, m."""
    first, second, weight = paired(prediction, truth, weights)
    return _mean(first - second, weight)


def skill(prediction: ArrayLike, truth: ArrayLike, baseline: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Share of a baseline's RMSE that the prediction saves: 1 - RMSE / RMSE of the baseline.

    Both are scored on the places where prediction, truth and baseline are all finite. 1 is perfect, 0 no better
    than the baseline, below 0 worse.
    """
    common = np.where(
        np.isfinite(np.asarray(prediction)) & np.isfinite(np.asarray(baseline)),
        np.asarray(truth, dtype=np.float64),
        np.nan,
    )
    reference = rmse(baseline, common, weights)
    return float("nan") if not reference > 0 else 1 - rmse(prediction, common, weights) / reference


def psnr(
    prediction: ArrayLike, truth: ArrayLike, value_range: float | None = None, weights: ArrayLike | None = None
) -> float:
    """Peak signal-to-noise ratio, dB: 20 log10(range / RMSE).

    Parameters
    ----------
    value_range
        Range of the signal, m. None takes that of the truth where it is scored, max - min; so a PSNR says how
        small the error is against the relief that is there.
    """
    first, second, weight = paired(prediction, truth, weights)
    if not second.size:
        return float("nan")
    signal = float(np.ptp(second)) if value_range is None else float(value_range)
    error = float(np.sqrt(_mean((first - second) ** 2, weight)))
    if not signal > 0:
        return float("nan")
    return float("inf") if error == 0 else float(20 * np.log10(signal / error))


def ssim(prediction: ArrayLike, truth: ArrayLike, value_range: float | None = None, window: int = 9) -> float:
    """Mean structural similarity over complete uniform windows (Wang et al. 2004, equation 13).

    Parameters
    ----------
    prediction, truth
        Shape (..., rows, columns), m. A window with a NaN in it isn't scored.
    value_range
        Range L, m, of the constants C1 = (0.01 L)^2 and C2 = (0.03 L)^2; None takes that of the truth.
    window
        Side of the window, cells, odd.

    Notes
    -----
    Heights are taken relative to the truth's mean before anything is squared: at -1500 m the squares of raw
    heights would swamp both the variances and the constants.
    """
    first, second = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    valid = np.isfinite(first) & np.isfinite(second)
    if not valid.any():
        return float("nan")
    centre = second[valid].mean()
    signal = float(np.ptp(second[valid])) if value_range is None else float(value_range)
    c1, c2 = (0.01 * signal) ** 2, (0.03 * signal) ** 2
    first, second = np.where(valid, first - centre, 0.0), np.where(valid, second - centre, 0.0)
    half = window // 2

    def local(values: FloatArray) -> FloatArray:
        averaged = uniform_filter(values, size=window, axes=(-2, -1))
        inner: FloatArray = averaged[..., half : values.shape[-2] - half, half : values.shape[-1] - half]
        return inner

    complete = local(valid.astype(np.float64)) > 1 - 0.5 / window**2
    if not complete.any():
        return float("nan")
    mean_1, mean_2 = local(first), local(second)
    var_1, var_2 = local(first**2) - mean_1**2, local(second**2) - mean_2**2
    covariance = local(first * second) - mean_1 * mean_2
    similarity = ((2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)) / np.maximum(
        (mean_1**2 + mean_2**2 + c1) * (var_1 + var_2 + c2), np.finfo(np.float64).tiny
    )
    return float(similarity[complete].mean())


@dataclass(frozen=True)
class Metric:
    """One column of a table of scores.

    Attributes
    ----------
    name
        Key in ``metrics.json``.
    label, units
        Heading of the column.
    compute
        ``compute(prediction, truth) -> float`` over arrays of one shape.
    """

    name: str
    label: str
    units: str
    compute: Callable[[ArrayLike, ArrayLike], float]


METRICS: tuple[Metric, ...] = (
    Metric("rmse", "RMSE", "m", rmse),
    Metric("mae", "MAE", "m", mae),
    Metric("bias", "bias", "m", bias),
)
"""The point-by-point errors that every evaluation reports; a further one is an entry here."""
