"""The conditional GAN as a Keras model with its own training and test step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow import keras

from deepbedmap_tf.config import Config, OptimizerConfig
from deepbedmap_tf.models.discriminator import build_discriminator
from deepbedmap_tf.models.generator import build_generator
from deepbedmap_tf.models.layers import BicubicUpsampling
from deepbedmap_tf.training.distribution import (
    COUNTED,
    each_replica_alone,
    extremes,
    totals,
    update_everywhere,
)
from deepbedmap_tf.training.losses import (
    GeneratorOutcome,
    discriminator_loss,
    generator_loss,
    structural_similarity,
)

# Inputs by name, the bed, and with sparse supervision what each cell counts, in all and for its radar alone.
Batch = tuple[dict[str, tf.Tensor], tf.Tensor] | tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]


class DeepBedMapGAN(keras.Model):
    """Generator and discriminator trained one step each on every batch.

    Made within the scope of a strategy of several replicas, each of which gets a slice of the batch, it takes the step
    of one replica with the whole batch: losses, relativistic means and batch normalisation are over all slices.

    Parameters
    ----------
    config
        Networks, loss terms and averaging.
    dtype_policy
        Precision of both networks, such as ``mixed_bfloat16``; None for Keras' global policy.

    Attributes
    ----------
    generator, discriminator
        The two networks.
    averaged_generator
        The generator with exponentially averaged weights, which is what is evaluated and exported; the generator
        itself without `ema_momentum`.
    step
        Number of training steps taken, a variable that is saved with the weights.
    """

    def __init__(self, config: Config, dtype_policy: str | None = None) -> None:
        super().__init__(name="deepbedmap_gan")
        self.config = config
        self.generator = build_generator(config.generator, dtype_policy)
        self.discriminator = build_discriminator(config.discriminator, dtype_policy)
        self.averaged_generator = self.generator
        if config.training.ema_momentum is not None:
            self.averaged_generator = build_generator(config.generator, dtype_policy)
            self.averaged_generator.set_weights(self.generator.get_weights())
        self.bicubic = BicubicUpsampling(dtype="float32")
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step", aggregation=first)
        # Without an adversarial term nobody asks the discriminator, which is half of a step.
        self.terms = [term for term in config.losses if term.weight > 0 or term.name != "adversarial"]
        self.adversarial = any(term.name == "adversarial" for term in self.terms)
        judged = ["discriminator_loss", "discriminator_accuracy"] if self.adversarial else []
        names = ["loss", *(term.name for term in self.terms), *judged, "ssim"]
        self.means = {name: RunningMean(name=name) for name in names}
        self.rmse = RunningRootMean(name="rmse")
        self.bicubic_rmse = RunningRootMean(name="bicubic_rmse")
        self.range = ValueRange(name="range")
        # What a step returns is the same on all replicas: Keras would add it up.
        self.distribute_reduction_method = "first"

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any, **options: Any) -> None:
        """Set the two optimisers; for mixed_float16 each is wrapped to scale its loss."""
        # Weighted or not, the metrics are kept in the steps below.
        super().compile(weighted_metrics=[], **options)
        self.generator_optimizer = self._scaled(generator_optimizer)
        self.discriminator_optimizer = self._scaled(discriminator_optimizer)

    def _scaled(self, optimizer: Any) -> Any:
        if any(layer.compute_dtype == "float16" for layer in self.generator.layers):
            scaled = keras.mixed_precision.LossScaleOptimizer(optimizer)
            if not hasattr(scaled, "build"):
                # Around one of the legacy kind; see addons.py.
                scaled.build = scaled._create_all_weights
            return scaled
        return optimizer

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Everything that is reset at the start of an epoch."""
        return [*self.means.values(), self.rmse, self.bicubic_rmse, self.range]

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Return the bed, (n, 4(h-2), 4(w-2), 1) metres, of the averaged generator."""
        return self.averaged_generator(inputs, training=training)

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Take one step of the discriminator, then one of the generator, on the same batch and the same beds."""
        inputs, bed_true, weights = keras.utils.unpack_x_y_sample_weight(data)
        weight, radar = (None, None) if weights is None else tf.split(weights, 2, axis=-1)
        with tf.GradientTape(watch_accessed_variables=False) as generator_tape:
            generator_tape.watch(self.generator.trainable_variables)
            bed = self.generator(inputs, training=True)
            bed_true = tf.cast(bed_true, bed.dtype)
            judged: dict[str, tf.Tensor] = {}
            real_logits = fake_logits = None
            if self.adversarial:
                real, fake = self._seen(inputs, bed_true, bed, radar)
                judged = self._train_discriminator(real, tf.stop_gradient(fake))
                with _Untouched(self.discriminator):
                    real_logits = self.discriminator(self._judged(real), training=True)
                    fake_logits = self.discriminator(self._judged(fake), training=True)
            outcome = GeneratorOutcome(
                bed_true, bed, inputs["bed_lowres"], real_logits, fake_logits, self.config.structural, weight, radar
            )
            loss, diagnostics = generator_loss(outcome, self.terms)
            scaled = self._scale(self.generator_optimizer, loss)
        self._apply(self.generator_optimizer, generator_tape, scaled, self.generator.trainable_variables)
        self._average()
        self.step.assign_add(1)
        return self._update({**diagnostics, **judged, "loss": loss}, bed_true, bed, radar)

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Measure the averaged generator, and its skill over bicubic interpolation, on a batch."""
        inputs, bed_true, weights = keras.utils.unpack_x_y_sample_weight(data)
        counted = inputs.get(COUNTED)
        inputs = {name: values for name, values in inputs.items() if name != COUNTED}
        weight, radar = (None, None) if weights is None else tf.split(weights, 2, axis=-1)
        bed = self.averaged_generator(inputs, training=False)
        bed_true = tf.cast(bed_true, bed.dtype)
        with each_replica_alone():
            diagnostics = self._measured(inputs, bed_true, bed, weight, radar)
        results = self._update(diagnostics, bed_true, bed, radar, counted)
        self._update_root_mean(self.bicubic_rmse, bed_true, self.bicubic(inputs["bed_lowres"]), radar, counted)
        rmse, bicubic_rmse = self.rmse.result(), self.bicubic_rmse.result()
        ratio = tf.math.divide_no_nan(self.range.result(), rmse)
        return {
            **results,
            "bicubic_rmse": bicubic_rmse,
            "skill": 1 - tf.math.divide_no_nan(rmse, bicubic_rmse),
            "psnr": 20 * tf.math.log(ratio) / tf.math.log(10.0),
        }

    def _measured(
        self,
        inputs: dict[str, tf.Tensor],
        bed_true: tf.Tensor,
        bed: tf.Tensor,
        weight: tf.Tensor | None,
        radar: tf.Tensor | None,
    ) -> dict[str, tf.Tensor]:
        judged: dict[str, tf.Tensor] = {}
        real_logits = fake_logits = None
        if self.adversarial:
            real, fake = self._seen(inputs, bed_true, bed, radar)
            real_logits = self.discriminator(self._judged(real), training=False)
            fake_logits = self.discriminator(self._judged(fake), training=False)
            judgement, details = discriminator_loss(real_logits, fake_logits)
            judged = {"discriminator_loss": judgement, "discriminator_accuracy": details["accuracy"]}
        outcome = GeneratorOutcome(
            bed_true, bed, inputs["bed_lowres"], real_logits, fake_logits, self.config.structural, weight, radar
        )
        loss, diagnostics = generator_loss(outcome, self.terms)
        if "ssim" not in diagnostics:
            diagnostics["ssim"] = structural_similarity(bed_true, bed, self.config.structural, radar)
        return {**diagnostics, **judged, "loss": loss}

    def _train_discriminator(self, bed_true: tf.Tensor, bed: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            real_logits = self.discriminator(self._judged(bed_true), training=True)
            fake_logits = self.discriminator(self._judged(bed), training=True)
            loss, details = discriminator_loss(real_logits, fake_logits)
            scaled = self._scale(self.discriminator_optimizer, loss)
        self._apply(self.discriminator_optimizer, tape, scaled, self.discriminator.trainable_variables)
        return {"discriminator_loss": loss, "discriminator_accuracy": details["accuracy"]}

    @staticmethod
    def _scale(optimizer: Any, loss: tf.Tensor) -> tf.Tensor:
        return optimizer.get_scaled_loss(loss) if hasattr(optimizer, "get_scaled_loss") else loss

    @staticmethod
    def _apply(optimizer: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: list[tf.Variable]) -> None:
        gradients = tape.gradient(loss, variables)
        if hasattr(optimizer, "get_unscaled_gradients"):
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def _seen(
        self, inputs: dict[str, tf.Tensor], bed_true: tf.Tensor, bed: tf.Tensor, radar: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the true and the generated bed as the discriminator gets to see them."""
        if radar is None or self.config.discriminator.sees == "everything":
            return bed_true, bed
        backdrop = tf.cast(self.bicubic(inputs["bed_lowres"]), bed.dtype)
        return tf.where(radar > 0, bed_true, backdrop), tf.where(radar > 0, bed, backdrop)

    def _judged(self, bed: tf.Tensor) -> tf.Tensor:
        """Cut larger beds into the discriminator's tiles; a remainder at the right and bottom is left out."""
        size = self.config.discriminator.tile_size
        rows, columns = bed.shape[1] or size, bed.shape[2] or size
        down, across = rows // size, columns // size
        if (down, across) == (1, 1) and (rows, columns) == (size, size):
            return bed
        tiles = tf.reshape(bed[:, : down * size, : across * size], (-1, down, size, across, size, 1))
        return tf.reshape(tf.transpose(tiles, (0, 1, 3, 2, 4, 5)), (-1, size, size, 1))

    def _average(self) -> None:
        momentum = self.config.training.ema_momentum
        if momentum is None:
            return
        taken = tf.cast(self.step, tf.float32)
        # The average follows closely at first, so that it forgets the random start.
        keep = tf.minimum(momentum, (1 + taken) / (10 + taken))
        update_everywhere(self.averaged_generator.weights, self.generator.weights, keep)

    def _update(
        self,
        diagnostics: dict[str, tf.Tensor],
        bed_true: tf.Tensor,
        bed: tf.Tensor,
        radar: tf.Tensor | None,
        counted: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Take what the replicas' batches add to the means, or in validation what each found on a batch of its own."""
        if "ssim" not in diagnostics:
            similarity = structural_similarity(bed_true, bed, self.config.structural, radar)
            diagnostics = {**diagnostics, "ssim": similarity}
        values = [tf.cast(diagnostics[name], tf.float32) for name in self.means]
        batches: Any = 1.0
        if counted is not None:
            *values, batches = totals(*(value * counted for value in values), counted)
        else:
            values = list(totals(*values))
        for mean, value in zip(self.means.values(), values, strict=True):
            mean.add(value, batches)
        self._update_root_mean(self.rmse, bed_true, bed, radar, counted)
        known = bed_true if radar is None else bed_true[radar > 0]
        self.range.update_state(known)
        return {**{name: mean.result() for name, mean in self.means.items()}, "rmse": self.rmse.result()}

    @staticmethod
    def _update_root_mean(
        metric: RunningRootMean, bed_true: tf.Tensor, bed: tf.Tensor, radar: tf.Tensor | None, counted: tf.Tensor | None
    ) -> None:
        squares = tf.math.squared_difference(tf.cast(bed, tf.float32), tf.cast(bed_true, tf.float32))
        number = tf.cast(tf.size(squares), tf.float32)
        if radar is not None:
            squares, number = squares * radar, tf.reduce_sum(radar)
        added = tf.reduce_sum(squares), number
        metric.add(*totals(*(added if counted is None else (counted * value for value in added))))


class _Untouched:
    """Keep a model's moving statistics as they were: judging for the generator must not train the judge."""

    def __init__(self, model: keras.Model) -> None:
        self.variables = model.non_trainable_variables

    def __enter__(self) -> None:
        self.values = [variable.read_value() for variable in self.variables]

    def __exit__(self, *exception: object) -> None:
        for variable, value in zip(self.variables, self.values, strict=True):
            variable.assign(value)


class _SameEverywhere:
    """A metric that all replicas update with the same values, so that none has to ask the others for its result."""

    def add_weight(self, *arguments: Any, **options: Any) -> tf.Variable:
        options["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return super().add_weight(*arguments, **options)  # type: ignore[misc]


class RunningMean(_SameEverywhere, keras.metrics.Mean):
    """Mean of all that was added since the last reset."""

    def add(self, total: Any, number: Any) -> None:
        """Take in the sum of so many values."""
        self.total.assign_add(total)
        self.count.assign_add(number)


class RunningRootMean(RunningMean):
    """Root of the mean of all squares that were added since the last reset."""

    def result(self) -> tf.Tensor:
        """Return the root, in the unit of the values."""
        return tf.sqrt(tf.math.divide_no_nan(self.total, self.count))


class ValueRange(_SameEverywhere, keras.metrics.Metric):
    """Largest minus smallest value seen: the true range that a peak signal-to-noise ratio refers to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.low = self.add_weight("low", initializer=keras.initializers.Constant(float("inf")))
        self.high = self.add_weight("high", initializer=keras.initializers.Constant(float("-inf")))

    def update_state(self, values: tf.Tensor, sample_weight: Any = None) -> None:
        """Take in a batch of any shape."""
        values = tf.cast(values, self.low.dtype)
        low, high = extremes(tf.reduce_min(values), tf.reduce_max(values))
        self.low.assign(tf.minimum(self.low, low))
        self.high.assign(tf.maximum(self.high, high))

    def result(self) -> tf.Tensor:
        """Return the range, in the unit of the values."""
        return self.high - self.low

    def reset_state(self) -> None:
        """Forget all values."""
        self.low.assign(float("inf"))
        self.high.assign(float("-inf"))


def build_optimizer(config: OptimizerConfig, total_steps: int) -> Any:
    """Make an optimiser and its learning-rate schedule.

    Parameters
    ----------
    config
        Which optimiser, with what settings.
    total_steps
        Steps of the whole run, over which a cosine schedule falls to 1 %.
    """
    rate: Any = config.learning_rate
    if config.schedule == "cosine" or config.warmup_steps:
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if config.warmup_steps else config.learning_rate,
            warmup_target=config.learning_rate if config.warmup_steps else None,
            warmup_steps=config.warmup_steps,
            decay_steps=max(1, total_steps - config.warmup_steps),
            alpha=0.01 if config.schedule == "cosine" else 1.0,
        )
    betas = {"beta_1": config.beta_1, "beta_2": config.beta_2, "epsilon": config.epsilon}
    if config.name != "adam":
        from deepbedmap_tf.addons import optimizer

        return optimizer(config.name, rate, config.clip_norm, **betas)
    return keras.optimizers.Adam(rate, global_clipnorm=config.clip_norm, **betas)
