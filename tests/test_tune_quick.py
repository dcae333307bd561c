"""The reduced search of the README, whole: ``deepbedmap tune --config configs/quick.yml``."""

from __future__ import annotations

import csv
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, run

from deepbedmap_tf.config import load_config

pytestmark = pytest.mark.slow

SPACE = yaml.safe_load((ROOT / "configs/tuning/quick.yml").read_text())


def test_the_reduced_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a folder of its own, as it writes configs/tuned.yml beside the configurations.
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    finished = run("deepbedmap", "tune", "--config", "configs/quick.yml", folder=tmp_path, timeout=1500)
    assert finished.returncode == 0, finished.stderr[-3000:]
    lines = finished.stdout.splitlines()
    counts = re.fullmatch(r"Study quick on SYNTHETIC tiles: (\d+) complete, (\d+) pruned, 0 lost or failed", lines[0])
    assert counts is not None, finished.stdout
    complete, pruned = int(counts[1]), int(counts[2])
    assert complete + pruned == SPACE["trials"] and complete >= 2
    best = min((row for row in trials(tmp_path) if row["state"] == "complete"), key=lambda row: float(row["rmse_m"]))
    # Better than bicubic interpolation, by the row of the table and by the same trial's last epoch in MLflow.
    number, error, skill = lines[2].split()[:3]
    assert (number, f"{float(best['rmse_m']):.2f}") == (best["trial"], error) and float(skill) > 0
    database = sqlite3.connect(tmp_path / "mlflow.db")
    ((found, bicubic),) = database.execute(
        "select a.value, b.value from latest_metrics a join latest_metrics b on a.run_uuid = b.run_uuid "
        "where a.run_uuid = ? and a.key = 'validation/rmse_m' and b.key = 'validation/bicubic_rmse_m'",
        [best["mlflow_run"]],
    ).fetchall()
    assert found == pytest.approx(float(best["rmse_m"])) and found < bicubic
    ((nested,),) = database.execute("select count(*) from tags where key = 'mlflow.parentRunId'").fetchall()
    assert nested == SPACE["trials"]
    tuned, quick = load_config(tmp_path / "configs/tuned.yml"), load_config(ROOT / "configs/quick.yml")
    assert tuned.generator_optimizer.learning_rate == pytest.approx(float(best["learning_rate"]))
    assert tuned.training.steps_per_epoch == quick.training.steps_per_epoch
    for name in ("history.png", "importances.png"):
        assert (tmp_path / "outputs/tuning/quick" / name).read_bytes()[:4] == b"\x89PNG"


def trials(folder: Path) -> list[dict[str, str]]:
    """Rows of the table of all trials."""
    return list(csv.DictReader((folder / "outputs/tuning/quick/trials.csv").read_text().splitlines()))
