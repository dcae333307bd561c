"""The REST body that both servers take, against the signature, and the client against an HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import TINY, build_loud, tiny_inputs

from deepbedmap_tf.errors import ModelError
from deepbedmap_tf.inference.client import RemoteModel, request_body
from deepbedmap_tf.inference.export import SuperResolution, export_model, load_model

CONFIG = TINY.model_copy(update={"normalise": True, "output": "residual"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SuperResolution:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return load_model(export_model(build_loud(CONFIG), CONFIG, folder, {}))


def by_the_rules(body: str, folder: Path) -> dict[str, Any]:
    """Answer a body in columns as the REST interface of TensorFlow Serving describes it."""
    request = json.loads(body)
    assert set(request) <= {"signature_name", "inputs"}
    signature = tf.saved_model.load(str(folder / "1")).signatures[request.get("signature_name", "serving_default")]
    specifications = signature.structured_input_signature[1]
    assert set(request["inputs"]) == set(specifications)
    tensors = {name: tf.constant(request["inputs"][name], spec.dtype) for name, spec in specifications.items()}
    outputs = {name: values.numpy().tolist() for name, values in signature(**tensors).items()}
    return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}


@pytest.mark.parametrize("number", [1, 3])
def test_the_body_fits_the_signature(model: SuperResolution, number: int) -> None:
    inputs = tiny_inputs(number, (5, 6))
    inputs["surface"][0, :10] = np.nan
    body = request_body(inputs)
    np.testing.assert_array_equal(np.float32(by_the_rules(body, model.folder)["outputs"]), model(inputs))
    named = json.dumps({"signature_name": "predict_with_residual", **json.loads(body)})
    outputs = by_the_rules(named, model.folder)["outputs"]
    for name, expected in zip(("bed", "coarse_residual"), model.with_residual(inputs), strict=True):
        np.testing.assert_array_equal(np.float32(outputs[name]), expected)


class Handler(BaseHTTPRequestHandler):
    """Answers as the path asks for."""

    folder: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answers: dict[str, tuple[int, Any]] = {
            "/refused": (400, {"error": "input tensor alias\nnot found"}),
            "/plain": (502, "bad gateway"),
            "/other": (200, {"predictions": [1, 2, 3]}),
            "/list": (200, [1]),
            "/nothing": (200, {"something": 1}),
        }
        code, answer = answers.get(self.path) or (200, by_the_rules(body, self.folder))
        self.send_response(code)
        self.end_headers()
        self.wfile.write((answer if isinstance(answer, str) else json.dumps(answer)).encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(model: SuperResolution) -> Iterator[str]:
    Handler.folder = model.folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_client_reads_tensorflow_servings_answer(address: str, model: SuperResolution) -> None:
    inputs = tiny_inputs(2, (5, 6))
    remote = RemoteModel(f"http://{address}/v1/models/deepbedmap:predict")
    np.testing.assert_array_equal(remote(inputs), model(inputs))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("refused", r"refused the request \(status 400\): input tensor alias not found"),
        ("plain", r"refused the request \(status 502\): bad gateway"),
        ("other", r"a bed of shape \(3,\), expected \(1, 12, 16, 1\)"),
        ("list", "did not answer with a bed"),
        ("nothing", "did not answer with a bed"),
    ],
)
def test_what_is_no_bed(address: str, path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        RemoteModel(f"http://anna:marker-7f3a@{address}/{path}")(tiny_inputs(1, (5, 6)))
    assert "\n" not in str(error.value) and "marker-7f3a" not in str(error.value)


def test_nobody_there() -> None:
    with pytest.raises(ModelError, match=r"no answer from http://\*\*\*@127.0.0.1:9/.* check that the server") as error:
        RemoteModel("http://anna:marker-7f3a@127.0.0.1:9/invocations")(tiny_inputs(1, (5, 6)))
    assert "marker-7f3a" not in str(error.value)
