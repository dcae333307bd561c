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


FEATURES = {
    "bed_lowres": "height above its mean over 9 x 9 cells / 200 m; ice thickness / 1000 m - 1.5; validity",
    "surface": "height above its mean over 5 x 5 low-resolution cells / 20 m; rise along and across the flow over one "
    "cell of the surface / 1 m; validity",
    "velocity": "deviation from its mean over 5 x 5 low-resolution cells, along and across the flow, / 60 m yr-1; "
    "direction of flow; log10 of the speed - 2; the deviation times thickness times speed / (speed^2 + 50^2), / 100 m; "
    "validity",
    "accumulation": "accumulation / 300 kg m-2 yr-1 - 1; validity",
}
"""What `InputFeatures` makes of each input, in the order of its channels; written into model.json."""


@keras.utils.register_keras_serializable("deepbedmap_tf")
class InputFeatures(keras.layers.Layer):
    """Scaled features and a validity channel of every input, computed inside the graph.

    Takes the dictionary of raw inputs with NaN where they are invalid and returns a dictionary of the same names.
    `FEATURES` tells the channels of each of the four usual inputs. Any other input becomes its deviation from its mean
    over the window, in standard deviations, and its validity.

    Where ice slides fast, its speed varies over a bump of height b by about b / H (Gudmundsson 2003, T_ub / (1 + C)
    near 1 at a few thicknesses), so the relative deviation times the thickness H is a first guess of the bed. It is
    weighed down where the speed is below 50 m/yr and measurement error takes over. Bumps show at the surface out of
    phase along the flow, hence the slopes in the flow's frame.

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
        known, valid = {}, {}
        for name, values in inputs.items():
            known[name], valid[name] = split_invalid(values)
        flow = self._smooth("velocity", known, valid) if "velocity" in inputs else None
        features = {}
        for name in inputs:
            if name == "bed_lowres":
                anomaly = known[name] - local_mean(known[name], valid[name], LOCAL_MEAN_CELLS)
                parts = [anomaly * valid[name] / 200.0]
                if "surface" in inputs:
                    parts.append(self._thickness(known, valid) / 1000.0 - 1.5)
            elif name == "surface":
                parts = [(known[name] - self._smooth(name, known, valid)) * valid[name] / 20.0]
                if flow is not None:
                    parts.append(self._slopes(known[name], valid[name], flow))
            elif name == "velocity":
                parts = self._velocity(known, valid, flow, "surface" in inputs)
            elif name == "accumulation":
                parts = [known[name] / 300.0 - valid[name]]
            else:
                parts = [_standardised(known[name], valid[name])]
            features[name] = tf.concat([*parts, valid[name]], axis=-1)
        return features

    def _coarse(
        self, name: str, known: dict[str, tf.Tensor], valid: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Average an input over low-resolution cells; also tell which of them have a valid value."""
        ratio = self.ratios[name]
        weight = tf.nn.avg_pool2d(valid[name], ratio, ratio, "VALID")
        mean = tf.math.divide_no_nan(tf.nn.avg_pool2d(known[name], ratio, ratio, "VALID"), weight)
        return mean, tf.cast(weight > 0, mean.dtype)

    def _smooth(self, name: str, known: dict[str, tf.Tensor], valid: dict[str, tf.Tensor]) -> tf.Tensor:
        """Average over low-resolution cells, then over `SMOOTH_CELLS` of them, and interpolate back linearly."""
        coarse, present = self._coarse(name, known, valid)
        bands = [local_mean(coarse[..., band, tf.newaxis], present, SMOOTH_CELLS) for band in range(coarse.shape[-1])]
        return _resized(tf.concat(bands, axis=-1), known[name])

    def _thickness(self, known: dict[str, tf.Tensor], valid: dict[str, tf.Tensor]) -> tf.Tensor:
        """Ice thickness, metres, on low-resolution cells; 1500 m where it is unknown."""
        surface, present = self._coarse("surface", known, valid)
        return tf.where(
            valid["bed_lowres"] * present > 0, surface - known["bed_lowres"], 1500.0 * tf.ones_like(surface)
        )

    def _slopes(self, surface: tf.Tensor, valid: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
        """Rise of the surface along and across the flow over one of its cells, metres, from central differences."""
        padded = tf.pad(surface, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        known = tf.pad(valid, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        both_x = known[:, 1:-1, 2:] * known[:, 1:-1, :-2]
        both_y = known[:, 2:, 1:-1] * known[:, :-2, 1:-1]
        east = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * both_x / 2.0
        north = (padded[:, :-2, 1:-1] - padded[:, 2:, 1:-1]) * both_y / 2.0
        along, across = _in_flow_frame(tf.concat([east, north], axis=-1), _resized(_direction(flow), surface))
        return tf.concat([along, across], axis=-1)

    def _velocity(
        self, known: dict[str, tf.Tensor], valid: dict[str, tf.Tensor], flow: tf.Tensor, has_thickness: bool
    ) -> list[tf.Tensor]:
        deviation = (known["velocity"] - flow) * valid["velocity"]
        along_across = tf.concat(_in_flow_frame(deviation, _direction(flow)), axis=-1)
        speed = tf.norm(flow, axis=-1, keepdims=True)
        parts = [along_across / 60.0, _direction(flow), tf.math.log(speed + 1.0) / np.log(10.0) - 2.0]
        if has_thickness:
            thickness = _resized(self._thickness(known, valid), known["velocity"])
            parts.append(along_across * thickness / 100.0 * speed / (speed**2 + 50.0**2))
        return parts

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the layer again."""
        return {**super().get_config(), "ratios": self.ratios}


def _resized(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.image.resize(values, tf.shape(like)[1:3], "bilinear"), values.dtype)


def _direction(flow: tf.Tensor) -> tf.Tensor:
    """Unit vector of the flow, fading to 0 where ice hardly moves (below 5 m/yr)."""
    return flow / (tf.sqrt(tf.reduce_sum(flow**2, axis=-1, keepdims=True) + 1e-6) + 5.0)


def _in_flow_frame(vectors: tf.Tensor, direction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Components of (x, y) vectors along the flow and to its left."""
    east, north = vectors[..., :1], vectors[..., 1:]
    x, y = direction[..., :1], direction[..., 1:]
    return east * x + north * y, north * x - east * y


def _standardised(known: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    count = tf.reduce_sum(valid, axis=(1, 2), keepdims=True)
    mean = tf.math.divide_no_nan(tf.reduce_sum(known, axis=(1, 2), keepdims=True), count)
    deviation = (known - mean) * valid
    variance = tf.math.divide_no_nan(tf.reduce_sum(deviation**2, axis=(1, 2), keepdims=True), count)
    return deviation * tf.math.rsqrt(variance + 1e-12)
