"""``deepbedmap tune`` with real training on a tiny network: what it prints, writes and tells MLflow."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from command_line import invoke
from tune_search import ABSURD, arguments, prepare

from deepbedmap_tf.cli import main
from deepbedmap_tf.config import load_config

pytestmark = pytest.mark.slow
TRIALS = 3


@dataclass(frozen=True)
class Search:
    """Where it ran, and what it said."""

    folder: Path
    result: Result

    @property
    def out(self) -> Path:
        return self.folder / "outputs/tuning/tiny"

    def trials(self) -> list[dict[str, str]]:
        return list(csv.DictReader((self.out / "trials.csv").read_text().splitlines()))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return sqlite3.connect(self.folder / "mlflow.db").execute(statement).fetchall()

    def tags(self, run: str) -> dict[str, str]:
        return dict(self.rows(f"select key, value from tags where run_uuid = '{run}'"))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """Three trials, of which those with an absurd learning rate can't end well."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPBEDMAP_CACHE_DIR", str(folder / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        prepare(folder, (ABSURD, 1e-3, 2e-3, 3e-3), TRIALS)
        yield Search(folder, invoke(main, *arguments(folder)))


def test_it_prints_the_best_trials_and_where_the_rest_is(search: Search) -> None:
    assert search.result.exit_code == 0, (search.result.exception, search.result.stderr)
    lines = search.result.stdout.splitlines()
    states = [trial["state"] for trial in search.trials()]
    assert set(states) == {"complete", "pruned"} and len(states) == TRIALS
    assert lines[0] == (
        f"Study tiny on SYNTHETIC tiles: {states.count('complete')} complete, {states.count('pruned')} pruned, "
        "0 lost or failed"
    )
    assert lines[1].split("  ")[0] == "trial" and "RMSE (m)" in lines[1] and "optimizer" in lines[1]
    errors = [float(line.split()[1]) for line in lines[2 : 2 + states.count("complete")]]
    assert errors == sorted(errors) and 10 < errors[0] < 100
    assert "best model: models:/deepbedmap/1" in lines and str(search.folder / "tuned.yml") in lines
    for name in ("history.png", "trials.csv", "best.txt", "importances.json"):
        assert (search.out / name).stat().st_size > 2, name
    assert (search.out / "history.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((search.out / "trials").iterdir())


def test_a_trial_that_is_not_finite_is_pruned_and_says_so(search: Search) -> None:
    for trial in search.trials():
        absurd = float(trial["rate"]) == ABSURD
        assert trial["state"] == ("pruned" if absurd else "complete")
        tags = search.tags(trial["mlflow_run"])
        assert tags["trial_state"] == trial["state"]
        assert ("is not finite at step" in tags.get("pruned_because", "")) == absurd


def test_every_trial_is_a_run_nested_under_the_studys(search: Search) -> None:
    runs = {name: (run, status) for run, name, status in search.rows("select run_uuid, name, status from runs")}
    assert set(runs) == {"study tiny", *(f"tiny-{number:04d}" for number in range(TRIALS))}
    study, status = runs.pop("study tiny")
    assert status == "FINISHED" and search.tags(study)["study"] == "tiny"
    for trial in search.trials():
        run, status = runs[f"tiny-{int(trial['trial']):04d}"]
        assert (run, status) == (trial["mlflow_run"], "FINISHED")
        tags = search.tags(run)
        assert tags["mlflow.parentRunId"] == study and tags["trial"] == trial["trial"] and tags["synthetic"] == "True"
        parameters = dict(search.rows(f"select key, value from params where run_uuid = '{run}'"))
        assert parameters["generator_optimizer.name"] == trial["optimizer"]
        assert float(parameters["generator.residual_scaling"]) == float(trial["scaling"])
        metrics = search.rows(
            f"select step, value from metrics where run_uuid = '{run}' and key = 'validation/rmse_m' order by step"
        )
        artifacts = {path.name for path in (search.folder / "mlruns").rglob(f"{run}/artifacts/**/*")}
        assert "config.json" in artifacts
        if trial["state"] == "complete":
            assert [step for step, _ in metrics] == [3, 6] and metrics[-1][1] == pytest.approx(float(trial["rmse_m"]))
            assert "curves.png" in artifacts
    results = {path.name for path in (search.folder / "mlruns").rglob(f"{study}/artifacts/results/*")}
    assert {"history.png", "trials.csv", "best.txt", "tuned.yml"} <= results


def test_the_best_model_is_registered(search: Search) -> None:
    complete = [trial for trial in search.trials() if trial["state"] == "complete"]
    best = min(complete, key=lambda trial: float(trial["rmse_m"]))
    ((name, version, run),) = search.rows("select name, version, run_id from model_versions")
    assert (name, version, run) == ("deepbedmap", 1, best["mlflow_run"])
    described = list((search.folder / "mlruns").rglob("model.json"))
    names = {json.loads(path.read_text())["name"] for path in described}
    assert f"tiny-{int(best['trial']):04d}" in names


def test_the_tuned_configuration_is_ready_to_train_with(search: Search) -> None:
    complete = [trial for trial in search.trials() if trial["state"] == "complete"]
    best = min(complete, key=lambda trial: float(trial["rmse_m"]))
    text = (search.folder / "tuned.yml").read_text()
    assert text.startswith(f"# Found by `deepbedmap tune`: trial {best['trial']} of study tiny") and "SYNTHETIC" in text
    config = load_config(search.folder / "tuned.yml")
    assert config.name == "tuned" and config.data.regions == (str(search.folder / "world.yml"),)
    assert config.generator_optimizer.name == best["optimizer"]
    assert config.generator.residual_scaling == float(best["scaling"])
    assert config.training.epochs == 2


def test_a_complete_study_only_tells_again(search: Search, tmp_path: Path) -> None:
    again = invoke(main, *arguments(search.folder))
    assert again.exit_code == 0, (again.exception, again.stderr)
    assert again.stdout == search.result.stdout
    assert len(search.rows("select * from runs")) == TRIALS + 1
    assert len(search.rows("select * from model_versions")) == 1


def test_other_settings_under_the_same_name_are_refused(search: Search) -> None:
    result = invoke(main, *arguments(search.folder, "--set", "training.epochs=3"))
    assert result.exit_code == 2
    assert "study 'tiny' is over other settings (configuration differ)" in result.stderr.splitlines()[-1]


def test_a_file_of_somebody_else_is_not_replaced(search: Search, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("seed: 1\n")
    result = invoke(main, *arguments(search.folder, "--tuned", tmp_path / "mine.yml"))
    assert result.exit_code == 2 and "is there and not of `deepbedmap tune`" in result.stderr
    assert (tmp_path / "mine.yml").read_text() == "seed: 1\n"


def test_tuning_on_the_test_transect_is_refused(search: Search, tmp_path: Path) -> None:
    content = yaml.safe_load((search.folder / "world.yml").read_text())
    # The radar that is trained and validated on as the transect of the test.
    content["transects"]["thwaites"] = {"picks": "picks_dense"}
    for name in ("tiny.yml", "space.yml"):
        shutil.copy(search.folder / name, tmp_path / name)
    (tmp_path / "world.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    result = invoke(main, *arguments(tmp_path, "--storage", f"sqlite:///{tmp_path / 'study.db'}"))
    assert result.exit_code == 2, (result.exception, result.stderr)
    message = result.stderr.splitlines()[-1]
    assert "validation cells of region tiny lie on its test transect 'thwaites'" in message and "holdout" in message
    assert not (tmp_path / "study.db").exists()


def test_a_password_in_the_address_is_not_shown(search: Search) -> None:
    result = invoke(main, *arguments(search.folder, "--storage", "postgresql://me:marker@host/db", "--debug"))
    assert result.exit_code == 2 and "PGPASSWORD" in result.stderr and "marker" not in result.output
