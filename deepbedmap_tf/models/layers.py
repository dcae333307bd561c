"""Layers shared by the networks: bicubic upsampling and scaled features with validity channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

UPSCALING = 4
LOCAL_MEAN_CELLS = 9
SMOOTH_CELLS = 5
"""Cells of the low-resolution bed over which the bed and the finer inputs are averaged to find their local level."""


def he_normal(scale: float, seed: int | None = None) -> keras.initializers.Initializer:
    """Return N(0, scale * sqrt(2 / fan_in)), untruncated, as the published network starts from."""
    return keras.initializers.VarianceScaling(
        2.0 * scale**2, mode="fan_in", distribution="untruncated_normal", seed=seed
    )


@keras.utils.register_keras_serializable("deepbedmap_tf")
def leaky_relu(values: tf.Tensor) -> tf.Tensor:
    """Leaky rectifier with slope 0.2, exact in float64: TensorFlow's operation rounds its slope to float32."""
    return tf.maximum(values, 0.2 * values) if values.dtype == tf.float64 else tf.nn.leaky_relu(values, 0.2)


@keras.utils.register_keras_serializable("deepbedmap_tf")
class Scale(keras.layers.Layer):
    """Multiply by a constant, exactly in any precision: Keras' Rescaling rounds its factor to float32."""

    def __init__(self, factor: float, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, values: tf.Tensor) -> tf.Tensor:
        """Return `values` times the factor."""
        return values * self.factor

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the layer again."""
        return {**super().get_config(), "factor": self.factor}


def cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Weights of Keys' (1981) cubic convolution with a = -1/2 at `distance` cells."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


@keras.utils.register_keras_serializable("deepbedmap_tf")
class BicubicUpsampling(keras.layers.Layer):
    """Low-resolution bed with a margin of one cell, (n, h, w, 1), to four times finer cells, (n, 4(h-2), 4(w-2), 1).

    Cell centres are kept in place and linear trends are reproduced exactly. Cubic interpolation reaches two cells
    beyond the output while the margin is one: the missing ring is extrapolated linearly. Cells that are NaN take
    the mean of the valid ones around them (`fill_invalid`).
    """

    def call(self, bed_lowres: tf.Tensor) -> tf.Tensor:
        """Return the interpolated bed in the unit of the input."""
        bed = fill_invalid(bed_lowres, LOCAL_MEAN_CELLS)
        bed = tf.concat([2 * bed[:, :1] - bed[:, 1:2], bed, 2 * bed[:, -1:] - bed[:, -2:-1]], axis=1)
        bed = tf.concat([2 * bed[:, :, :1] - bed[:, :, 1:2], bed, 2 * bed[:, :, -1:] - bed[:, :, -2:-1]], axis=2)
        position = (np.arange(UPSCALING) + 0.5) / UPSCALING - 0.5
        weights = cubic_kernel(position[np.newaxis, :] - np.arange(-2, 3)[:, np.newaxis])
        kernel = np.einsum("ip,jq->ijpq", weights, weights).reshape(5, 5, 1, UPSCALING**2)
        # The level is taken off first: at -1500 m float32 products would round to 0.1 mm, and visibly in gradients.
        level = tf.reduce_mean(bed, axis=(1, 2), keepdims=True)
        phases = tf.nn.conv2d(bed - level, tf.constant(kernel, bed.dtype), 1, "VALID")
        return tf.nn.depth_to_space(phases, UPSCALING) + level


def local_mean(values: tf.Tensor, valid: tf.Tensor, cells: int) -> tf.Tensor:
    """Mean of the valid cells within a window of `cells` x `cells`; the window's overall mean where there are none."""
    counted = tf.nn.avg_pool2d(valid, cells, 1, "SAME")
    summed = tf.nn.avg_pool2d(values * valid, cells, 1, "SAME")
    overall = tf.math.divide_no_nan(
        tf.reduce_sum(values * valid, axis=(1, 2), keepdims=True), tf.reduce_sum(valid, axis=(1, 2), keepdims=True)
    )
    return tf.where(counted > 0, tf.math.divide_no_nan(summed, counted), overall + tf.zeros_like(values))


