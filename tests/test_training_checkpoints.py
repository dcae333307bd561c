"""Checkpoints: what resuming refuses, what it falls back to, and what stops a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow import keras
from tiny_training import tiny_config, tiny_data

from deepbedmap_tf.config import Config
from deepbedmap_tf.errors import TrainingError
from deepbedmap_tf.training import loop
from deepbedmap_tf.training.checkpoints import RunState
from deepbedmap_tf.training.gan import DeepBedMapGAN, build_optimizer

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def gan() -> DeepBedMapGAN:
    made = DeepBedMapGAN(CONFIG, "float32")
    made.compile(build_optimizer(CONFIG.generator_optimizer, 8), build_optimizer(CONFIG.discriminator_optimizer, 8))
    made.generator_optimizer.build(made.generator.trainable_variables)
    made.discriminator_optimizer.build(made.discriminator.trainable_variables)
    return made


@pytest.fixture
def folder(gan: DeepBedMapGAN, tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2, whose first bias is 1 and 2."""
    state = RunState(tmp_path, gan, CONFIG, "data")
    for step in (1, 2):
        gan.step.assign(step)
        first_bias(gan).assign(np.full(2, step, np.float32))
        state.history.append({"epoch": step, "step": step})
        state.save()
    gan.step.assign(99)
    first_bias(gan).assign(np.full(2, 99, np.float32))
    return tmp_path


def first_bias(gan: DeepBedMapGAN) -> Any:
    return gan.generator.get_layer("surface_conv").bias


def one_line(error: pytest.ExceptionInfo[TrainingError]) -> bool:
    return "\n" not in str(error.value)


def test_restore(gan: DeepBedMapGAN, folder: Path) -> None:
    state = RunState(folder, gan, CONFIG, "data")
    assert state.restore() == 2
    np.testing.assert_array_equal(first_bias(gan), [2, 2])
    assert [entry["step"] for entry in state.history] == [1, 2]
    assert state.last_good.endswith("ckpt-2")


@pytest.mark.parametrize("kind", ["data", "index"])
def test_a_cut_checkpoint_falls_back_to_the_one_before(
    gan: DeepBedMapGAN, folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = folder.glob(f"ckpt-2.{kind}*")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    state = RunState(folder, gan, CONFIG, "data")
    with caplog.at_level(logging.WARNING):
        assert state.restore() == 1
    assert "ckpt-2 is corrupt" in caplog.text
    np.testing.assert_array_equal(first_bias(gan), [1, 1])
    assert [entry["step"] for entry in state.history] == [1], "history does not run ahead of the weights"


def test_no_readable_checkpoint(gan: DeepBedMapGAN, folder: Path) -> None:
    for path in folder.glob("ckpt-*.index"):
        path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"no checkpoint in .* can be read.*Start anew") as error:
        RunState(folder, gan, CONFIG, "data").restore()
    assert one_line(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "has seed = 42, now it is 5"),
        ({"training": {"epochs": 9}}, "training.epochs = 2, now it is 9"),
        ({"generator": {"filters": 8}}, "generator.filters = 4, now it is 8"),
        ({"losses": [{"name": "content", "weight": 2.0}], "seed": 3}, "has losses = .* and 1 more differ"),
    ],
)
def test_another_configuration_is_refused(
    gan: DeepBedMapGAN, folder: Path, change: dict[str, Any], message: str
) -> None:
    content = CONFIG.model_dump(mode="json")
    for key, value in change.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    with pytest.raises(TrainingError, match=message) as error:
        RunState(folder, gan, Config.model_validate(content), "data").restore()
    assert one_line(error) and "--resume" in str(error.value)


def test_bookkeeping_may_change(gan: DeepBedMapGAN, folder: Path) -> None:
    training = CONFIG.training.model_copy(update={"max_minutes": 3.0, "checkpoint_steps": 7})
    assert RunState(folder, gan, CONFIG.model_copy(update={"training": training, "name": "x"}), "data").restore() == 2


def test_other_tiles_are_refused(gan: DeepBedMapGAN, folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"on other tiles \(hash data, now others\)"):
        RunState(folder, gan, CONFIG, "others").restore()


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_corrupt_record(gan: DeepBedMapGAN, folder: Path, content: str) -> None:
    (folder / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=r"run\.json is corrupt") as error:
        RunState(folder, gan, CONFIG, "data").restore()
    assert one_line(error)


def test_nothing_to_resume(gan: DeepBedMapGAN, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no run to resume"):
        RunState(tmp_path / "none", gan, CONFIG, "data").restore()


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({}))
    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        loop._fresh(tmp_path)


def test_a_disk_that_refuses_keeps_the_last_good_checkpoint(gan: DeepBedMapGAN, folder: Path) -> None:
    state = RunState(folder, gan, CONFIG, "data")
    state.restore()

    def full(**options: Any) -> str:
        raise OSError(28, "No space left on device")

    state.manager.save = full
    with pytest.raises(TrainingError, match=r"No space left.*last good one is .*ckpt-2.*--resume") as error:
        state.save()
    assert one_line(error)


def test_weights_that_are_not_finite_are_never_saved(gan: DeepBedMapGAN, folder: Path) -> None:
    state = RunState(folder, gan, CONFIG, "data")
    state.restore()
    first_bias(gan).assign([np.inf, 0])
    gan.step.assign(3)
    with pytest.raises(TrainingError, match=r"not finite at step 3; the last good checkpoint is .*ckpt-2"):
        state.save()
    first_bias(gan).assign([0, 0])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    data = tiny_data()
    data.train.bed[:] = np.inf
    with pytest.raises(TrainingError, match=r"is not finite at step 1; the last good checkpoint is none yet") as error:
        loop.train(tiny_config(), data, tmp_path, progress=False)
    assert one_line(error) and "learning rate" in str(error.value)
    assert not list(tmp_path.glob("ckpt*"))


def test_time_limit_ends_in_order_and_a_complete_run_is_told(tmp_path: Path) -> None:
    config = tiny_config(max_minutes=1e-6)
    seen: list[int] = []
    run = loop.train(config, tiny_data(), tmp_path, progress=False, on_epoch=lambda step, metrics: seen.append(step))
    assert run.steps < 8 and seen == [run.steps]
    assert run.history[-1]["step"] == run.steps
    for key in ("loss", "content", "adversarial", "topographic", "structural", "discriminator_loss"):
        assert np.isfinite(run.history[-1][f"val_{key}"])
    for key in ("psnr", "ssim", "rmse", "skill", "bicubic_rmse", "discriminator_accuracy"):
        assert np.isfinite(run.history[-1][f"val_{key}"])
    keras.backend.clear_session()
