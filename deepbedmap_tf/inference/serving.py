"""Log an exported model to MLflow with its signature and register it, ready for ``mlflow models serve``."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.inference.export import METADATA, VERSION_FOLDER, load_model
from deepbedmap_tf.training.tracking import set_up_mlflow

LOGGER = logging.getLogger(__name__)

REGISTERED_MODEL = "deepbedmap"
"""Name in MLflow's registry: ``models:/deepbedmap/latest`` is the model that was registered last."""


def log_model(
    mlflow: Any,
    folder: Path,
    config: GeneratorConfig,
    registered: str | None = REGISTERED_MODEL,
    tags: dict[str, str] | None = None,
) -> str:
    """Log the model in `folder` to the active MLflow run and register it.

    What is logged is the SavedModel, model.json and the source of `serving_model`; nothing is pickled.

    Parameters
    ----------
    mlflow
        The imported module, with its tracking address set.
    folder
        Export of `export_model`.
    config
        Architecture, which names the inputs.
    registered
        Name in the registry, of which this becomes the latest version; None for logging alone.
    tags
        Of the version in the registry.

    Returns
    -------
    str
        ``models:/<name>/<version>``, or ``models:/<identifier>`` if not registered.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    number = np.dtype("float32")
    inputs = [TensorSpec(number, (-1, -1, -1, each.channels), each.name) for each in config.inputs]
    signature = ModelSignature(Schema(inputs), Schema([TensorSpec(number, (-1, -1, -1, 1), "bed")]))
    # MLflow sets filters of its own; what is recorded is not shown.
    with warnings.catch_warnings(record=True):
        for quiet in ("mlflow.models.model", "mlflow.utils.environment"):
            logging.getLogger(quiet).setLevel(logging.ERROR)
        logged = mlflow.pyfunc.log_model(
            name="deepbedmap",
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={"saved_model": str(folder / VERSION_FOLDER), "metadata": str(folder / METADATA)},
            signature=signature,
            pip_requirements=["tensorflow==2.15.1", "mlflow>=3", "numpy<2"],
        )
        if registered is None:
            return str(logged.model_uri)
        version = mlflow.register_model(logged.model_uri, registered, tags={"name": folder.name, **(tags or {})})
    return f"models:/{registered}/{version.version}"


def register(folder: Path | str) -> str:
    """Log and register an exported model in a run of its own, as ``deepbedmap register`` does.

    Parameters
    ----------
    folder
        For example ``saved_models/default``.

    Returns
    -------
    str
        ``models:/deepbedmap/<version>``.

    Raises
    ------
    ModelError
        When there is no model.
    TrainingError
        When MLflow's store can't be used.
    """
    model = load_model(folder)
    mlflow = set_up_mlflow()
    with mlflow.start_run(run_name=f"register {model.name}"):
        mlflow.set_tags({"synthetic": str(model.synthetic), "model": model.name})
        return log_model(mlflow, model.folder, model.config, tags={"synthetic": str(model.synthetic)})
