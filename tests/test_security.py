"""Files of strangers run no code and stay in their folder; passwords are nowhere but where they are used."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import ROOT, invoke, small_world
from tensorflow import keras
from tiny_training import TINY, build_loud, tiny_inputs

from deepbedmap_tf.cli import main
from deepbedmap_tf.config import load_config
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import ConfigError, ModelError, without_passwords
from deepbedmap_tf.inference.export import export_model, load_model
from deepbedmap_tf.inference.keras_files import load_keras, save_keras

MARKER = "marker-7f3a91"
CONFIG = TINY.model_copy(update={"normalise": True, "output": "residual"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its Keras file."""
    folder = tmp_path_factory.mktemp("models")
    generator = build_loud(CONFIG)
    export_model(generator, CONFIG, folder / "tiny", {"name": "tiny", "title": "Tiny", "synthetic": True})
    save_keras(generator, folder / "generator.keras")
    return folder


def test_a_keras_file_comes_back(folder: Path, tmp_path: Path) -> None:
    inputs = tiny_inputs(1, (5, 6))
    expected = load_model(folder / "tiny")(inputs)
    np.testing.assert_allclose(load_keras(folder / "generator.keras")(inputs), expected, rtol=1e-6)
    arguments = ("import-keras", folder / "generator.keras", "--like", folder / "tiny", "--out", tmp_path / "new")
    result = invoke(main, *arguments)
    assert result.exit_code == 0, result.output
    again = load_model(tmp_path / "new")
    np.testing.assert_allclose(again(inputs), expected, rtol=1e-6)
    assert again.synthetic and again.metadata["started_from"]["name"] == "tiny"
    assert again.metadata["source"].startswith("generator.keras, weights of unknown training")


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a Keras file with another description of its layers."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                description = json.loads(content)
                change(description)
                content = json.dumps(description).encode()
            new.writestr(name, content)
    return target


def an_activation(description: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in description["config"]["layers"] if each["class_name"] == "Activation")


def test_a_lambda_layer_is_refused_before_it_runs(folder: Path, tmp_path: Path) -> None:
    trace, place = tmp_path / "it_ran", str(tmp_path / "it_ran")
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: __import__("pathlib").Path(place).touch() or x)]
    )
    model.save(tmp_path / "lambda.keras")
    # Keras itself, told to trust it, runs it.
    trace.unlink()
    keras.models.load_model(tmp_path / "lambda.keras", safe_mode=False)
    assert trace.exists()
    trace.unlink()
    for load in (load_keras, lambda path: invoke_import(folder, path, tmp_path / "out")):
        with pytest.raises(
            ModelError, match="has a Lambda layer, which is Python code of whoever wrote it; not loaded"
        ):
            load(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="is a Keras file; make a model of it with deepbedmap import-keras"):
        load_model(tmp_path / "lambda.keras")
    assert not trace.exists() and not (tmp_path / "out").exists()


def invoke_import(folder: Path, file: Path, out: Path) -> None:
    result = invoke(main, "import-keras", file, "--like", folder / "tiny", "--out", out)
    assert result.exit_code == 2
    raise ModelError(result.stderr)


def test_a_function_from_elsewhere_is_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Safe mode alone would import the module.
    (tmp_path / "stranger.py").write_text(
        "import pathlib\npathlib.Path('it_ran').touch()\n\ndef act(x):\n    return x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def change(description: dict[str, Any]) -> None:
        an_activation(description)["config"]["activation"] = {
            "module": "stranger", "class_name": "function", "config": "act", "registered_name": "act"
        }  # fmt: skip

    with pytest.raises(ModelError, match=r"would import 'function' from 'stranger', which is not Keras; not loaded"):
        load_keras(rewritten(folder / "generator.keras", tmp_path / "changed.keras", change))
    assert not (tmp_path / "it_ran").exists() and "stranger" not in sys.modules


def test_a_lambda_by_another_name_is_refused(folder: Path, tmp_path: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        an_activation(description).update(module="keras.layers", class_name="Lambda", registered_name=None)

    with pytest.raises(ModelError, match="has a Lambda layer"):
        load_keras(rewritten(folder / "generator.keras", tmp_path / "changed.keras", change))


def test_a_file_in_the_older_format_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)])
    with pytest.warns(UserWarning, match="HDF5"):
        model.save(tmp_path / "model.h5")
    (tmp_path / "model.h5").rename(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"no readable Keras file .* which is a zip archive"):
        load_keras(tmp_path / "model.keras")


def test_a_cut_or_absent_keras_file(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "generator.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    for name in ("cut.keras", "none.keras"):
        with pytest.raises(ModelError, match="no readable Keras file") as error:
            load_keras(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["../outside.tif", "a/../../outside.tif", "/etc/passwd", "~/outside.tif", "{world}/../x"]
)
def test_a_region_file_stays_in_its_folder(tmp_path: Path, path: str) -> None:
    file = small_world(tmp_path / "world.yml")
    content = yaml.safe_load(file.read_text())
    content["inputs"]["surface"]["path"] = path
    file.write_text(yaml.safe_dump(content))
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match=r"of region tiny leaves .*data; give a path within it") as error:
        load_region(file, tmp_path / "data").inputs()
    assert "\n" not in str(error.value)


