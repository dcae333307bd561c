"""Studies without training: addresses, seeds, claims, pruning, workers that die. SQLite here, PostgreSQL elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from command_line import ROOT
from joined_study import Joined
from optuna.trial import TrialState
from tiny_training import tiny_tiles

from deepbedmap_tf.errors import ConfigError, TrainingError
from deepbedmap_tf.training.holdout import cells_hit
from deepbedmap_tf.training.storage import Turnstile, parse_address, reached
from deepbedmap_tf.training.study import Hyperband, effective, worker_seed

WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from joined_study import Joined
from pathlib import Path
joined = Joined(Path(sys.argv[2]), int(sys.argv[3]), heartbeat=1)

def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.set_user_attr("process", "other")
    print("started", trial.number, flush=True)
    time.sleep(float(sys.argv[4]))
    return x

joined.claims.work(objective)
"""


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://anna:marker@host/db",
        "postgresql://host/db?password=marker",
        "postgresql+psycopg2://anna:marker@host:54a/db",
        "mysql://anna:marker@host/db",
    ],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(address)
    assert "marker" not in str(caught.value) and caught.value.__cause__ is None
    assert "PGPASSWORD" in str(caught.value) or "expected sqlite" in str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "study.db", "mysql://host/db", "sqlite://", "sqlite:///:memory:", "postgresql://host"]
)
def test_other_storages_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected sqlite:///FILE or postgresql://"):
        parse_address(address)


def test_addresses_that_are_taken() -> None:
    assert parse_address("sqlite:///a/b.db").database == "a/b.db"
    url = parse_address("postgresql://anna@host:5433/optuna")
    assert (url.drivername, url.port, url.password) == ("postgresql+psycopg2", 5433, None)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    address = "postgresql://anna@127.0.0.1:1/db"
    with (
        pytest.raises(TrainingError, match=r"cannot use the storage .*PGPASSWORD or ~/.pgpass") as caught,
        reached(address),
    ):
        Turnstile(parse_address(address), "study").enter()
    assert "\n" not in str(caught.value)


def test_a_study_has_as_many_trials_as_asked_for_in_all(tmp_path: Path) -> None:
    Joined(tmp_path, 4).claims.work(objective)
    joined = Joined(tmp_path, 4)
    joined.claims.work(objective)
    assert states(joined.study) == ["COMPLETE"] * 4
    Joined(tmp_path, 6).claims.work(objective)
    assert states(joined.study) == ["COMPLETE"] * 6
    # A worker that comes again draws other numbers than it did before.
    drawn = [trial.params["x"] for trial in joined.study.get_trials()]
    assert len(set(drawn)) == 6 and joined.study.user_attrs["workers"] == 3


def test_a_study_over_other_settings_is_refused(tmp_path: Path) -> None:
    Joined(tmp_path, 1, data="one", configuration="same")
    with pytest.raises(TrainingError, match=r"over other settings \(data differ\)"):
        Joined(tmp_path, 1, data="another", configuration="same")


