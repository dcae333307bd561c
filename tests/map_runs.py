"""A small region with relief, a small network, and ``deepbedmap predict`` in a process of its own, to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from data_files import region_content, write_region

DEADLINE = 600.0


def rough_region(folder: Path, cells: int = 40, **keys: Any) -> Path:
    """Write a region of planes with relief on its low-resolution bed; returns the region file."""
    folder.mkdir(parents=True, exist_ok=True)
    content = region_content(folder, cells=cells)
    bed = {"path": "bed.nc", "variable": "bed", "vertical_datum": "ellipsoid:WGS84", "resampling": "average"}
    return write_region(folder, {**content, **keys, "inputs": {**content["inputs"], "bed_lowres": bed}})


def tiny_model(folder: Path, symmetric: bool = False, **metadata: Any) -> Path:
    """Export a small network that adds 50 m to the bicubic bed."""
    from tiny_training import TINY, build_loud

    from deepbedmap_tf.inference.export import export_model

    config = TINY.model_copy(update={"normalise": True, "output": "residual"})
    about = {"resolution": 250.0, "halo": 4, **metadata}
    return export_model(build_loud(config), config, folder, about, symmetric)


def start(*arguments: Any, **environment: str) -> subprocess.Popen[str]:
    """Start ``deepbedmap predict`` in a process group of its own, with Ctrl-C as a terminal has it."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("deepbedmap")), "predict", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(*arguments: Any, **environment: str) -> tuple[int, str, str]:
    """Run it to its end; returns exit code, standard output and standard error."""
    process = start(*arguments, **environment)
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        end(process)
    return process.returncode, out, err


def end(process: subprocess.Popen[str]) -> None:
    """End a process and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def steps_done(folder: Path) -> int:
    """Tasks that the record in a work folder holds."""
    path = folder / "manifest.jsonl"
    return max(0, len(path.read_bytes().split(b"\n")) - 2) if path.exists() else 0


def wait_for_steps(process: subprocess.Popen[str], folder: Path, steps: int) -> int:
    """Wait until some tasks are done, while the process runs; returns how many there are."""
    deadline = time.monotonic() + DEADLINE
    while steps_done(folder) < steps:
        if process.poll() is not None or time.monotonic() > deadline:
            end(process)
            raise AssertionError(f"ended or stuck with {steps_done(folder)} steps done: {process.communicate()}")
        time.sleep(0.01)
    return steps_done(folder)


def bed_of(path: Path) -> np.ndarray:
    """Bed of a map as it stands in the file."""
    import xarray as xr

    with xr.open_dataset(path) as file:
        return file["bed"].to_numpy()
