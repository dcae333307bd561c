"""Two real workers of `train.py`: the chief gets Ctrl-C, a worker freezes, and all of them compute in bfloat16."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT, TINY_CONFIG, small_world, write_yaml
from http_servers import free_port

pytestmark = pytest.mark.slow
PATIENCE = 900


class Job:
    """Two workers on loopback in a folder of their own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.checkpoint = folder / "model/training/checkpoint"
        content = copy.deepcopy(TINY_CONFIG)
        # Longer than anybody waits: every test ends it.
        content["training"] |= {"steps_per_epoch": 5000, "checkpoint_steps": 1, "precision": "mixed_bfloat16"}
        command = [sys.executable, str(ROOT / "train.py"), "--strategy", "multiworker", "--out", str(folder / "model")]
        command += ["--config", str(write_yaml(folder / "tiny.yml", content))]
        command += ["--region", str(small_world(folder / "world.yml")), *arguments]
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self.workers = [self._start(command, index) for index in range(2)]

    def _start(self, command: list[str], index: int) -> subprocess.Popen[bytes]:
        task = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}}
        environment = {
            "TF_CONFIG": json.dumps(task),
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": str(ROOT),
            "DEEPBEDMAP_CACHE_DIR": str(self.folder / "cache"),
        }
        # Whoever runs the tests in the background has it ignored, and children inherit that.
        hear = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        with (self.folder / f"{index}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=os.environ | environment, stdout=log, stderr=log, preexec_fn=hear
            )

    def said(self, index: int) -> str:
        return (self.folder / f"{index}.log").read_text(encoding="utf-8")

    def step(self) -> int:
        """Step of the newest checkpoint."""
        return int(json.loads((self.folder / "model/training/run.json").read_text())["step"])

    def wait_for_steps(self) -> None:
        """Wait until both have trained for a while."""
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "model/training/run.json").exists() or self.step() < 3:
            alive = all(worker.poll() is None for worker in self.workers)
            assert alive and time.monotonic() < deadline, self.said(0) + self.said(1)
            time.sleep(0.1)

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()


@pytest.fixture
def job(tmp_path: Path) -> Any:
    jobs: list[Job] = []

    def start(*arguments: str) -> Job:
        jobs.append(Job(tmp_path, *arguments))
        return jobs[-1]

    yield start
    for each in jobs:
        each.end()


def error_of(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line


def test_ctrl_c_on_the_chief_saves_and_the_job_resumes(job: Any) -> None:
    first = job()
    first.wait_for_steps()
    first.workers[0].send_signal(signal.SIGINT)
    assert first.workers[0].wait(PATIENCE) == 130, first.said(0)
    assert first.workers[1].wait(PATIENCE) == 2, first.said(1)
    step = first.step()
    assert f"interrupted at step {step} of 10000; saved to {first.folder}/model/training/ckpt-{step}" in first.said(0)
    assert f"worker 0 ({first.addresses[0]}) of 2 is gone" in error_of(first.said(1))
    # Both go on from there; the time that is over already lets them take one step.
    second = job("--resume", "--set", "training.max_minutes=0.0001")
    assert [worker.wait(PATIENCE) for worker in second.workers] == [0, 0], second.said(0) + second.said(1)
    assert second.step() == step + 1


def test_a_frozen_worker_ends_the_job_and_ends_itself_when_it_wakes(job: Any) -> None:
    frozen = job()
    frozen.wait_for_steps()
    frozen.workers[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        assert frozen.workers[0].wait(PATIENCE) == 2, frozen.said(0)
        # Ten seconds without a heartbeat, and what a loaded machine needs besides.
        assert time.monotonic() - began < 120
    finally:
        frozen.workers[1].send_signal(signal.SIGCONT)
    assert f"worker 1 ({frozen.addresses[1]}) of 2 is gone" in error_of(frozen.said(0))
    assert f"ckpt-{frozen.step()}." in error_of(frozen.said(0))
    assert frozen.workers[1].wait(PATIENCE) not in (0, -signal.SIGKILL), frozen.said(1)
