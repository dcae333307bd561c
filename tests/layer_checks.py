"""One check that every custom layer must pass: what Keras, training, mixed precision and files ask of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

Inputs = np.ndarray | dict[str, np.ndarray]


def check_layer(
    make: Callable[..., keras.layers.Layer],
    inputs: Inputs,
    folder: Path,
    error: Mapping[str, float],
    fixed_size: bool = False,
) -> None:
    """Check one layer.

    Parameters
    ----------
    make
        Makes the layer; takes `dtype` and `name`.
    inputs
        What it takes, float32, valid everywhere.
    folder
        For the file it is saved to.
    error
        By mixed-precision policy: largest difference from float32, relative to the largest output.
    fixed_size
        The layer is built for the height and width of `inputs` instead of any.
    """
    layer = make(name="layer", dtype="float32")
    expected = _call(layer, inputs)
    _check_configuration(layer, inputs, expected)
    model = _model(layer, inputs, fixed_size)
    _check_symbolic_shape(model, expected)
    np.testing.assert_allclose(_flat(model(inputs)), _flat(expected), rtol=1e-6, atol=1e-6, err_msg="graph, eager")
    _check_file(model, inputs, folder)
    for policy, limit in error.items():
        _check_precision(make, layer, inputs, expected, policy, limit)
    _check_training(model, inputs)


def _call(layer: keras.layers.Layer, inputs: Inputs) -> Any:
    return layer(tf.nest.map_structure(tf.constant, inputs))


def _flat(values: Any) -> np.ndarray:
    return np.concatenate([np.asarray(tf.cast(part, tf.float32)).ravel() for part in tf.nest.flatten(values)])


def _model(layer: keras.layers.Layer, inputs: Inputs, fixed_size: bool) -> keras.Model:
    def symbolic(values: np.ndarray) -> Any:
        size = values.shape[1:3] if fixed_size else (None, None)
        return keras.Input((*size, values.shape[-1]), dtype=layer.dtype)

    symbols = tf.nest.map_structure(symbolic, inputs)
    return keras.Model(symbols, layer(symbols))


def _check_configuration(layer: keras.layers.Layer, inputs: Inputs, expected: Any) -> None:
    serialised = keras.saving.serialize_keras_object(layer)
    assert serialised["registered_name"].startswith("deepbedmap_tf>"), "not registered with Keras"
    twin = keras.saving.deserialize_keras_object(json.loads(json.dumps(serialised)))
    assert twin.get_config() == layer.get_config()
    _call(twin, inputs)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(_flat(_call(twin, inputs)), _flat(expected))


def _check_symbolic_shape(model: keras.Model, expected: Any) -> None:
    for symbol, value in zip(tf.nest.flatten(model.output), tf.nest.flatten(expected), strict=True):
        assert symbol.shape.is_compatible_with(value.shape)
        assert symbol.shape[-1] == value.shape[-1], "the number of channels is not known before a call"


def _check_file(model: keras.Model, inputs: Inputs, folder: Path) -> None:
    file = folder / "layer.keras"
    model.save(file)
    loaded = keras.models.load_model(file)
    np.testing.assert_allclose(_flat(loaded(inputs)), _flat(model(inputs)), rtol=1e-6, atol=1e-6)


def _check_precision(
    make: Callable[..., keras.layers.Layer],
    exact: keras.layers.Layer,
    inputs: Inputs,
    expected: Any,
    policy: str,
    limit: float,
) -> None:
    layer = make(name="layer", dtype=policy)
    _call(layer, inputs)
    assert all(weight.dtype == tf.float32 for weight in layer.weights), "weights must stay in float32"
    layer.set_weights(exact.get_weights())
    outputs = _call(layer, inputs)
    assert {part.dtype.name for part in tf.nest.flatten(outputs)} == {layer.compute_dtype}
    difference = np.abs(_flat(outputs) - _flat(expected)).max() / np.abs(_flat(expected)).max()
    assert difference <= limit, f"{policy} is {difference:.2e} from float32, expected at most {limit:.0e}"


def _check_training(model: keras.Model, inputs: Inputs) -> None:
    tensors = tf.nest.map_structure(tf.constant, inputs)
    with tf.GradientTape() as tape:
        tf.nest.map_structure(tape.watch, tensors)
        loss = tf.add_n([tf.reduce_mean(part**2) for part in tf.nest.flatten(model(tensors, training=True))])
    sources = [*tf.nest.flatten(tensors), *model.trainable_weights]
    gradients = tape.gradient(loss, sources)
    assert all(gradient is not None for gradient in gradients), "an input or weight has no gradient"
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    if not model.trainable_weights:
        return
    before = model.get_weights()
    keras.optimizers.Adam(0.01).apply_gradients(
        zip(gradients[-len(model.trainable_weights) :], model.trainable_weights, strict=True)
    )
    changed = [not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)]
    assert all(changed), "a weight did not move in a training step"
    after = tf.add_n([tf.reduce_mean(part**2) for part in tf.nest.flatten(model(tensors, training=True))])
    assert float(after) < float(loss), "the training step did not lower the loss"
