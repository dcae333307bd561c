from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow import keras

from deepbedmap_tf.config import DEFAULT_INPUTS, GeneratorConfig
from deepbedmap_tf.data.augment import transform
from deepbedmap_tf.inference.export import export_again, export_model, load_model
from deepbedmap_tf.models.generator import build_generator
from deepbedmap_tf.models.symmetry import symmetric_mean

CONFIG = GeneratorConfig(
    num_residual_blocks=1,
    input_filters=4,
    output="residual",
    normalise=True,
    initial_scale=0.5,
    trunk_initial_scale=1.0,
)


def windows(height: int = 6, width: int = 9) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        each.name: random.normal(size=(2, height * each.ratio, width * each.ratio, each.channels)).astype("float32")
        for each in DEFAULT_INPUTS
    }


def laid(inputs: dict[str, np.ndarray], symmetry: int) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(transform(each, symmetry, name == "velocity")) for name, each in inputs.items()}


def back(symmetry: int) -> int:
    probe = np.arange(9.0).reshape(3, 3, 1)
    return next(each for each in range(8) if np.array_equal(transform(transform(probe, symmetry), each), probe))


def test_the_mean_is_that_of_eight_turned_predictions() -> None:
    keras.utils.set_random_seed(1)
    network = build_generator(CONFIG, "float32")
    inputs = windows()
    beds = [transform(network(laid(inputs, each)).numpy(), back(each)) for each in range(8)]
    mean = symmetric_mean(tf.function(network), inputs).numpy()
    # The network prefers a direction, or this would say nothing.
    assert np.std(beds, axis=0).max() > 1
    np.testing.assert_allclose(mean, np.mean(beds, axis=0), rtol=0, atol=0.02)


def test_an_exported_symmetric_model_turns_with_its_inputs(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    network = build_generator(CONFIG, "float32")
    export_model(network, CONFIG, tmp_path / "model", {"name": "model"}, symmetric=True)
    model = load_model(tmp_path / "model")
    assert model.metadata["symmetric"] is True
    inputs = windows()
    bed = model(inputs)
    for symmetry in range(8):
        np.testing.assert_allclose(model(laid(inputs, symmetry)), transform(bed, symmetry), rtol=0, atol=0.02)
    again = load_model(export_again(tmp_path / "model", tmp_path / "again"))
    assert again.metadata["symmetric"] is True
    np.testing.assert_allclose(again(inputs), bed, rtol=0, atol=0.02)
    # Training goes on from the network itself.
    np.testing.assert_array_equal(model.weights()[0], network.get_weights()[0])
