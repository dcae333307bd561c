"""The discriminator: a VGG-style judge of 36 x 36 beds (Leong & Horgan 2020, section 3.2)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers

from deepbedmap_tf.config import DiscriminatorConfig
from deepbedmap_tf.models.layers import he_normal, leaky_relu

FILTERS = (64, 64, 128, 128, 128, 256, 256, 512, 512, 512)


@keras.utils.register_keras_serializable("deepbedmap_tf")
class TileAnomaly(keras.layers.Layer):
    """Height above the tile's mean in units of `scale` metres: texture, wherever the bed lies."""

    def __init__(self, scale: float = 100.0, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale

    def call(self, bed: tf.Tensor) -> tf.Tensor:
        """Return (n, height, width, 1) for a bed of that shape, metres."""
        return (bed - tf.reduce_mean(bed, axis=(1, 2), keepdims=True)) / self.scale

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the layer again."""
        return {**super().get_config(), "scale": self.scale}


def build_discriminator(
    config: DiscriminatorConfig | None = None, dtype: str | keras.mixed_precision.Policy | None = None
) -> keras.Model:
    """Build the discriminator.

    Parameters
    ----------
    config
        Tile size and initialisation.
    dtype
        Precision policy; None for Keras' global policy.

    Returns
    -------
    keras.Model
        Takes `bed` (n, 36, 36, 1) in metres and returns (n, 1) logits, without a sigmoid. 10,370,761 trainable
        parameters; batch normalisation adds 4,992 moving statistics.
    """
    config = config or DiscriminatorConfig()
    policy = keras.mixed_precision.Policy(dtype) if isinstance(dtype, str) else dtype
    policy = policy or keras.mixed_precision.global_policy()
    exact = "float64" if policy.compute_dtype == "float64" else "float32"
    bed = keras.Input((config.tile_size, config.tile_size, 1), name="bed", dtype=exact)
    x = TileAnomaly(name="anomaly", dtype=exact)(bed) if config.normalise else bed
    for index, filters in enumerate(FILTERS):
        size, stride = (3, 1) if index % 2 == 0 else (4, 2)
        # An explicit ring of zeros: 'same' would pad a 9 x 9 map to 5 x 5 instead of 4 x 4.
        x = layers.ZeroPadding2D(1, name=f"pad_{index}", dtype=policy)(x)
        x = layers.Conv2D(
            filters,
            size,
            stride,
            use_bias=index == 0,
            kernel_initializer=he_normal(config.initial_scale),
            name=f"conv_{index}",
            dtype=policy,
        )(x)
        if index > 0:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"batch_norm_{index}", dtype=policy)(x)
        x = layers.Activation(leaky_relu, name=f"activation_{index}", dtype=policy)(x)
    x = layers.Flatten(name="flatten", dtype=policy)(x)
    x = layers.Dense(100, kernel_initializer=he_normal(config.initial_scale), name="dense_1", dtype=policy)(x)
    x = layers.Activation(leaky_relu, name="dense_1_activation", dtype=policy)(x)
    logits = layers.Dense(1, kernel_initializer=he_normal(config.initial_scale), name="dense_2", dtype=exact)(x)
    return keras.Model(bed, logits, name="discriminator")
