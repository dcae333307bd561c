"""A search shared by any number of workers: who claims which trial, what happens to those whose worker died."""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from deepbedmap_tf.errors import TrainingError
from deepbedmap_tf.training.search_space import SearchConfig
from deepbedmap_tf.training.storage import Turnstile, open_storage

if TYPE_CHECKING:
    from sqlalchemy import URL

LOGGER = logging.getLogger(__name__)

WORKERS = "workers"
RUN = "mlflow_run"
SEARCHED = "searched"
SECONDS_BETWEEN_LOOKS = 2.0

Objective = Callable[[optuna.Trial], float]
OnLoss = Callable[[optuna.trial.FrozenTrial], None]


class Hyperband(optuna.pruners.BasePruner):
    """Optuna's Hyperband, whose brackets the sampler does not get to see.

    Given its `HyperbandPruner`, Optuna shows the sampler the trials of one bracket alone: with five brackets the 20
    random trials become a hundred, and a study of 60 never leaves them. Behind this class the pruning is the same and
    the sampler learns from all trials, as the paper describes it.
    """

    def __init__(self, min_epochs: int, max_epochs: int, reduction_factor: int) -> None:
        self.inner = optuna.pruners.HyperbandPruner(
            min_resource=min_epochs, max_resource=max(max_epochs, min_epochs), reduction_factor=reduction_factor
        )

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Tell whether a trial should end."""
        return self.inner.prune(study, trial)


def quieten_optuna() -> None:
    """Leave what is said about trials to us."""
    optuna.logging.disable_default_handler()
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(
    url: URL,
    name: str,
    search: SearchConfig,
    most_epochs: int,
    seed: int,
    searched: Mapping[str, Any],
    heartbeat_seconds: int,
    on_loss: OnLoss,
) -> optuna.Study:
    """Make a study or join one. Call it within the turnstile.

    Every worker that ever joins gets a number, and with it a seed of its own: with the same seed two workers would draw
    the same random trials, and a study that is started again those that it began with.

    Parameters
    ----------
    url, name
        Where it is kept, and under which name.
    search, most_epochs
        What is searched, and how long the longest trial is.
    seed
        Of the study; a worker's own follows from it.
    searched
        What all workers must have in common.
    heartbeat_seconds
        See `storage.open_storage`.
    on_loss
        Called with every trial whose worker died, before it is queued again.

    Raises
    ------
    TrainingError
        When the study there is over something else.
    """
    quieten_optuna()
    storage = open_storage(url, heartbeat_seconds, Retry(search.retries, on_loss))
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize",
        load_if_exists=True,
        pruner=Hyperband(search.pruning.min_epochs, most_epochs, search.pruning.reduction_factor),
    )
    known = study.user_attrs.get(SEARCHED)
    if known is None:
        study.set_user_attr(SEARCHED, dict(searched))
    elif known != dict(searched):
        different = sorted(key for key in known.keys() | searched.keys() if known.get(key) != searched.get(key))
        raise TrainingError(
            f"study {name!r} is over other settings ({', '.join(different)} differ); go on with the same "
            "configuration, search space and data, or choose another --study"
        )
    worker = int(study.user_attrs.get(WORKERS, 0))
    study.set_user_attr(WORKERS, worker + 1)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=search.startup_trials, seed=worker_seed(seed, worker))
    LOGGER.info("worker %d of study %s", worker, name)
    return study


def worker_seed(seed: int, worker: int) -> int:
    """Seed of a worker's sampler, another one for each.

    Examples
    --------
    >>> len({worker_seed(42, worker) for worker in range(1000)})
    1000
    """
    return (seed * 1_000_003 + worker * 7_919) % 2**32


class Retry:
    """Queue a trial again, with the same parameters, that its worker did not live to finish.

    Parameters
    ----------
    limit
        How often; a trial that kills every worker is given up then.
    on_loss
        Called with the trial that was lost.
    """

    def __init__(self, limit: int | None, on_loss: OnLoss) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.queue = RetryHeartbeatStaleTrialCallback(max_retry=limit)
        self.on_loss = on_loss

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Queue `trial`, which is marked as failed, again."""
        self.on_loss(trial)
        fresh = copy.deepcopy(trial)
        # What it noted on its way belongs to the lost attempt: its run, and the rungs of Hyperband that it passed.
        fresh.user_attrs = {}
        fresh.system_attrs = {k: v for k, v in trial.system_attrs.items() if not k.startswith("completed_rung")}
        self.queue(study, fresh)


def retried(trials: Sequence[optuna.trial.FrozenTrial]) -> set[int]:
    """Numbers of the trials that another one repeats."""
    return {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}


def effective(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Trials that count: all but those that another one repeats."""
    repeated = retried(trials)
    return [trial for trial in trials if trial.number not in repeated]


class Claims:
    """Run trials until the study has as many as it shall have, each claimed by one worker.

    Parameters
    ----------
    study, turnstile
        From `open_study`, and the one it was opened in.
    wanted
        Trials of the study as a whole, finished ones included.
    retries
        How often a trial is queued again that an error ended, as of a full disk.
    tolerated
        Errors that end a trial for good, and not the search.
    """

    def __init__(
        self,
        study: optuna.Study,
        turnstile: Turnstile,
        wanted: int,
        retries: int,
        tolerated: tuple[type[Exception], ...] = (),
    ) -> None:
        self.study = study
        self.turnstile = turnstile
        self.wanted = wanted
        self.retries = retries
        self.tolerated = tolerated
        self.waiting = False

    def work(self, objective: Objective) -> None:
        """Run trials until nothing is left to do, not even for a worker that may still die."""
        while self._next(objective):
            pass

    def _next(self, objective: Objective) -> bool:
        self.turnstile.enter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                optuna.storages.fail_stale_trials(self.study)
            trials = effective(self.study.get_trials(deepcopy=False))
            if len(trials) < self.wanted or any(trial.state == TrialState.WAITING for trial in trials):
                self.waiting = False
                self._run(objective)
                return True
            alive = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
        finally:
            self.turnstile.leave()
        if alive:
            if not self.waiting:
                LOGGER.info("waiting for trials of other workers: %s", ", ".join(map(str, alive)))
            self.waiting = True
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return bool(alive)

    def _run(self, objective: Objective) -> None:
        running: list[int] = []
        taken_over: list[int] = []

        def claimed(trial: optuna.Trial) -> float:
            # From here on it is in the storage with a heartbeat: others see that it is taken.
            self.turnstile.leave()
            running.append(trial.number)
            try:
                return objective(trial)
            except optuna.exceptions.UpdateFinishedTrialError:
                taken_over.append(trial.number)
                raise

        try:
            self.study.optimize(claimed, n_trials=1, catch=self.tolerated)
        except BaseException as error:
            if taken_over and isinstance(error, Exception):
                # Its heartbeat came too late, as after a sleep of the machine.
                LOGGER.warning("trial %d was taken over by another worker", taken_over[0])
                return
            if running:
                limit = None if isinstance(error, KeyboardInterrupt) else self.retries
                stored = next(trial for trial in self.study.get_trials() if trial.number == running[0])
                if stored.state == TrialState.FAIL:
                    Retry(limit, lambda _: None)(self.study, stored)
            raise
