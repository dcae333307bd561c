"""The terms of the two losses (Leong & Horgan 2020, Appendix A), each returning (loss, diagnostics)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import tensorflow as tf

from deepbedmap_tf.config import LossConfig, StructuralConfig
from deepbedmap_tf.models.layers import UPSCALING, split_invalid

Loss = tuple[tf.Tensor, dict[str, tf.Tensor]]


def content_loss(bed_true: tf.Tensor, bed: tf.Tensor) -> Loss:
    """Mean absolute difference, metres (equation A1).

    Parameters
    ----------
    bed_true, bed
        (n, height, width, 1), metres.
    """
    error = bed - bed_true
    return tf.reduce_mean(tf.abs(error)), {"bias": tf.reduce_mean(error)}


def topographic_loss(bed: tf.Tensor, bed_lowres: tf.Tensor) -> Loss:
    """Mean absolute difference, metres, of the 4 x 4 means of the bed and the low-resolution bed (equation A4).

    Parameters
    ----------
    bed
        (n, 4h, 4w, 1), metres.
    bed_lowres
        (n, h + 2, w + 2, 1), metres: with its margin of one cell. Cells that are NaN are left out.
    """
    means = tf.nn.avg_pool2d(bed, UPSCALING, UPSCALING, "VALID")
    coarse, valid = split_invalid(bed_lowres[:, 1:-1, 1:-1])
    residual = (means - coarse) * valid
    count = tf.reduce_sum(valid)
    loss = tf.math.divide_no_nan(tf.reduce_sum(tf.abs(residual)), count)
    return loss, {"coarse_bias": tf.math.divide_no_nan(tf.reduce_sum(residual), count)}


def structural_similarity(bed_true: tf.Tensor, bed: tf.Tensor, config: StructuralConfig | None = None) -> tf.Tensor:
    """Mean structural similarity (Wang et al. 2004) over uniform windows without padding.

    The published code takes E[x^2] - E[x]^2 of raw metres in float32, which is noise at -1500 m. Here the level of
    each tile is taken off first and the moments are summed in float64; only the luminance term sees it again.

    Parameters
    ----------
    bed_true, bed
        (n, height, width, 1), metres.
    config
        Window and constants; by default the published ones.

    Returns
    -------
    tf.Tensor
        Scalar in [-1, 1], dtype of `bed`.
    """
    config = config or StructuralConfig()
    true64, bed64 = tf.cast(bed_true, tf.float64), tf.cast(bed, tf.float64)
    level = tf.reduce_mean(true64, axis=(1, 2), keepdims=True)
    true64, bed64 = true64 - level, bed64 - level

    products = tf.concat([true64, bed64, true64**2, bed64**2, true64 * bed64], axis=-1)
    true_mean, bed_mean, true_square, bed_square, product = tf.split(_window_mean(products, config.window), 5, axis=-1)
    true_variance = true_square - true_mean**2
    bed_variance = bed_square - bed_mean**2
    covariance = product - true_mean * bed_mean
    true_mean, bed_mean = true_mean + level, bed_mean + level
    luminance = (2 * true_mean * bed_mean + config.c1) / (true_mean**2 + bed_mean**2 + config.c1)
    structure = (2 * covariance + config.c2) / (true_variance + bed_variance + config.c2)
    return tf.cast(tf.reduce_mean(luminance * structure), bed.dtype)


def _window_mean(values: tf.Tensor, size: int) -> tf.Tensor:
    """Mean over size x size windows, stride 1, no padding; sums of slices, as pooling one channel is slow on a CPU."""
    rows, columns = tf.shape(values)[1] - size + 1, tf.shape(values)[2] - size + 1
    down = tf.add_n([values[:, shift : shift + rows] for shift in range(size)])
    return tf.add_n([down[:, :, shift : shift + columns] for shift in range(size)]) / size**2


def structural_loss(bed_true: tf.Tensor, bed: tf.Tensor, config: StructuralConfig | None = None) -> Loss:
    """One minus the structural similarity (equation A5)."""
    similarity = structural_similarity(bed_true, bed, config)
    return 1 - similarity, {"ssim": similarity}


def discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> Loss:
    """Relativistic average loss of the discriminator (equation A2; Jolicoeur-Martineau 2018).

    Parameters
    ----------
    real_logits, fake_logits
        (n, 1), the discriminator's raw outputs for measured and generated beds.

    Returns
    -------
    tuple
        The loss, and the share of beds on the right side of the other kind's mean as ``accuracy``.
    """
    real = real_logits - tf.reduce_mean(fake_logits)
    fake = fake_logits - tf.reduce_mean(real_logits)
    loss = tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake))
    right = tf.concat([tf.cast(real > 0, real.dtype), tf.cast(fake < 0, fake.dtype)], axis=0)
    return loss, {"accuracy": tf.reduce_mean(right)}


def adversarial_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> Loss:
    """Relativistic average loss of the generator (equation A3), with both sides live.

    The published code detached the generated side and took a constant for the other, so its generator never felt
    this term.
    """
    real = real_logits - tf.reduce_mean(fake_logits)
    fake = fake_logits - tf.reduce_mean(real_logits)
    return tf.reduce_mean(tf.nn.softplus(real)) + tf.reduce_mean(tf.nn.softplus(-fake)), {}


@dataclass(frozen=True)
class GeneratorOutcome:
    """What the terms of the generator's loss may look at; shapes as in the functions above."""

    bed_true: tf.Tensor
    bed: tf.Tensor
    bed_lowres: tf.Tensor
    real_logits: tf.Tensor
    fake_logits: tf.Tensor
    structural: StructuralConfig = StructuralConfig()


GENERATOR_TERMS: dict[str, Callable[[GeneratorOutcome], Loss]] = {
    "content": lambda o: content_loss(o.bed_true, o.bed),
    "adversarial": lambda o: adversarial_loss(o.real_logits, o.fake_logits),
    "topographic": lambda o: topographic_loss(o.bed, o.bed_lowres),
    "structural": lambda o: structural_loss(o.bed_true, o.bed, o.structural),
}
"""The terms a configuration can weigh, by name."""


def generator_loss(outcome: GeneratorOutcome, terms: Iterable[LossConfig]) -> Loss:
    """Weighted sum of the generator's terms (equation A6); the diagnostics hold each unweighted term by its name."""
    total = tf.zeros((), outcome.bed.dtype)
    diagnostics: dict[str, tf.Tensor] = {}
    for term in terms:
        loss, details = GENERATOR_TERMS[term.name](outcome)
        total += term.weight * tf.cast(loss, total.dtype)
        diagnostics |= {term.name: loss, **details}
    return total, diagnostics
