"""Every error a user can cause, under one root that the command line turns into one line."""

from __future__ import annotations


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
