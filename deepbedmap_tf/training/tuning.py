"""A trial of a search: one training run, judged on the blocked validation tiles after every epoch."""

from __future__ import annotations

import logging
import math
import multiprocessing
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from deepbedmap_tf.config import Config
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import DivergedError
from deepbedmap_tf.training.holdout import refuse_test_transects
from deepbedmap_tf.training.loop import TrainedRun, TrainingData, forget_networks, load_training_data, train
from deepbedmap_tf.training.search_space import SearchConfig, apply
from deepbedmap_tf.training.study import RUN
from deepbedmap_tf.training.study_run import JUDGED_BY, STATE_TAG
from deepbedmap_tf.training.tracking import Tracker, forgiven, tracked

LOGGER = logging.getLogger(__name__)

MODEL = "model"


class OnTrained(Protocol):
    """What is done with the model of a trial that is the best so far: export and log it."""

    def __call__(self, tracker: Tracker, config: Config, data: TrainingData, run: TrainedRun, folder: Path) -> str:
        """Return the model's address in MLflow."""


@dataclass(frozen=True)
class Objective:
    """Train a configuration that a sampler proposes.

    Attributes
    ----------
    study
        Whose trials these are.
    study_run
        The study's run in MLflow, under which those of the trials are nested.
    content, search
        Settings that every trial starts from, and what it may change.
    data
        Tiles; `refuse_test_transects` has seen them.
    folder
        For checkpoints, which are removed after each trial.
    draw
        Draws the history of a trial to a file, under a title.
    on_trained
        Called while the MLflow run of the best trial so far is open.
    """

    study: optuna.Study
    study_run: str
    content: Mapping[str, Any]
    search: SearchConfig
    data: TrainingData
    folder: Path
    draw: Callable[[Sequence[dict[str, float]], Path, str], Path]
    on_trained: OnTrained

    def __call__(self, trial: optuna.Trial) -> float:
        """Return the validation RMSE after the last epoch, metres.

        Raises
        ------
        optuna.TrialPruned
            When the trial is behind, does worse than the range of the bed, or is not finite.
        """
        values = self.search.suggest(trial)
        name = f"{self.study.study_name}-{trial.number:04d}"
        config = apply(self.search, self.content, values, f"trial {trial.number}").model_copy(update={"name": name})
        LOGGER.info("trial %d: %s", trial.number, listed(values))
        history: list[dict[str, float]] = []
        folder = self.folder / f"{trial.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        pruned = ""
        with tracked(config, self._tags(trial), self.data.provenance) as tracker:
            self._start(tracker, trial)
            try:
                judge = _Judge(trial, tracker, history, config.training.epochs)
                run = train(config, self.data, folder, progress=False, on_epoch=judge)
                if not history:
                    raise optuna.TrialPruned("no epoch was completed within training.max_minutes")
                self._keep_if_best(tracker, config, run, folder, trial)
            except (optuna.TrialPruned, DivergedError) as reason:
                pruned = str(reason).split(";")[0]
            except BaseException as error:
                with forgiven("how the trial ended"):
                    tracker.mlflow.set_tag(STATE_TAG, _ending(error))
                raise
            finally:
                self._draw(tracker, history, folder, name)
                shutil.rmtree(folder, ignore_errors=True)
                forget_networks()
            tracker.mlflow.set_tags(
                {STATE_TAG: "pruned", "pruned_because": pruned} if pruned else {STATE_TAG: "complete"}
            )
        # The last touch before the trial is told: it fails if the trial was given to somebody else meanwhile.
        trial.set_user_attr("epochs", len(history))
        if pruned:
            LOGGER.info("trial %d pruned after %d epochs: %s", trial.number, len(history), pruned)
            raise optuna.TrialPruned(pruned)
        for key in ("val_skill", "val_ssim", "minutes"):
            trial.set_user_attr(key, history[-1][key])
        LOGGER.info("trial %d complete: validation RMSE %.2f m", trial.number, history[-1][JUDGED_BY])
        return history[-1][JUDGED_BY]

    def _tags(self, trial: optuna.Trial) -> dict[str, str]:
        stored = next(each for each in self.study.get_trials(deepcopy=False) if each.number == trial.number)
        repeats = stored.system_attrs.get("retry_history", [])
        tags = {
            "mlflow.parentRunId": self.study_run,
            "study": self.study.study_name,
            "trial": str(trial.number),
            "tile_store_hash": self.data.data_hash,
            "synthetic": str(all(part["synthetic"] for part in self.data.provenance)),
            STATE_TAG: "running",
        }
        return tags | ({"retry_of": str(repeats[-1])} if repeats else {})

    def _start(self, tracker: Tracker, trial: optuna.Trial) -> None:
        state: Any = SimpleNamespace(mlflow_run=None)
        tracker.start(state)
        trial.set_user_attr(RUN, state.mlflow_run)

    def _keep_if_best(
        self, tracker: Tracker, config: Config, run: TrainedRun, folder: Path, trial: optuna.Trial
    ) -> None:
        # Whoever turns out best in the end was the best of all that were complete when it ended.
        value = run.history[-1][JUDGED_BY]
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if all(other.value is None or value <= other.value for other in complete):
            with forgiven("the model"):
                trial.set_user_attr(MODEL, self.on_trained(tracker, config, self.data, run, folder))

    def _draw(self, tracker: Tracker, history: Sequence[dict[str, float]], folder: Path, name: str) -> None:
        if not history:
            return
        label = " SYNTHETIC" if all(part["synthetic"] for part in self.data.provenance) else ""
        with forgiven("the curves"):
            folder.mkdir(parents=True, exist_ok=True)
            tracker.figures([self.draw(history, folder / "curves.png", f"{name}{label}")])


class _Judge:
    """What happens after every epoch of a trial: tracking, and the question whether to go on."""

    def __init__(self, trial: optuna.Trial, tracker: Tracker, history: list[dict[str, float]], epochs: int) -> None:
        self.trial = trial
        self.epochs = epochs
        self.tracker = tracker
        self.history = history

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.tracker.epoch(step, metrics)
        rmse, psnr = metrics[JUDGED_BY], metrics["val_psnr"]
        if not math.isfinite(rmse):
            raise optuna.TrialPruned(f"the validation RMSE is {rmse}")
        self.history.append(dict(metrics))
        self.trial.report(rmse, int(metrics["epoch"]))
        if not psnr >= 0:
            raise optuna.TrialPruned(f"PSNR {psnr:.1f} dB: the error exceeds the range of the bed")
        # After the last epoch there is nothing left to save.
        if metrics["epoch"] < self.epochs and self.trial.should_prune():
            raise optuna.TrialPruned(f"behind others after epoch {int(metrics['epoch'])}")
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            # Nobody is left who could stop this one in order.
            raise KeyboardInterrupt


def _ending(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return "lost" if isinstance(error, optuna.exceptions.UpdateFinishedTrialError) else "failed"


def listed(values: Mapping[str, Any]) -> str:
    """Return parameters for a line of text."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def load_checked_data(config: Config, data_dir: Path | None, progress: bool) -> TrainingData:
    """Load the tiles of a search and make sure that they keep clear of the test."""
    files = [Path(each) for each in config.data.regions]
    data = load_training_data(config, files, data_dir, progress)
    refuse_test_transects(load_region(files[0], data_dir), data.validation, float(data.provenance[0]["resolution"]))
    return data
