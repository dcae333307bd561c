"""How a bed's variance falls off with wavelength: the slope of its power spectrum in log-log.

A natural bed has a red spectrum, power ~ wavenumber ** slope with a slope near -2 along a line (near -3 for the
density of a map's isotropic spectrum, one dimension more). Too steep a slope is a bed that is too smooth.

The estimator: remove the plane (or line), taper with a Hann window, take the periodogram, average it in bins that
are even in the logarithm of wavenumber, and fit a straight line to the logarithms of the bins by least squares, all
bins alike. The taper keeps leakage from the large relief below slopes of about -5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

BINS_PER_OCTAVE = 3


def spectral_slope(bed: ArrayLike, spacing: float = 1.0, wavelengths: tuple[float, float] | None = None) -> float:
    """Slope of the isotropic power spectral density of one map or a stack of maps.

    Parameters
    ----------
    bed
        Shape (..., rows, columns), m. Maps with a NaN are left out of a stack.
    spacing
        Cell size, m.
    wavelengths
        Shortest and longest wavelength of the fit, in the units of `spacing`. By default from 4 cells to a
        quarter of the shorter side: the taper blurs what is longer.

    Returns
    -------
    float
        Exponent n of power ~ wavenumber ** n (negative for a natural bed); NaN where no map is complete or the
        range holds fewer than 3 bins.
    """
    maps = np.asarray(bed, dtype=np.float64)
    rows, columns = maps.shape[-2:]
    maps = maps.reshape(-1, rows, columns)
    maps = maps[np.isfinite(maps).all(axis=(1, 2))]
    if not maps.size:
        return float("nan")
    y, x = (np.linspace(-1, 1, size) for size in (rows, columns))
    terms = np.stack([np.ones((rows, columns)), np.broadcast_to(y[:, None], (rows, columns)), np.tile(x, (rows, 1))])
    plane = terms.reshape(3, -1).T
    flat = maps.reshape(len(maps), -1).T
    coefficients, *_ = np.linalg.lstsq(plane, flat, rcond=None)
    detrended = (flat - plane @ coefficients).T.reshape(maps.shape)
    taper = np.hanning(rows + 2)[1:-1, None] * np.hanning(columns + 2)[None, 1:-1]
    power = (np.abs(np.fft.rfft2(detrended * taper)) ** 2).mean(axis=0)
    wavenumber = np.hypot(np.fft.fftfreq(rows, spacing)[:, None], np.fft.rfftfreq(columns, spacing)[None, :])
    limits = wavelengths or (4 * spacing, min(rows, columns) * spacing / 4)
    return _slope(wavenumber.ravel(), power.ravel(), limits)


def spectral_slope_along(
    elevation: ArrayLike,
    distance: ArrayLike,
    spacing: float,
    wavelengths: tuple[float, float] | None = None,
    longest_gap: float | None = None,
) -> float:
    """Slope of the power spectral density along a track of uneven samples.

    Parameters
    ----------
    elevation, distance
        Samples and their position along the track, shape (samples,), m.
    spacing
        Length of the bins in which samples are averaged first, m: the cell size of the products compared, so
        that no product is charged with detail below its cells.
    wavelengths
        Shortest and longest wavelength of the fit, m; by default from 4 to 64 bins, and never longer than a
        quarter of the longest stretch, for the taper blurs what is longer.
    longest_gap
        The track is cut at gaps longer than this, m (default 3 bins); shorter ones are bridged by a straight line.

    Returns
    -------
    float
        Exponent n of power ~ wavenumber ** n; NaN where no stretch has 32 bins.
    """
    gap = 3 * spacing if longest_gap is None else longest_gap
    pieces = [piece for piece in _stretches(elevation, distance, spacing, gap) if piece.size >= 32]
    if not pieces:
        return float("nan")
    wavenumbers, powers, weights = [], [], []
    for piece in pieces:
        position = np.linspace(-1, 1, piece.size)
        trend = np.polynomial.polynomial.polyfit(position, piece, 1)
        taper = np.hanning(piece.size + 2)[1:-1]
        transform = np.fft.rfft((piece - np.polynomial.polynomial.polyval(position, trend)) * taper)
        wavenumbers.append(np.fft.rfftfreq(piece.size, spacing))
        powers.append(np.abs(transform) ** 2 / np.sum(taper**2))
        weights.append(np.full(transform.size, piece.size / transform.size))
    longest = max(piece.size for piece in pieces) * spacing / 4
    limits = wavelengths or (4 * spacing, 64 * spacing)
    limits = (limits[0], min(limits[1], longest))
    return _slope(np.concatenate(wavenumbers), np.concatenate(powers), limits, np.concatenate(weights))


def _stretches(elevation: ArrayLike, distance: ArrayLike, spacing: float, gap: float) -> Sequence[FloatArray]:
    values, along = np.asarray(elevation, dtype=np.float64), np.asarray(distance, dtype=np.float64)
    valid = np.isfinite(values) & np.isfinite(along)
    if not valid.any():
        return []
    order = np.argsort(along[valid], kind="stable")
    values, along = values[valid][order], along[valid][order]
    bins = np.floor((along - along[0]) / spacing).astype(np.int64)
    filled, first = np.unique(bins, return_index=True)
    means = np.add.reduceat(values, first) / np.diff([*first, values.size])
    cuts = np.flatnonzero((np.diff(filled) - 1) * spacing > gap) + 1
    return [
        np.interp(np.arange(part[0], part[-1] + 1), part, mean)
        for part, mean in zip(np.split(filled, cuts), np.split(means, cuts), strict=True)
    ]


def _slope(
    wavenumber: FloatArray, power: FloatArray, wavelengths: tuple[float, float], weights: FloatArray | None = None
) -> float:
    shortest, longest = wavelengths
    if not 0 < shortest < longest:
        return float("nan")
    low, high = np.log2(1 / longest), np.log2(1 / shortest)
    edges = np.linspace(low, high, max(round((high - low) * BINS_PER_OCTAVE), 1) + 1)
    weight = np.ones_like(power) if weights is None else weights
    inside = (wavenumber > 0) & (power > 0)
    octave = np.full(wavenumber.shape, -np.inf)
    octave[inside] = np.log2(wavenumber[inside])
    inside &= (octave >= low - 1e-9) & (octave <= high + 1e-9)
    index = np.clip(np.digitize(octave[inside], edges) - 1, 0, edges.size - 2)
    total = np.bincount(index, weight[inside], edges.size - 1)
    used = total > 0
    if used.sum() < 3:
        return float("nan")

    def binned(values: FloatArray) -> FloatArray:
        sums = np.bincount(index, weight[inside] * values[inside], edges.size - 1)
        return np.asarray(sums[used] / total[used])

    return float(np.polyfit(binned(octave), np.log2(binned(power)), 1)[0])
