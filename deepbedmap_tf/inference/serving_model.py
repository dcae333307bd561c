"""What MLflow runs to serve an exported model: it needs TensorFlow and NumPy alone.

What the network can't take is refused with a reason. MLflow keeps this file as source code and runs it; no pickled
object is part of the logged model.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

MAXIMUM_CELLS = 128 * 128
"""Low-resolution cells a request may have in all: with them the default network takes about 1.3 GB."""


class ServedModel(mlflow.pyfunc.PythonModel):
    """A SavedModel with named inputs and the output `bed`."""

    def load_context(self, context: Any) -> None:
        """Load the SavedModel that was logged as artifact ``saved_model``, and its ``metadata``."""
        import tensorflow as tf

        metadata = json.loads(Path(context.artifacts["metadata"]).read_text(encoding="utf-8"))
        self.inputs = {each["name"]: each for each in metadata["generator"]["inputs"]}
        self.takes_gaps = bool(metadata["generator"].get("normalise"))
        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])
        self.serve = self.loaded.signatures["serving_default"]
        # One request already uses every core; taking turns bounds the memory of many.
        self.turn = threading.Lock()

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # MLflow would read a schema from hints
        """Return ``{"bed": (n, 4(h-2), 4(w-2), 1)}`` for arrays (n, height, width, bands) by name.

        Raises
        ------
        MlflowException
            INVALID_PARAMETER_VALUE, status 400 of its server, for an input that is missing, has another shape than the
            low-resolution bed asks for, is too large, has infinite values, or nothing but NaN.
        """
        import tensorflow as tf

        tensors = {name: tf.constant(values) for name, values in self.checked(model_input).items()}
        with self.turn:
            return {"bed": self.serve(**tensors)["bed"].numpy()}

    def checked(self, model_input: Any) -> dict[str, np.ndarray]:
        """Return the inputs as float32 arrays after looking at each."""
        names = ", ".join(self.inputs)
        if not isinstance(model_input, dict) or set(model_input) != set(self.inputs):
            came = ", ".join(map(str, model_input)) if isinstance(model_input, dict) else type(model_input).__name__
            raise _refused(f"inputs are {came}; expected {names}")
        try:
            # An infinity from a number beyond float32 is told below.
            with np.errstate(over="ignore"):
                arrays = {name: np.asarray(values, np.float32) for name, values in model_input.items()}
        except (TypeError, ValueError) as error:
            raise _refused(f"an input is no array of numbers ({error}); expected 4-D lists by name") from error
        number, height, width = (*arrays["bed_lowres"].shape, 0, 0, 0)[:3]
        if arrays["bed_lowres"].ndim != 4 or number < 1 or min(height, width) < 3:
            raise _refused(
                f"bed_lowres has shape {arrays['bed_lowres'].shape}; expected (n, h, w, 1) with at least 3 x 3 cells"
            )
        if number * height * width > MAXIMUM_CELLS:
            raise _refused(
                f"the request has {number * height * width:,} low-resolution cells, at most {MAXIMUM_CELLS:,} are "
                "taken; send smaller windows"
            )
        for name, values in arrays.items():
            self._check(name, values, (number, height, width))
        return arrays

    def _check(self, name: str, values: np.ndarray, window: tuple[int, int, int]) -> None:
        number, height, width = window
        ratio, channels = self.inputs[name]["ratio"], self.inputs[name]["channels"]
        expected = (number, height * ratio, width * ratio, channels)
        if values.shape != expected:
            raise _refused(
                f"input {name} has shape {values.shape}; expected {expected} for {height} x {width} cells of bed_lowres"
            )
        if np.isinf(values).any():
            raise _refused(f"input {name} has infinite values; NaN marks what is missing")
        missing = np.isnan(values)
        if missing.all(axis=(1, 2, 3)).any():
            raise _refused(f"input {name} has a window without any valid value")
        if missing.any() and not self.takes_gaps:
            raise _refused(f"input {name} has {missing.sum()} NaN and this model takes none (normalise: false)")


def _refused(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


mlflow.models.set_model(ServedModel())
