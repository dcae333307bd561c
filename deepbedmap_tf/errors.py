"""Every error a user can cause, under one root that the command line turns into one line."""

from __future__ import annotations

import os
import re

_LOGIN = re.compile(r"(?<=://)\S*@")
_SECRET = re.compile(r"(?i)\b((?:ssl)?password|passwd|token|secret)=[^\s&'\"]+")
_SECRET_VARIABLES = (
    "EARTHDATA_PASSWORD",
    "EARTHDATA_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
)


def without_passwords(text: str) -> str:
    """Hide logins in addresses, ``password=...``, and what the environment holds for us in secret.

    Parameters
    ----------
    text
        Anything that is about to be shown or stored.

    Examples
    --------
    >>> without_passwords("cannot use postgresql://anna:hunter2@db.example/runs?sslpassword=x")
    'cannot use postgresql://***@db.example/runs?sslpassword=***'
    """
    for name in _SECRET_VARIABLES:
        value = os.environ.get(name)
        if value:
            text = text.replace(value, "***")
    return _SECRET.sub(r"\1=***", _LOGIN.sub("***@", text))


class DeepBedMapError(Exception):
    """Root of the errors that mean "the input is wrong", as opposed to "the program is wrong".

    The message is one line: what came, what was expected, what to do. The command line prints it without a
    traceback and ends with exit code 2.
    """


class ConfigError(DeepBedMapError):
    """A configuration or region file has an unknown key, a missing key or an impossible value."""


class DataError(DeepBedMapError):
    """A data file is missing, truncated, or does not hold what its product promises."""


class NoDataError(DataError):
    """A field has no value anywhere in a window: an error for one window, nothing unusual on a map of a continent."""


class GridError(DeepBedMapError):
    """Two grids do not fit: another CRS, registration, resolution or extent than expected."""


class DatumError(DeepBedMapError):
    """Heights above different vertical datums would meet."""


class ModelError(DeepBedMapError):
    """A saved model, weight file or checkpoint is corrupt or has another shape than expected."""


class TrainingError(DeepBedMapError):
    """Training can't go on: a loss is not finite, or a run to resume differs from the one asked for."""


class DivergedError(TrainingError):
    """A loss or a weight is not finite any more: the fault of the settings, not of the machine."""
