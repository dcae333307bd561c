"""The registered model behind MLflow's own server: right numbers, and refusals that leave it standing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests
from command_line import ROOT, run, small_world
from http_servers import Server, free_port, running
from tiny_training import tiny_inputs

from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import ModelError
from deepbedmap_tf.inference.client import RemoteModel, request_body
from deepbedmap_tf.inference.export import load_model
from deepbedmap_tf.inference.predict import predict_region, predict_window
from deepbedmap_tf.inference.serving import register

pytestmark = pytest.mark.slow

SHIPPED = ROOT / "saved_models/default"
THWAITES = (-1484000.0, -528000.0, -1473000.0, -516000.0)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``mlflow models serve -m models:/deepbedmap/latest`` with the shipped model in a registry of its own."""
    folder = tmp_path_factory.mktemp("serve")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("DEEPBEDMAP_CACHE_DIR", str(folder / "cache"))
        patch.chdir(folder)
        assert register(SHIPPED) == "models:/deepbedmap/1"
        port = free_port()
        arguments = [
            "models",
            "serve",
            "-m",
            "models:/deepbedmap/latest",
            "--env-manager",
            "local",
            "-t",
            "600",
            "-p",
            str(port),
        ]
        with running(arguments, port, "/ping", folder, {"MLFLOW_TRACKING_URI": uri}) as started:
            yield started


@pytest.fixture(scope="module")
def remote(server: Server) -> RemoteModel:
    return RemoteModel(f"{server.address}/invocations")


def post(server: Server, body: str | bytes) -> requests.Response:
    return requests.post(f"{server.address}/invocations", data=body, headers=JSON, timeout=300)


def test_a_window_near_thwaites(remote: RemoteModel, server: Server) -> None:
    region = load_region(small_world(server.log.parent / "world.yml"))
    local = load_model(SHIPPED)
    bed = predict_window(remote, region, THWAITES)
    expected = predict_window(local, region, THWAITES)
    assert bed.shape == (48, 44) and bed.dims == ("y", "x")
    assert bed.attrs["vertical_datum"] == "ellipsoid:WGS84" and bed.attrs["crs"] == "EPSG:3031"
    np.testing.assert_array_equal(bed["x"], np.arange(THWAITES[0] + 125, THWAITES[2], 250))
    np.testing.assert_array_equal(bed["y"], np.arange(THWAITES[3] - 125, THWAITES[1], -250))
    np.testing.assert_allclose(bed, expected, rtol=1e-5)
    assert bed.std() > 10
    blocks = predict_region(remote, region, THWAITES, block=6, halo=3)
    np.testing.assert_allclose(blocks, predict_region(local, region, THWAITES, block=6, halo=3), rtol=1e-5)


def test_gaps_are_taken_as_nan_or_null(remote: RemoteModel, server: Server) -> None:
    inputs = tiny_inputs(2, (5, 6))
    inputs["surface"][0, 3:20, 5:] = np.nan
    inputs["bed_lowres"][1, 2, 2] = np.nan
    expected = load_model(SHIPPED)(inputs)
    np.testing.assert_allclose(remote(inputs), expected, rtol=1e-5)
    answer = post(server, request_body(inputs).replace("NaN", "null"))
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(np.array(answer.json()["predictions"]["bed"]), expected, rtol=1e-5)


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.listens_on() == {"127.0.0.1"}


def test_an_unknown_input_is_ignored(server: Server) -> None:
    answer = post(server, changed(temperature=array((1, 5, 6, 1))))
    expected = load_model(SHIPPED)(tiny_inputs(1, (5, 6)))
    np.testing.assert_allclose(np.array(answer.json()["predictions"]["bed"]), expected, rtol=1e-5)


def changed(**arrays: Any) -> str:
    content = json.loads(request_body(tiny_inputs(1, (5, 6))))
    for name, values in arrays.items():
        if values is None:
            del content["inputs"][name]
        else:
            content["inputs"][name] = values
    return json.dumps(content)


def array(shape: tuple[int, ...], value: float = 1.0) -> Any:
    return np.full(shape, value).tolist()


def hundred_megabytes() -> str:
    """A well-formed request for a window of 210 x 210 cells with numbers of 17 digits."""
    inputs = tiny_inputs(1, (210, 210))
    body = request_body({name: values.astype(np.float64) * (1 + 1e-9) for name, values in inputs.items()})
    assert len(body) > 100_000_000
    return body


BAD = {
    "malformed": (lambda: '{"inputs": {"bed_lowres": [[', "valid JSON"),
    "not utf-8": (lambda: b"\xff\xfe{}", ""),
    "empty": (lambda: "", ""),
    "a list": (lambda: "[1, 2]", ""),
    "no inputs": (lambda: '{"something": 3}', "inputs"),
    "no object": (lambda: '{"inputs": [1, 2, 3]}', ""),
    "missing input": (lambda: changed(accumulation=None), "accumulation"),
    "other ratio": (lambda: changed(surface=array((1, 40, 60, 1))), "surface has shape (1, 40, 60, 1)"),
    "one band": (lambda: changed(velocity=array((1, 10, 12, 1))), "velocity"),
    "no band axis": (lambda: changed(bed_lowres=array((1, 5, 6))), "bed_lowres"),
    "ragged": (lambda: changed(bed_lowres=[[[[1.0], [2.0]], [[3.0]]]]), ""),
    "words": (lambda: changed(bed_lowres="deep"), ""),
    "too small": (lambda: changed(bed_lowres=array((1, 2, 2, 1))), "at least 3 x 3"),
    "empty window": (lambda: changed(bed_lowres=[]), ""),
    "infinite": (lambda: changed(accumulation=array((1, 5, 6, 1), np.inf)), "accumulation has infinite values"),
    "beyond float32": (lambda: changed(accumulation=array((1, 5, 6, 1), 1e39)), "accumulation has infinite values"),
    "all NaN": (lambda: changed(surface=array((1, 50, 60, 1), np.nan)), "surface has a window without any valid value"),
    "100 MB": (hundred_megabytes, "at most 16,384 are taken; send smaller windows"),
    "100 MB of nothing": (lambda: " " * 100_000_000, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_and_the_next_good_one_answered(
    server: Server, remote: RemoteModel, name: str
) -> None:
    make, reason = BAD[name]
    answer = post(server, make())
    assert 400 <= answer.status_code < 500, answer.text[:500]
    message = answer.json()["message"]
    assert message and reason in message, message[:500]
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
    # MLflow sends a body that is no JSON back; of any other, a few numbers.
    assert len(answer.text) < 20_000 or not reason
    inputs = tiny_inputs(1, (5, 6))
    np.testing.assert_allclose(remote(inputs), load_model(SHIPPED)(inputs), rtol=1e-5)


def test_the_client_passes_the_reason_on(remote: RemoteModel) -> None:
    inputs = tiny_inputs(1, (5, 6))
    inputs["velocity"][:] = np.inf
    with pytest.raises(ModelError, match=r"status 400\): input velocity has infinite values; NaN marks"):
        remote(inputs)


def test_many_users_at_once(server: Server) -> None:
    arguments = ["--address", f"{server.address}/invocations", "--requests", "200", "--at-once", "8"]
    measured = run("benchmarks/serving.py", *arguments, folder=server.log.parent)
    assert measured.returncode == 0, measured.stderr + measured.stdout
    assert "200 requests of 11 x 11 cells, 8 at a time" in measured.stdout
    assert "errors 0, other answers than the first 0" in measured.stdout
