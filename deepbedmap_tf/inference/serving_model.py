"""What MLflow runs to serve an exported model: it needs TensorFlow and NumPy alone."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np


class ServedModel(mlflow.pyfunc.PythonModel):
    """A SavedModel with named inputs and the output `bed`."""

    def load_context(self, context: Any) -> None:
        """Load the SavedModel that was logged as artifact ``saved_model``."""
        import tensorflow as tf

        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])
        self.serve = self.loaded.signatures["serving_default"]

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # MLflow would read a schema from hints
        """Return ``{"bed": (n, 4(h-2), 4(w-2), 1)}`` for arrays (n, height, width, bands) by name.

        Raises
        ------
        ValueError
            When a value is infinite or an input has no valid value at all.
        """
        import tensorflow as tf

        arrays = {name: np.asarray(values, np.float32) for name, values in model_input.items()}
        for name, values in arrays.items():
            if np.isinf(values).any() or not np.isfinite(values).any():
                raise ValueError(f"input {name!r} has infinite values or no valid one; NaN marks what is missing")
        return {"bed": self.serve(**{name: tf.constant(values) for name, values in arrays.items()})["bed"].numpy()}


mlflow.models.set_model(ServedModel())
