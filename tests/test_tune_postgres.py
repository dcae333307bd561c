"""Two workers on one study, kept with MLflow's runs on a real PostgreSQL server; one of them is killed in a trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import invoke, run
from postgres_server import MARKER, Server, postgres_server
from tune_search import arguments, prepare, start

from deepbedmap_tf.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

TRIALS = 4
TRIED = """
select t.number, t.state,
  (select value_json from trial_user_attributes a where a.trial_id = t.trial_id and a.key = 'mlflow_run'),
  (select value_json from trial_system_attributes a where a.trial_id = t.trial_id and a.key = 'retry_history'),
  (select string_agg(p.param_name || '=' || p.param_value, ' ' order by p.param_name)
     from trial_params p where p.trial_id = t.trial_id)
from trials t order by t.number
"""


@dataclass(frozen=True)
class Trial:
    number: int
    state: str
    run: str | None
    repeats: list[int]
    parameters: str


@dataclass(frozen=True)
class Search:
    """What the two workers left behind."""

    server: Server
    folder: Path
    killed: int
    survivor: int

    def trials(self) -> list[Trial]:
        return stored(self.server)

    def said(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def stored(server: Server) -> list[Trial]:
    return [
        Trial(number, state, run and json.loads(run), json.loads(repeats or "[]"), parameters)
        for number, state, run, repeats, parameters in server.query("optuna", TRIED)
    ]


def wait(for_what: Callable[[], Any], worker: subprocess.Popen[bytes], log: Path) -> Any:
    """Wait until something is the case, or the worker has ended."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        found = for_what()
        if found is not None:
            return found
        assert worker.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def environment(server: Server, folder: Path) -> dict[str, str]:
    return {
        "PGPASSWORD": MARKER,
        "MLFLOW_TRACKING_URI": server.address("mlflow"),
        "DEEPBEDMAP_CACHE_DIR": str(folder / "cache"),
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as server:
        server.create("optuna", "mlflow")
        yield server


@pytest.fixture(scope="module")
def search(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """Start two workers at once on empty databases and kill one as soon as it has a trial; the other ends the study."""
    folder = tmp_path_factory.mktemp("search")
    prepare(folder, (1e-3, 2e-3), TRIALS)
    more = ("--storage", server.address("optuna"), "--heartbeat", 3)
    logs = [folder / "first.log", folder / "second.log"]
    workers = [start(folder, log, *more, **environment(server, folder)) for log in logs]

    def begun() -> int | None:
        lines = [line for line in logs[0].read_text().splitlines() if line.startswith("trial ")]
        if not lines:
            return None
        number = int(lines[0].split()[1].rstrip(":"))
        (trial,) = [each for each in stored(server) if each.number == number]
        return number if trial.run else None

    try:
        killed = wait(begun, workers[0], logs[0])
        workers[0].send_signal(signal.SIGKILL)
        assert workers[0].wait(60) == -signal.SIGKILL
        survivor = workers[1].wait(1200)
    finally:
        for worker in workers:
            worker.kill()
    return Search(server, folder, killed, survivor)


def test_the_other_worker_finishes_the_study(search: Search) -> None:
    said = (search.folder / "second.log").read_text()
    assert search.survivor == 0, said
    assert f"trial {search.killed} lost its worker" in said and "best model: models:/deepbedmap/1" in said
    assert "Study tiny on SYNTHETIC tiles: " in said and (search.folder / "tuned.yml").exists()
    ((workers,),) = search.server.query("optuna", "select value_json from study_user_attributes where key = 'workers'")
    assert workers == "2"


def test_the_killed_trial_is_retried_and_nothing_is_lost(search: Search) -> None:
    trials = search.trials()
    assert [trial.number for trial in trials] == list(range(TRIALS + 1))
    lost = trials[search.killed]
    assert lost.state == "FAIL" and lost.repeats == []
    (again,) = [trial for trial in trials if trial.repeats]
    assert again.repeats == [search.killed] and again.parameters == lost.parameters
    others = [trial for trial in trials if trial is not lost]
    assert {trial.state for trial in others} <= {"COMPLETE", "PRUNED"} and len(others) == TRIALS
    # Both workers drew, from seeds of their own.
    assert len({trial.parameters for trial in others}) == TRIALS


def test_every_trial_is_in_mlflow(search: Search) -> None:
    rows = search.server.query("mlflow", "select run_uuid, name, status from runs")
    runs = {identifier: (name, status) for identifier, name, status in rows}
    tags: dict[str, dict[str, str]] = {identifier: {} for identifier in runs}
    for identifier, key, value in search.server.query("mlflow", "select run_uuid, key, value from tags"):
        tags[identifier][key] = value
    (study,) = [identifier for identifier, (name, _) in runs.items() if name == "study tiny"]
    assert runs[study][1] == "FINISHED" and len(runs) == TRIALS + 2
    for trial in search.trials():
        assert trial.run is not None
        name, status = runs[trial.run]
        assert name == f"tiny-{trial.number:04d}" and tags[trial.run]["mlflow.parentRunId"] == study
        if trial.number == search.killed:
            assert (status, tags[trial.run]["trial_state"]) == ("KILLED", "lost")
        else:
            assert (status, tags[trial.run]["trial_state"]) == ("FINISHED", trial.state.lower())
        assert tags[trial.run].get("retry_of") == (str(search.killed) if trial.repeats else None)
    assert search.server.query("mlflow", "select name, version from model_versions") == [("deepbedmap", 1)]


def test_two_processes_of_one_command_go_on_with_it(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", MARKER)
    more = ("--storage", search.server.address("optuna"), "--heartbeat", 3, "--trials", TRIALS + 2, "--jobs", 2)
    log = search.folder / "jobs.log"
    worker = start(search.folder, log, *more, **environment(search.server, search.folder))
    assert worker.wait(1200) == 0, log.read_text()
    trials = search.trials()
    assert [trial.number for trial in trials] == list(range(TRIALS + 3))
    assert {trial.state for trial in trials[TRIALS + 1 :]} <= {"COMPLETE", "PRUNED"}
    assert len({trial.run for trial in trials}) == TRIALS + 3


def test_ctrl_c_ends_in_order_and_the_trial_is_run_again(search: Search) -> None:
    more = ("--storage", search.server.address("optuna"), "--heartbeat", 3, "--trials", TRIALS + 3)
    log = search.folder / "interrupted.log"
    before = len(search.trials())
    # Started in the background it would not hear Ctrl-C.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        worker = start(search.folder, log, *more, **environment(search.server, search.folder))
    finally:
        signal.signal(signal.SIGINT, previous)
    wait(lambda: next((True for trial in search.trials()[before:] if trial.run), None), worker, log)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(120) == 130, log.read_text()
    assert "the same command goes on" in log.read_text() and "Traceback" not in log.read_text()
    *_, interrupted, again = search.trials()
    assert (interrupted.state, again.state) == ("FAIL", "WAITING") and again.parameters == interrupted.parameters
    status = search.server.query("mlflow", f"select status from runs where run_uuid = '{interrupted.run}'")
    assert status == [("KILLED",)]
    worker = start(search.folder, log, *more, **environment(search.server, search.folder))
    assert worker.wait(1200) == 0, log.read_text()
    assert search.trials()[-1].state in ("COMPLETE", "PRUNED") and len(search.trials()) == before + 2


def test_a_wrong_password_is_one_line_without_it(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    environs = os.environ | environment(search.server, search.folder)
    for name, value in environs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(search.folder)
    monkeypatch.setenv("PGPASSWORD", f"wrong-{MARKER}")
    more = ("--storage", search.server.address("optuna"))
    result = invoke(main, *arguments(search.folder, *more, "--debug"))
    assert result.exit_code == 2, (result.exception, result.stderr)
    assert "password authentication failed" in result.stderr.splitlines()[-1]
    assert "Traceback" in result.stderr and MARKER not in result.output


def test_a_tracking_address_with_a_password_is_not_shown(search: Search) -> None:
    address = search.server.address("nothing").replace("@", f":{MARKER}@")
    env = environment(search.server, search.folder) | {"MLFLOW_TRACKING_URI": address}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        more = ("--storage", f"sqlite:///{search.folder / 'other.db'}", "--debug")
        result = run("deepbedmap", *arguments(search.folder, *more), folder=search.folder)
    assert result.returncode == 2, result.stderr
    assert "MLflow cannot use" in result.stderr and "Traceback" in result.stderr
    assert MARKER not in result.stderr + result.stdout


def test_the_password_is_nowhere(search: Search) -> None:
    assert len(search.said()) > 1000 and MARKER not in search.said()
    for database in ("optuna", "mlflow"):
        assert "tiny-0000" in search.server.dump("mlflow") and MARKER not in search.server.dump(database)
    written = [path for path in search.folder.rglob("*") if path.is_file()]
    assert len(written) > 50
    assert not [path for path in written if MARKER.encode() in path.read_bytes()]
