"""Real processes on loopback, and two devices of one, train what a single process trains."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed_training import loud_config

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("distributed_training.py")
PATIENCE = 900

# What differs, as a share of how far the weights have moved. This small adversarial pair (four tiles, sixteen values in
# its last batch normalisation) amplifies rounding: in float32 one process with one thread differs from itself with two
# by 0.15 after four steps, two processes by 0.28. In float64, where it is 2e-12, only the right sums pass.
LIMIT = {"float64": 1e-9, "float32": 0.5}

pytestmark = pytest.mark.slow


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(
    folder: Path, kind: str, precision: str, resume: bool = False, kill_at: int = 0, task: dict[str, Any] | None = None
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    if task is not None:
        environment["TF_CONFIG"] = json.dumps(task)
    mode = "resume" if resume else "fresh"
    command = [sys.executable, str(PROGRAM), str(folder), kind, mode, precision, str(kill_at)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def start_workers(folder: Path, precision: str, resume: bool = False, killed: int | None = None) -> list[Any]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    return [
        start(
            folder,
            "multiworker",
            precision,
            resume,
            3 if index == killed else 0,
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}},
        )
        for index in range(2)
    ]


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    try:
        return [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a run of one process, by its precision."""
    made: dict[str, Path] = {}

    def of(precision: str) -> Path:
        if precision not in made:
            folder = tmp_path_factory.mktemp(f"alone_{precision}")
            process = start(folder, "one", precision)
            (message,) = finish(process)
            assert process.returncode == 0, message
            made[precision] = folder
        return made[precision]

    return of


def initial_weights(precision: str) -> dict[str, list[np.ndarray]]:
    from tensorflow import keras

    from deepbedmap_tf.training.gan import DeepBedMapGAN

    config = loud_config(precision=precision)
    keras.utils.set_random_seed(config.seed)
    gan = DeepBedMapGAN(config, precision)
    generator = gan.generator.get_weights()
    return {"generator": generator, "average": generator, "discriminator": gan.discriminator.get_weights()}


def history_of(folder: Path, index: int) -> list[dict[str, float]]:
    history: list[dict[str, float]] = json.loads((folder / f"history-{index}.json").read_text(encoding="utf-8"))
    return history


def require_equal(expected: Path, found: Path, precision: str, index: int = 0) -> None:
    """Compare weights and history of a run with those of one process."""
    ours, theirs = np.load(expected / "weights-0.npz"), np.load(found / f"weights-{index}.npz")
    assert ours.files == theirs.files
    for part, start_values in initial_weights(precision).items():
        names = [name for name in ours.files if name.startswith(f"{part}:")]
        moved = sum(np.sum((ours[n] - old) ** 2.0) for n, old in zip(names, start_values, strict=True)) ** 0.5
        differs = sum(np.sum((ours[n] - theirs[n]) ** 2.0) for n in names) ** 0.5
        assert moved > 1e-3, part
        assert differs <= LIMIT[precision] * moved, (part, differs / moved)
    histories = [history_of(expected, 0), history_of(found, index)]
    assert [entry["step"] for entry in histories[0]] == [2, 4]
    if precision == "float64":
        # The metrics are kept in float32.
        for one, other in zip(*histories, strict=True):
            assert other == pytest.approx(one, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_processes_train_what_one_does(alone: Callable[[str], Path], tmp_path: Path, precision: str) -> None:
    processes = start_workers(tmp_path, precision)
    messages = finish(*processes)
    assert [process.returncode for process in processes] == [0, 0], messages
    for index in (0, 1):
        require_equal(alone(precision), tmp_path, precision, index)
    weights = [np.load(tmp_path / f"weights-{index}.npz") for index in (0, 1)]
    for name in weights[0].files:
        np.testing.assert_array_equal(weights[0][name], weights[1][name], err_msg=name)


def test_two_processes_in_bfloat16(alone: Callable[[str], Path], tmp_path: Path) -> None:
    """Eight bits of a number amplify to other weights at once; the losses tell that both train on the same batches."""
    processes = start_workers(tmp_path, "mixed_bfloat16")
    messages = finish(*processes)
    assert [process.returncode for process in processes] == [0, 0], messages
    weights = [np.load(tmp_path / f"weights-{index}.npz") for index in (0, 1)]
    for name in weights[0].files:
        assert weights[0][name].dtype in (np.float32, np.int64), name
        np.testing.assert_array_equal(weights[0][name], weights[1][name], err_msg=name)
    for one, other in zip(*(history_of(each, 0) for each in (alone("mixed_bfloat16"), tmp_path)), strict=True):
        for name in ("loss", "content", "rmse", "val_loss", "val_content", "val_rmse"):
            assert other[name] == pytest.approx(one[name], rel=0.05), name


def test_two_devices_of_one_process_train_what_one_does(alone: Callable[[str], Path], tmp_path: Path) -> None:
    process = start(tmp_path, "mirrored", "float64")
    (message,) = finish(process)
    assert process.returncode == 0, message
    require_equal(alone("float64"), tmp_path, "float64")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_job_which_resumes(alone: Callable[[str], Path], tmp_path: Path, killed: int) -> None:
    processes = start_workers(tmp_path, "float64", killed=killed)
    messages = finish(*processes)
    assert processes[killed].returncode == -signal.SIGKILL, messages[killed]
    survivor, message = processes[1 - killed], messages[1 - killed]
    assert survivor.returncode not in (0, -signal.SIGKILL), message
    (line,) = [line for line in message.splitlines() if line.startswith("error: ")]
    assert f"worker {killed} (127.0.0.1:" in line and "--resume" in line
    # Step 3 is in the middle of the second epoch. The chief saves each step without asking anyone; the other worker may
    # take the end of that step with it.
    assert any(f"{tmp_path}/ckpt-{step}." in line for step in ((3,) if killed == 0 else (2, 3)))
    # The number of workers is not part of a run: killed workers' runs go on with two, a killed chief's with one.
    processes = start_workers(tmp_path, "float64", True) if killed else [start(tmp_path, "one", "float64", True)]
    messages = finish(*processes)
    assert [process.returncode for process in processes] == [0] * len(processes), messages
    require_equal(alone("float64"), tmp_path, "float64")
