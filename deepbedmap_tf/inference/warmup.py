"""Requests with which TensorFlow Serving warms a model up as it loads it, so that the first user doesn't wait.

The file is ``assets.extra/tf_serving_warmup_requests`` in the SavedModel: a TFRecord of ``PredictionLog`` messages.
Their definitions are not part of TensorFlow but of the package tensorflow-serving-api, which would be a dependency for
four messages that only nest. Protocol buffers encode such nesting as number, length, content; the numbers are those of
``prediction_log.proto``, ``predict.proto`` and ``model.proto`` in tensorflow/serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from deepbedmap_tf.config import InputConfig

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
CELLS = 11
"""Side of the requests' window in low-resolution cells: the paper's tile with its margin."""

_LEVELS = {"bed_lowres": -900.0, "surface": 900.0, "velocity": 150.0, "accumulation": 400.0}


def write_warmup(folder: Path, inputs: Sequence[InputConfig], signatures: Sequence[str]) -> None:
    """Write one request a signature into a SavedModel.

    Parameters
    ----------
    folder
        The SavedModel.
    inputs
        What the signatures take.
    signatures
        Their names.
    """
    path = folder / WARMUP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = warmup_inputs(inputs)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature in signatures:
            writer.write(prediction_log(signature, arrays))


def warmup_inputs(inputs: Sequence[InputConfig]) -> dict[str, np.ndarray]:
    """Gently sloping fields of plausible size, (1, height, width, channels) float32 by name."""
    arrays = {}
    for each in inputs:
        side = CELLS * each.ratio
        slope = 1 + np.linspace(0, 0.1, side, dtype=np.float32)[np.newaxis, :, np.newaxis, np.newaxis]
        arrays[each.name] = (
            np.float32(_LEVELS.get(each.name, 0.0)) * np.ones((1, side, side, each.channels), "f4") * slope
        )
    return arrays


def prediction_log(signature: str, arrays: dict[str, np.ndarray], model: str = "deepbedmap") -> bytes:
    """Encode one ``PredictionLog`` with a ``PredictRequest`` for a signature."""
    specification = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, specification)
    for name, values in arrays.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        # An entry of a map is a message of key and value.
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, content: bytes) -> bytes:
    """Encode a field that has a length: a string or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
