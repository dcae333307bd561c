"""Predict the bed of a window of a region in one pass of the network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import xarray as xr

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.region import SCALE, Region
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Bounds


class Predictor(Protocol):
    """Anything that turns inputs into a bed, such as `inference.export.SuperResolution`."""

    config: GeneratorConfig

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return (n, 4(h-2), 4(w-2), 1) for inputs (n, height, width, bands) by name."""


def predict_window(model: Predictor, region: Region, bounds: Bounds | None = None) -> xr.DataArray:
    """Predict the bed on the output cells of a window.

    Parameters
    ----------
    model
        From `inference.export.load_model`.
    region
        Where the inputs come from.
    bounds
        Edges of the window, metres, on edges of low-resolution cells; the whole region by default.

    Returns
    -------
    xarray.DataArray
        Bed, metres in the region's datum, NaN where the low-resolution bed is unknown.

    Raises
    ------
    DataError
        When an input has gaps and the model was trained without validity channels, or no cell is valid.
    """
    fields = region.inputs(bounds, model.config.inputs)
    inputs = {}
    for name, field in fields.items():
        values = field.to_numpy().astype("float32")
        invalid = ~np.isfinite(values)
        if invalid.any() and not model.config.normalise:
            raise DataError(
                f"input {name!r} of region {region.name} has {invalid.sum()} invalid values and this model takes none "
                "(normalise: false); give the input a fill rule in the region file, or use a model with normalise: true"
            )
        inputs[name] = (values[..., np.newaxis] if values.ndim == 2 else values)[np.newaxis]
    window = region.grid if bounds is None else region.grid.window(bounds)
    bed = model(inputs)[0, ..., 0]
    known = np.isfinite(inputs["bed_lowres"][0, 1:-1, 1:-1, 0])
    bed = np.where(known.repeat(SCALE, axis=0).repeat(SCALE, axis=1), bed, np.float32(np.nan))
    return window.with_datum(region.vertical_datum).dataarray(bed, "bed", "m")
