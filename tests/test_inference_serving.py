"""An exported model logged to MLflow, with its signature, predicts what it predicts outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_training import TINY, tiny_inputs

from deepbedmap_tf.inference.export import export_model, load_model
from deepbedmap_tf.inference.serving import log_model
from deepbedmap_tf.models import build_generator
from deepbedmap_tf.training.tracking import set_up_mlflow

CONFIG = TINY.model_copy(update={"normalise": True, "output": "residual"})


def test_logged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = export_model(build_generator(CONFIG, "float32"), CONFIG, tmp_path / "tiny", {"synthetic": True})
    mlflow = set_up_mlflow()
    with mlflow.start_run() as run:
        log_model(mlflow, folder, CONFIG)
    (logged,) = mlflow.search_logged_models(output_format="list")
    assert logged.source_run_id == run.info.run_id
    model = mlflow.pyfunc.load_model(logged.model_uri)
    assert model.metadata.signature.inputs.input_names() == [each.name for each in CONFIG.inputs]
    inputs = tiny_inputs(1, (5, 6))
    np.testing.assert_array_equal(model.predict(inputs)["bed"], load_model(folder)(inputs))
    inputs["surface"][:] = np.nan
    with pytest.raises(ValueError, match="'surface' has infinite values or no valid one"):
        model.predict(inputs)
