"""The state of a run on disk: what it takes to go on exactly where it stopped."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from deepbedmap_tf.config import Config
from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import DeepBedMapError, DivergedError, TrainingError
from deepbedmap_tf.training.gan import DeepBedMapGAN

LOGGER = logging.getLogger(__name__)

FREE_TO_CHANGE = ("name", "training.max_minutes", "training.checkpoint_steps")
"""Settings that a resumed run may change, as they do not touch what it computes."""


@dataclass
class RunState:
    """Checkpoints of one run in a folder.

    Networks, averaged weights, both optimisers, the step and the running means of the epoch are saved together. The
    order of the tiles needs no state: it follows from the seed and the step.

    Parameters
    ----------
    folder
        Where checkpoints and ``run.json`` lie.
    gan
        Compiled model, whose variables are saved and restored.
    config
        Configuration of the run.
    data_hash
        Fingerprint of the tiles it trains on.
    chief
        Whether this process writes; of several workers only one does, without asking the others.
    """

    folder: Path
    gan: DeepBedMapGAN
    config: Config
    data_hash: str
    chief: bool = True

    def __post_init__(self) -> None:
        """Prepare the checkpoint manager; nothing is written yet."""
        self.checkpoint = tf.train.Checkpoint(
            gan=self.gan,
            generator_optimizer=self.gan.generator_optimizer,
            discriminator_optimizer=self.gan.discriminator_optimizer,
            metrics=self.gan.metrics,
        )
        # Made now by all workers: within a strategy's scope a first checkpoint would make it, and wait for the others.
        _ = self.checkpoint.save_counter
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(self.folder), max_to_keep=2)
        self.history: list[dict[str, float]] = []
        self.minutes = 0.0
        self.mlflow_run: str | None = None

    @property
    def last_good(self) -> str:
        """Path of the newest checkpoint, for messages."""
        newest = self.manager.latest_checkpoint if self.chief else tf.train.latest_checkpoint(str(self.folder))
        return newest or "none yet"

    def save(self) -> None:
        """Write a checkpoint and ``run.json``.

        Raises
        ------
        TrainingError
            When the disk refuses or a weight is not finite; earlier checkpoints are kept.
        """
        step = int(self.gan.step.numpy())
        # The loss that was checked is the one before the step's update.
        for variable in self.gan.trainable_variables:
            if not bool(tf.reduce_all(tf.math.is_finite(variable))):
                raise DivergedError(
                    f"weight {variable.name} is not finite at step {step}; the last good checkpoint is "
                    f"{self.last_good}. Lower the learning rate or use training.precision=float32, and start anew "
                    "or --resume from it"
                )
        if not self.chief:
            return
        try:
            self.manager.save(checkpoint_number=step)
            content = {
                "config": self.config.model_dump(mode="json"),
                "data_hash": self.data_hash,
                "step": step,
                "minutes": round(self.minutes, 3),
                "mlflow_run": self.mlflow_run,
                "history": self.history,
            }
            with written_beside(self.folder / "run.json") as beside:
                beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        except (tf.errors.OpError, OSError, DeepBedMapError) as error:
            self._remove_unfinished(step)
            reason = str(error).splitlines()[0][:200]
            raise TrainingError(
                f"cannot write a checkpoint to {self.folder}: {reason}; the last good one is {self.last_good}. "
                "Free some space and resume with --resume"
            ) from error

    def _remove_unfinished(self, step: int) -> None:
        name = f"ckpt-{step}"
        if Path(self.last_good).name == name:
            return
        for path in (*self.folder.glob(f"{name}.*"), *self.folder.glob(f"{name}_temp*")):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def restore(self) -> int:
        """Load the newest checkpoint.

        Returns
        -------
        int
            Step to go on from.

        Raises
        ------
        TrainingError
            When there is none, it is corrupt, or it belongs to another configuration or other tiles.
        """
        record = self._record()
        before = _flat(_with_defaults(record.get("config", {})))
        now = _flat(self.config.model_dump(mode="json"))
        different = sorted(
            key for key in before.keys() | now.keys() if before.get(key) != now.get(key) and key not in FREE_TO_CHANGE
        )
        if different:
            key = different[0]
            raise TrainingError(
                f"the run in {self.folder} has {key} = {before.get(key)!r}, now it is {now.get(key)!r}"
                f"{f' and {len(different) - 1} more differ' if different[1:] else ''}; resume with the same "
                "configuration, or start anew without --resume in another --out"
            )
        if record.get("data_hash") != self.data_hash:
            raise TrainingError(
                f"the run in {self.folder} was on other tiles (hash {str(record.get('data_hash'))[:12]}, now "
                f"{self.data_hash[:12]}); resume with the same data, or start anew in another --out"
            )
        # The newest first; an older one stands in for one that a full disk or a crash has cut short.
        for path in reversed(self.manager.checkpoints):
            try:
                status = self.checkpoint.restore(path)
                status.assert_existing_objects_matched()
                break
            except (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError, OSError) as error:
                LOGGER.warning("checkpoint %s is corrupt (%s)", path, str(error).splitlines()[0][:120])
        else:
            raise TrainingError(
                f"no checkpoint in {self.folder} can be read; expected one written by train.py. "
                "Start anew without --resume"
            )
        step = int(self.gan.step.numpy())
        self.history = [entry for entry in record.get("history", []) if entry["step"] <= step]
        self.minutes = float(record.get("minutes", 0.0))
        self.mlflow_run = record.get("mlflow_run")
        return step

    def _record(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise TrainingError(f"{self.folder} holds no run to resume; start it without --resume") from error
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} is corrupt ({error}); start anew without --resume") from error
        if not isinstance(record, dict):
            raise TrainingError(f"{path} is corrupt: expected a mapping; start anew without --resume")
        return record


def _with_defaults(content: Any) -> Any:
    """Add the settings that came after a run was begun: it ran as their defaults have it."""
    try:
        return Config.model_validate(content).model_dump(mode="json")
    except ValueError:
        return content


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(content, dict):
        return {key: value for name, part in content.items() for key, value in _flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): content}
