"""The terms of the two losses (Leong & Horgan 2020, Appendix A), each returning (loss, diagnostics).

Where several replicas share a batch, each term is what a replica's tiles add to the loss of the global batch, so that
the sum of their gradients is the gradient of the whole; likewise the diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import tensorflow as tf

from deepbedmap_tf.config import LossConfig, StructuralConfig
from deepbedmap_tf.models.layers import UPSCALING, split_invalid
from deepbedmap_tf.training.distribution import part_of_mean, totals

Loss = tuple[tf.Tensor, dict[str, tf.Tensor]]

SQUARED_SCALE = 100.0
"""Error, in metres, of which the squared term makes as much as the content term."""


def content_loss(bed_true: tf.Tensor, bed: tf.Tensor, weight: tf.Tensor | None = None) -> Loss:
    """Mean absolute difference, metres (equation A1).

    Parameters
    ----------
    bed_true, bed
        (n, height, width, 1), metres; finite, also where the weight is 0.
    weight
        Same shape: what each cell counts, for beds known in places. All count alike by default.
    """
    error = bed - bed_true
    return _mean(tf.abs(error), weight), {"bias": _mean(error, weight)}


def squared_loss(bed_true: tf.Tensor, bed: tf.Tensor, weight: tf.Tensor | None = None) -> Loss:
    """Mean squared difference in units of 100 m times metres; arguments as for `content_loss`."""
    square = _mean((bed - bed_true) ** 2, weight)
    return square / SQUARED_SCALE, {"mean_square": square}


def _mean(values: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    if weight is None:
        return part_of_mean(tf.reduce_mean(values))
    weight = tf.cast(weight, values.dtype)
    (total,) = totals(tf.reduce_sum(weight))
    return tf.math.divide_no_nan(tf.reduce_sum(weight * values), total)


def topographic_loss(bed: tf.Tensor, bed_lowres: tf.Tensor, weight: tf.Tensor | None = None) -> Loss:
    """Mean absolute difference, metres, of the 4 x 4 means of the bed and the low-resolution bed (equation A4).

    Parameters
    ----------
    bed
        (n, 4h, 4w, 1), metres.
    bed_lowres
        (n, h + 2, w + 2, 1), metres: with its margin of one cell. Cells that are NaN are left out.
    weight
        Shape of `bed`. A low-resolution cell counts by one minus its mean: the low-resolution bed is what is known
        where nothing was measured, and has nothing to add where the bed was.
    """
    means = tf.nn.avg_pool2d(bed, UPSCALING, UPSCALING, "VALID")
    coarse, valid = split_invalid(tf.cast(bed_lowres[:, 1:-1, 1:-1], bed.dtype))
    if weight is not None:
        measured = tf.nn.avg_pool2d(tf.cast(weight, bed.dtype), UPSCALING, UPSCALING, "VALID")
        valid *= 1 - tf.clip_by_value(measured, 0, 1)
    residual = (means - coarse) * valid
    (count,) = totals(tf.reduce_sum(valid))
    loss = tf.math.divide_no_nan(tf.reduce_sum(tf.abs(residual)), count)
    return loss, {"coarse_bias": tf.math.divide_no_nan(tf.reduce_sum(residual), count)}


def structural_similarity(
    bed_true: tf.Tensor, bed: tf.Tensor, config: StructuralConfig | None = None, weight: tf.Tensor | None = None
) -> tf.Tensor:
    """Mean structural similarity (Wang et al. 2004) over uniform windows without padding.

    The published code takes E[x^2] - E[x]^2 of raw metres in float32, which is noise at -1500 m. Here the level of
    each tile is taken off first and the moments are summed in float64; only the luminance term sees it again.

    Parameters
    ----------
    bed_true, bed
        (n, height, width, 1), metres; finite, also where the weight is 0.
    config
        Window and constants; by default the published ones.
    weight
        Same shape. The moments of a window are then weighted ones, windows with fewer than
        `StructuralConfig.least_cells` weighted cells are left out, and the others count by their weight.

    Returns
    -------
    tf.Tensor
        Scalar in [-1, 1], dtype of `bed`; 1 when no window is left.
    """
    config = config or StructuralConfig()
    true64, bed64 = tf.cast(bed_true, tf.float64), tf.cast(bed, tf.float64)
    if weight is None:
        level = tf.reduce_mean(true64, axis=(1, 2), keepdims=True)
        share = None
    else:
        weight64 = tf.cast(weight, tf.float64)
        total = tf.reduce_sum(weight64, axis=(1, 2), keepdims=True)
        level = tf.math.divide_no_nan(tf.reduce_sum(weight64 * true64, axis=(1, 2), keepdims=True), total)
        cells = _window_mean(tf.cast(weight64 > 0, tf.float64), config.window) * config.window**2
        share = tf.where(cells > config.least_cells - 0.5, _window_mean(weight64, config.window), 0)
    true64, bed64 = true64 - level, bed64 - level

    products = tf.concat([true64, bed64, true64**2, bed64**2, true64 * bed64], axis=-1)
    if share is None:
        moments = _window_mean(products, config.window)
    else:
        moments = tf.math.divide_no_nan(_window_mean(weight64 * products, config.window), share)
    true_mean, bed_mean, true_square, bed_square, product = tf.split(moments, 5, axis=-1)
    true_variance = true_square - true_mean**2
    bed_variance = bed_square - bed_mean**2
    covariance = product - true_mean * bed_mean
    true_mean, bed_mean = true_mean + level, bed_mean + level
    luminance = (2 * true_mean * bed_mean + config.c1) / (true_mean**2 + bed_mean**2 + config.c1)
    structure = (2 * covariance + config.c2) / (true_variance + bed_variance + config.c2)
    if share is None:
        return tf.cast(_mean(luminance * structure, None), bed.dtype)
    (seen,) = totals(tf.reduce_sum(share))
    missing = part_of_mean(tf.cast(tf.equal(seen, 0), tf.float64))
    return tf.cast(_mean(luminance * structure, share) + missing, bed.dtype)


def _window_mean(values: tf.Tensor, size: int) -> tf.Tensor:
    """Mean over size x size windows, stride 1, no padding; sums of slices, as pooling one channel is slow on a CPU."""
    rows, columns = tf.shape(values)[1] - size + 1, tf.shape(values)[2] - size + 1
    down = tf.add_n([values[:, shift : shift + rows] for shift in range(size)])
    return tf.add_n([down[:, :, shift : shift + columns] for shift in range(size)]) / size**2


def structural_loss(
    bed_true: tf.Tensor, bed: tf.Tensor, config: StructuralConfig | None = None, weight: tf.Tensor | None = None
) -> Loss:
    """One minus the structural similarity (equation A5)."""
    similarity = structural_similarity(bed_true, bed, config, weight)
    return part_of_mean(1.0) - similarity, {"ssim": similarity}


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
    real, fake = _relative(real_logits, fake_logits)
    loss = tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake))
    right = tf.concat([tf.cast(real > 0, real.dtype), tf.cast(fake < 0, fake.dtype)], axis=0)
    return part_of_mean(loss), {"accuracy": part_of_mean(tf.reduce_mean(right))}


def _relative(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits of each kind over the other kind's mean in the global batch."""
    fake_mean, real_mean = (part_of_mean(tf.reduce_mean(logits)) for logits in (fake_logits, real_logits))
    fake_mean, real_mean = totals(fake_mean, real_mean)
    return real_logits - fake_mean, fake_logits - real_mean


