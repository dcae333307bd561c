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


@keras.utils.register_keras_serializable("deepbedmap_tf")
class GlobalBatchNormalization(layers.BatchNormalization):
    """Batch normalisation over the tiles of all replicas.

    Keras' own (``synchronized=True``) sends three messages a call and takes the variance as the difference of two
    large squares; here sums and squares over the moving mean, which all replicas share, go in one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "synchronized": True})

    def add_weight(self, *arguments: Any, **options: Any) -> tf.Variable:
        # All replicas compute the same moving statistics: one can read, and save, them without asking the others.
        if options.get("synchronization") == tf.VariableSynchronization.ON_READ:
            options["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return super().add_weight(*arguments, **options)

    def _sync_calculate_mean_and_var(
        self, x: tf.Tensor, reduction_axes: list[int], keep_dims: bool, mask: Any = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        if context is None or mask is not None or keep_dims:
            return super()._sync_calculate_mean_and_var(x, reduction_axes, keep_dims, mask)
        level = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        deviation = x - level
        means = tf.stack([tf.reduce_mean(each, reduction_axes) for each in (deviation, tf.square(deviation))])
        # Divided first: replicas hold equally many tiles.
        mean, square = tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, means / context.num_replicas_in_sync))
        cells = tf.cast(tf.size(x) // x.shape[-1] * context.num_replicas_in_sync, x.dtype)
        # Keras' kernel for one replica, which float64 lacks, lets the moving variance follow the unbiased one.
        self.unbiased = 1.0 if self.compute_dtype == "float64" else cells / (cells - 1)
        return mean + level, square - tf.square(mean)

    def _assign_moving_average(self, variable: tf.Variable, value: tf.Tensor, *options: Any) -> Any:
        if variable is self.moving_variance:
            value = value * self.unbiased
        return super()._assign_moving_average(variable, value, *options)


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
        parameters; batch normalisation adds 4,992 moving statistics, and is over the global batch within a
        strategy of several replicas.
    """
    config = config or DiscriminatorConfig()
    policy = keras.mixed_precision.Policy(dtype) if isinstance(dtype, str) else dtype
    policy = policy or keras.mixed_precision.global_policy()
    exact = "float64" if policy.compute_dtype == "float64" else "float32"
    bed = keras.Input((config.tile_size, config.tile_size, 1), name="bed", dtype=exact)
    x = TileAnomaly(name="anomaly", dtype=exact)(bed) if config.normalise else bed
    shared = tf.distribute.get_strategy().num_replicas_in_sync > 1
    normalisation = GlobalBatchNormalization if shared else layers.BatchNormalization
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
            x = normalisation(momentum=0.9, epsilon=1e-5, name=f"batch_norm_{index}", dtype=policy)(x)
        x = layers.Activation(leaky_relu, name=f"activation_{index}", dtype=policy)(x)
    x = layers.Flatten(name="flatten", dtype=policy)(x)
    x = layers.Dense(100, kernel_initializer=he_normal(config.initial_scale), name="dense_1", dtype=policy)(x)
    x = layers.Activation(leaky_relu, name="dense_1_activation", dtype=policy)(x)
    logits = layers.Dense(1, kernel_initializer=he_normal(config.initial_scale), name="dense_2", dtype=exact)(x)
    return keras.Model(bed, logits, name="discriminator")
