"""The spectral slope finds the exponent that a line or map was made with."""

from __future__ import annotations

import numpy as np
import pytest

from deepbedmap_tf.scoring.spectrum import spectral_slope, spectral_slope_along


def _line(exponent: float, size: int, seed: int) -> np.ndarray:
    """Cut a line out of one four times as long with power ~ wavenumber ** exponent and random phases."""
    generator = np.random.default_rng(seed)
    wavenumber = np.fft.rfftfreq(4 * size)
    amplitude = np.zeros(wavenumber.size, complex)
    phase = np.exp(2j * np.pi * generator.random(wavenumber.size - 1))
    amplitude[1:] = wavenumber[1:] ** (exponent / 2) * phase
    return np.fft.irfft(amplitude, 4 * size)[size : 2 * size] * 1e3


def _map(exponent: float, size: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    wavenumber = np.hypot(np.fft.fftfreq(2 * size)[:, None], np.fft.rfftfreq(2 * size)[None, :])
    wavenumber[0, 0] = 1
    amplitude = np.fft.rfft2(generator.normal(size=(2 * size, 2 * size))) * wavenumber ** (exponent / 2)
    amplitude[0, 0] = 0
    return np.fft.irfft2(amplitude)[:size, :size]


@pytest.mark.parametrize("exponent", [0.0, -1.0, -2.0, -3.0, -4.0])
def test_line_of_known_exponent(exponent: float) -> None:
    found = [spectral_slope_along(_line(exponent, 1024, seed), np.arange(1024) * 250.0, 250.0) for seed in range(8)]
    assert np.mean(found) == pytest.approx(exponent, abs=0.12)


def test_uneven_samples_gaps_and_offsets_matter_little() -> None:
    line = _line(-2.0, 4096, 3)
    position = np.arange(4096) * 50.0
    generator = np.random.default_rng(0)
    kept = (generator.random(4096) < 0.8) & ~((position > 80e3) & (position < 95e3))
    trend = -900 + 0.01 * position
    found = spectral_slope_along((line + trend)[kept], position[kept], 250.0)
    assert found == pytest.approx(spectral_slope_along(line, position, 250.0), abs=0.4)


def test_order_of_samples_does_not_matter() -> None:
    line, position = _line(-2.0, 512, 1), np.arange(512) * 250.0
    order = np.random.default_rng(1).permutation(512)
    assert spectral_slope_along(line[order], position[order], 250.0) == spectral_slope_along(line, position, 250.0)


def test_a_smoothed_bed_is_steeper() -> None:
    line, position = _line(-2.0, 2048, 2), np.arange(2048) * 250.0
    smooth = np.convolve(line, np.ones(5) / 5, mode="same")
    assert spectral_slope_along(smooth, position, 250.0) < spectral_slope_along(line, position, 250.0) - 0.5


def test_too_short_is_nan() -> None:
    assert np.isnan(spectral_slope_along(np.arange(20.0), np.arange(20.0) * 250, 250.0))
    assert np.isnan(spectral_slope_along(np.full(100, np.nan), np.arange(100.0) * 250, 250.0))
    assert np.isnan(spectral_slope(np.zeros((8, 8))))


@pytest.mark.parametrize("exponent", [-2.0, -3.0, -4.0])
def test_map_of_known_exponent(exponent: float) -> None:
    stack = np.stack([_map(exponent, 128, seed) for seed in range(24)]) - 700
    assert spectral_slope(stack, 250.0) == pytest.approx(exponent, abs=0.15)


def test_maps_with_gaps_are_left_out_and_tilt_is_removed() -> None:
    stack = np.stack([_map(-3.0, 64, seed) for seed in range(3)])
    expected = spectral_slope(stack[:2])
    stack[2, 5, 5] = np.nan
    tilt = np.linspace(0, 5, 64)[:, None] * np.ones(64)
    assert spectral_slope(stack + tilt) == pytest.approx(expected, abs=1e-6)