def test_links_and_absolute_paths_within_the_folder(tmp_path: Path) -> None:
    region = load_region(small_world(tmp_path / "world.yml"), tmp_path)
    (tmp_path / "link").symlink_to("/usr/share")
    assert region.resolve("link/file.tif") == tmp_path / "link/file.tif"
    assert region.resolve(str(tmp_path / "file.tif")) == tmp_path / "file.tif"
    assert load_region(tmp_path / "world.yml", "/").resolve("/data/file.tif") == Path("/data/file.tif")


def test_a_name_is_no_path(tmp_path: Path) -> None:
    file = small_world(tmp_path / "world.yml")
    file.write_text(file.read_text().replace("name: tiny", "name: ../../tiny", 1))
    with pytest.raises(ConfigError, match=r"'name' is '\.\./\.\./tiny'"):
        load_region(file)
    with pytest.raises(ConfigError, match=r"'name' is 'a/b'"):
        load_config(ROOT / "configs/quick.yml", ["name=a/b"])


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://anna:{MARKER}@db/runs",
        f"cannot reach 'postgresql+psycopg2://anna:{MARKER}/@x@db:5432/runs': refused",
        f"https://{MARKER}@host.example/path",
        f"postgresql://db/runs?user=anna&password={MARKER}",
        f"host=db user=anna password={MARKER} dbname=runs",
        f"http://host/?token={MARKER}&x=1",
    ],
)
def test_logins_are_hidden(text: str) -> None:
    assert MARKER not in without_passwords(text) and "***" in without_passwords(text)


def test_plain_text_stays_as_it_is() -> None:
    text = "https://example.org/a@b is at host.example:80, mail anna@example.org, password: none"
    assert without_passwords("mail anna@example.org, http://127.0.0.1:5000/invocations") == (
        "mail anna@example.org, http://127.0.0.1:5000/invocations"
    )
    assert without_passwords(text).endswith("mail anna@example.org, password: none")


PROGRAM = """
import logging
from deepbedmap_tf.cli.base import command
from deepbedmap_tf.errors import DataError
import os

@command()
def run() -> None:
    address, kind = os.environ["ADDRESS"], os.environ["KIND"]
    logging.getLogger("some.library").warning("connecting to %s", address)
    try:
        raise OSError(f"could not connect to {address} with {os.environ['EARTHDATA_PASSWORD']}")
    except OSError as error:
        if kind == "ours":
            raise DataError(f"no answer from {address}") from error
        raise RuntimeError(f"no answer from {address}") from error

run()
"""


@pytest.mark.parametrize("kind", ["ours", "other"])
def test_no_password_in_messages_logs_and_tracebacks(kind: str) -> None:
    environment = {
        "ADDRESS": f"postgresql://anna:{MARKER}@db/runs",
        "KIND": kind,
        "EARTHDATA_PASSWORD": f"{MARKER}-earthdata",
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--debug"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert finished.returncode == (2 if kind == "ours" else 1)
    assert "connecting to postgresql://***@db/runs" in finished.stderr
    assert "Traceback" in finished.stderr and "no answer from postgresql://***@db/runs" in finished.stderr
    assert MARKER not in finished.stderr + finished.stdout


def test_no_password_of_the_tracking_server(tmp_path: Path) -> None:
    """A server that nobody runs: everything that is said of it comes without its password."""
    environment = {
        "MLFLOW_TRACKING_URI": f"postgresql://anna:{MARKER}@127.0.0.1:9/runs",
        "PYTHONPATH": str(ROOT),
        "EARTHDATA_TOKEN": f"{MARKER}-token",
    }
    program = "from deepbedmap_tf.cli import main; main()"
    finished = subprocess.run(
        [sys.executable, "-c", program, "register", "--model", str(ROOT / "saved_models/default"), "--debug"],
        env=os.environ | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 2, finished.stderr
    assert "MLflow cannot use postgresql+psycopg2://***@127.0.0.1:9/runs" in finished.stderr
    assert "Connection refused" in finished.stderr
    assert MARKER not in finished.stderr + finished.stdout


def test_no_password_in_what_mlflow_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from tiny_training import tiny_config

    from deepbedmap_tf.training.tracking import tracked

    for name in ("EARTHDATA_PASSWORD", "EARTHDATA_TOKEN", "PGPASSWORD", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, MARKER)
    monkeypatch.setenv("EARTHDATA_USERNAME", "anna")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    monkeypatch.chdir(tmp_path)
    state: Any = SimpleNamespace(mlflow_run=None)
    with tracked(tiny_config(), {"synthetic": "True"}) as tracker:
        tracker.start(state)
        tracker.epoch(1, {"val_rmse": 3.0})
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"runs.db", "config.json"}
    assert not [path for path in kept if MARKER.encode() in path.read_bytes()]


def test_what_goes_wrong_on_the_way_is_logged_without_it(caplog: pytest.LogCaptureFixture) -> None:
    from deepbedmap_tf.training.tracking import forgiven

    with caplog.at_level(logging.WARNING), forgiven("the metrics"):
        raise OSError(f"no route to postgresql://anna:{MARKER}@db/runs")
    assert "MLflow did not take the metrics (no route to postgresql://***@db/runs)" in caplog.text
    assert MARKER not in caplog.text
