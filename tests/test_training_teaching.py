from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepbedmap_tf.config import load_config
from deepbedmap_tf.data.cutting import deal_cells
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.training import teaching

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def byrd(shared: Callable[[str], Path]) -> Region:
    return load_region(ROOT / "configs/regions/byrd.yml", shared("data"))


def test_radar_that_is_held_out_teaches_nothing(byrd: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(ROOT / "configs/byrd.yml").data
    train, held_out = deal_cells(byrd, byrd.weighted_target(), config, 42)
    seen: list[np.ndarray] = []

    def learn(inputs: dict[str, np.ndarray], radar: np.ndarray) -> np.ndarray:
        seen.append(np.isfinite(radar))
        return np.full(radar.shape, len(seen), np.float32)

    # Who is asked is under test here, not what a regression says (tests/test_scoring_baselines.py).
    monkeypatch.setattr(teaching, "slow_regression", learn)
    bed = teaching.taught_bed(byrd, config, 42)
    assert len(seen) == 1 + teaching.GROUPS
    assert not any((cells & held_out).any() for cells in seen)
    assert (bed[held_out & ~train] == 1).all()
    for number, cells in enumerate(seen[1:], start=2):
        mine = bed == number
        # A part of the training cells is taught by the radar of the others.
        assert mine.any() and not (cells & mine).any()
        assert (seen[0] & ~mine).sum() == cells.sum()


def test_a_slow_regression_finds_what_the_conditions_tell(byrd: Region) -> None:
    from deepbedmap_tf.data.fields import batch_of_one
    from deepbedmap_tf.scoring.baselines import bicubic

    bounds = (349750.0, -900250.0, 449750.0, -800250.0)
    inputs = batch_of_one(byrd.inputs(bounds))
    prior = bicubic(inputs["bed_lowres"][0, ..., 0])
    speed = np.hypot(*np.moveaxis(inputs["velocity"][0, 2:-2, 2:-2], -1, 0)).repeat(2, 0).repeat(2, 1)
    truth = prior + np.where(speed > 100, 80.0, -20.0)
    random = np.random.default_rng(0).random(truth.shape)
    radar = np.where(random < 0.2, truth, np.nan)
    bed = teaching.slow_regression(inputs, radar)
    hidden = np.isnan(radar) & np.isfinite(truth)
    left = np.sqrt(np.mean((bed - truth)[hidden] ** 2))
    assert left < 0.35 * np.sqrt(np.mean((prior - truth)[hidden] ** 2))
