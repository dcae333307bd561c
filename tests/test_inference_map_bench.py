"""``deepbedmap bench-map`` on a tiny network: every number of its table, none of them timed seriously."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import invoke
from map_runs import rough_region, tiny_model

from deepbedmap_tf.cli import main

pytestmark = pytest.mark.slow


def test_every_number_of_the_table(tmp_path: Path) -> None:
    region, model = rough_region(tmp_path / "region"), tiny_model(tmp_path / "model")
    measured = invoke(
        main, "bench-map", "--model", model, "--region", region, "--data-dir", region.parent,
        "--block", 4, "--blocks", 4, "--json", tmp_path / "numbers.json",
    )  # fmt: skip
    assert measured.exit_code == 0, measured.output
    numbers = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    plan = numbers["plan"]
    assert (plan["blocks"], plan["output_pixels"]) == (100, 160 * 160)
    # Blocks of 4 cells with a halo of 4 that ends at the border: 8, then eight times 12, then 8 cells a row.
    assert plan["computed_pixels"] == (4 * (8 + 8 * 12 + 8)) ** 2
    assert plan["halo_share"] == pytest.approx(1 - 160**2 / 448**2)
    bare = numbers["network"]["computed_pixels_per_second"]
    rates = [crew["computed_pixels_per_second"] for crew in numbers["crews"].values()]
    assert [crew["of_the_bare_network"] for crew in numbers["crews"].values()] == pytest.approx(
        [rate / bare for rate in rates]
    )
    assert numbers["coordination"] == pytest.approx(1 - rates[3] / (2 * rates[1]))
    # Two processes do more than none, and hardly more than twice one.
    assert -1 < numbers["machine"] < 1
    assert numbers["whole"]["seconds"] == pytest.approx(plan["computed_pixels"] / max(rates))
    lines = measured.stdout.splitlines()
    assert "100 blocks of 4 low-resolution cells, halo 4" in lines[0]
    assert sum(line.startswith("whole pipeline, ") for line in lines) == 4
    assert f"lose {100 * numbers['coordination']:.0f} % against twice one" in measured.stdout


def test_a_part_without_a_whole_block(tmp_path: Path) -> None:
    region, model = rough_region(tmp_path / "region"), tiny_model(tmp_path / "model")
    refused = invoke(
        main, "bench-map", "--model", model, "--region", region, "--data-dir", region.parent, "--block", 40
    )
    assert refused.exit_code == 2 and "no whole block of 40 cells" in refused.stderr
