"""The split of the published network's tiles, drawn again: what of it leaks, and that the same tiles in blocks don't.

The training notebook shuffles all tiles by ``numpy.random.RandomState(42).permutation`` and validates on the last 5 %.
Its tiles are taken to be in the order of the footprints, one survey after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepbedmap_tf.data.split import TRAIN, VALIDATION, covered_cells, leak_fraction, split_windows, window_sums

SIDE, CELL = 9000.0, 250.0
SIZE = 36


@pytest.fixture(scope="module")
def corners(shared: Callable[[str], Path]) -> np.ndarray:
    """South-western corner of each tile, m."""
    path = shared("data/formats") / "deepbedmap_training_tiles_3031.geojson"
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    rings = np.array([feature["geometry"]["coordinates"][0][:4] for feature in features])
    np.testing.assert_array_equal(np.ptp(rings, axis=1), SIDE)
    return rings.min(axis=1)


def published_split(count: int, seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.RandomState(seed).permutation(count)
    return order[: int(0.95 * count)], order[int(0.95 * count) :]


def largest_overlap(corners: np.ndarray, train: np.ndarray, validation: np.ndarray) -> np.ndarray:
    """Share of each validation tile that the training tile nearest to it covers."""
    apart = np.abs(corners[validation][:, np.newaxis] - corners[train][np.newaxis])
    return np.clip(SIDE - apart, 0, None).prod(axis=2).max(axis=1) / SIDE**2


def test_every_published_validation_tile_is_nine_tenths_a_training_tile(corners: np.ndarray) -> None:
    assert len(corners) == 4028
    train, validation = published_split(len(corners))
    assert (train.size, validation.size) == (3826, 202)
    shared_part = largest_overlap(corners, train, validation)
    assert (shared_part >= 0.9).sum() == 202
    # A stride of three cells: 33 of 36 columns are the neighbour's.
    np.testing.assert_allclose(shared_part, 33 / 36)


def test_no_other_shuffle_would_have_been_better(corners: np.ndarray) -> None:
    # Each tile has a neighbour three cells on, so only one drawn together with all of its neighbours escapes.
    found = [(largest_overlap(corners, *published_split(len(corners), seed)) >= 0.9).sum() for seed in range(25)]
    assert min(found) >= 200
    assert np.mean(np.array(found) == 202) > 0.7


def test_a_third_of_the_tiles_lie_in_the_area_of_the_test(corners: np.ndarray) -> None:
    xmin, ymin, xmax, ymax = -1524500, -650000, -1274500, -300000
    inside = (corners >= (xmin, ymin)).all(axis=1) & (corners + SIDE <= (xmax, ymax)).all(axis=1)
    assert inside.mean() == pytest.approx(0.363, abs=0.001)


def test_the_same_tiles_dealt_by_blocks_do_not_leak(corners: np.ndarray) -> None:
    # Around the Amundsen Sea, where most of them lie; the whole continent would be a large map for a test.
    near = (np.abs(corners - (-1500e3, -350e3)) < 250e3).all(axis=1)
    columns, rows = np.rint((corners[near] - corners[near].min(axis=0)) / CELL).astype(int).T
    shape = (int(rows.max()) + SIZE, int(columns.max()) + SIZE)
    labels = split_windows(rows, columns, SIZE, shape, block_size=144, buffer=36, validation_fraction=0.05, seed=42)
    assert (labels == VALIDATION).sum() > 20 and (labels == TRAIN).sum() > 500
    assert leak_fraction(rows, columns, labels, SIZE, shape) == 0
    covered = covered_cells(rows[labels == TRAIN], columns[labels == TRAIN], SIZE, shape)
    held = labels == VALIDATION
    assert window_sums(covered, rows[held], columns[held], SIZE, SIZE).max() == 0
