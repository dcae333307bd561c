"""The bed of an embedded world: a large-scale trough and uplands, von Karman relief and flow-aligned bedforms."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.data.patches import Patch, filter_in_patches
from deepbedmap_tf.data.world_parameters import WorldParameters
from deepbedmap_tf.grid import Grid

Real = NDArray[np.float64]


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Independent stream of random numbers for one named part of a world.

    A new part then changes no other one.
    """
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def von_karman(
    shape: tuple[int, int], spacing: float, length: float, hurst: float, random: np.random.Generator
) -> Real:
    """Gaussian random field of unit variance with a von Karman (self-affine) spectrum.

    The power spectral density is proportional to ``(1 + (k length)**2)**-(hurst + 1)``: flat at wavelengths above
    ``2 pi length``, falling as ``k**(-2 (hurst + 1))`` below.

    Parameters
    ----------
    shape
        Rows and columns.
    spacing
        Cell size, m.
    length
        Correlation length, m.
    hurst
        Hurst exponent.
    random
        Source of the white noise that is filtered.

    Returns
    -------
    ndarray of shape `shape`
        With expected mean 0 and variance 1. The field is periodic over a larger area that `shape` is cut from.
    """
    full = tuple(fft.next_fast_len(n + int(4 * length / spacing), real=True) for n in shape)
    kx = 2 * np.pi * fft.rfftfreq(full[1], spacing)
    ky = 2 * np.pi * fft.fftfreq(full[0], spacing)
    amplitude = (1 + length**2 * (kx[None, :] ** 2 + ky[:, None] ** 2)) ** (-(hurst + 1) / 2)
    amplitude[0, 0] = 0.0
    # Columns of a half spectrum stand for two waves each, but the first (and the last of an even length).
    twice = np.full(amplitude.shape[1], 2.0)
    twice[0] = 1.0
    if full[1] % 2 == 0:
        twice[-1] = 1.0
    amplitude /= np.sqrt((twice * amplitude**2).sum() / (full[0] * full[1]))
    field = fft.irfft2(fft.rfft2(random.standard_normal(full), workers=2) * amplitude, s=full, workers=2)
    return np.ascontiguousarray(field[: shape[0], : shape[1]])


class Landscape(NamedTuple):
    """Large-scale shape of a world.

    Attributes
    ----------
    bed
        Smooth bed, m above the ellipsoid.
    trough
        0 outside the troughs to 1 on their axes.
    upland
        0 in the lowland to 1 in the highland.
    """

    bed: Real
    trough: Real
    upland: Real


def landscape(grid: Grid, parameters: WorldParameters) -> Landscape:
    """Lay out the trunk's trough with two tributaries, the retrograde slope and the uplands.

    Ice comes from high x. The trunk keeps to the middle of the sector; tributaries join it from both sides.
    """
    p = parameters
    xmin, ymin, xmax, ymax = p.bounds
    x, y = np.meshgrid(grid.x, grid.y)
    inland = x - xmin
    length, width = xmax - xmin, ymax - ymin
    random = random_stream(p.seed, "landscape")
    phase, side = random.uniform(0, 2 * np.pi, 3), random.choice([-1, 1])
    bend = p.trough_meander
    axis = (ymin + ymax) / 2 + bend * np.sin(2 * np.pi * inland / 220_000 + phase[0])
    axis = axis + 0.4 * bend * np.sin(2 * np.pi * inland / 90_000 + phase[1])
    main = _cross_section(y - axis, p.trough_width, p.trough_steepness)
    trough = main
    for sign, start in ((side, 0.3), (-side, 0.5)):
        distance = np.maximum(inland - start * length, 0.0)
        # A tributary leaves the trunk at half a right angle and then runs along it; downstream of it there is none.
        offset = sign * 0.3 * width * np.tanh(distance / (0.35 * width))
        branch = _cross_section(y - axis - offset, 0.6 * p.trough_width, p.trough_steepness)
        trough = np.maximum(trough, 0.6 * branch * np.clip(distance / (0.1 * length), 0, 1))
    cells = max(3000.0, p.trough_width / 8) / grid.resolution
    trough = gaussian_filter(trough, cells, mode="nearest")

    hills = von_karman((len(grid.y), len(grid.x)), grid.resolution, 30_000.0, 1.2, random)
    hills = gaussian_filter(hills, 5_000 / grid.resolution, mode="nearest")
    hills = hills - 3.0 * (main - 0.5)
    threshold = np.quantile(hills, 1 - p.highland_fraction) if 0 < p.highland_fraction < 1 else -np.inf
    upland = 1 / (1 + np.exp(-(hills - threshold) / 0.4)) if p.highland_fraction > 0 else np.zeros_like(hills)

    deepest = p.bed_coast - p.bed_retrograde
    rise = np.clip((inland - p.retrograde_length) / max(length - p.retrograde_length, 1.0), 0, 1.3)
    profile = np.where(
        inland < p.retrograde_length,
        p.bed_coast - p.bed_retrograde * np.sin(np.pi / 2 * np.clip(inland / p.retrograde_length, -0.5, 1)) ** 2,
        deepest + p.bed_inland_rise * rise**1.5,
    )
    bed = profile + p.highland_height * upland - p.trough_depth * trough
    return Landscape(gaussian_filter(bed, 2000 / grid.resolution, mode="nearest"), trough, upland)


