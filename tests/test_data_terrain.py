"""The bed of an embedded world: prescribed spectra, anisotropic bedforms, a bed that stays under the ice."""

from __future__ import annotations

import numpy as np
import pytest

from deepbedmap_tf.data.patches import filter_in_patches, partition
from deepbedmap_tf.data.terrain import bedforms, landscape, limit_bed, random_stream, relief, von_karman
from deepbedmap_tf.data.world_parameters import WorldParameters
from deepbedmap_tf.grid import Grid


@pytest.mark.parametrize("hurst", [0.5, 0.85])
def test_spectrum_has_the_prescribed_slope(hurst: float) -> None:
    n, spacing, length = 512, 250.0, 6000.0
    field = von_karman((n, n), spacing, length, hurst, np.random.default_rng(1))
    window = np.hanning(n)[:, None] * np.hanning(n)
    power = np.abs(np.fft.fft2(field * window)) ** 2
    k = 2 * np.pi * np.hypot(*np.meshgrid(np.fft.fftfreq(n, spacing), np.fft.fftfreq(n, spacing)))
    used = (k > 8 / length) & (k < 0.6 * np.pi / spacing)
    slope = np.polyfit(np.log(k[used]), np.log(power[used]), 1)[0]
    # Far above the corner wavenumber 1 / length the density falls as k**(-2 (hurst + 1)).
    assert slope == pytest.approx(-2 * (hurst + 1), abs=0.08)


def test_relief_has_the_prescribed_height() -> None:
    sizes = [von_karman((400, 300), 250.0, 3000.0, 0.8, np.random.default_rng(seed)).std() for seed in range(6)]
    assert np.mean(sizes) == pytest.approx(1.0, abs=0.05)


def test_roughness_passes_from_lowland_to_highland() -> None:
    grid = Grid.from_bounds((0, 0, 100_000, 100_000), 250)
    upland = np.broadcast_to((np.arange(400) > 200).astype(float), grid.shape)
    parameters = WorldParameters(bed_rms=50, highland_rms=200, correlation_length=2000)
    bed = relief(grid, upland, parameters)
    assert bed[:, :200].std() == pytest.approx(50, rel=0.15) and bed[:, 200:].std() == pytest.approx(200, rel=0.15)


@pytest.mark.parametrize("azimuth", [0.0, 50.0, 120.0])
def test_bedforms_run_along_the_flow(azimuth: float) -> None:
    grid = Grid.from_bounds((0, 0, 50_000, 50_000), 250)
    angle = np.deg2rad(azimuth)
    direction = (np.full(grid.shape, np.cos(angle)), np.full(grid.shape, np.sin(angle)))
    field = bedforms(grid, direction, np.ones(grid.shape), WorldParameters(bedform_rms=20))
    assert field.std() == pytest.approx(20, rel=0.2)
    down, across = np.gradient(field, 250.0)
    slope_x, slope_y = across, -down
    along = slope_x * np.cos(angle) + slope_y * np.sin(angle)
    aside = slope_y * np.cos(angle) - slope_x * np.sin(angle)
    assert aside.std() > 5 * along.std()


def test_landscape_has_a_retrograde_trough() -> None:
    parameters = WorldParameters(highland_height=0.0, trough_meander=0.0)
    grid = Grid.from_bounds(parameters.bounds, 2000)
    shape = landscape(grid, parameters)
    axis = shape.bed[grid.shape[0] // 2]
    inland = round(parameters.retrograde_length / 2000)
    assert axis[inland] < axis[0] - 0.8 * parameters.bed_retrograde
    assert shape.bed[grid.shape[0] // 2, 5] < shape.bed[0, 5] - 0.7 * parameters.trough_depth
    assert shape.trough.min() >= 0 and shape.trough.max() <= 1


def test_limited_bed_stays_below_its_ceiling() -> None:
    bed = np.linspace(-1000, 1000, 101)
    limited = limit_bed(bed, np.full(101, 200.0))
    assert (limited < 200).all() or limited.max() == pytest.approx(200)
    np.testing.assert_array_equal(limited[bed < 100], bed[bed < 100])
    assert (np.diff(limited) >= 0).all()


def test_streams_depend_on_seed_and_name_only() -> None:
    first, again = random_stream(3, "bed").random(4), random_stream(3, "bed").random(4)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, random_stream(3, "ice").random(4))
    assert not np.allclose(first, random_stream(4, "bed").random(4))


@pytest.mark.parametrize(("shape", "step"), [((50, 70), 16), ((33, 5), 8)])
def test_patches_add_up_to_one(shape: tuple[int, int], step: int) -> None:
    total = np.zeros(shape)
    for patch, _ in partition(shape, step):
        total[patch.core] += patch.weight
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_patches_know_north_from_south() -> None:
    """A response that shifts everywhere by 2 km east and 1 km north moves a bump there."""
    y, x = np.meshgrid(np.arange(120), np.arange(120), indexing="ij")
    bump = np.exp(-((x - 60) ** 2 + (y - 60) ** 2) / 18.0)
    (moved,) = filter_in_patches(bump, 500.0, 24, 24, lambda patch, kx, ky: [np.exp(-1j * (kx * 2000.0 + ky * 1000.0))])
    # Four cells east; two cells north, that is to a smaller row.
    assert np.unravel_index(moved.argmax(), moved.shape) == (58, 64)
