from __future__ import annotations

import numpy as np
import pytest

from deepbedmap_tf.data.augment import NUMBER_OF_SYMMETRIES, transform, transform_batch
from deepbedmap_tf.grid import Grid

GRID = Grid.from_bounds((-8, -8, 8, 8), 1)


def potential_and_gradient(a: float, b: float, c: float) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic potential whose gradient is known, on rows from north to south."""
    x, y = np.meshgrid(GRID.x, GRID.y)
    potential = a * x * x + b * x * y + c * y * y
    return potential[..., np.newaxis], np.stack([2 * a * x + b * y, b * x + 2 * c * y], -1)


def numerical_gradient(potential: np.ndarray) -> np.ndarray:
    south, east = np.gradient(potential[..., 0])
    return np.stack([east, -south], -1)


@pytest.mark.parametrize("symmetry", range(NUMBER_OF_SYMMETRIES))
def test_velocity_turns_with_the_tile(symmetry):
    # Velocity is the gradient of a potential; turned alike they still are.
    potential, velocity = potential_and_gradient(1.0, 0.7, -2.3)
    turned = transform(velocity, symmetry, vector=True)
    gradient = numerical_gradient(transform(potential, symmetry))
    np.testing.assert_allclose(turned[1:-1, 1:-1], gradient[1:-1, 1:-1], atol=1e-9)
    # Without turning the components they would not be.
    if symmetry:
        assert np.abs(transform(velocity, symmetry)[1:-1, 1:-1] - gradient[1:-1, 1:-1]).max() > 1


@pytest.mark.parametrize("symmetry", range(NUMBER_OF_SYMMETRIES))
def test_rotation_and_divergence_of_a_field_are_what_they_were(symmetry):
    x, y = np.meshgrid(GRID.x, GRID.y)
    rotating = np.stack([-y, x], -1)
    spreading = np.stack([x, y], -1)
    mirrored = bin(symmetry).count("1") % 2
    np.testing.assert_allclose(transform(spreading, symmetry, vector=True), spreading)
    # Anticlockwise stays anticlockwise under a rotation and turns clockwise in a mirror.
    np.testing.assert_allclose(transform(rotating, symmetry, vector=True), -rotating if mirrored else rotating)


def test_speed_moves_with_the_tile():
    velocity = np.random.default_rng(0).normal(size=(5, 22, 22, 2)).astype(np.float32)
    speed = np.hypot(velocity[..., :1], velocity[..., 1:])
    for symmetry in range(NUMBER_OF_SYMMETRIES):
        turned = transform(velocity, symmetry, vector=True)
        np.testing.assert_array_equal(np.hypot(turned[..., :1], turned[..., 1:]), transform(speed, symmetry))


def test_the_eight_symmetries_differ_and_zero_changes_nothing():
    tile = np.arange(16.0).reshape(4, 4, 1)
    results = [transform(tile, symmetry) for symmetry in range(NUMBER_OF_SYMMETRIES)]
    assert len({result.tobytes() for result in results}) == 8
    assert results[0] is tile


def test_a_batch_turns_each_tile_its_own_way():
    rng = np.random.default_rng(1)
    symmetries = np.arange(NUMBER_OF_SYMMETRIES, dtype=np.int32)
    for bands, vector in ((1, False), (2, True)):
        tiles = rng.normal(size=(8, 6, 6, bands)).astype(np.float32)
        tiles[0, 0, 0] = np.nan
        expected = np.stack([transform(tile, s, vector) for tile, s in zip(tiles, symmetries, strict=True)])
        np.testing.assert_array_equal(transform_batch(tiles, symmetries, vector).numpy(), expected)
