"""The benchmark: its count of operations, its timer and its table; nothing here is timed seriously."""

from __future__ import annotations

import pytest
from tiny_training import TINY

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.inference import bench
from deepbedmap_tf.models import build_generator


def test_arithmetic_of_the_papers_network() -> None:
    # Linear in the blocks: 0 and 1 of them tell that of 12.
    counts = [
        bench.flop_per_pixel(build_generator(config, "float32"), config.inputs)
        for config in (GeneratorConfig(num_residual_blocks=0), GeneratorConfig(num_residual_blocks=1))
    ]
    assert counts[1] - counts[0] == 3 * 2 * 9 * (64 * 32 + 96 * 32 + 128 * 32 + 160 * 32 + 192 * 64) / 16
    assert counts[0] + 12 * (counts[1] - counts[0]) == pytest.approx(1.298e6, rel=5e-4)


def test_best_time_counts_calls() -> None:
    calls: list[int] = []
    seconds = bench.best_time(lambda: calls.append(sum(range(200_000))), 2)
    assert len(calls) > 3, "a short call is repeated within a timing"
    assert 0 < seconds < bench.SHORTEST


def test_parts_give_every_number_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "MATRIX", 64)
    monkeypatch.setattr(bench, "WINDOWS", ((11, 11), (12, 13)))
    monkeypatch.setattr(bench, "TILE_BATCH", 2)
    monkeypatch.setattr(bench, "LAYER_SHAPE", (1, 6, 6, 4))
    monkeypatch.setattr(bench, "SHORTEST", 1e-4)
    numbers: dict[str, float] = {}
    for part in (bench._arithmetic, bench._inference, bench._deformable):
        numbers |= part("float32", 1, TINY)
    assert all(value > 0 for value in numbers.values())
    flops = numbers.pop("flop_per_pixel")
    numbers |= {"limit_pixels_per_second": 2e6, "training_tiles_per_second": 12.3, "training_peak_bytes": 4.5e9}
    numbers |= {"fraction_of_limit_11x11": 0.55, "fraction_of_limit_12x13": 0.45}
    results = {
        "machine": {"processor": "abacus", "cores": 2, "tensorflow": "2"},
        "network": {"flop_per_pixel": flops},
        "float32": numbers,
        "mixed_bfloat16": numbers,
    }
    lines = bench.table(results).splitlines()
    assert lines[0].startswith("abacus, 2 cores")
    assert [line.split()[-2:] for line in lines if "training, batch" in line] == [["12.3", "12.3"]]
    assert [line.split()[-2:] for line in lines if "of the limit, %" in line] == [["55", "55"], ["45", "45"]]
