from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.split import (
    DROPPED,
    TEST,
    TRAIN,
    VALIDATION,
    complete_windows,
    covered_cells,
    deal_folds,
    leak_fraction,
    split_cells,
    split_windows,
    window_sums,
)
from deepbedmap_tf.errors import ConfigError


def boxed(shape, box):
    held = np.zeros(shape, bool)
    held[box[0] : box[2], box[1] : box[3]] = True
    return held


@given(
    seed=st.integers(0, 100), size=st.integers(1, 9), stride=st.integers(1, 7), share=st.sampled_from([0.9, 0.99, 1.0])
)
def test_complete_windows_are_exactly_the_complete_ones(seed, size, stride, share):
    valid = np.random.default_rng(seed).random((20, 25)) < share
    found = set(zip(*complete_windows(valid, size, stride), strict=True))
    expected = {
        (row, column)
        for row in range(0, 20 - size + 1, stride)
        for column in range(0, 25 - size + 1, stride)
        if valid[row : row + size, column : column + size].all()
    }
    assert found == expected


def test_coverage_may_be_partial():
    valid = np.ones((4, 4), bool)
    valid[0, 0] = False
    assert complete_windows(valid, 4, 1)[0].size == 0
    assert complete_windows(valid, 4, 1, minimum_coverage=0.9)[0].size == 1
    assert complete_windows(valid, 5, 1)[0].size == 0


def test_sums_and_coverage_reach_beyond_the_map():
    mask = np.ones((5, 6), bool)
    assert window_sums(mask, np.array([-2, 3]), np.array([-3, 4]), 4, 5).tolist() == [4, 4]
    assert covered_cells(np.array([1, 3]), np.array([2, 4]), 2, (5, 6)).sum() == 8


def gaps(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """Cells between each two windows along the axis on which they are further apart; negative if they overlap."""
    return np.abs(first[:, np.newaxis] - second[np.newaxis]).max(axis=-1, initial=0) - size


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(2, 6),
    stride=st.integers(1, 4),
    block=st.integers(8, 16),
    buffer=st.integers(0, 8),
    holes=st.floats(0, 0.004),
)
def test_windows_of_different_splits_keep_their_distance(seed, size, stride, block, buffer, holes):
    valid = np.random.default_rng(seed).random((60, 70)) >= holes
    rows, columns = complete_windows(valid, size, stride)
    box = (40, 44, 56, 64)
    try:
        labels = split_windows(
            rows, columns, size, valid.shape, block_size=block, buffer=buffer, validation_fraction=0.2, seed=seed,
            test=boxed(valid.shape, box),
        )  # fmt: skip
    except ConfigError:
        assume(False)
    places = np.column_stack([rows, columns])
    by_label = {label: places[labels == label] for label in (TRAIN, VALIDATION, TEST)}
    for one, other in ((TRAIN, VALIDATION), (TRAIN, TEST), (VALIDATION, TEST)):
        assert (gaps(by_label[one], by_label[other], size) >= buffer).all()
    test = by_label[TEST]
    assert (test >= box[:2]).all() and (test + size <= box[2:]).all()
    assert len(by_label[TRAIN]) and len(by_label[VALIDATION])
    assert leak_fraction(rows, columns, labels, size, valid.shape) == 0


def test_nothing_near_a_test_box_is_trained_on_even_where_no_window_lies_in_it():
    rows, columns = complete_windows(np.ones((40, 40), bool), 4, 2)
    # A box smaller than a window: no test window, and still nothing near it may be learned from.
    box = (20, 20, 22, 22)
    labels = split_windows(
        rows, columns, 4, (40, 40), block_size=10, buffer=3, validation_fraction=0.2, seed=0,
        test=boxed((40, 40), box),
    )  # fmt: skip
    assert not (labels == TEST).any()
    kept = (labels == TRAIN) | (labels == VALIDATION)
    distance = np.maximum.reduce([20 - (rows + 4), rows - 22, 20 - (columns + 4), columns - 22])
    assert distance[kept].min() >= 3 and (labels[distance < 3] == DROPPED).all()


