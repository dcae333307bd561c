from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import TINY_CONFIG, invoke, write_yaml
from data_files import add_radar, region_content, write_region

from deepbedmap_tf.cli import main
from deepbedmap_tf.config import Config, load_config
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.evaluation.crossvalidation import cross_validate, fold_cells, score_products, summarise, table


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))


def sparse_config(folder, **data):
    settings = {"stride": 8, "block_size": 48, "buffer": 4, "supervision": "sparse", "minimum_coverage": 0.02, **data}
    losses = [{"name": "content", "weight": 0.1}, {"name": "structural", "weight": 1.0}]
    return write_yaml(folder / "sparse.yml", TINY_CONFIG | {"data": settings, "losses": losses})


def test_scores_by_hand_are_taken_where_all_beds_are_known():
    radar = np.full((6, 6), np.nan)
    radar[:, :4] = np.arange(24).reshape(6, 4) * 10.0
    first, second = radar + 3.0, 0.5 * radar
    second[0, 0] = np.nan
    scores = score_products({"bicubic": first, "deepbedmap": second}, radar)
    assert scores["bicubic"]["count"] == scores["deepbedmap"]["count"] == 23
    assert scores["bicubic"]["rmse"] == pytest.approx(3) and scores["bicubic"]["bias"] == pytest.approx(3)
    known = radar[np.isfinite(second)]
    assert scores["deepbedmap"]["rmse"] == pytest.approx(np.sqrt(np.mean((0.5 * known) ** 2)))
    assert scores["bicubic"]["roughness_ratio"] == pytest.approx(1)
    assert scores["deepbedmap"]["roughness_ratio"] == pytest.approx(0.5)


def test_mean_and_spread_over_the_folds():
    scores = {
        fold: {"bicubic": {"rmse": value, "mae": 0, "bias": 0, "roughness_ratio": 1}}
        for fold, value in ((1, 10.0), (3, 14.0))
    }
    result = summarise(scores)
    assert result["mean"]["bicubic"]["rmse"] == 12 and result["spread"]["bicubic"]["rmse"] == 2
    assert "12.0 +- 2.0" in table(result["mean"], result["spread"])


def test_folds_train_and_score_on_different_radar(tmp_path):
    region = load_region(write_region(tmp_path, add_radar(tmp_path, region_content(tmp_path))), tmp_path)
    measured = region.weighted_target()["measured"].to_numpy()
    scored = np.zeros(measured.shape, int)
    for fold in range(3):
        config = load_config(sparse_config(tmp_path, folds=3, fold=fold))
        train, held = fold_cells(region, config)
        assert not (train & held).any() and not ((train | held) & ~measured).any()
        scored += held
    np.testing.assert_array_equal(scored, measured)


def test_a_cross_validation_from_the_command_line_that_goes_on_where_it_ended(tmp_path):
    region = write_region(tmp_path, add_radar(tmp_path, region_content(tmp_path)))
    config = sparse_config(tmp_path, folds=2)
    arguments = ("cross-validate", "--config", config, "--region", region, "--data-dir", tmp_path)
    first = invoke(main, *arguments, "--out", tmp_path / "folds", "--fold", 1)
    assert first.exit_code == 0, first.output
    none = invoke(main, *arguments, "--out", tmp_path / "folds", "--fold", 2)
    assert none.exit_code == 2 and "fold 2 is not one of data.folds=2" in none.stderr
    model = tmp_path / "folds" / "fold-1" / "model.json"
    written = model.stat().st_mtime_ns
    assert "fold 1: " in first.output and "fold 0: " not in first.output
    # The other one, beside which the first keeps its row.
    both = invoke(main, *arguments, "--out", tmp_path / "folds", "--fold", 0)
    assert both.exit_code == 0, both.output
    assert "fold 0: " in both.output and "fold 1: " in both.output
    assert model.stat().st_mtime_ns == written, "a fold that is done is not trained again"
    other = invoke(main, *arguments, "--out", tmp_path / "folds", "--set", "training.epochs=3")
    assert other.exit_code == 2 and "trained with other settings" in other.output
    result = json.loads((tmp_path / "folds" / "metrics.json").read_text(encoding="utf-8"))
    assert set(result["folds"]) == {"0", "1"}
    for fold in result["folds"].values():
        # The low-resolution bed is the plane that radar flies 7 m above: with relief in it, but never far from it.
        assert fold["bicubic"]["bias"] == pytest.approx(-7, abs=3)
        assert set(fold) == {"deepbedmap", "bicubic", "boosted"} and fold["boosted"]["rmse"] < fold["bicubic"]["rmse"]
    assert "mean and standard deviation over the folds" in both.output and "Boosted regression" in both.output
    about = json.loads(model.read_text(encoding="utf-8"))
    assert about["config"]["data"]["fold"] == 1 and about["training"]["initial"] is None


def test_cross_validation_without_folds_is_refused(tmp_path):
    config: Config = load_config(sparse_config(tmp_path))
    with pytest.raises(ConfigError, match=r"set data\.folds"):
        cross_validate(config, tmp_path / "region.yml", tmp_path / "out")