def adversarial_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> Loss:
    """Relativistic average loss of the generator (equation A3), with both sides live.

    The published code detached the generated side and took a constant for the other, so its generator never felt
    this term.
    """
    real, fake = _relative(real_logits, fake_logits)
    return part_of_mean(tf.reduce_mean(tf.nn.softplus(real)) + tf.reduce_mean(tf.nn.softplus(-fake))), {}


@dataclass(frozen=True)
class GeneratorOutcome:
    """What the terms of the generator's loss may look at; shapes as in the functions above.

    Attributes
    ----------
    weight, radar
        What each cell counts, and the same for cells with radar alone: texture is learned from those only.
    """

    bed_true: tf.Tensor
    bed: tf.Tensor
    bed_lowres: tf.Tensor
    real_logits: tf.Tensor | None
    fake_logits: tf.Tensor | None
    structural: StructuralConfig = StructuralConfig()
    weight: tf.Tensor | None = None
    radar: tf.Tensor | None = None


GENERATOR_TERMS: dict[str, Callable[[GeneratorOutcome], Loss]] = {
    "content": lambda o: content_loss(o.bed_true, o.bed, o.weight),
    "adversarial": lambda o: adversarial_loss(o.real_logits, o.fake_logits),
    "topographic": lambda o: topographic_loss(o.bed, o.bed_lowres, o.weight),
    "squared": lambda o: squared_loss(o.bed_true, o.bed, o.weight),
    "structural": lambda o: structural_loss(o.bed_true, o.bed, o.structural, o.radar),
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
