"""The run of a study in MLflow, under which those of its trials are nested."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.trial import TrialState

from deepbedmap_tf.training.study import RUN
from deepbedmap_tf.training.tracking import EXPERIMENT, forgiven, metric_name, set_up_mlflow

LOGGER = logging.getLogger(__name__)

JUDGED_BY = "val_rmse"
"""Root mean square error on the validation tiles, metres: what trials are compared and pruned by."""
STATE_TAG = "trial_state"
"""Tag of a trial's run: running, complete, pruned, interrupted, failed, or lost with its worker."""


def open_study_run(study: optuna.Study, parameters: Mapping[str, str], files: Mapping[str, str]) -> str:
    """Start the study's run in MLflow, or go on with it. Call it within the turnstile.

    Parameters
    ----------
    parameters
        Logged with a new run.
    files
        Texts that are logged with it, by name.

    Returns
    -------
    str
        Identifier of the run.
    """
    mlflow = set_up_mlflow()
    client = mlflow.MlflowClient()
    known = study.user_attrs.get(RUN)
    if known is not None:
        try:
            client.update_run(client.get_run(known).info.run_id, status="RUNNING")
        except mlflow.exceptions.MlflowException:
            LOGGER.warning("the study's run %s is not in this MLflow; a new one is made", known)
        else:
            return str(known)
    experiment = mlflow.get_experiment_by_name(EXPERIMENT).experiment_id
    run_id = str(client.create_run(experiment, run_name=f"study {study.study_name}").info.run_id)
    for key, value in parameters.items():
        client.log_param(run_id, key, value[:500])
    for name, text in files.items():
        client.log_text(run_id, text, name)
    client.set_tag(run_id, "study", study.study_name)
    study.set_user_attr(RUN, run_id)
    return run_id


def mark_lost(trial: optuna.trial.FrozenTrial) -> None:
    """End the MLflow run of a trial whose worker died."""
    LOGGER.warning("trial %d lost its worker", trial.number)
    run_id = trial.user_attrs.get(RUN)
    if run_id is None:
        return
    with forgiven(f"the end of trial {trial.number}"):
        client = set_up_mlflow().MlflowClient()
        client.set_tag(run_id, STATE_TAG, "lost")
        client.set_terminated(run_id, "KILLED")


def close_study_run(study: optuna.Study, files: Sequence[Path], status: str) -> None:
    """Log the results of a study and end its run."""
    run_id = study.user_attrs.get(RUN)
    if run_id is None:
        return
    with forgiven("the study's results"):
        client = set_up_mlflow().MlflowClient()
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
            client.log_metric(run_id, f"trials/{state.name.lower()}", states.count(state))
        if TrialState.COMPLETE in states:
            client.log_metric(run_id, metric_name(JUDGED_BY), study.best_value)
            client.set_tag(run_id, "best_trial", str(study.best_trial.number))
        for path in files:
            client.log_artifact(run_id, str(path), "results")
        client.set_terminated(run_id, status)
