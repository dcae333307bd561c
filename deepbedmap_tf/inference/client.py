"""A model behind HTTP, used like one from a folder: `predict_window` and `predict_region` take either."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.errors import ModelError, without_passwords

LOCAL_SERVER = "http://127.0.0.1:5000/invocations"
"""Where ``mlflow models serve`` answers by default."""


class RemoteModel:
    """A model that a server computes.

    Parameters
    ----------
    address
        ``http://HOST:PORT/invocations`` of ``mlflow models serve``, or
        ``http://HOST:PORT/v1/models/NAME:predict`` of TensorFlow Serving: the body is the same.
    config
        Which inputs the model takes; by default the usual four, with gaps marked by NaN.
    timeout
        Seconds to wait for an answer.

    Attributes
    ----------
    metadata
        What is known of the model, which is nothing but its address.
    """

    def __init__(
        self, address: str = LOCAL_SERVER, config: GeneratorConfig | None = None, timeout: float = 300.0
    ) -> None:
        import requests

        self.address = address
        self.config = config or GeneratorConfig(normalise=True)
        self.timeout = timeout
        self.metadata: dict[str, Any] = {"name": without_passwords(address)}
        self._session = requests.Session()

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the bed (n, 4(h-2), 4(w-2), 1), metres, for inputs (n, height, width, bands) by name.

        Raises
        ------
        ModelError
            When the server can't be reached, refuses the inputs (with its reason), or answers something else.
        """
        import requests

        where = without_passwords(self.address)
        try:
            response = self._session.post(
                self.address,
                data=request_body(inputs),
                headers={"Content-Type": "application/json"},
                timeout=self.timeout,
            )
        except requests.RequestException as error:
            reason = without_passwords(" ".join(str(error).split()))[:160]
            raise ModelError(f"no answer from {where} ({reason}); check that the server runs there") from None
        if response.status_code != 200:
            raise ModelError(f"{where} refused the request (status {response.status_code}): {_reason(response.text)}")
        number, height, width = inputs["bed_lowres"].shape[:3]
        expected = (number, 4 * (height - 2), 4 * (width - 2), 1)
        try:
            answer = response.json()
            outputs = answer["predictions"] if "predictions" in answer else answer["outputs"]
            # TensorFlow Serving leaves the name of an only output out.
            bed = np.asarray(outputs["bed"] if isinstance(outputs, dict) else outputs, np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{where} did not answer with a bed ({error!r}); check its address") from error
        if bed.shape != expected:
            raise ModelError(
                f"{where} answered with a bed of shape {bed.shape}, expected {expected}; is it this model?"
            )
        return bed


def request_body(inputs: dict[str, np.ndarray]) -> str:
    """Write inputs as the JSON that both servers take; NaN as ``NaN``, which both read.

    Parameters
    ----------
    inputs
        Arrays (n, height, width, bands) by name.
    """
    return json.dumps({"inputs": {name: np.asarray(values).tolist() for name, values in inputs.items()}})


def _reason(text: str) -> str:
    """Find the sentence in a server's answer: MLflow's ``message``, TensorFlow Serving's ``error``."""
    try:
        answer = json.loads(text)
        text = str(answer.get("message") or answer.get("error") or text)
    except (ValueError, AttributeError):
        pass
    # MLflow quotes the data first.
    _, _, reason = text.rpartition("Error: ")
    return " ".join(reason.split())[:300]
