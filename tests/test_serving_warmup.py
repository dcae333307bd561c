"""Warm-up requests of an export, read by the public definitions of their messages, run on the signatures they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2
from tiny_training import TINY

from deepbedmap_tf.inference.export import export_model
from deepbedmap_tf.inference.warmup import WARMUP_FILE
from deepbedmap_tf.models import build_generator

STRING, MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
# tensorflow/serving, apis/model.proto, predict.proto and prediction_log.proto: number and kind of the fields in use.
MESSAGES: dict[str, list[tuple[str, int, str | None, bool]]] = {
    "ModelSpec": [("name", 1, None, False), ("signature_name", 3, None, False)],
    "Entry": [("key", 1, None, False), ("value", 2, ".tensorflow.TensorProto", False)],
    "PredictRequest": [("model_spec", 1, "ModelSpec", False), ("inputs", 2, "Entry", True)],
    "PredictLog": [("request", 1, "PredictRequest", False)],
    "PredictionLog": [("predict_log", 6, "PredictLog", False)],
}


@pytest.fixture(scope="module")
def prediction_log() -> Any:
    """The class of the outermost message."""
    file = descriptor_pb2.FileDescriptorProto(name="warmup_test.proto", package="warmup_test", syntax="proto3")
    file.dependency.append(tensor_pb2.DESCRIPTOR.name)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            message.field.add(
                name=field,
                number=number,
                label=3 if repeated else 1,
                type=STRING if kind is None else MESSAGE,
                type_name=None if kind is None else kind if kind.startswith(".") else f".warmup_test.{kind}",
            )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("warmup_test.PredictionLog"))


def test_requests_run_on_the_signatures_that_they_name(prediction_log: Any, tmp_path: Path) -> None:
    folder = export_model(build_generator(TINY, "float32"), TINY, tmp_path / "tiny", {}) / "1"
    loaded = tf.saved_model.load(str(folder))
    seen = []
    for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator():
        log = prediction_log.FromString(record)
        # Nothing was written under a number that the definitions don't know.
        log.DiscardUnknownFields()
        assert log.SerializeToString(deterministic=True) == record
        request = log.predict_log.request
        tensors = {entry.key: tf.constant(tf.make_ndarray(entry.value)) for entry in request.inputs}
        outputs = loaded.signatures[request.model_spec.signature_name](**tensors)
        assert outputs["bed"].shape == (1, 36, 36, 1) and np.isfinite(outputs["bed"]).all()
        seen.append((request.model_spec.name, request.model_spec.signature_name))
    assert seen == [("deepbedmap", "serving_default"), ("deepbedmap", "predict_with_residual")]
