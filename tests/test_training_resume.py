"""A run that is stopped, killed and resumed ends where an uninterrupted one does, bit by bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("tiny_training.py")


def start(folder: Path, resume: bool = False, signal_name: str = "none", at_step: int = 0) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(PROGRAM), str(folder), "resume" if resume else "fresh", signal_name, str(at_step)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    # A shell in the background starts its processes deaf to Ctrl-C.
    hear = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=hear)


def finish(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=300)[1]


def test_interrupted_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    uninterrupted = start(whole)
    # Ctrl-C between checkpoints, in the middle of the first epoch.
    process = start(parts, signal_name="SIGINT", at_step=2)
    message = finish(process)
    assert process.returncode in (-signal.SIGINT, 1, 130), message
    assert "step 2 of 8" in message and "--resume" in message and "ckpt-2" in message
    # Killed at step 7, in the middle of the second epoch: the newest checkpoint is that of step 6.
    process = start(parts, resume=True, signal_name="SIGKILL", at_step=7)
    message = finish(process)
    assert process.returncode == -signal.SIGKILL, message
    assert sorted(path.name for path in parts.glob("*.index")) == ["ckpt-4.index", "ckpt-6.index"]
    process = start(parts, resume=True)
    message = finish(process)
    assert process.returncode == 0, message
    message = finish(uninterrupted)
    assert uninterrupted.returncode == 0, message
    expected, found = np.load(whole / "weights.npz"), np.load(parts / "weights.npz")
    assert expected.files == found.files
    assert found["arr_0"].shape[0] == 2, "both epochs are in the history"
    for name in expected.files:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