def relief(grid: Grid, upland: Real, parameters: WorldParameters) -> Real:
    """Von Karman relief that passes smoothly from the lowland's to the highland's spectrum.

    Parameters
    ----------
    grid
        Where it is wanted.
    upland
        Weight of the highland, 0 to 1, on `grid`.
    parameters
        Standard deviations, Hurst exponents and correlation length.
    """
    p = parameters
    result = np.zeros(grid.shape)
    parts = (
        ("lowland", p.bed_rms, p.hurst, np.sqrt(1 - upland)),
        ("highland", p.highland_rms, p.highland_hurst, np.sqrt(upland)),
    )
    for name, rms, hurst, weight in parts:
        if rms > 0:
            field = von_karman(
                grid.shape, grid.resolution, p.correlation_length, hurst, random_stream(p.seed, f"relief {name}")
            )
            result += rms * weight * field
    return result


def bedforms(grid: Grid, direction: tuple[Real, Real], strength: Real, parameters: WorldParameters) -> Real:
    """Ridges along the flow, like drumlins and mega-scale lineations.

    White noise is filtered, window by window in the local direction of flow, to a spectrum that peaks at
    ``bedform_spacing`` across the flow and is narrow along it.

    Parameters
    ----------
    grid
        Where they are wanted.
    direction
        Unit vector of the flow (x and y) on `grid`.
    strength
        0 where there are none to 1 where they have their full height, on `grid`.
    parameters
        Height, spacing and length.
    """
    p = parameters
    if p.bedform_rms == 0:
        return np.zeros(grid.shape)
    noise = random_stream(p.seed, "bedforms").standard_normal(grid.shape)
    peak = 2 * np.pi / p.bedform_spacing
    step = max(4, round(12_000 / grid.resolution))

    def response(patch: Patch, kx: Real, ky: Real) -> list[NDArray[np.complex128]]:
        along, across = _flow_frame(direction, patch.centre, kx, ky)
        detuning = (np.abs(across) - peak) / (0.4 * peak)
        shape = np.exp(-((along * p.bedform_length) ** 2) / 2 - detuning**2)
        # All columns of the half spectrum but the first stand for two waves.
        power = (2 * (shape**2).sum() - (shape[:, 0] ** 2).sum()) / shape.shape[0] ** 2
        return [(shape / np.sqrt(power)).astype(complex)]

    (field,) = filter_in_patches(noise, grid.resolution, step, step // 2, response)
    return p.bedform_rms * strength * field


def limit_bed(bed: Real, ceiling: Real, softness: float = 60.0) -> Real:
    """Bend a bed smoothly so that it stays below a ceiling; far below it nothing changes.

    Parameters
    ----------
    bed, ceiling
        Heights, m.
    softness
        Depth below the ceiling over which the bed bends, m.
    """
    excess = bed - (ceiling - softness)
    return np.where(excess > 0, ceiling - softness + softness * np.tanh(np.maximum(excess, 0) / softness), bed)


def _cross_section(distance: Real, width: float, steepness: float) -> Real:
    return np.asarray(np.exp(-(np.abs(distance / width) ** steepness)))


def _flow_frame(direction: tuple[Real, Real], centre: tuple[int, int], kx: Real, ky: Real) -> tuple[Real, Real]:
    dx, dy = direction[0][centre], direction[1][centre]
    return kx * dx + ky * dy, ky * dx - kx * dy
