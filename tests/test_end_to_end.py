"""The whole chain with the real commands: a world, tiles, training, export, tracking, evaluation, figures."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import ROOT, TINY_CONFIG, invoke, run, script, small_world, write_yaml

from deepbedmap_tf.cli import main

SCORES = {"rmse", "mae", "bias", "skill", "roughness", "roughness_ratio", "roughness_rmse", "spectral_slope"}
ONLY_TENSORFLOW = """
import json, sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
shapes = {"bed_lowres": (1, 5, 6, 1), "surface": (1, 50, 60, 1), "velocity": (1, 10, 12, 2)}
shapes["accumulation"] = shapes["bed_lowres"]
inputs = {name: tf.fill(shape, 300.0) for name, shape in shapes.items()}
bed = loaded.signatures["serving_default"](**inputs)["bed"]
ours = {"deepbedmap_tf", "tensorflow_addons", "mlflow", "pygmt"}
modules = sorted(ours & set(sys.modules))
print(json.dumps({"shape": bed.shape.as_list(), "finite": bool(np.isfinite(bed).all()), "modules": modules}))
"""


@dataclass(frozen=True)
class Chain:
    """Where the commands ran, and what the training said."""

    folder: Path
    training: subprocess.CompletedProcess[str]

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def arguments(self) -> tuple[Any, ...]:
        return "--config", self.folder / "tiny.yml", "--region", self.folder / "world.yml", "--out", self.model


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Train two epochs of three steps on a world of 36 x 32 km."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPBEDMAP_CACHE_DIR", str(folder / "cache"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        write_yaml(folder / "tiny.yml", TINY_CONFIG)
        small_world(folder / "world.yml")
        chain = Chain(folder, None)  # type: ignore[arg-type]
        yield Chain(folder, run("train.py", *chain.arguments, folder=folder))


def test_training_exports_a_model_that_says_what_it_is(chain: Chain) -> None:
    assert chain.training.returncode == 0, chain.training.stderr
    said = chain.training.stdout.splitlines()
    assert said[0].endswith("leak fraction 0.0, SYNTHETIC")
    assert said[-2].startswith("validation RMSE") and said[-1] == f"model: {chain.model}"
    assert "epoch 2, step 6" in chain.training.stderr and "Warning" not in chain.training.stderr
    metadata = json.loads((chain.model / "model.json").read_text())
    assert metadata["synthetic"] is True and "SYNTHETIC" in metadata["title"]
    assert metadata["generator"]["num_residual_blocks"] == 1 and metadata["config"]["training"]["epochs"] == 2
    assert len(metadata["training_data"]["hash"]) == 64
    (store,) = metadata["training_data"]["stores"]
    sources = store["made_from"]["provenance"]["sources"]
    assert len(sources) >= 5 and all(len(fingerprint) == 64 for fingerprint in sources.values())
    assert {"tensorflow", "keras", "deepbedmap-tf"} <= set(metadata["software"]) and "pygmt" in store["software"]
    assert metadata["training"]["steps"] == 6 and metadata["metrics"]["step"] == 6
    assert {"val_rmse", "val_bicubic_rmse", "val_skill", "val_ssim", "val_psnr"} <= set(metadata["metrics"])
    assert metadata["citations"] and metadata["normalisation"]["surface"]
    assert not list(chain.folder.rglob("*.part*"))


def test_the_run_is_in_mlflow(chain: Chain) -> None:
    database = sqlite3.connect(chain.folder / "mlflow.db")
    ((experiment,),) = database.execute("select name from experiments where name != 'Default'").fetchall()
    ((status,),) = database.execute("select status from runs").fetchall()
    assert (experiment, status) == ("deepbedmap", "FINISHED")
    parameters = dict(database.execute("select key, value from params").fetchall())
    assert parameters["generator.num_residual_blocks"] == "1" and parameters["training.epochs"] == "2"
    tags = dict(database.execute("select key, value from tags").fetchall())
    assert tags["synthetic"] == "True" and len(tags["tile_store_hash"]) == 64 and tags["git_revision"]
    steps = database.execute("select step from metrics where key = 'validation/rmse_m' order by step").fetchall()
    assert steps == [(3,), (6,)]
    artifacts = {path.name for path in (chain.folder / "mlruns").rglob("*")}
    assert {"config.json", "curves.png", "saved_model.pb", "MLmodel"} <= artifacts


def test_a_complete_run_is_told_so(chain: Chain) -> None:
    before = (chain.model / "1/variables/variables.index").read_bytes()
    result = run("train.py", *chain.arguments, "--resume", folder=chain.folder)
    assert result.returncode == 0, result.stderr
    assert "the run is complete: step 6 of 6" in result.stderr
    assert (chain.model / "1/variables/variables.index").read_bytes() == before
    again = invoke(script("train"), *chain.arguments)
    assert again.exit_code == 2 and "holds a run already; go on with --resume" in again.stderr


def test_a_resumed_run_must_be_the_same_and_readable(chain: Chain, tmp_path: Path) -> None:
    arguments = (*chain.arguments[:4], "--out", tmp_path / "model", "--resume")
    nothing = invoke(script("train"), *arguments)
    assert nothing.exit_code == 2 and "holds no run to resume; start it without --resume" in nothing.stderr
    assert not (tmp_path / "model").exists()
    damaged = tmp_path / "model/training"
    damaged.mkdir(parents=True)
    for path in (chain.model / "training").iterdir():
        # The data of both checkpoints end early, as after a crash.
        (damaged / path.name).write_bytes(path.read_bytes()[: 4096 if "data" in path.name else None])
    before = sorted(damaged.rglob("*"))
    other = invoke(script("train"), *arguments, "--set", "generator_optimizer.learning_rate=0.5")
    assert other.exit_code == 2 and "generator_optimizer.learning_rate = 0.001, now it is 0.5" in other.stderr
    corrupt = invoke(script("train"), *arguments)
    assert corrupt.exit_code == 2 and "Traceback" not in corrupt.stderr, corrupt.stderr
    assert f"no checkpoint in {damaged} can be read" in corrupt.stderr.splitlines()[-1]
    assert sorted(damaged.rglob("*")) == before and sorted((tmp_path / "model").iterdir()) == [damaged]


def test_tracking_that_cannot_be_reached(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")
    (tmp_path / "none").write_text("no folder")
    result = run("train.py", *chain.arguments[:4], "--out", tmp_path / "model", folder=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert "MLflow cannot use sqlite" in result.stderr.splitlines()[-1] and "MLFLOW_TRACKING_URI" in result.stderr
    assert not (tmp_path / "model").exists()


def test_training_on_a_full_disk(chain: Chain, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        result = invoke(script("train"), *chain.arguments[:4], "--out", disk / "model")
        assert result.exit_code == 2 and "Traceback" not in result.stderr, (result.exception, result.stderr)
        message = result.stderr.splitlines()[-1]
        assert "cannot write a checkpoint" in message and "Free some space and resume" in message, message
        assert {path.name for path in disk.rglob("*")} <= {"model", "training"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_exported_model_needs_tensorflow_alone(chain: Chain) -> None:
    result = run(ONLY_TENSORFLOW, chain.model / "1", folder=chain.folder)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"shape": [1, 12, 16, 1], "finite": True, "modules": []}


def test_a_keras_file_of_the_model(chain: Chain) -> None:
    result = invoke(main, "export", "--model", chain.model, "--keras", chain.folder / "generator.keras")
    assert result.exit_code == 0, result.stderr
    from tensorflow import keras

    from deepbedmap_tf.inference.export import load_model

    model = load_model(chain.model)
    loaded = keras.models.load_model(chain.folder / "generator.keras")
    for found, expected in zip(loaded.get_weights(), model.weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    return width, height


def test_evaluation_writes_scores_profile_and_figures(chain: Chain) -> None:
    out = chain.folder / "evaluation"
    arguments = ("--model", chain.model, "--region", chain.folder / "world.yml", "--out", out)
    result = run("evaluate.py", "--transect", "thwaites", *arguments, folder=chain.folder)
    assert result.returncode == 0, result.stderr
    assert "SYNTHETIC" in result.stdout and "Bicubic low-resolution bed" in result.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"deepbedmap", "bicubic", "bedmachine", "truth", "radar", "_about", "_maps", "_areas"} == set(metrics)
    for product in ("deepbedmap", "bicubic", "bedmachine"):
        assert not SCORES - set(metrics[product]) and all(metrics[product][key] is not None for key in SCORES)
    assert metrics["_about"]["synthetic"] is True and "SYNTHETIC" in metrics["_about"]["title"]
    profile = pd.read_csv(out / "profile.csv")
    named = ("distance", "x", "y", "radar", "deepbedmap", "bicubic", "roughness_radar", "roughness_deepbedmap")
    assert set(named) <= set(profile.columns) and len(profile) == metrics["_about"]["picks"] > 500
    difference = profile["deepbedmap"] - profile["radar"]
    assert np.sqrt((difference**2).mean()) == pytest.approx(metrics["deepbedmap"]["rmse"], abs=0.01)
    figures = ("fig3_perspectives", "fig5_maps", "fig6_transect")
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "profile.csv", *(f"{name}.{ending}" for name in figures for ending in ("png", "pdf")),
    }  # fmt: skip
    for name in figures:
        width, height = png_size(out / f"{name}.png")
        # Between a column and a page of a journal, at 300 dots an inch.
        assert 900 < width < 3600 and 600 < height < 4500, (name, width, height)
        assert (out / f"{name}.png").stat().st_size > 20_000
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert all(line in result.stdout for line in map(str, (out / "metrics.json", out / "fig6_transect.pdf")))


def test_byrd_with_the_real_files(
    shared: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shared("data/byrd").parent
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    config = write_yaml(tmp_path / "tiny.yml", TINY_CONFIG | {"data": {"max_tiles": 64}})
    region = ("--region", ROOT / "configs/regions/byrd.yml", "--data-dir", data)
    model = tmp_path / "byrd-trial"
    trained = invoke(script("train"), "--config", config, *region, "--out", model, "--set", "training.epochs=1")
    assert trained.exit_code == 0, (trained.exception, trained.stderr)
    assert "SYNTHETIC" not in trained.stdout
    metadata = json.loads((model / "model.json").read_text())
    assert metadata["synthetic"] is False and any("BedMachine" in citation for citation in metadata["citations"])
    assert metadata["training_data"]["stores"][0]["label"] == "pseudo-truth" and metadata["resolution"] == 500
    shutil.rmtree(model / "training")
    out = tmp_path / "out"
    result = invoke(
        script("evaluate"), "--transect", "byrd", "--model", model, *region, "--out", out, "--no-figures"
    )  # fmt: skip
    assert result.exit_code == 0, (result.exception, result.stderr)
    assert "DeepBedMap" in result.stdout and "Bicubic low-resolution bed" in result.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["_about"]["synthetic"] is False and metrics["radar"]["count"] > 1000
    assert 0 < metrics["bicubic"]["rmse"] < 500 and "slow interior" in metrics["_areas"]


def test_figures_on_a_full_disk(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygmt
    from pygmt.exceptions import GMTCLibError

    def refuse(*_: Any, **__: Any) -> None:
        raise GMTCLibError("Module 'psconvert' failed with status code 79:\npsconvert [ERROR]: no space left")

    monkeypatch.setattr(pygmt.Figure, "savefig", refuse)
    out = chain.folder / "no-figures"
    arguments = ("--model", chain.model, "--region", chain.folder / "world.yml", "--out", out)
    result = invoke(script("evaluate"), "--transect", "thwaites", *arguments)
    assert result.exit_code == 2 and "Traceback" not in result.stderr, (result.exception, result.stderr)
    assert "GMT cannot write" in result.stderr.splitlines()[-1] and "no space left" in result.stderr
    assert {path.name for path in out.iterdir()} == {"metrics.json", "profile.csv"}
