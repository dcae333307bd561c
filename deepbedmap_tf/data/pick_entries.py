"""A picks entry of a region file, read to beds in the region's projection and above its datum."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from deepbedmap_tf.data.catalog import REFERENCE
from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.picks import bed_from_thickness, duplicates, read_picks
from deepbedmap_tf.data.projections import GEOGRAPHIC, transform
from deepbedmap_tf.data.schema import PicksSettings, RasterSettings
from deepbedmap_tf.data.sources import files_at, is_pattern
from deepbedmap_tf.errors import ConfigError, DataError, DatumError, NoDataError
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
        frame = self._within_region(entry, name)
        size = len(frame)
        x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
        if entry.format == "cells":
            if entry.vertical_datum is not None:
                raise DatumError(
                    f"picks {name!r} are cells of thickness, which hold no heights: theirs are on the datum of the "
                    "surface; take vertical_datum out"
                )
            surface = self._surface(entry)
            if surface is None:
                raise ConfigError(f"picks {name!r} need surface {entry.surface!r}; it is no input of {self.region}")
            frame = bed_from_thickness(frame, self.fields.at_points(surface, x, y, self.vertical_datum, "surface"))
        else:
            alone = frame["bed"].isna().to_numpy()
            datum = _datum(entry, frame.attrs.get("vertical_datum"))
            if not alone.all():
                shift = self.fields.datum_shift(x, y, datum, self.vertical_datum, entry.geoid, name)
                frame["bed"] += shift
                frame["surface"] += shift
            if alone.any():
                frame = self._hang(frame, alone, entry, name)
            frame = frame.loc[frame["bed"].notna()].reset_index(drop=True)
        if lost := size - len(frame):
            layer = "surface" if entry.format == "cells" else "geoid layer or surface"
            _LOGGER.warning("%s: %d of %d picks lie off the %s and are left out", name, lost, size, layer)
        frame["picks"] = name
        return frame

    def _within_region(self, entry: PicksSettings, name: str) -> pd.DataFrame:
        """Picks of all files of an entry that lie in the region; a file at a time, for surveys cover the continent."""
        paths = self._paths(entry)
        frames, hints, empty, masked = [], [], 0, 0
        for path in paths:
            try:
                frame = self._table(entry, path)
            except NoDataError as error:
                # One survey of many may have found no bed; a single one was meant.
                if len(paths) == 1:
                    raise
                _LOGGER.warning("%s: %s", name, error)
                empty += 1
                continue
            inside = in_box(frame, self.bounds)
            if not inside.any():
                hints += self._hint(frame)
            masked += frame.attrs["masked"]
            if inside.any():
                frames.append(frame.loc[inside])
        if not frames:
            hint = hints[0] if hints else "check its bounds"
            raise DataError(f"none of the picks in {entry.path} lies in region {self.region}; {hint}")
        joined = pd.concat(frames, ignore_index=True)
        if len(paths) > 1:
            again = duplicates(joined)
            joined = joined.loc[~again].reset_index(drop=True)
            _LOGGER.info(
                "%s: %d picks in the region from %d of %d files; %d repeat one of an earlier file, %d files hold none",
                *(name, len(joined), len(frames), len(paths), again.sum(), empty),
            )
        joined.attrs = {**frames[0].attrs, "masked": masked}
        return joined

    def _hint(self, frame: pd.DataFrame) -> list[str]:
        """What may be wrong with the places of picks none of which lies in the region."""
        x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
        longitude, latitude = transform(x, y, self.fields.crs, GEOGRAPHIC)
        ways = {
            "but they do with x and y exchanged: the columns are swapped": (y, x),
            "but they do in kilometres: give x and y in metres": (x * 1e3, y * 1e3),
            "but they do with latitude and longitude exchanged: the columns are swapped": transform(
                latitude, longitude, GEOGRAPHIC, self.fields.crs
            ),
            "but they do with latitudes of the south: their sign is lost": transform(
                longitude, -latitude, GEOGRAPHIC, self.fields.crs
            ),
            "but they do as longitude and latitude: state `crs: EPSG:4326`": transform(
                x, y, GEOGRAPHIC, self.fields.crs
            ),
        }
        return [
            hint
            for hint, (east, north) in ways.items()
            if in_box(pd.DataFrame({"x": east, "y": north}), self.bounds).any()
        ]

    def _paths(self, entry: PicksSettings) -> list[Path]:
        path = self.fields.resolve(entry.path)
        # These surveys are read as a whole: one table from a zip or a folder.
        if entry.format in ("raster", "wise_isodyn"):
            return [path]
        found = files_at(path)
        if not found:
            raise DataError(f"no file of picks is at {path}; check the path in the region file, or pass --data-dir")
        return found

    def _surface(self, entry: PicksSettings) -> RasterSettings | None:
        return self.inputs.get(entry.surface) if isinstance(entry.surface, str) else entry.surface

    def _hang(self, frame: pd.DataFrame, alone: np.ndarray, entry: PicksSettings, name: str) -> pd.DataFrame:
        """Give picks of thickness alone their bed below the region's surface; the others stay as they are."""
        surface = self._surface(entry)
        assert surface is not None
        x, y = (frame.loc[alone, axis].to_numpy() for axis in ("x", "y"))
        try:
            heights = self.fields.at_points(surface, x, y, self.vertical_datum, "surface")
        except NoDataError:
            heights = np.full(x.shape, np.nan)
        frame.loc[alone, "surface"] = heights
        frame.loc[alone, "bed"] = heights - frame.loc[alone, "thickness"].to_numpy()
        frame.loc[alone, "derived"] = True
        _LOGGER.warning(
            "%s: %d of %d picks give thickness alone; their bed is the region's surface less that, marked `derived`",
            *(name, alone.sum(), len(frame)),
        )
        return frame

    def _table(self, entry: PicksSettings, path: Path) -> pd.DataFrame:
        if entry.format == "raster":
            return self.fields.cells(entry, self.bounds)
        return read_picks(
            path,
            entry.format,
            crs=self.fields.crs,
            source_crs=entry.crs,
            max_quality=entry.max_quality,
            thickness_alone=entry.format == "bedmap" and self._surface(entry) is not None,
        )


def _datum(entry: PicksSettings, promised: str | None) -> str | None:
    if promised is not None and entry.vertical_datum not in (None, promised):
        raise DatumError(
            f"picks {picks_name(entry)!r} are declared on {entry.vertical_datum}, but format {entry.format} is on "
            f"{promised}; correct vertical_datum, or bring them to format xyz"
        )
    return promised or entry.vertical_datum


def picks_name(entry: PicksSettings) -> str:
    """Name that transects refer to: the file's without its ending, or that of the folder of several files."""
    path = Path(entry.path.removeprefix(REFERENCE))
    return entry.name or (path.parent.name if is_pattern(path.name) else path.stem)


def in_box(frame: pd.DataFrame, box: Bounds) -> np.ndarray:
    """Tell which rows have their x and y in a box, its edges included."""
    xmin, ymin, xmax, ymax = box
    return np.asarray(frame["x"].between(xmin, xmax) & frame["y"].between(ymin, ymax))
