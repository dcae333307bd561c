"""The discriminator: its size, its layers one by one in NumPy, precisions and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chainer_layout import discriminator_arrays, save
from numpy.lib.stride_tricks import sliding_window_view
from tensorflow import keras
from tiny_training import tiny_bed

from deepbedmap_tf.config import DiscriminatorConfig
from deepbedmap_tf.models import build_discriminator, load_chainer_weights


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return discriminator_arrays(2)


@pytest.fixture(scope="module")
def network(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    path = save(tmp_path_factory.mktemp("weights") / "discriminator.npz", arrays)
    return load_chainer_weights(build_discriminator(dtype="float64"), path)


def by_hand(bed: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Logits of beds (n, 36, 36) with the moving statistics, float64, from Chainer's arrays."""
    image = bed[:, np.newaxis]
    for index in range(10):
        kernel = arrays[f"conv_layer{index}/W"].astype(np.float64)
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = sliding_window_view(padded, kernel.shape[2:], axis=(2, 3))
        step = 1 if index % 2 == 0 else 2
        image = np.einsum("ncijkl,ockl->noij", windows[:, :, ::step, ::step], kernel, optimize=True)
        if index == 0:
            image += arrays["conv_layer0/b"][:, np.newaxis, np.newaxis]
        else:
            gamma, beta, mean, variance = (
                arrays[f"batch_norm{index}/{name}"][:, np.newaxis, np.newaxis].astype(np.float64)
                for name in ("gamma", "beta", "avg_mean", "avg_var")
            )
            image = (image - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        image = np.where(image > 0, image, 0.2 * image)
    assert image.shape[1:] == (512, 1, 1)
    dense = image[:, :, 0, 0] @ arrays["linear_1/W"].T.astype(np.float64) + arrays["linear_1/b"]
    dense = np.where(dense > 0, dense, 0.2 * dense)
    return dense @ arrays["linear_2/W"].T.astype(np.float64) + arrays["linear_2/b"]


def test_parameters(network: keras.Model) -> None:
    assert sum(weight.shape.num_elements() for weight in network.trainable_weights) == 10_370_761
    assert network.count_params() == 10_370_761 + 4_992


def test_logits_by_hand(network: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    bed = tiny_bed(2).astype(np.float64) / 100
    np.testing.assert_allclose(network(bed), by_hand(bed[..., 0], arrays), rtol=1e-9, atol=1e-9)


def test_moving_statistics_follow_by_a_tenth(network: keras.Model) -> None:
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    bed = tiny_bed(4).astype(np.float64) / 100
    first = keras.Model(twin.input, twin.get_layer("batch_norm_1").input)
    maps = np.asarray(first(bed))
    gamma, beta, mean, variance = twin.get_layer("batch_norm_1").get_weights()
    twin(bed, training=True)
    after = twin.get_layer("batch_norm_1").get_weights()
    np.testing.assert_array_equal(after[0], gamma)
    np.testing.assert_array_equal(after[1], beta)
    np.testing.assert_allclose(after[2], 0.9 * mean + 0.1 * maps.mean(axis=(0, 1, 2)), rtol=1e-6, atol=1e-8)
    # Chainer keeps the unbiased variance; with 4 x 18 x 18 values a channel the two differ by less than 0.1 %.
    np.testing.assert_allclose(after[3], 0.9 * variance + 0.1 * maps.var(axis=(0, 1, 2)), rtol=1e-3)


def test_normalised_judge_does_not_see_the_level() -> None:
    judge = build_discriminator(DiscriminatorConfig(normalise=True, initial_scale=1.0), "float32")
    bed = tiny_bed(2)
    np.testing.assert_allclose(judge(bed), judge(bed + np.float32(1024)), rtol=1e-4, atol=1e-4)


def test_mixed_bfloat16_stays_near_float32() -> None:
    config = DiscriminatorConfig(normalise=True, initial_scale=1.0)
    exact, half = build_discriminator(config, "float32"), build_discriminator(config, "mixed_bfloat16")
    half.set_weights(exact.get_weights())
    bed = tiny_bed(4)
    logits = half(bed)
    assert logits.dtype == "float32"
    assert np.abs(logits - exact(bed)).max() < 0.05 * np.abs(exact(bed)).max()


def test_keras_file(tmp_path: Path) -> None:
    judge = build_discriminator(DiscriminatorConfig(normalise=True), "float32")
    judge.save(tmp_path / "discriminator.keras")
    bed = tiny_bed(2)
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "discriminator.keras")(bed), judge(bed), rtol=1e-6, atol=1e-9
    )
