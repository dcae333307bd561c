"""The regions on real data and the default configuration go together: there is something to train and validate on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deepbedmap_tf.config import load_config
from deepbedmap_tf.data.cutting import plan_tiles
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.data.split import TRAIN, VALIDATION

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["byrd", "pine_island_500m", "thwaites_1500m"])
def test_default_configuration_finds_tiles(shared: Callable[[str], Path], name: str) -> None:
    region = load_region(ROOT / f"configs/regions/{name}.yml", shared("data"))
    config = load_config(ROOT / "configs/default.yml")
    plan = plan_tiles(region, region.target(), region.tiling(config.data), config.seed)
    # A batch of validation tiles at least, and enough to learn from; 72-cell windows found none on Byrd Glacier.
    assert (plan.split == TRAIN).sum() > 500
    assert (plan.split == VALIDATION).sum() >= 20
    assert plan.leak == 0
