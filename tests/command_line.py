"""Run the real commands, in this process or in one of their own, and a world small enough to do it on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import yaml
from click.testing import CliRunner, Result

ROOT = Path(__file__).resolve().parents[1]

DEEPBEDMAP = "from deepbedmap_tf.cli import main; main()"
"""What the ``deepbedmap`` command does, also where the project is not installed."""

TINY_CONFIG: dict[str, Any] = {
    "seed": 42,
    "generator": {
        "num_residual_blocks": 1, "input_filters": 2, "filters": 4, "growth_filters": 2,
        "output": "residual", "normalise": True,
    },
    "discriminator": {"normalise": True},
    "generator_optimizer": {"learning_rate": 1e-3, "epsilon": 1e-8, "warmup_steps": 2, "clip_norm": 20.0},
    "data": {"stride": 8, "block_size": 48, "buffer": 8},
    "training": {"batch_size": 4, "epochs": 2, "steps_per_epoch": 3, "precision": "float32", "ema_momentum": 0.9},
}  # fmt: skip


def script(name: str) -> click.Command:
    """The command of ``train.py`` or ``evaluate.py``."""
    specification = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return getattr(module, "train" if name == "train" else "main")


def invoke(command: click.Command, *arguments: Any) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def run(program: str, *arguments: Any, folder: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``train.py``, ``evaluate.py``, ``deepbedmap`` or a line of Python in a process and a folder of its own."""
    start = (
        [str(ROOT / program)] if program.endswith(".py") else ["-c", DEEPBEDMAP if program == "deepbedmap" else program]
    )
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def write_yaml(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def small_world(path: Path) -> Path:
    """Write the region file of the demo, cut down to 36 x 32 km with a dense survey and a transect beside it."""
    content = yaml.safe_load((ROOT / "configs/regions/synthetic_small.yml").read_text(encoding="utf-8"))
    bounds = [-1490000, -532000, -1454000, -500000]
    content |= {"name": "tiny", "title": "SYNTHETIC tiny world", "bounds": bounds}
    content["world"] |= {
        "bounds": bounds,
        "dense_boxes": [{"bounds": [-1489500, -531500, -1466000, -500500], "azimuth": 0}],
        "transect": [[-1463000, -530000], [-1456000, -517000], [-1463000, -502000]],
    }
    content["transects"]["thwaites"]["bounds"] = bounds
    content["holdout"] = {"test": [[-1466000, -532000, -1454000, -500000]]}
    return write_yaml(path, content)
