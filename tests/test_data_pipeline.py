from __future__ import annotations

import numpy as np
import pytest

from deepbedmap_tf.data.augment import NUMBER_OF_SYMMETRIES, transform
from deepbedmap_tf.data.pipeline import evaluation_dataset, training_dataset
from deepbedmap_tf.data.tiles import Tiles
from deepbedmap_tf.errors import DataError


def make_tiles(count: int) -> Tiles:
    rng = np.random.default_rng(0)
    shapes = {"bed_lowres": (11, 11, 1), "surface": (110, 110, 1), "velocity": (22, 22, 2), "accumulation": (11, 11, 1)}
    inputs = {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}
    bed = np.arange(count, dtype=np.float32)[:, None, None, None] + rng.random((count, 36, 36, 1), dtype=np.float32) / 2
    numbers = np.zeros(count)
    return Tiles(inputs, bed, numbers.astype(np.uint8), numbers, numbers, {})


TILES = make_tiles(23)


def take(dataset, count: int) -> list:
    return [({name: values.numpy() for name, values in x.items()}, y.numpy()) for x, y in dataset.take(count)]


def numbers(bed: np.ndarray) -> list[int]:
    return np.floor(bed).min(axis=(1, 2, 3)).astype(int).tolist()


def assert_equal(one, other) -> None:
    for name in one[0]:
        np.testing.assert_array_equal(one[0][name], other[0][name])
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("augment", [True, False])
def test_a_batch_is_a_function_of_seed_and_step(augment):
    stream = take(training_dataset(TILES, 5, seed=3, augment=augment), 14)
    for start in (1, 4, 11):
        resumed = take(training_dataset(TILES, 5, seed=3, start_step=start, augment=augment), 3)
        for step, batch in enumerate(resumed, start=start):
            assert_equal(batch, stream[step])
    other = take(training_dataset(TILES, 5, seed=4, augment=augment), 1)[0]
    assert numbers(other[1]) != numbers(stream[0][1])


def test_an_epoch_meets_each_tile_at_most_once_and_the_next_in_another_order():
    stream = take(training_dataset(TILES, 5, seed=0), 8)
    epochs = [[number for _, bed in stream[first : first + 4] for number in numbers(bed)] for first in (0, 4)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert epochs[0] != epochs[1]
    whole = [number for _, bed in take(training_dataset(TILES, 1, seed=0), 23) for number in numbers(bed)]
    assert sorted(whole) == list(range(23))


def test_inputs_and_bed_are_turned_together():
    seen = set()
    for inputs, bed in take(training_dataset(TILES, 8, seed=1), 10):
        for place, number in enumerate(numbers(bed)):
            symmetry = next(
                s for s in range(NUMBER_OF_SYMMETRIES) if np.array_equal(transform(TILES.bed[number], s), bed[place])
            )
            seen.add(symmetry)
            for name, values in inputs.items():
                expected = transform(TILES.inputs[name][number], symmetry, vector=name == "velocity")
                np.testing.assert_array_equal(values[place], expected)
    assert seen == set(range(NUMBER_OF_SYMMETRIES))


def test_without_augmentation_tiles_come_as_they_are():
    inputs, bed = take(training_dataset(TILES, 4, seed=1, augment=False), 1)[0]
    for place, number in enumerate(numbers(bed)):
        np.testing.assert_array_equal(bed[place], TILES.bed[number])
        np.testing.assert_array_equal(inputs["velocity"][place], TILES.inputs["velocity"][number])


def test_evaluation_keeps_order_and_remainder():
    batches = take(evaluation_dataset(TILES, 10), 9)
    assert [len(bed) for _, bed in batches] == [10, 10, 3]
    np.testing.assert_array_equal(np.concatenate([bed for _, bed in batches]), TILES.bed)
    assert batches[0][1].dtype == batches[0][0]["surface"].dtype == np.float32


def test_too_few_tiles_are_one_line():
    with pytest.raises(DataError, match=r"23 training tiles don't fill one batch of 24; reduce training.batch_size"):
        training_dataset(TILES, 24, seed=0)
    with pytest.raises(DataError, match="no tile to evaluate on"):
        evaluation_dataset(TILES.take(slice(0, 0)), 4)
