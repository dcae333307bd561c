"""The adversarial step: who moves whom, what is averaged and what is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from tiny_training import only, tiny_bed, tiny_config, tiny_inputs

from deepbedmap_tf.config import Config
from deepbedmap_tf.models.layers import BicubicUpsampling
from deepbedmap_tf.training.gan import DeepBedMapGAN, ValueRange
from deepbedmap_tf.training.losses import adversarial_loss, structural_similarity

BATCH = ({name: tf.constant(values) for name, values in tiny_inputs(4).items()}, tf.constant(tiny_bed(4)))


def make_gan(
    config: Config, generator_rate: float = 1e-3, discriminator_rate: float = 1e-3, dtype: str = "float32"
) -> DeepBedMapGAN:
    """A GAN with weights large enough for gradients that rounding does not hide, always the same."""
    keras.utils.set_random_seed(0)
    loud = {"initial_scale": 1.0, "trunk_initial_scale": 1.0}
    config = config.model_copy(
        update={
            "generator": config.generator.model_copy(update=loud),
            "discriminator": config.discriminator.model_copy(update={"initial_scale": 1.0}),
        }
    )
    gan = DeepBedMapGAN(config, dtype)
    gan.compile(keras.optimizers.Adam(generator_rate), keras.optimizers.Adam(discriminator_rate), run_eagerly=True)
    return gan


def with_terms(*names: str, **training: Any) -> Config:
    return tiny_config(**training).model_copy(update={"losses": only(*names)})


def same(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    return all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))


def test_the_adversarial_term_moves_the_generator() -> None:
    # The published code detached it: its generator never felt its judge.
    gan = make_gan(with_terms("adversarial", ema_momentum=None))
    before = gan.generator.get_weights()
    gan.train_step(BATCH)
    moved = [not np.array_equal(old, new) for old, new in zip(before, gan.generator.get_weights(), strict=True)]
    assert all(moved)


def test_both_sides_of_the_adversarial_term_are_live() -> None:
    gan = make_gan(with_terms("adversarial", ema_momentum=None), discriminator_rate=0.0)
    inputs, truth = BATCH
    weights = gan.generator.trainable_weights
    with tf.GradientTape() as tape:
        bed = gan.generator(inputs, training=True)
        real, fake = (gan.discriminator(each, training=True) for each in (truth, bed))
        loss, _ = adversarial_loss(real, fake)
    expected = tape.gradient(loss, weights)
    # One step of plain gradient descent with rate 1 shows the gradient that was applied.
    gan = make_gan(with_terms("adversarial", ema_momentum=None), discriminator_rate=0.0)
    gan.generator_optimizer = keras.optimizers.SGD(1.0)
    before = gan.generator.get_weights()
    gan.train_step(BATCH)
    for old, new, gradient in zip(before, gan.generator.get_weights(), expected, strict=True):
        scale = np.abs(gradient).max() + np.abs(old).max()
        np.testing.assert_allclose(old - new, gradient, rtol=0, atol=2e-5 * scale)


def test_the_generator_step_leaves_the_discriminator_alone() -> None:
    gan = make_gan(with_terms("adversarial", ema_momentum=None), discriminator_rate=0.0)
    twin = keras.models.clone_model(gan.discriminator)
    twin.set_weights(gan.discriminator.get_weights())
    trained = [weight.numpy() for weight in gan.discriminator.trainable_weights]
    inputs, truth = BATCH
    bed = gan.generator(inputs, training=True)
    gan.train_step(BATCH)
    assert same(trained, [weight.numpy() for weight in gan.discriminator.trainable_weights])
    # Its moving statistics have seen its own step's two calls, and not those made for the generator.
    twin(truth, training=True)
    twin(bed, training=True)
    for expected, found in zip(twin.get_weights(), gan.discriminator.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_discriminator_step_does_not_depend_on_the_generators_loss() -> None:
    after = []
    for terms in (("content", "adversarial"), ("adversarial",)):
        gan = make_gan(with_terms(*terms, ema_momentum=None))
        gan.train_step(BATCH)
        after.append(gan.discriminator.get_weights())
    assert same(*after)


def test_without_an_adversarial_term_no_discriminator_is_trained() -> None:
    gan = make_gan(with_terms("content", ema_momentum=None))
    judge, generator = gan.discriminator.get_weights(), gan.generator.get_weights()
    logs = gan.train_step(BATCH)
    assert same(judge, gan.discriminator.get_weights()) and not same(generator, gan.generator.get_weights())
    assert "discriminator_loss" not in logs and "discriminator_loss" not in gan.test_step(BATCH)


def test_the_discriminator_step_leaves_the_generator_alone() -> None:
    gan = make_gan(with_terms("content", "adversarial", ema_momentum=None), generator_rate=0.0)
    generator, judge = gan.generator.get_weights(), gan.discriminator.get_weights()
    gan.train_step(BATCH)
    assert same(generator, gan.generator.get_weights())
    assert not same(judge, gan.discriminator.get_weights())


def test_validation_changes_nothing() -> None:
    gan = make_gan(tiny_config())
    networks = gan.generator, gan.discriminator, gan.averaged_generator
    before = [network.get_weights() for network in networks]
    gan.test_step(BATCH)
    assert all(same(old, network.get_weights()) for old, network in zip(before, networks, strict=True))
    assert int(gan.step) == 0


def test_loss_is_the_weighted_sum() -> None:
    gan = make_gan(tiny_config())
    logs = {name: float(value) for name, value in gan.train_step(BATCH).items()}
    expected = sum(term.weight * logs[term.name] for term in gan.config.losses)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert [term.weight for term in gan.config.losses] == [1e-2, 2e-2, 2e-3, 5.25]
    assert int(gan.step) == 1


def test_validation_metrics_by_hand() -> None:
    gan = make_gan(tiny_config())
    inputs, truth = BATCH
    gan.reset_metrics()
    logs = {name: float(value) for name, value in gan.test_step(BATCH).items()}
    bed, true = gan(inputs).numpy().astype(np.float64), truth.numpy().astype(np.float64)
    rmse = np.sqrt(np.mean((bed - true) ** 2))
    bicubic = np.sqrt(np.mean((BicubicUpsampling()(inputs["bed_lowres"]).numpy() - true) ** 2))
    assert logs["rmse"] == pytest.approx(rmse, rel=1e-5)
    assert logs["bicubic_rmse"] == pytest.approx(bicubic, rel=1e-5)
    assert logs["skill"] == pytest.approx(1 - rmse / bicubic, abs=1e-5)
    assert logs["psnr"] == pytest.approx(20 * np.log10((true.max() - true.min()) / rmse), rel=1e-5)
    assert logs["ssim"] == pytest.approx(float(structural_similarity(true, tf.constant(bed))), rel=1e-4)
    assert logs["content"] == pytest.approx(np.abs(bed - true).mean(), rel=1e-5)


def test_averaged_weights_follow_by_the_momentum() -> None:
    gan = make_gan(tiny_config(ema_momentum=0.15))
    average = [weight.copy() for weight in gan.generator.get_weights()]
    for step in range(3):
        gan.train_step(BATCH)
        # Closely at first, then by the momentum: 0.1, 2/11 limited to 0.15, 0.15.
        keep = min(0.15, (1 + step) / (10 + step))
        average = [keep * old + (1 - keep) * new for old, new in zip(average, gan.generator.get_weights(), strict=True)]
    for expected, found in zip(average, gan.averaged_generator.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gan(BATCH[0]), gan.averaged_generator(BATCH[0]))


def test_without_momentum_the_generator_itself_is_evaluated() -> None:
    gan = make_gan(tiny_config(ema_momentum=None))
    assert gan.averaged_generator is gan.generator


def test_larger_beds_are_judged_tile_by_tile() -> None:
    gan = make_gan(with_terms("adversarial", ema_momentum=None))
    bed = np.random.default_rng(0).normal(size=(2, 76, 40, 1)).astype(np.float32)
    tiles = gan._judged(tf.constant(bed)).numpy()
    np.testing.assert_array_equal(tiles, [bed[0, :36, :36], bed[0, 36:72, :36], bed[1, :36, :36], bed[1, 36:72, :36]])
    inputs = {name: tf.constant(values) for name, values in tiny_inputs(1, (21, 12)).items()}
    gan.train_step((inputs, tf.constant(bed[:1] * 50 - 900)))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_step_in_mixed_precision_is_near_one_in_float32(policy: str) -> None:
    exact, half = (make_gan(tiny_config(), dtype=dtype) for dtype in ("float32", policy))
    half.set_weights(exact.get_weights())
    expected, found = (gan.train_step(BATCH) for gan in (exact, half))
    for name, value in expected.items():
        assert np.isfinite(found[name])
        # Four tiles, each on one side or the other of the mean: the accuracy may jump.
        limit = 0.26 if name == "discriminator_accuracy" else 0.02
        assert float(found[name]) == pytest.approx(float(value), rel=0.2, abs=limit), name
    for optimizer in (half.generator_optimizer, half.discriminator_optimizer):
        assert hasattr(optimizer, "get_scaled_loss") == (policy == "mixed_float16")


def test_value_range() -> None:
    metric = ValueRange()
    metric.update_state(tf.constant([3.0, -2.0]))
    metric.update_state(tf.constant([[10.0]]))
    assert float(metric.result()) == 12.0
    metric.reset_state()
    metric.update_state(tf.constant([5.0, 6.0]))
    assert float(metric.result()) == 1.0


def test_training_learns() -> None:
    keras.utils.set_random_seed(0)
    gan = DeepBedMapGAN(with_terms("content", ema_momentum=None), "float32")
    gan.compile(keras.optimizers.Adam(2e-3), keras.optimizers.Adam(1e-4), run_eagerly=True)
    inputs, _ = BATCH
    truth = gan.bicubic(inputs["bed_lowres"]) + 500.0
    errors = []
    for _ in range(4):
        gan.reset_metrics()
        errors.append(float(gan.train_step((inputs, truth))["content"]))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] - 0.1


def test_a_bed_known_in_places_trains_on_those_alone() -> None:
    inputs, truth = BATCH
    weight = np.zeros(truth.shape, np.float32)
    weight[:, 5:30:3, 4:33] = 0.7
    config = with_terms("content", "adversarial", "topographic", "structural", ema_momentum=None)
    config = config.model_copy(update={"discriminator": config.discriminator.model_copy(update={"sees": "measured"})})
    results = []
    for elsewhere in (0.0, 5000.0):
        gan = make_gan(config)
        logs = gan.train_step((inputs, tf.where(weight > 0, truth, elsewhere), tf.repeat(weight, 2, axis=-1)))
        results.append((gan.generator.get_weights(), gan.discriminator.get_weights(), float(logs["rmse"])))
    for first, second in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_array_equal(first, second)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(first, second)
    bed = make_gan(config).generator(inputs, training=True)
    error = (bed - truth).numpy()[weight > 0]
    assert results[0][2] == pytest.approx(float(np.sqrt(np.mean(error.astype(float) ** 2))), rel=1e-4)
