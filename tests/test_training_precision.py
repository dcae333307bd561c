"""Which precision a machine is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepbedmap_tf.training import precision
from deepbedmap_tf.training.precision import BFLOAT16_FLAGS, choose_precision, cpu_flags


@pytest.mark.parametrize("setting", ["float32", "float64", "mixed_bfloat16", "mixed_float16"])
def test_a_named_precision_is_taken(setting: str) -> None:
    assert choose_precision(setting) == setting


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16"}, "mixed_bfloat16"),
        ({"asimd", "bf16"}, "mixed_bfloat16"),
        ({"avx2", "avx512f"}, "float32"),
        (set(), "float32"),
    ],
)
def test_auto_on_a_cpu(
    flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    with caplog.at_level("INFO"):
        assert choose_precision("auto") == expected
    assert expected in caplog.text and "bfloat16 instructions" in caplog.text


def test_flags_of_this_cpu() -> None:
    flags = cpu_flags()
    information = Path("/proc/cpuinfo")
    if information.exists():
        assert flags and bool(flags & BFLOAT16_FLAGS) == any(f" {f}" in information.read_text() for f in BFLOAT16_FLAGS)
    else:
        assert flags == set()
