"""What the model.json of a trained model tells of its training."""

from __future__ import annotations

from typing import Any

from deepbedmap_tf.config import Config
from deepbedmap_tf.training.loop import TrainedRun, TrainingData
from deepbedmap_tf.training.tracking import git_revision


def describe(
    config: Config,
    data: TrainingData,
    run: TrainedRun,
    name: str,
    mlflow_run: str | None,
    ancestry: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what `export_model` writes beside the architecture.

    Parameters
    ----------
    config, data, run
        What was trained, on what, and how it went.
    name
        Of the model.
    mlflow_run
        Identifier of the run in MLflow.
    ancestry
        Of the model that it started from.
    """
    synthetic = all(part["synthetic"] for part in data.provenance)
    citations = {citation for part in data.provenance for citation in part["citations"]}
    return {
        "name": name,
        "title": f"DeepBedMap, {config.name} configuration{', SYNTHETIC training data' if synthetic else ''}",
        "synthetic": synthetic,
        "citations": sorted(citations | set((ancestry or {}).get("citations", ()))),
        "config": config.model_dump(mode="json"),
        "resolution": data.provenance[0]["resolution"],
        "training_data": {"hash": data.data_hash, "stores": data.provenance},
        "training": {
            "steps": run.steps,
            "minutes": round(run.minutes, 1),
            "precision": run.precision,
            "tiles": len(data.train),
            "git_revision": git_revision(),
            "mlflow_run": mlflow_run,
            "initial": ancestry,
        },
        "metrics": run.history[-1] if run.history else {},
    }
