"""Tiles as tf.data pipelines. The batch of a step depends on the seed and the step alone, so a run resumes anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepbedmap_tf.data.augment import NUMBER_OF_SYMMETRIES, VECTORS, transform_batch
from deepbedmap_tf.data.tiles import Tiles
from deepbedmap_tf.errors import DataError


def training_dataset(tiles: Tiles, batch_size: int, seed: int, start_step: int = 0, augment: bool = True) -> Any:
    """Endless stream of training batches.

    An epoch is ``len(tiles) // batch_size`` steps through a permutation of its own; what is left over differs from
    epoch to epoch.

    Parameters
    ----------
    tiles
        Training tiles, kept in memory.
    batch_size
        Tiles a step.
    seed, start_step
        The first batch is the one that a stream from step 0 would give as its `start_step`-th.
    augment
        Random flips and quarter turns, velocity turned along.

    Returns
    -------
    tf.data.Dataset
        Of (inputs by name, bed), float32, channels last; with sparse supervision of (inputs, bed, weight), where the
        bed is 0 in cells that do not count.

    Raises
    ------
    DataError
        When there are fewer tiles than a batch takes.
    """
    import tensorflow as tf

    if batch_size > len(tiles):
        raise DataError(
            f"{len(tiles)} training tiles don't fill one batch of {batch_size}; "
            "reduce training.batch_size or data.stride"
        )
    steps = len(tiles) // batch_size
    gather = _gatherer(tiles)

    def batch(step: Any) -> Any:
        position = tf.range(batch_size, dtype=tf.int64) + (step % steps) * batch_size
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), step // steps])
        index = tf.random.experimental.index_shuffle(
            position, tf.cast(epoch_seed, tf.int32), tf.constant(len(tiles) - 1, tf.int64)
        )
        inputs, *measured = gather(tf.ensure_shape(index, (batch_size,)))
        if not augment:
            return inputs, *measured
        symmetries = tf.random.stateless_uniform(
            (batch_size,), tf.stack([tf.constant(seed, tf.int64), step]), 0, NUMBER_OF_SYMMETRIES, tf.int32
        )
        turned = {
            name: tf.ensure_shape(transform_batch(values, symmetries, name in VECTORS), values.shape)
            for name, values in inputs.items()
        }
        return turned, *(tf.ensure_shape(transform_batch(each, symmetries), each.shape) for each in measured)

    dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    return dataset.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)


def evaluation_dataset(tiles: Tiles, batch_size: int) -> Any:
    """Tiles in their order, the last batch being what is left.

    Returns
    -------
    tf.data.Dataset
        Of (inputs by name, bed), float32, channels last; with sparse supervision of (inputs, bed, weight), where the
        bed is 0 in cells that do not count.

    Raises
    ------
    DataError
        When there is no tile.
    """
    import tensorflow as tf

    if not len(tiles):
        raise DataError("there is no tile to evaluate on; raise data.validation_fraction or widen the region")
    gather = _gatherer(tiles)
    indices = tf.data.Dataset.range(len(tiles)).batch(batch_size)
    return indices.map(gather, num_parallel_calls=2, deterministic=True).prefetch(2)


def _gatherer(tiles: Tiles) -> Any:
    import tensorflow as tf

    # Whole arrays in the host's memory: reading a batch is one gather an input, not a Python call a tile.
    with tf.device("/CPU:0"):
        inputs = {name: tf.constant(values) for name, values in tiles.inputs.items()}
        measured = [tf.constant(tiles.bed)]
        if tiles.weight is not None:
            # NaN times a weight of 0 is still NaN.
            measured = [tf.constant(np.where(tiles.weight[..., :1] > 0, tiles.bed, 0)), tf.constant(tiles.weight)]

    def gather(index: Any) -> Any:
        return {name: tf.gather(values, index) for name, values in inputs.items()}, *(
            tf.gather(values, index) for values in measured
        )

    return gather
