"""Log an exported model to MLflow with its signature, ready for ``mlflow models serve``."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.inference.export import METADATA, VERSION_FOLDER

LOGGER = logging.getLogger(__name__)


def log_model(mlflow: Any, folder: Path, config: GeneratorConfig) -> None:
    """Log the model in `folder` to the active MLflow run.

    Parameters
    ----------
    mlflow
        The imported module, with its tracking address set.
    folder
        Export of `export_model`.
    config
        Architecture, which names the inputs.
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
        mlflow.pyfunc.log_model(
            name="deepbedmap",
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={"saved_model": str(folder / VERSION_FOLDER), "metadata": str(folder / METADATA)},
            signature=signature,
            pip_requirements=["tensorflow==2.15.1", "mlflow>=3", "numpy<2"],
        )
