"""What instruments and weather add to an embedded world: DEM and velocity errors, dunes, crevasses, geoids, firn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.data.terrain import random_stream, von_karman
from deepbedmap_tf.data.world_parameters import WorldParameters
from deepbedmap_tf.grid import Grid

Real = NDArray[np.float64]


class Reference(NamedTuple):
    """Slowly varying layers that turn heights of one product into those of another.

    Attributes
    ----------
    geoid_gl04c, geoid_6c4
        Height of the two geoids above the WGS84 ellipsoid, m.
    firn
        Firn air content, m of air: snow surface minus ice-equivalent surface.
    """

    geoid_gl04c: Real
    geoid_6c4: Real
    firn: Real


def reference_layers(grid: Grid, parameters: WorldParameters) -> Reference:
    """Make geoids near -28 m, half a metre apart, and firn with some 15 to 22 m of air."""
    random = random_stream(parameters.seed, "reference layers")
    first, second, third = (von_karman(grid.shape, grid.resolution, 80_000.0, 2.0, random) for _ in range(3))
    xmin, _, xmax, _ = parameters.bounds
    inland = ((grid.x - xmin) / (xmax - xmin))[None, :]
    geoid = -28.0 + 3.0 * inland + 1.5 * first
    return Reference(geoid, geoid + 0.3 + 0.4 * second, 17.0 + 3.0 * np.clip(inland, 0, 1) + 0.8 * third)


def correlated_noise(
    shape: tuple[int, int], spacing: float, length: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Gaussian noise of unit variance whose correlation falls to 1/e at `length` metres."""
    sigma = length / spacing / 2
    noise = random.standard_normal(shape, dtype=np.float32)
    if sigma < 0.2:
        return noise
    smooth = gaussian_filter(noise, sigma, mode="reflect", truncate=3)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def surface_texture(grid: Grid, speed: Real, parameters: WorldParameters) -> NDArray[np.float32]:
    """Surface features that the bed does not cause, and the DEM's error.

    Dunes, 2 to 4 km apart and long across the wind, where ice is slow; crevasse-like undulations of 300 to 900 m
    across the flow where it is fast; noise correlated over hundreds of metres everywhere.

    Parameters
    ----------
    grid
        Grid of the surface model, 100 m.
    speed
        Large-scale surface speed on `grid`, m yr-1.
    parameters
        Their heights.

    Returns
    -------
    ndarray
        m, float32.
    """
    p = parameters
    random = random_stream(p.seed, "surface texture")
    total = p.surface_noise * correlated_noise(grid.shape, grid.resolution, p.surface_noise_length, random)
    slow = (1 / (1 + (speed / 40.0) ** 2)).astype(np.float32)
    wind = random.uniform(0, np.pi)
    for height, weight, band, azimuth, spread in (
        (p.dune_height, slow, (2000.0, 4000.0), wind, 0.35),
        (p.crevasse_height, 1 - slow, (300.0, 900.0), 0.0, 0.6),
    ):
        if height > 0:
            noise = _banded_noise(grid.shape, grid.resolution, band, azimuth, spread, random)
            total += np.float32(height) * weight * noise
    return np.asarray(total, dtype=np.float32)


def velocity_error(grid: Grid, parameters: WorldParameters) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Error of both velocity components, m yr-1, correlated over 700 m."""
    random = random_stream(parameters.seed, "velocity error")
    first, second = (correlated_noise(grid.shape, grid.resolution, 700.0, random) for _ in range(2))
    return parameters.velocity_noise * first, parameters.velocity_noise * second


def _banded_noise(
    shape: tuple[int, int],
    spacing: float,
    band: tuple[float, float],
    azimuth: float,
    spread: float,
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Noise of unit variance with wavelengths in a band, their wave vectors within `spread` radians of an azimuth."""
    full = tuple(fft.next_fast_len(n, real=True) for n in shape)
    kx = fft.rfftfreq(full[1], spacing).astype(np.float32)[None, :]
    ky = -fft.fftfreq(full[0], spacing).astype(np.float32)[:, None]
    k = np.hypot(kx, ky)
    k[0, 0] = 1e-9
    log_band = np.log(band[1] / band[0]) / 2
    amplitude = np.exp(-((np.log(k * np.sqrt(band[0] * band[1])) / log_band) ** 2) / 2)
    aligned = (kx * np.cos(azimuth) + ky * np.sin(azimuth)) / k
    amplitude *= np.exp(-(1 - aligned**2) / (2 * spread**2))
    spectrum = fft.rfft2(random.standard_normal(full, dtype=np.float32), workers=2) * amplitude
    noise = fft.irfft2(spectrum, s=full, workers=2)[: shape[0], : shape[1]]
    return np.asarray(noise / noise.std(), dtype=np.float32)
