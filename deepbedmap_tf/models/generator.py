"""The generator: a residual-in-residual dense network with deformable last layers (Leong & Horgan 2020, Table A1)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.models.consistency import CoarseConsistency
from deepbedmap_tf.models.deformable import DeformableConv2D
from deepbedmap_tf.models.layers import BicubicUpsampling, InputFeatures, Scale, he_normal, leaky_relu

DENSE_LAYERS = 5
DENSE_BLOCKS = 3


def build_generator(
    config: GeneratorConfig | None = None, dtype: str | keras.mixed_precision.Policy | None = None
) -> keras.Model:
    """Build the generator as a fully convolutional Keras functional model.

    Parameters
    ----------
    config
        Architecture; by default the paper's with 16 filters per input.
    dtype
        Precision policy such as ``float32``, ``float64`` or ``mixed_bfloat16``; None for Keras' global policy.

    Returns
    -------
    keras.Model
        Takes a dictionary: `bed_lowres` (n, h, w, 1) metres, `surface` (n, 10h, 10w, 1) metres, `velocity`
        (n, 2h, 2w, 2) m/yr, `accumulation` (n, h, w, 1) kg m-2 yr-1, each with a margin of one low-resolution cell
        on every side. Returns `bed` (n, 4(h-2), 4(w-2), 1), metres, in the datum of `bed_lowres`.
    """
    config = config or GeneratorConfig()
    policy = keras.mixed_precision.Policy(dtype) if isinstance(dtype, str) else dtype
    policy = policy or keras.mixed_precision.global_policy()
    exact = "float64" if policy.compute_dtype == "float64" else "float32"
    trunk = _Trunk(config, policy)

    inputs = {
        spec.name: keras.Input((None, None, spec.channels), name=spec.name, dtype=exact) for spec in config.inputs
    }
    features = inputs
    if config.normalise:
        ratios = {spec.name: spec.ratio for spec in config.inputs}
        features = InputFeatures(ratios, name="features", dtype=exact)(inputs)
    branches = []
    for spec in config.inputs:
        # The kernel takes in three low-resolution cells, so that every input arrives on the same inner cells.
        branches.append(
            trunk.conv(features[spec.name], config.input_filters, f"{spec.name}_conv", 3 * spec.ratio, spec.ratio)
        )
    x = layers.Concatenate(name="inputs", dtype=policy)(branches) if len(branches) > 1 else branches[0]
    x = skip = trunk.activate(trunk.conv(x, config.filters, "pre_residual_conv"), "pre_residual")
    for block in range(config.num_residual_blocks):
        x = trunk.residual_block(x, f"rrdb_{block}")
    x = layers.Add(name="trunk", dtype=policy)([skip, trunk.conv(x, config.filters, "post_residual_conv")])
    for step in (1, 2):
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"upsample_{step}", dtype=policy)(x)
        x = trunk.activate(trunk.conv(x, config.filters, f"post_upsample_conv_{step}"), f"post_upsample_{step}")
    x = trunk.activate(trunk.deformable(x, config.filters, "final_deformable_1", policy), "final_1")
    last = trunk.deformable(x, 1, "final_deformable_2", exact)
    if config.output == "residual":
        coarse = BicubicUpsampling(name="bicubic", dtype=exact)(inputs["bed_lowres"])
        scaled = Scale(config.residual_scale, name="residual", dtype=exact)(last)
        bed = layers.Add(name="bed", dtype=exact)([coarse, scaled])
    else:
        bed = layers.Activation("linear", name="bed", dtype=exact)(last)
    if config.consistent:
        bed = CoarseConsistency(name="consistent_bed", dtype=exact)([bed, inputs["bed_lowres"]])
    return keras.Model(inputs, bed, name="generator")


class _Trunk:
    """Makes the convolutions of one generator with its widths, initialisation and precision."""

    def __init__(self, config: GeneratorConfig, policy: keras.mixed_precision.Policy) -> None:
        self.config = config
        self.policy = policy

    def conv(self, x: tf.Tensor, filters: int, name: str, size: int = 3, stride: int | None = None) -> tf.Tensor:
        in_block = name.startswith("rrdb_")
        return layers.Conv2D(
            filters,
            size,
            stride or 1,
            padding="same" if stride is None else "valid",
            kernel_initializer=he_normal(self.config.initial_scale if in_block else self.config.trunk_initial_scale),
            name=name,
            dtype=self.policy,
        )(x)

    def activate(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return layers.Activation(leaky_relu, name=f"{name}_activation", dtype=self.policy)(x)

    def deformable(self, x: tf.Tensor, filters: int, name: str, dtype: Any) -> tf.Tensor:
        scale = self.config.initial_scale if filters == 1 else self.config.trunk_initial_scale
        return DeformableConv2D(
            filters,
            kernel_initializer=he_normal(scale),
            offset_initializer=he_normal(self.config.initial_scale),
            name=name,
            dtype=dtype,
        )(x)

    def scale(self, x: tf.Tensor, name: str) -> tf.Tensor:
        return Scale(self.config.residual_scaling, name=name, dtype=self.policy)(x)

    def dense_block(self, x: tf.Tensor, name: str) -> tf.Tensor:
        parts = [x]
        for index in range(1, DENSE_LAYERS):
            grown = parts[0] if index == 1 else layers.Concatenate(name=f"{name}_cat_{index}", dtype=self.policy)(parts)
            conv = self.conv(grown, self.config.growth_filters, f"{name}_conv_{index}")
            parts.append(self.activate(conv, f"{name}_conv_{index}"))
        grown = layers.Concatenate(name=f"{name}_cat_{DENSE_LAYERS}", dtype=self.policy)(parts)
        residual = self.conv(grown, self.config.filters, f"{name}_conv_{DENSE_LAYERS}")
        return layers.Add(name=f"{name}_add", dtype=self.policy)([x, self.scale(residual, f"{name}_scale")])

    def residual_block(self, x: tf.Tensor, name: str) -> tf.Tensor:
        inner = x
        for index in range(1, DENSE_BLOCKS + 1):
            inner = self.dense_block(inner, f"{name}_dense_{index}")
        return layers.Add(name=f"{name}_add", dtype=self.policy)([x, self.scale(inner, f"{name}_scale")])
