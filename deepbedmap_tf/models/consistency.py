"""Exact consistency with the low-resolution bed: the mean of every 4 x 4 cells is made that of their coarse cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from deepbedmap_tf.models.layers import UPSCALING, cubic_kernel

SMOOTH_STEPS = 4
"""Steps that spread what is missing by cubic convolution before the rest, now small, is added cell by cell."""


@keras.utils.register_keras_serializable("deepbedmap_tf")
class CoarseConsistency(keras.layers.Layer):
    """Add to a bed what its 4 x 4 means lack of the low-resolution bed.

    The additive form suits a bed of either sign. A correction that is one number for each low-resolution cell would
    draw steps along the edges of those cells. So what is missing is first spread by cubic convolution, several times,
    each time less, and only the remainder is added cell by cell: the means come out exact, up to rounding.

    Cells whose low-resolution bed is NaN are left as they are, and nothing is spread from them.

    Parameters
    ----------
    smooth_steps
        Steps of cubic convolution; 0 for a constant in each low-resolution cell.
    """

    def __init__(self, smooth_steps: int = SMOOTH_STEPS, **options: Any) -> None:
        super().__init__(**options)
        self.smooth_steps = smooth_steps

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Return the bed (n, 4h, 4w, 1) for [bed (n, 4h, 4w, 1), low-resolution bed (n, h + 2, w + 2, 1)], metres."""
        bed, coarse = inputs
        coarse = coarse[:, 1:-1, 1:-1]
        known = tf.cast(~tf.math.is_nan(coarse), bed.dtype)
        level = tf.where(known > 0, tf.cast(coarse, bed.dtype), tf.zeros_like(known))
        # Relative to the low-resolution bed numbers are small and round little.
        relative = bed - _repeated(level)
        mask = _repeated(known)
        for _ in range(self.smooth_steps):
            relative -= _spread(_means(relative) * known) * mask
        relative -= _repeated(_means(relative) * known)
        return relative + _repeated(level)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the layer again."""
        return {**super().get_config(), "smooth_steps": self.smooth_steps}


def make_consistent(bed: np.ndarray, bed_lowres: np.ndarray, smooth_steps: int = SMOOTH_STEPS) -> np.ndarray:
    """Make a predicted bed consistent with its low-resolution bed; see `CoarseConsistency`.

    Parameters
    ----------
    bed
        (4h, 4w), metres, NaN where it is unknown.
    bed_lowres
        (h + 2, w + 2), metres, with its margin of one cell, as the network was given it.

    Returns
    -------
    numpy.ndarray
        (4h, 4w), of the type of `bed`. Cells under an unknown low-resolution cell, and those of a low-resolution cell
        in which a value is unknown, are as they came.
    """
    coarse = np.array(bed_lowres, np.float64)
    lost = np.isnan(bed).reshape(bed.shape[0] // UPSCALING, UPSCALING, -1, UPSCALING).any(axis=(1, 3))
    coarse[1:-1, 1:-1][lost] = np.nan
    filled = np.nan_to_num(np.asarray(bed, np.float64), nan=0.0)
    layer = CoarseConsistency(smooth_steps, dtype="float64")
    made = layer([filled[np.newaxis, ..., np.newaxis], coarse[np.newaxis, ..., np.newaxis]]).numpy()[0, ..., 0]
    untouched = np.isnan(coarse[1:-1, 1:-1]).repeat(UPSCALING, axis=0).repeat(UPSCALING, axis=1)
    return np.where(untouched, bed, made).astype(bed.dtype)


def _means(bed: tf.Tensor) -> tf.Tensor:
    return tf.nn.avg_pool2d(bed, UPSCALING, UPSCALING, "VALID")


def _repeated(coarse: tf.Tensor) -> tf.Tensor:
    return tf.repeat(tf.repeat(coarse, UPSCALING, axis=1), UPSCALING, axis=2)


def _spread(coarse: tf.Tensor) -> tf.Tensor:
    """Cubic convolution of values on cells to cells four times finer; the outermost values continue beyond the edge."""
    for axis in (1, 2):
        size = tf.shape(coarse)[axis]
        first, last = tf.gather(coarse, [0, 0], axis=axis), tf.gather(coarse, [size - 1, size - 1], axis=axis)
        coarse = tf.concat([first, coarse, last], axis=axis)
    position = (np.arange(UPSCALING) + 0.5) / UPSCALING - 0.5
    weights = cubic_kernel(position[np.newaxis, :] - np.arange(-2, 3)[:, np.newaxis])
    kernel = np.einsum("ip,jq->ijpq", weights, weights).reshape(5, 5, 1, UPSCALING**2)
    return tf.nn.depth_to_space(tf.nn.conv2d(coarse, tf.constant(kernel, coarse.dtype), 1, "VALID"), UPSCALING)
