"""Flips and quarter turns of tiles, with which the components of vectors turn too.

The eight symmetries of the square are a transposition followed by a flip of the rows and a flip of the columns.
Rows run southwards and columns eastwards, so that
- flipping the columns turns east into west: VX changes its sign;
- flipping the rows turns north into south: VY changes its sign;
- transposing turns east into south and south into east: VX becomes -VY and VY becomes -VX.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Inputs whose two bands are the components of a vector along x and y.
VECTORS = ("velocity",)
NUMBER_OF_SYMMETRIES = 8


def transform(array: np.ndarray, symmetry: int, vector: bool = False) -> np.ndarray:
    """Apply one symmetry of the square to an array of shape (..., rows, columns, bands).

    Parameters
    ----------
    array
        Square in rows and columns if `symmetry` transposes (is odd).
    symmetry
        0..7: bit 0 transposes, then bit 1 flips the rows, bit 2 the columns. 0 changes nothing.
    vector
        The two bands are components along x and y.

    Examples
    --------
    >>> eastwards = np.array([[[5.0, 0.0]]])
    >>> transform(eastwards, 1, vector=True).tolist()  # now southwards
    [[[-0.0, -5.0]]]
    """
    if symmetry & 1:
        array = np.swapaxes(array, -3, -2)
        array = -array[..., ::-1] if vector else array
    if symmetry & 2:
        array = array[..., ::-1, :, :]
        array = array * np.array([1, -1], array.dtype) if vector else array
    if symmetry & 4:
        array = array[..., ::-1, :]
        array = array * np.array([-1, 1], array.dtype) if vector else array
    return array


def transform_batch(batch: Any, symmetries: Any, vector: bool = False) -> Any:
    """Apply to each tile of a TensorFlow batch a symmetry of its own; see `transform`.

    Parameters
    ----------
    batch
        Tensor of shape (tiles, rows, columns, bands), square.
    symmetries
        Integer tensor of shape (tiles,), 0..7.
    """
    import tensorflow as tf

    def chosen(bit: int) -> Any:
        return tf.not_equal(tf.bitwise.bitwise_and(symmetries, bit), 0)[:, None, None, None]

    transposed = tf.transpose(batch, (0, 2, 1, 3))
    batch = tf.where(chosen(1), -transposed[..., ::-1] if vector else transposed, batch)
    batch = tf.where(chosen(2), tf.reverse(batch, (1,)), batch)
    batch = tf.where(chosen(4), tf.reverse(batch, (2,)), batch)
    if vector:
        one = tf.ones((), batch.dtype)
        signs = tf.concat([tf.where(chosen(4), -one, one), tf.where(chosen(2), -one, one)], axis=-1)
        batch = batch * signs
    return batch