def split_invalid(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `values` with 0 for NaN, and 1 where every band is valid, 0 elsewhere (one band)."""
    invalid = tf.reduce_any(tf.math.is_nan(values), axis=-1, keepdims=True)
    return tf.where(invalid, tf.zeros_like(values), values), tf.cast(~invalid, values.dtype)


def fill_invalid(values: tf.Tensor, cells: int) -> tf.Tensor:
    """Replace NaN by the mean of the valid cells around it."""
    known, valid = split_invalid(values)
    return tf.where(valid > 0, known, local_mean(known, valid, cells))


@keras.utils.register_keras_serializable("deepbedmap_tf")
class InputFeatures(keras.layers.Layer):
    """Scaled features and a validity channel of every input, computed inside the graph.

    Takes the dictionary of raw inputs with NaN where they are invalid and returns a dictionary of the same names:

    - ``bed_lowres``: height above its mean over 9 x 9 cells / 200 m; ice thickness / 1000 m - 1.5; validity
    - ``surface``: height above its mean over 5 low-resolution cells / 20 m; validity
    - ``velocity``: deviation from its mean over 5 low-resolution cells, / 60 m/yr and relative to 5 % of the mean
      speed; flow direction; log10 of the speed; validity
    - ``accumulation``: / 300 kg m-2 yr-1 - 1; validity
    - any other input: deviation from its mean over the window, in standard deviations; validity

    The heights enter relative to their surroundings, so the features do not depend on where the tile ends except in
    the cells next to its border.

    Parameters
    ----------
    ratios
        Cells of each input per low-resolution cell.
    """

    def __init__(self, ratios: dict[str, int], **options: Any) -> None:
        super().__init__(**options)
        self.ratios = dict(ratios)

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the features, (n, height, width, channels) for each input."""
        features = {}
        for name, values in inputs.items():
            known, valid = split_invalid(values)
            if name == "bed_lowres":
                parts = self._bed(known, valid, inputs)
            elif name == "surface":
                parts = [(known - self._smooth(name, known, valid)) * valid / 20.0]
            elif name == "velocity":
                parts = self._velocity(known, valid)
            elif name == "accumulation":
                parts = [known / 300.0 - valid]
            else:
                count = tf.reduce_sum(valid, axis=(1, 2), keepdims=True)
                mean = tf.math.divide_no_nan(tf.reduce_sum(known, axis=(1, 2), keepdims=True), count)
                deviation = (known - mean) * valid
                variance = tf.math.divide_no_nan(tf.reduce_sum(deviation**2, axis=(1, 2), keepdims=True), count)
                parts = [deviation * tf.math.rsqrt(variance + 1e-12)]
            features[name] = tf.concat([*parts, valid], axis=-1)
        return features

    def _smooth(self, name: str, known: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Average over low-resolution cells, then over `SMOOTH_CELLS` of them, and interpolate back linearly."""
        ratio = self.ratios[name]
        weight = tf.nn.avg_pool2d(valid, ratio, ratio, "VALID")
        coarse = tf.math.divide_no_nan(tf.nn.avg_pool2d(known * valid, ratio, ratio, "VALID"), weight)
        present = tf.cast(weight > 0, known.dtype)
        smooth = tf.concat(
            [local_mean(coarse[..., band : band + 1], present, SMOOTH_CELLS) for band in range(known.shape[-1])], axis=-1
        )
        return tf.cast(tf.image.resize(smooth, tf.shape(known)[1:3], "bilinear"), known.dtype)

    def _bed(self, known: tf.Tensor, valid: tf.Tensor, inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        parts = [(known - local_mean(known, valid, LOCAL_MEAN_CELLS)) * valid / 200.0]
        if "surface" in inputs:
            surface, present = split_invalid(inputs["surface"])
            ratio = self.ratios["surface"]
            weight = tf.nn.avg_pool2d(present, ratio, ratio, "VALID")
            mean = tf.math.divide_no_nan(tf.nn.avg_pool2d(surface * present, ratio, ratio, "VALID"), weight)
            parts.append(((mean - known) / 1000.0 - 1.5) * valid * tf.cast(weight > 0, known.dtype))
        return parts

    def _velocity(self, known: tf.Tensor, valid: tf.Tensor) -> list[tf.Tensor]:
        smooth = self._smooth("velocity", known, valid)
        deviation = (known - smooth) * valid
        speed = tf.sqrt(tf.reduce_sum(smooth**2, axis=-1, keepdims=True) + 1e-6)
        return [
            deviation / 60.0,
            deviation / (0.05 * speed + 5.0),
            smooth / (speed + 5.0),
            tf.math.log(speed + 1.0) / np.log(10.0) - 2.0,
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the layer again."""
        return {**super().get_config(), "ratios": self.ratios}
