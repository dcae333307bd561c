"""Is a stated uncertainty right? Shares of the truth inside intervals, and what makes a spread cover as it should."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

FloatArray = NDArray[np.float64]

LEVELS = (0.5, 0.9)
"""Shares that the intervals in tables and metadata should hold."""


def gaussian_factor(level: float) -> float:
    """Half width, in standard deviations, of the central interval of a Gaussian that holds a share.

    Examples
    --------
    >>> round(gaussian_factor(0.9), 3)
    1.645
    """
    return NormalDist().inv_cdf((1 + level) / 2)


def coverage(
    prediction: ArrayLike,
    truth: ArrayLike,
    sigma: ArrayLike,
    level: float,
    *,
    factor: float | None = None,
    truth_error: ArrayLike = 0.0,
) -> float:
    """Share of the truth within the interval around a prediction that should hold `level` of it.

    Parameters
    ----------
    prediction, truth, sigma
        Same shape, m; cells that are NaN in any of them don't count.
    level
        Between 0 and 1.
    factor
        Half width of the interval in sigma; that of a Gaussian by default.
    truth_error
        Standard error of the truth, m: the interval is one for what was measured.

    Returns
    -------
    float
        NaN where nothing counts.
    """
    error, width = _scaled(prediction, truth, sigma, truth_error)
    if not error.size:
        return float("nan")
    return float(np.mean(np.abs(error) <= width * (gaussian_factor(level) if factor is None else factor)))


def member_coverage(members: ArrayLike, truth: ArrayLike, level: float) -> float:
    """Share of the truth between the central quantiles of an ensemble, shape (members, ...)."""
    ensemble, observed = np.asarray(members, np.float64), np.asarray(truth, np.float64)
    counted = np.isfinite(observed) & np.isfinite(ensemble).all(axis=0)
    if not counted.any():
        return float("nan")
    low, high = np.quantile(ensemble[:, counted], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return float(np.mean((observed[counted] >= low) & (observed[counted] <= high)))


def interval_factors(
    prediction: ArrayLike,
    truth: ArrayLike,
    sigma: ArrayLike,
    levels: Sequence[float] = LEVELS,
    truth_error: ArrayLike = 0.0,
) -> dict[float, float]:
    """Half widths, in sigma, with which the intervals hold just the shares that they should.

    Those of a Gaussian are 0.67 and 1.64 for 50 and 90 %. Errors with heavy tails need less for the first and about
    as much for the second.
    """
    error, width = _scaled(prediction, truth, sigma, truth_error)
    if not error.size:
        return {level: float("nan") for level in levels}
    ratio = np.abs(error) / width
    return {level: float(np.quantile(ratio, level)) for level in levels}


def fit_variance(
    error: ArrayLike, predictors: Sequence[ArrayLike], truth_error: ArrayLike = 0.0, rounds: int = 10
) -> FloatArray:
    """Fit error^2 = c0^2 + (c1 p1)^2 + (c2 p2)^2 + ... + truth_error^2 with no negative term.

    Weighted least squares of the squares, each weighted by the inverse variance of a Gaussian's square around what the
    last round predicted, which is what maximum likelihood comes to.

    Parameters
    ----------
    error
        Prediction minus truth, m.
    predictors
        Arrays of the shape of `error`, that grow with its size.
    truth_error
        Standard error of the truth, m, which is none of the prediction's.

    Returns
    -------
    ndarray
        Coefficients c0, c1, c2, ...: the first in m.
    """
    values = np.asarray(error, np.float64)
    noise = np.broadcast_to(np.asarray(truth_error, np.float64), values.shape)
    columns = [np.broadcast_to(np.asarray(each, np.float64), values.shape) for each in predictors]
    counted = np.isfinite(values) & np.isfinite(noise) & np.all([np.isfinite(each) for each in columns], axis=0)
    if counted.sum() <= len(columns) + 1:
        raise ValueError(f"{counted.sum()} errors to fit {len(columns) + 1} coefficients to; expected more")
    design = np.stack([np.ones(int(counted.sum())), *(each[counted] ** 2 for each in columns)], axis=-1)
    squares, known = values[counted] ** 2, noise[counted] ** 2
    # Columns of one size, or the least squares see one of them alone.
    scale = np.maximum(design.mean(axis=0), 1e-12)
    variance = np.full(squares.shape, squares.mean())
    solution = np.zeros(design.shape[1])
    for _ in range(rounds):
        solution, _ = nnls(design / scale / variance[:, np.newaxis], (squares - known) / variance)
        variance = np.maximum(design @ (solution / scale) + known, 1e-3 * squares.mean())
    return np.asarray(np.sqrt(solution / scale), np.float64)


def _scaled(
    prediction: ArrayLike, truth: ArrayLike, sigma: ArrayLike, truth_error: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Errors that count and the standard deviation of each."""
    error = np.asarray(prediction, np.float64) - np.asarray(truth, np.float64)
    width = np.broadcast_to(np.hypot(np.asarray(sigma, np.float64), np.asarray(truth_error, np.float64)), error.shape)
    counted = np.isfinite(error) & np.isfinite(width)
    return error[counted], width[counted]
