"""What happens between training steps: checkpoints, history, the end of a run that went wrong or took too long."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from tensorflow import keras

from deepbedmap_tf.errors import DivergedError
from deepbedmap_tf.training.checkpoints import RunState

LOGGER = logging.getLogger(__name__)


class Bookkeeper(keras.callbacks.Callback):
    """Save the run every few steps and at the end of each epoch, and keep its history.

    Parameters
    ----------
    state
        The run.
    on_epoch
        Called with the step and the metrics of each epoch, for tracking.
    """

    def __init__(self, state: RunState, on_epoch: Callable[[int, dict[str, float]], None] | None = None) -> None:
        super().__init__()
        self.state = state
        self.on_epoch = on_epoch
        self.every = state.config.training.checkpoint_steps
        self.limit = state.config.training.max_minutes
        self.started = time.monotonic() - 60 * state.minutes
        self.stopped_early = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the losses, save if it is time, and stop in order when the time is up."""
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(value)]
        step = int(self.state.gan.step.numpy())
        if bad:
            raise DivergedError(
                f"{bad[0]} is not finite at step {step}; the last good checkpoint is {self.state.last_good}. "
                "Lower the learning rate or use training.precision=float32, and start anew or --resume from it"
            )
        self.state.minutes = (time.monotonic() - self.started) / 60
        if step % self.every == 0:
            self.state.save()
        if self.limit is not None and self.state.minutes >= self.limit and not self.stopped_early:
            LOGGER.info("stopping in order after %.1f minutes at step %d", self.state.minutes, step)
            self.stopped_early = True
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the metrics of the epoch and save."""
        step = int(self.state.gan.step.numpy())
        entry = {name: float(value) for name, value in (logs or {}).items()}
        entry |= {"epoch": epoch + 1, "step": step, "minutes": round(self.state.minutes, 3)}
        self.state.history.append(entry)
        self.state.save()
        LOGGER.info(
            "epoch %d, step %d, %.1f min: validation RMSE %.1f m, bicubic %.1f m, skill %.1f %%, SSIM %.3f",
            epoch + 1,
            step,
            self.state.minutes,
            entry.get("val_rmse", math.nan),
            entry.get("val_bicubic_rmse", math.nan),
            100 * entry.get("val_skill", math.nan),
            entry.get("val_ssim", math.nan),
        )
        if self.on_epoch is not None:
            self.on_epoch(step, entry)


class EpochGoesOn(keras.callbacks.Callback):
    """Give the running means of an interrupted epoch back after Keras has reset them."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__()
        self.values: list[Any] | None = values

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Restore the state of the metrics once."""
        if self.values is not None:
            variables = [variable for metric in self.model.metrics for variable in metric.variables]
            for variable, value in zip(variables, self.values, strict=True):
                variable.assign(value)
            self.values = None
