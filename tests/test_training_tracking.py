"""A run in MLflow's local database: parameters, metrics, tags, files and how it ended."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_training import tiny_config

from deepbedmap_tf.errors import TrainingError
from deepbedmap_tf.training.tracking import flatten, git_revision, record_evaluation, set_up_mlflow, tracked


def test_every_setting_has_a_name_of_its_own() -> None:
    flat = flatten(tiny_config())
    assert flat["losses.structural.weight"] == 5.25
    assert flat["generator.inputs.velocity.channels"] == 2
    assert flat["training.batch_size"] == 4 and flat["name"] == "tiny"
    assert flat["data.regions"] == ["configs/regions/synthetic.yml"]


def test_git_revision() -> None:
    revision = git_revision()
    assert revision == "unknown" or len(revision.removesuffix("+changes")) == 40


def test_a_database_that_nobody_runs_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    waited: list[float] = []
    monkeypatch.setattr(utils, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://anna@127.0.0.1:9/runs")
    with pytest.raises(TrainingError, match=r"MLflow cannot use .*127\.0\.0\.1:9/runs.*Connection refused"):
        set_up_mlflow()
    assert 5 < sum(waited) < 20


def test_runs_in_the_local_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state: Any = SimpleNamespace(mlflow_run=None)
    (tmp_path / "curves.png").write_bytes(b"png")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    stores = [
        {"region": "one", "fingerprint": "ab" * 32, "synthetic": True},
        {"region": "two", "fingerprint": "cd" * 32},
    ]
    with tracked(tiny_config(), {"tile_store_hash": "0123"}, stores) as tracker:
        tracker.start(state)
        tracker.epoch(4, {"loss": 2.0, "val_rmse": 30.0, "step": 4, "minutes": 1.0})
        tracker.epoch(8, {"loss": 1.0, "val_rmse": 20.0, "step": 8, "minutes": 2.0})
        tracker.figures([tmp_path / "curves.png"])
        # A run this short may end before its first sample of the machine.
        deadline = time.monotonic() + 60
        while not any(name.startswith("system/") for name in tracker.mlflow.get_run(state.mlflow_run).data.metrics):
            assert time.monotonic() < deadline, "no system metrics within a minute"
            time.sleep(0.1)
    assert (tmp_path / "mlflow.db").exists()
    mlflow = tracker.mlflow
    run = mlflow.get_run(state.mlflow_run)
    assert mlflow.get_experiment(run.info.experiment_id).name == "deepbedmap"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "tiny")
    assert run.data.params["generator.num_residual_blocks"] == "1"
    assert set(run.data.params) == set(flatten(tiny_config()))
    assert run.data.tags["tile_store_hash"] == "0123" and run.data.tags["git_revision"] == git_revision()
    history = mlflow.MlflowClient().get_metric_history(state.mlflow_run, "train/loss")
    assert [(point.step, point.value) for point in history] == [(4, 2.0), (8, 1.0)]
    assert {"train/loss", "validation/rmse_m", "minutes"} <= set(run.data.metrics)
    assert "step" not in run.data.metrics and run.data.metrics["validation/rmse_m"] == 20
    assert {name for name in run.data.metrics if name.startswith("system/")} >= {"system/cpu_utilization_percentage"}
    used = {(each.dataset.name, each.dataset.digest, each.tags[0].value) for each in run.inputs.dataset_inputs}
    assert used == {
        ("one", "ab" * 18, "training"),
        ("one validation", "ab" * 18, "validation"),
        ("two", "cd" * 18, "training"),
    }
    source = json.loads(run.inputs.dataset_inputs[0].dataset.source)
    assert source["tags"]["synthetic"] == "True"
    assert json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/config.json"))["name"] == "tiny"
    assert [each.path for each in mlflow.MlflowClient().list_artifacts(state.mlflow_run, "figures")] == [
        "figures/curves.png"
    ]
    # A resumed run goes on in the same place, and its end is told.
    with pytest.raises(KeyboardInterrupt), tracked(tiny_config(), {}) as tracker:
        tracker.start(state)
        raise KeyboardInterrupt
    assert mlflow.get_run(run.info.run_id).info.status == "KILLED"
    # One from another database is replaced.
    other: Any = SimpleNamespace(mlflow_run="0" * 32)
    with pytest.raises(RuntimeError), tracked(tiny_config(), {}) as tracker:
        tracker.start(other)
        raise RuntimeError
    assert other.mlflow_run != "0" * 32
    assert mlflow.get_run(other.mlflow_run).info.status == "FAILED"


def test_an_evaluation_is_added_to_the_run_of_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    scores = {"deepbedmap": {"rmse": 40.0, "skill": None}, "bicubic": {"rmse": 50.0}, "radar": {"count": 3}}
    figure = tmp_path / "transect.png"
    figure.write_bytes(b"png")
    assert record_evaluation({"training": {"mlflow_run": "0" * 32}}, "thwaites", scores, [figure]) is None
    assert not (tmp_path / "mlflow.db").exists(), "no store is made for it"
    state: Any = SimpleNamespace(mlflow_run=None)
    with tracked(tiny_config(), {}) as tracker:
        tracker.start(state)
    ended = tracker.mlflow.get_run(state.mlflow_run).info.end_time
    metadata = {"training": {"mlflow_run": tracker.run_id}}
    assert record_evaluation(metadata, "thwaites", scores, [figure]) == state.mlflow_run
    run = tracker.mlflow.get_run(state.mlflow_run)
    measured = {name: value for name, value in run.data.metrics.items() if name.startswith("transect")}
    assert measured == {"transect_thwaites/rmse_m": 40.0, "transect_thwaites/bicubic_rmse_m": 50.0}
    (artifact,) = tracker.mlflow.MlflowClient().list_artifacts(state.mlflow_run, "transects/thwaites")
    assert artifact.path == "transects/thwaites/transect.png"
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)
    for other in ({}, {"training": {}}, {"training": {"mlflow_run": "0" * 32}}):
        assert record_evaluation(other, "thwaites", scores, [figure]) is None


def test_a_store_that_refuses_the_run_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user who may look at the experiment and not write to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    state: Any = SimpleNamespace(mlflow_run=None)
    with tracked(tiny_config(), {}) as tracker:

        def refuse(**_: Any) -> None:
            raise tracker.mlflow.exceptions.MlflowException("error code 403 != 200. Response body: 'Permission denied'")

        monkeypatch.setattr(tracker.mlflow, "start_run", refuse)
        with pytest.raises(TrainingError, match=r"did not take the run: .*'Permission denied'; see that it") as error:
            tracker.start(state)
    assert "\n" not in str(error.value) and state.mlflow_run is None
