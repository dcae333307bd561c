"""Draw the figure of docs/synthetic.md: ``python scripts/draw_world.py [REGION.yml] [PATH without ending]``."""

from __future__ import annotations

import sys
from pathlib import Path

from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.figures.world import draw_world

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    region_file = sys.argv[1] if len(sys.argv) > 1 else ROOT / "configs/regions/synthetic.yml"
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs/figures/world"
    for path in draw_world(load_region(region_file), target, formats=("jpg",)):
        print(path)
