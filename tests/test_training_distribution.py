"""Workers that share a batch: what they are told, and that their slices make up the whole."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from tiny_training import tiny_tiles

from deepbedmap_tf.data.pipeline import evaluation_dataset, training_dataset
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.models.discriminator import GlobalBatchNormalization
from deepbedmap_tf.training.distribution import COUNTED, Distribution, distribute, read_cluster


class PretendedStrategy:
    """Hand a process its own stream, as TensorFlow's strategies do."""

    def __init__(self, replicas: int) -> None:
        self.num_replicas_in_sync = replicas

    def distribute_datasets_from_function(self, function: Any) -> Any:
        return function(None)


def worker(index: int, processes: int, replicas: int) -> Distribution:
    return Distribution(PretendedStrategy(replicas), tuple(f"host:{n}" for n in range(1, processes + 1)), index)


def cluster(kind: str = "worker", index: Any = 1, **jobs: list[str]) -> str:
    return json.dumps({"cluster": jobs or {"worker": ["a:1", "b:1"]}, "task": {"type": kind, "index": index}})


def test_cluster() -> None:
    assert read_cluster(cluster()) == (("a:1", "b:1"), 1)
    assert read_cluster(cluster("worker", 0, chief=["c:7"], worker=["a:1", "b:1"])) == (("c:7", "a:1", "b:1"), 1)
    assert read_cluster(cluster("chief", 0, chief=["c:7"], worker=["a:1"])) == (("c:7", "a:1"), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "needs the environment variable TF_CONFIG"),
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ('{"cluster": {"worker": ["a:1"]}}', "KeyError: 'task'"),
        (cluster(index=2), "this is worker 2"),
        (cluster(index=-1), "this is worker -1"),
        (cluster("ps", 0), "this is ps 0"),
        (cluster(index="one"), "can't be read"),
        (cluster(index=0, worker=["a:1", "a:1"]), "distinct host:port"),
        (cluster(index=0, worker=["a", "b:1"]), "distinct host:port"),
    ],
)
def test_impossible_clusters(content: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_cluster(content)


def test_unknown_strategy() -> None:
    with pytest.raises(ConfigError, match="one, mirrored, multiworker"):
        distribute("horovod")


@pytest.mark.parametrize(("processes", "replicas"), [(2, 2), (3, 3), (2, 4)])
def test_slices_make_up_the_global_batches(processes: int, replicas: int) -> None:
    tiles, size, steps = tiny_tiles(26), 12, 3
    own = size // replicas
    whole = [beds.numpy() for _, beds in training_dataset(tiles, size, seed=3).take(steps)]
    here = replicas // processes
    streams = [
        worker(index, processes, replicas).training(training_dataset(tiles, size, seed=3), size)
        for index in range(processes)
    ]
    found = [[beds.numpy() for _, beds in stream.take(steps * here)] for stream in streams]
    for step, batch in enumerate(whole):
        parts = [part for process in found for part in process[step * here : (step + 1) * here]]
        assert all(part.shape == (own, 36, 36, 1) for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), batch)


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="batch_size is 16, which 3 replicas"):
        worker(0, 3, 3).training(training_dataset(tiny_tiles(16), 16, seed=3), 16)


@pytest.mark.parametrize(("processes", "replicas", "steps"), [(2, 2, 2), (4, 4, 1), (2, 4, 1), (5, 5, 1)])
def test_each_validation_tile_counts_once(processes: int, replicas: int, steps: int) -> None:
    tiles = tiny_tiles(14)
    counted = []
    for index in range(processes):
        batches, taken = worker(index, processes, replicas).validation(evaluation_dataset(tiles, 4))
        batches = list(batches)
        assert taken == steps and len(batches) == steps * replicas // processes
        counted += [beds.numpy() for inputs, beds in batches if float(inputs[COUNTED]) == 1]
    # Whole batches of a single process, the last one short: their means are means of the same tiles.
    assert sorted(len(beds) for beds in counted) == [2, 4, 4, 4]
    found = np.concatenate(counted).reshape(14, -1)
    np.testing.assert_array_equal(
        found[np.lexsort(found.T)], tiles.bed.reshape(14, -1)[np.lexsort(tiles.bed.reshape(14, -1).T)]
    )


def test_one_replica_takes_the_stream_as_it_is() -> None:
    alone, stream = distribute("one"), training_dataset(tiny_tiles(8), 4, seed=3)
    assert alone.chief and alone.replicas == 1
    assert alone.training(stream, 4) is stream
    assert alone.validation(stream) == (stream, None)


def test_global_batch_normalisation_equals_keras_own_and_survives_a_high_level() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3, 3, 2)) * [1.0, 5.0] + [3.0, -2.0]
    layer, plain = (
        made(momentum=0.9, epsilon=1e-5) for made in (GlobalBatchNormalization, keras.layers.BatchNormalization)
    )
    for _ in range(3):
        found, expected = layer(values, training=True), plain(values, training=True)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    for mine, keras_own in zip(layer.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=2e-5, atol=1e-6)
    # Once its moving mean is near, the variance is no difference of large squares.
    high = tf.constant(values + 3000, tf.float32)
    layer.moving_mean.assign(tf.reduce_mean(high, (0, 1, 2)) + 0.5)
    centred = np.asarray(high, np.float64) - np.mean(high, axis=(0, 1, 2), dtype=np.float64)
    exact = centred / np.sqrt(centred.var(axis=(0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(layer(high, training=True), exact, atol=2e-3)
