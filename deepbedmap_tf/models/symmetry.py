"""The mean of a network over the eight symmetries of the square.

Nothing in the physics prefers a direction of the grid, but a network that was trained on few data does: turned inputs
give a somewhat different bed. The mean over all eight ways to lay a square has no preference, and less error.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deepbedmap_tf.data.augment import NUMBER_OF_SYMMETRIES, VECTORS

Inputs = dict[str, tf.Tensor]


def symmetric_mean(network: Callable[[Inputs], tf.Tensor], inputs: Inputs) -> tf.Tensor:
    """Average a network's bed over the symmetries of the square, one after the other.

    Parameters
    ----------
    network
        Takes (n, rows, columns, bands) by name and returns the bed, (n, rows, columns, 1).
    inputs
        Windows of any shape, not only squares; the components of `VECTORS` are turned along.

    Returns
    -------
    tf.Tensor
        The mean, of the same shape as ``network(inputs)``.
    """

    def add(symmetry: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        laid = {name: _lay(values, symmetry, name in VECTORS) for name, values in inputs.items()}
        bed = _lay_back(network(laid), symmetry)
        return symmetry + 1, total + bed

    first = network(inputs)
    # One at a time: eight windows at once would take eight times the memory.
    _, total = tf.while_loop(
        lambda symmetry, _: symmetry < NUMBER_OF_SYMMETRIES, add, (tf.constant(1), first), parallel_iterations=1
    )
    return total / NUMBER_OF_SYMMETRIES


def _has(symmetry: tf.Tensor, bit: int) -> tf.Tensor:
    return tf.not_equal(tf.bitwise.bitwise_and(symmetry, bit), 0)


def _lay(values: tf.Tensor, symmetry: tf.Tensor, vector: bool) -> tf.Tensor:
    """Apply one symmetry to a whole batch, as `data.augment.transform` does to arrays."""
    transposed = tf.transpose(values, (0, 2, 1, 3))
    values = tf.cond(_has(symmetry, 1), lambda: -transposed[..., ::-1] if vector else transposed, lambda: values)
    rows, columns = _has(symmetry, 2), _has(symmetry, 4)
    values = tf.cond(rows, lambda: tf.reverse(values, (1,)), lambda: values)
    values = tf.cond(columns, lambda: tf.reverse(values, (2,)), lambda: values)
    if vector:
        one = tf.ones((), values.dtype)
        values *= tf.stack([tf.where(columns, -one, one), tf.where(rows, -one, one)])
    return values


def _lay_back(bed: tf.Tensor, symmetry: tf.Tensor) -> tf.Tensor:
    bed = tf.cond(_has(symmetry, 4), lambda: tf.reverse(bed, (2,)), lambda: bed)
    bed = tf.cond(_has(symmetry, 2), lambda: tf.reverse(bed, (1,)), lambda: bed)
    return tf.cond(_has(symmetry, 1), lambda: tf.transpose(bed, (0, 2, 1, 3)), lambda: bed)
