"""The model of a search: logged with the trial that is the best so far, registered when the study ends."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from deepbedmap_tf.config import Config
from deepbedmap_tf.inference.export import export_model
from deepbedmap_tf.inference.serving import REGISTERED_MODEL, log_model
from deepbedmap_tf.training.description import describe
from deepbedmap_tf.training.loop import TrainedRun, TrainingData
from deepbedmap_tf.training.tracking import Tracker, set_up_mlflow

LOGGER = logging.getLogger(__name__)


def log_trial_model(tracker: Tracker, config: Config, data: TrainingData, run: TrainedRun, folder: Path) -> str:
    """Export a trial's model and log it to its run, without registering it.

    Returns
    -------
    str
        Its address, ``models:/<identifier>``.
    """
    target = folder / "model" / config.name
    metadata = describe(config, data, run, config.name, tracker.run_id)
    export_model(run.gan.averaged_generator, config.generator, target, metadata, config.training.symmetric)
    return log_model(tracker.mlflow, target, config.generator, registered=None)


def register_best(run_id: str, address: str, tags: dict[str, Any]) -> str:
    """Register the model of the best trial, once.

    Parameters
    ----------
    run_id, address
        The trial's run and its logged model.
    tags
        Of the version in the registry.

    Returns
    -------
    str
        ``models:/deepbedmap/<version>``.
    """
    mlflow = set_up_mlflow()
    known = mlflow.MlflowClient().search_model_versions(f"name='{REGISTERED_MODEL}' and run_id='{run_id}'")
    version = known[0].version if known else mlflow.register_model(address, REGISTERED_MODEL, tags=tags).version
    return f"models:/{REGISTERED_MODEL}/{version}"
