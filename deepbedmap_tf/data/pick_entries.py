"""A picks entry of a region file, read to beds in the region's projection and above its datum."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.picks import bed_from_thickness, read_picks
from deepbedmap_tf.data.schema import PicksSettings, RasterSettings
from deepbedmap_tf.errors import ConfigError, DataError, DatumError
from deepbedmap_tf.grid import Bounds

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class PickReader:
    """Reads the picks of one region.

    Attributes
    ----------
    fields
        Reader of the region's rasters.
    inputs
        The region's inputs, one of which gives the surface that thicknesses hang from.
    bounds
        Edges of the region; picks outside are left out.
    vertical_datum
        Datum of the region.
    region
        Its name, for messages.
    """

    fields: FieldReader
    inputs: Mapping[str, RasterSettings]
    bounds: Bounds
    vertical_datum: str
    region: str

    def read(self, entry: PicksSettings) -> pd.DataFrame:
        """Read one entry.

        Returns
        -------
        pandas.DataFrame
            Columns of `deepbedmap_tf.data.picks.COLUMNS` and ``picks`` (name of the entry); heights in the region's
            datum.

        Raises
        ------
        DataError
            When none of the picks lies in the region.
        DatumError
            When the entry declares another datum than its format promises, or a geoid layer is missing.
        """
        name = picks_name(entry)
        frame = self._table(entry)
        inside = in_box(frame, self.bounds)
        if not inside.any():
            exchanged = in_box(frame.rename(columns={"x": "y", "y": "x"}), self.bounds).any()
            hint = "but they do with x and y exchanged: the columns are swapped" if exchanged else "check its bounds"
            raise DataError(f"none of the picks in {entry.path} lies in region {self.region}; {hint}")
        frame = frame.loc[inside].reset_index(drop=True)
        x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
        if entry.format == "cells":
            surface = self.inputs.get(entry.surface) if isinstance(entry.surface, str) else entry.surface
            if surface is None:
                raise ConfigError(f"picks {name!r} need surface {entry.surface!r}; it is no input of {self.region}")
            frame = bed_from_thickness(frame, self.fields.at_points(surface, x, y, self.vertical_datum, "surface"))
        else:
            datum = _datum(entry, frame.attrs.get("vertical_datum"))
            shift = self.fields.datum_shift(x, y, datum, self.vertical_datum, entry.geoid, name)
            frame["bed"] += shift
            frame["surface"] += shift
            frame = frame.loc[frame["bed"].notna()].reset_index(drop=True)
        lost = x.size - len(frame)
        if lost:
            layer = "surface" if entry.format == "cells" else "geoid layer"
            _LOGGER.warning("%s: %d of %d picks lie off the %s and are left out", name, lost, x.size, layer)
        frame["picks"] = name
        return frame

    def _table(self, entry: PicksSettings) -> pd.DataFrame:
        if entry.format == "raster":
            return self.fields.cells(entry, self.bounds)
        return read_picks(
            self.fields.resolve(entry.path),
            entry.format,
            crs=self.fields.crs,
            source_crs=entry.crs,
            max_quality=entry.max_quality,
        )


def _datum(entry: PicksSettings, promised: str | None) -> str | None:
    if promised is not None and entry.vertical_datum not in (None, promised):
        raise DatumError(
            f"picks {picks_name(entry)!r} are declared on {entry.vertical_datum}, but format {entry.format} is on "
            f"{promised}; correct vertical_datum, or bring them to format xyz"
        )
    return promised or entry.vertical_datum


def picks_name(entry: PicksSettings) -> str:
    """Name that transects refer to."""
    return entry.name or Path(entry.path).stem


def in_box(frame: pd.DataFrame, box: Bounds) -> np.ndarray:
    """Tell which rows have their x and y in a box, its edges included."""
    xmin, ymin, xmax, ymax = box
    return np.asarray(frame["x"].between(xmin, xmax) & frame["y"].between(ymin, ymax))
