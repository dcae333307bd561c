"""The tracking server for several people in docs/tracking.md: PostgreSQL, a folder of files, loopback."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_servers import Server, free_port, running
from postgres_server import MARKER, postgres_server
from postgres_server import Server as Database
from tiny_training import tiny_config

from deepbedmap_tf.training.tracking import tracked

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with postgres_server() as started:
        started.create("mlflow")
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(database: Database, folder: Path) -> Iterator[Server]:
    port = free_port()
    address = database.address("mlflow").replace("postgresql://", "postgresql+psycopg2://")
    arguments = ["server", "--backend-store-uri", address, "--artifacts-destination", str(folder / "files")]
    environment = {"PGPASSWORD": MARKER, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running([*arguments, "--workers", "1", "--port", str(port)], port, "/health", folder, environment) as started:
        yield started


def tracked_run(address: str, patch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """Track a run at an address; return its identifier and MLflow."""
    patch.setenv("MLFLOW_TRACKING_URI", address)
    state: Any = SimpleNamespace(mlflow_run=None)
    with tracked(tiny_config(), {"synthetic": "True"}) as tracker:
        tracker.start(state)
        tracker.epoch(4, {"val_rmse": 30.0, "step": 4})
    return state.mlflow_run, tracker.mlflow


def test_a_run_through_the_server(
    server: Server, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.listens_on() == {"127.0.0.1"}
    run, mlflow = tracked_run(server.address, monkeypatch)
    # Rows in the database, files in the folder, and both through the server alone.
    assert database.query("mlflow", f"select name, status from runs where run_uuid = '{run}'") == [("tiny", "FINISHED")]
    assert [path.name for path in (folder / "files").rglob(f"{run}/artifacts/*")] == ["config.json"]
    found = mlflow.get_run(run)
    assert found.data.metrics["validation/rmse_m"] == 30 and found.data.params["training.batch_size"] == "4"
    assert MARKER not in server.log.read_text() and MARKER not in database.dump("mlflow")


def test_a_run_straight_into_the_database(
    server: Server, database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address as people write it: its driver is named for them, as SQLAlchemy would look for another one."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PGPASSWORD", MARKER)
    first, _ = tracked_run(server.address, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.address("mlflow"))
    from deepbedmap_tf.training.tracking import set_up_mlflow

    assert set_up_mlflow().get_run(first).info.status == "FINISHED"


def test_a_server_that_is_gone_holds_training_up_for_seconds(
    monkeypatch: pytest.MonkeyPatch, folder: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    store = f"sqlite:///{folder / 'gone.db'}"
    arguments = ["server", "--backend-store-uri", store, "--artifacts-destination", str(folder / "gone")]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    state: Any = SimpleNamespace(mlflow_run=None)
    with running([*arguments, "--workers", "1", "--port", str(port)], port, "/health", folder, environment):
        kept = tracked(tiny_config(), {})
        tracker = kept.__enter__()
        tracker.start(state)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        tracker.epoch(4, {"val_rmse": 30.0, "step": 4})
        kept.__exit__(None, None, None)
    assert time.monotonic() - began < 120
    said = [record.getMessage() for record in caplog.records if record.name.startswith("deepbedmap_tf")]
    assert [line.split(" (")[0] for line in said] == [
        "MLflow did not take the metrics of step 4",
        "MLflow did not take the end of the run",
    ]