def test_the_seed_decides_the_split():
    rows, columns = complete_windows(np.ones((90, 90), bool), 4, 2)
    settings_ = {"block_size": 15, "buffer": 4, "validation_fraction": 0.15}
    first, again, other = (split_windows(rows, columns, 4, (90, 90), **settings_, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert 0.05 < (first == VALIDATION).mean() / (first != DROPPED).mean() < 0.4


def test_a_random_split_of_overlapping_windows_leaks():
    # Fault 2 of the published code.
    rows, columns = complete_windows(np.ones((120, 120), bool), 36, 3)
    labels = np.where(np.random.default_rng(0).random(rows.size) < 0.05, VALIDATION, TRAIN)
    assert leak_fraction(rows, columns, labels, 36, (120, 120)) == 1


def test_the_published_footprints_leak(shared):
    # 4,028 windows of 9 km on 250 m cells, of which 202 drawn at random validate.
    path = shared("data/formats") / "deepbedmap_training_tiles_3031.geojson"
    rings = [
        np.asarray(ring)
        for feature in json.loads(path.read_text(encoding="utf-8"))["features"]
        for ring in (feature["geometry"]["coordinates"] if feature["geometry"]["type"] == "Polygon" else [])
    ]
    assert len(rings) == 4028
    left = np.array([ring[:, 0].min() for ring in rings])
    top = np.array([ring[:, 1].max() for ring in rings])
    # The part of the map around the Amundsen Sea; of the whole continent the maps would be large for a test.
    near = (np.abs(left + 1500000) < 250000) & (np.abs(top + 350000) < 250000)
    rows, columns = (np.rint(axis[near] / 250).astype(int) for axis in (-top, left))
    rows, columns = rows - rows.min(), columns - columns.min()
    labels = np.zeros(rows.size, np.uint8)
    labels[np.random.default_rng(42).permutation(rows.size)[: rows.size // 20]] = VALIDATION
    shape = (int(rows.max()) + 36, int(columns.max()) + 36)
    assert rows.size > 500 and leak_fraction(rows, columns, labels, 36, shape) > 0.97


def test_impossible_splits_say_what_to_change():
    rows, columns = complete_windows(np.ones((30, 30), bool), 8, 4)
    with pytest.raises(
        ConfigError, match=r"hold a whole tile of 8 cells, expected 2 or more; choose another data.block_size"
    ):
        split_windows(rows, columns, 8, (30, 30), block_size=6, buffer=0, validation_fraction=0.2, seed=0)
    with pytest.raises(ConfigError, match=r"no tile is left to train on after a buffer of 40 cells"):
        split_windows(rows, columns, 8, (30, 30), block_size=15, buffer=40, validation_fraction=0.2, seed=0)


@given(
    seed=st.integers(0, 1000),
    folds=st.integers(2, 6),
    block=st.integers(6, 14),
    buffer=st.integers(0, 5),
    density=st.floats(0.02, 0.3),
)
def test_folds_of_cells_are_disjoint_cover_all_radar_and_keep_their_distance(seed, folds, block, buffer, density):
    measured = np.random.default_rng(seed).random((48, 60)) < density
    test = boxed(measured.shape, (0, 0, 8, 10))
    scored = np.zeros(measured.shape, int)
    for fold in range(folds):
        try:
            train, validation = split_cells(
                measured, block_size=block, buffer=buffer, validation_fraction=0.2, seed=seed, test=test, folds=folds,
                fold=fold,
            )  # fmt: skip
        except ConfigError:
            assume(False)
        scored += validation & measured
        places = [np.argwhere(cells) for cells in (train, validation, test)]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            apart = np.abs(places[one][::7, None] - places[other][None]).max(axis=-1)
            assert apart.min() > buffer
    near_test = boxed(measured.shape, (0, 0, 8 + buffer, 10 + buffer))
    np.testing.assert_array_equal(scored, measured & ~near_test)


def test_folds_hold_about_the_same():
    counts = np.random.default_rng(3).integers(50, 1000, 40)
    held = np.bincount(deal_folds(counts, 5, seed=1), weights=counts)
    assert held.max() / held.min() < 1.05


def test_folds_of_windows_validate_every_block_once():
    rows, columns = complete_windows(np.ones((64, 64), bool), 8, 4)
    settings_ = {"block_size": 16, "buffer": 8, "validation_fraction": 0.1, "seed": 2, "folds": 4}
    labels = [split_windows(rows, columns, 8, (64, 64), **settings_, fold=fold) for fold in range(4)]
    whole = ((rows % 16) <= 8) & ((columns % 16) <= 8)
    np.testing.assert_array_equal(sum((each == VALIDATION).astype(int) for each in labels), whole.astype(int))
    for each in labels:
        assert leak_fraction(rows, columns, each, 8, (64, 64)) == 0


def test_more_folds_than_blocks_with_radar_are_refused():
    measured = boxed((40, 40), (0, 0, 10, 20))
    with pytest.raises(ConfigError, match="2 blocks of 10 cells hold radar, expected 5"):
        split_cells(measured, block_size=10, buffer=0, validation_fraction=0.2, seed=0, folds=5)
    with pytest.raises(ConfigError, match="no radar is left"):
        split_cells(measured, block_size=10, buffer=30, validation_fraction=0.5, seed=0, folds=2)
