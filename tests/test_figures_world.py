"""The figure of an embedded world is drawn from its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.figures.world import draw_world


def test_figure_of_a_small_world(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path))
    content = yaml.safe_load((root / "configs" / "regions" / "synthetic_small.yml").read_text())
    bounds = [-1_436_000, -510_000, -1_406_000, -486_000]
    content["bounds"] = content["world"]["bounds"] = bounds
    content["world"]["dense_boxes"] = []
    content["world"]["transect"] = [[-1_416_000, -508_000], [-1_412_000, -490_000]]
    (tmp_path / "region.yml").write_text(yaml.safe_dump(content))
    (drawn,) = draw_world(load_region(tmp_path / "region.yml"), tmp_path / "figure", formats=("png",))
    assert drawn.suffix == ".png" and drawn.stat().st_size > 50_000