def test_three_processes_share_the_trials(tmp_path: Path) -> None:
    start = [sys.executable, "-c", WORKER, str(ROOT / "tests"), str(tmp_path), "7", "0.2"]
    workers = [subprocess.Popen(start, env=os.environ | {"PYTHONPATH": str(ROOT)}) for _ in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    study = Joined(tmp_path, 7).study
    assert [trial.number for trial in study.get_trials()] == list(range(7))
    assert states(study) == ["COMPLETE"] * 7
    assert len({trial.params["x"] for trial in study.get_trials()}) == 7


def test_a_trial_whose_worker_was_killed_is_run_again(tmp_path: Path) -> None:
    start = [sys.executable, "-c", WORKER, str(ROOT / "tests"), str(tmp_path), "3", "60"]
    with subprocess.Popen(
        start, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == "started 0\n"
        worker.send_signal(signal.SIGKILL)
    joined = Joined(tmp_path, 3, heartbeat=1)
    joined.claims.work(objective)
    trials = joined.study.get_trials()
    assert joined.lost == [0] and trials[0].state == TrialState.FAIL
    (again,) = [trial for trial in trials if trial.system_attrs.get("retry_history") == [0]]
    assert again.state == TrialState.COMPLETE and again.params == trials[0].params
    assert trials[0].user_attrs == {"process": "other"} and again.user_attrs == {}
    assert [trial.state for trial in effective(trials)] == [TrialState.COMPLETE] * 3 and len(trials) == 4


def test_a_trial_that_was_interrupted_is_run_again(tmp_path: Path) -> None:
    def interrupted(trial: optuna.Trial) -> float:
        if trial.number == 1:
            objective(trial)
            raise KeyboardInterrupt
        return objective(trial)

    with pytest.raises(KeyboardInterrupt):
        Joined(tmp_path, 3).claims.work(interrupted)
    joined = Joined(tmp_path, 3)
    joined.claims.work(objective)
    trials = joined.study.get_trials()
    assert states(joined.study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params


def test_an_error_ends_the_search_and_is_tried_again_so_often(tmp_path: Path) -> None:
    def failing(trial: optuna.Trial) -> float:
        objective(trial)
        raise TrainingError("the disk is full")

    for _ in range(2):
        joined = Joined(tmp_path, 2)
        with pytest.raises(TrainingError, match="the disk is full"):
            joined.claims.work(failing)
    Joined(tmp_path, 2).claims.work(objective)
    # One trial and its one retry are lost; it counts, so that a study comes to an end.
    assert states(joined.study) == ["FAIL", "FAIL", "COMPLETE"]


def test_a_worker_that_was_given_up_leaves_its_trial_to_the_other(tmp_path: Path) -> None:
    joined, other = Joined(tmp_path, 1), Joined(tmp_path, 1)

    def slept(trial: optuna.Trial) -> float:
        if trial.number == 0:
            # What another worker does with a trial whose heartbeat stopped.
            storage = other.study._storage
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            callback = storage.get_heartbeat_stale_trial_callback()
            callback(other.study, storage.get_trial(trial._trial_id))
            trial.set_user_attr("late", True)
        return objective(trial)

    joined.claims.work(slept)
    assert states(joined.study) == ["FAIL", "COMPLETE"] and other.lost == [0]


def test_random_trials_are_counted_over_the_whole_study(tmp_path: Path) -> None:
    joined = Joined(tmp_path, 30)
    joined.claims.work(lambda trial: (objective(trial) - 0.3) ** 2)
    drawn = np.array([trial.params["x"] for trial in joined.study.get_trials()])
    # Of 20 random draws so many would be so near once in 400 times; from the fourth trial on the sampler closes in.
    assert np.median(np.abs(drawn[10:] - 0.3)) < 0.1


def test_pruning_is_hyperbands() -> None:
    def ended(pruner: optuna.pruners.BasePruner) -> list[int]:
        study = optuna.create_study(study_name="same", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=2))

        def curve(trial: optuna.Trial) -> float:
            level = trial.suggest_float("x", 0, 1)
            for epoch in range(1, 28):
                trial.report(level, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return level

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study.optimize(curve, n_trials=40)
        return [len(trial.intermediate_values) for trial in study.get_trials()]

    ours = ended(Hyperband(1, 27, 3))
    assert ours == ended(optuna.pruners.HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3))
    assert 27 in ours and min(ours) == 1


def test_no_two_workers_have_one_seed() -> None:
    assert len({worker_seed(seed, worker) for seed in (1, 42, 2**31) for worker in range(200)}) == 600


def test_cells_with_a_point_are_counted_once_and_only_where_measured() -> None:
    tiles = replace(tiny_tiles(2), x=np.array([0.0, 100e3]), y=np.zeros(2))
    tiles.bed[0, 1, 2] = np.nan
    x = np.array([0.0, 10.0, 249.0, 600.0, 650.0, 100e3 + 35.5 * 250, 100e3 + 36.5 * 250, -1.0])
    y = np.array([-1.0, -2.0, -249.0, -300.0, -600.0, -35.5 * 250, -1.0, -1.0])
    # Three in the first cell, one in a cell without bed, one beside it, one in the other tile's last, two outside.
    assert cells_hit(tiles, x, y, 250.0) == 3
