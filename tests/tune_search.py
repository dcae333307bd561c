"""A search of minutes or seconds over a tiny network in a tiny world, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from command_line import DEEPBEDMAP, ROOT, TINY_CONFIG, small_world, write_yaml

ABSURD = 1e30
"""A learning rate after whose first step nothing is finite."""


def prepare(folder: Path, rates: tuple[float, ...], trials: int) -> None:
    """Write configuration, world and search space."""
    # Without an adversarial term there is no discriminator to trace, which is most of the time of so small a run.
    write_yaml(folder / "tiny.yml", TINY_CONFIG | {"losses": [{"name": "content", "weight": 1.0}]})
    small_world(folder / "world.yml")
    parameters: dict[str, Any] = {
        "optimizer": {
            "kind": "choice", "choices": ["rectified_adam", "lookahead"], "sets": ["generator_optimizer.name"],
        },
        "rate": {"kind": "choice", "choices": list(rates), "sets": ["generator_optimizer.learning_rate"]},
        "scaling": {"kind": "float", "low": 0.1, "high": 0.5, "sets": ["generator.residual_scaling"]},
    }  # fmt: skip
    space = {"title": "tiny", "trials": trials, "startup_trials": 20, "parameters": parameters}
    write_yaml(folder / "space.yml", space | {"pruning": {"min_epochs": 2, "reduction_factor": 2}})


def arguments(folder: Path, *more: Any) -> list[str]:
    """Of ``deepbedmap tune``."""
    files = ["--config", folder / "tiny.yml", "--space", folder / "space.yml", "--region", folder / "world.yml"]
    return [str(each) for each in ("tune", *files, "--tuned", folder / "tuned.yml", *more)]


def start(folder: Path, log: Path, *more: Any, **environment: str) -> subprocess.Popen[bytes]:
    """Start a worker in a process of its own, which writes all that it says to a file."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", DEEPBEDMAP, *arguments(folder, *more)],
            cwd=folder,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
