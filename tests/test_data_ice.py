"""The ice of an embedded world: mass balance through gates, plastic profile, and its response to one bump."""

from __future__ import annotations

import numpy as np
import pytest

from deepbedmap_tf.data.ice import (
    GRAVITY,
    ICE_DENSITY,
    Flow,
    balance_flow,
    bed_to_surface,
    gate_flux,
    plastic_surface,
    route_flux,
)
from deepbedmap_tf.data.terrain import landscape
from deepbedmap_tf.data.transfer import stokes_transfer
from deepbedmap_tf.data.world_parameters import WorldParameters
from deepbedmap_tf.grid import Grid


def test_plastic_profile_on_a_flat_bed() -> None:
    """Thickness grows with the square root of twice the distance: H dH/dx = stress / (density gravity)."""
    spacing, stress, start = 500.0, 1e5, 800.0
    bed = np.zeros((5, 200))
    surface = plastic_surface(bed, np.full_like(bed, stress), spacing, np.full(5, start))
    x = np.arange(200) * spacing
    expected = np.sqrt(start**2 + 2 * stress * x / (ICE_DENSITY * GRAVITY))
    np.testing.assert_allclose(surface[2], expected, rtol=5e-3)


def test_routing_loses_nothing() -> None:
    random = np.random.default_rng(0)
    surface = plastic_surface(random.normal(0, 50, (30, 40)), np.full((30, 40), 8e4), 2000.0, np.full(30, 900.0))
    source, inflow = random.uniform(0.2, 1.0, (30, 40)), random.uniform(0, 1e8, 30)
    flux_x, flux_y = route_flux(surface, source.copy(), 2000.0, inflow)
    assert -flux_x[:, 0].sum() * 2000.0 == pytest.approx(source.sum() * 2000.0**2 + inflow.sum(), rel=1e-12)
    divergence = (flux_x[:, 1:] - flux_x[:, :-1] + flux_y[:-1] - flux_y[1:]) / 2000.0
    np.testing.assert_allclose(divergence, source, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def state() -> tuple[Grid, WorldParameters, Flow, np.ndarray, np.ndarray]:
    parameters = WorldParameters(bounds=(-1_500_000.0, -540_000.0, -1_380_000.0, -440_000.0), trough_width=20_000.0)
    grid = Grid.from_bounds((-1_540_000.0, -580_000.0, -1_340_000.0, -400_000.0), 2000.0)
    shape = landscape(grid, parameters)
    return grid, parameters, *balance_flow(grid, shape.bed, shape.trough, parameters)


@pytest.mark.parametrize("box", [(20, 70, 20, 80), (35, 45, 50, 60), (20, 71, 40, 41)])
def test_flux_through_a_gate_is_the_accumulation_upstream(state: tuple, box: tuple[int, int, int, int]) -> None:
    grid, _, flow, flux_x, flux_y = state
    rows, columns = slice(box[0], box[1]), slice(box[2], box[3])
    leaving = gate_flux(flux_x, flux_y, grid.resolution, rows, columns)
    fallen = flow.accumulation[rows, columns].sum() / ICE_DENSITY * grid.resolution**2
    assert leaving == pytest.approx(fallen, rel=1e-6)


def test_velocity_and_thickness_carry_the_accumulation(state: tuple) -> None:
    """The same with what is written to files: mean velocity of the column times thickness, across a wide gate."""
    grid, _, flow, _, _ = state
    mean = flow.speed * (2 / 3 + flow.slip) / (1 + flow.slip) * flow.thickness
    rows, columns = slice(20, 70), slice(25, 75)
    x, y = mean * flow.direction_x, mean * flow.direction_y

    def face(values: np.ndarray, row: slice | int, column: slice | int, step: tuple[int, int]) -> float:
        shifted = np.roll(values, step, axis=(0, 1))
        return float(((values + shifted) / 2)[row, column].sum() * grid.resolution)

    leaving = face(x, rows, 75, (0, 1)) - face(x, rows, 25, (0, 1)) + face(y, 20, columns, (1, 0))
    leaving -= face(y, 70, columns, (1, 0))
    fallen = flow.accumulation[rows, columns].sum() / ICE_DENSITY * grid.resolution**2
    assert leaving == pytest.approx(fallen, rel=0.01)


def test_sliding_varies_with_speed(state: tuple) -> None:
    _, parameters, flow, _, _ = state
    assert flow.slip.min() >= parameters.slip_minimum * 0.999 and flow.slip.max() <= parameters.slip_maximum * 1.001
    fast = flow.speed > np.quantile(flow.speed, 0.9)
    assert np.median(flow.slip[fast]) > 10 * np.median(flow.slip[~fast])


def test_uniform_ice_follows_the_transfer_function() -> None:
    """A plane wave under uniform ice comes out scaled and shifted as the function says, in any direction of flow."""
    grid = Grid.from_bounds((0, 0, 72_000, 72_000), 500)
    angle = np.deg2rad(250.0)
    shape, speed, thickness, slope, slip = grid.shape, 500.0, 2000.0, 0.003, 100.0
    full = {name: np.zeros(shape) for name in Flow._fields} | {
        "thickness": np.full(shape, thickness), "slope": np.full(shape, slope), "slip": np.full(shape, slip),
        "speed": np.full(shape, speed), "direction_x": np.full(shape, np.cos(angle)),
        "direction_y": np.full(shape, np.sin(angle)),
    }  # fmt: skip
    x, y = np.meshgrid(grid.x, grid.y)
    kx, ky = 2 * np.pi / 10_000 * np.cos(0.6), 2 * np.pi / 10_000 * np.sin(0.6)
    wave = np.exp(1j * (kx * x + ky * y))
    bump = np.real(20.0 * wave)
    rise, extra_x, extra_y = bed_to_surface(grid, bump, Flow(**full))
    along, across = kx * np.cos(angle) + ky * np.sin(angle), ky * np.cos(angle) - kx * np.sin(angle)
    response = stokes_transfer(along * thickness, across * thickness, slope, slip)
    inside = (slice(56, 88), slice(56, 88))
    expected = np.real(20.0 * np.conj(response.surface) * wave)
    assert np.abs(rise - expected)[inside].max() < 0.06 * np.abs(expected).max()
    scale = 20.0 / thickness * speed / (1 + slip)
    u, v = (np.real(scale * np.conj(part) * wave) for part in (response.along, response.across))
    expected_x, expected_y = u * np.cos(angle) - v * np.sin(angle), u * np.sin(angle) + v * np.cos(angle)
    size = np.hypot(expected_x, expected_y).max()
    assert np.abs(extra_x - expected_x)[inside].max() < 0.06 * size
    assert np.abs(extra_y - expected_y)[inside].max() < 0.06 * size
