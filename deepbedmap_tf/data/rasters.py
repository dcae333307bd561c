"""GeoTIFF and NetCDF files read to DataArrays with a grid; invalid cells are NaN before anything else happens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr
from affine import Affine

from deepbedmap_tf.data.projections import require_crs
from deepbedmap_tf.data.raster_formats import Layout, Window, describe, read_window
from deepbedmap_tf.errors import DataError, DatumError, NoDataError
from deepbedmap_tf.grid import VERTICAL_DATUMS, Bounds, Grid

_LOGGER = logging.getLogger(__name__)

_UNITS = {
    "m": ("m", "meter", "meters", "metre", "metres"),
    "m yr-1": (
        *("m yr-1", "m year-1", "m a-1", "m y-1", "m yr^-1", "m a^-1", "m/yr", "m/y", "m/a", "m/year"),
        *("meter/year", "meters/year", "metre/year", "metres/year"),
    ),
    "kg m-2 yr-1": (
        *("kg m-2 yr-1", "kg m-2 year-1", "kg m-2 a-1", "kg m-2 y-1", "kg m^-2 yr^-1", "kg m^-2 a^-1"),
        *("kg/m2/yr", "kg/m^2/yr", "kg/m2/year", "kg/m2/a", "mm w.e. yr-1", "mm w.e./yr", "mm we/yr", "mmwe/yr"),
    ),
}

_DATUM_WORDS = {"6c4": "geoid:EIGEN-6C4", "gl04c": "geoid:EIGEN-GL04C", "ellipsoid": "ellipsoid:WGS84"}


def canonical_units(units: str) -> str:
    """Return the project's spelling of units that products spell in many ways; unknown ones come back as given."""
    plain = " ".join(units.strip().lower().split())
    return next((name for name, spellings in _UNITS.items() if plain in spellings), units.strip())


def require_units(name: str, found: Sequence[str], expected: str) -> None:
    """Refuse a file that states other units than declared; one that states none is taken at the declared word.

    Raises
    ------
    DataError
        When one of the units found is another, known or not.
    """
    for each in found:
        if each.strip() and canonical_units(each) != canonical_units(expected):
            raise DataError(
                f"{name} is in {each!r}, expected {expected!r}; correct units or source_units in the region file"
            )


def stated_datum(text: str | None) -> str | None:
    """Vertical datum that a file's own words name, for example ``eigen-6c4 (Forste et al 2014)``; None if unclear."""
    words = (text or "").lower()
    if text in VERTICAL_DATUMS:
        return text
    return next((datum for word, datum in _DATUM_WORDS.items() if word in words), None)


@dataclass(frozen=True)
class Raster:
    """A raster file of which only the header has been read.

    Attributes
    ----------
    path
        The file.
    grid
        All its cells, north-up whichever way the file runs, with the datum declared for it.
    units
        What its values are in.
    layout
        How it lies on disk.
    nodata
        Values that mean "no data", beyond those the file tags and those that nothing on Earth reaches.
    mean_over
        Dimensions of a NetCDF, such as time, that the values are averaged over.
    """

    path: Path
    grid: Grid
    units: str
    layout: Layout
    nodata: tuple[float, ...] = ()
    mean_over: tuple[str, ...] = ()

    def read(self, bounds: Bounds | None = None) -> xr.DataArray:
        """Read the part that covers bounds, and three cells more on each side as far as the file goes.

        Returns
        -------
        xarray.DataArray
            float32, dims (y, x) or (y, x, band), rows from north to south, NaN where invalid.
            ``attrs["untagged"]`` counts the cells that hold a fill value which the file does not tag.

        Raises
        ------
        DataError
            For a truncated file.
        NoDataError
            For bounds off the file.
        """
        window = _window(self.grid, bounds, self.path)
        layers, untagged = read_window(self.path, self.layout, window, self.nodata, self.mean_over)
        if untagged:
            _say_untagged(self.path)
        values = np.stack(layers, axis=-1) if len(layers) > 1 else layers[0]
        corner = self.grid.transform @ Affine.translation(window.column, window.row)
        part = Grid((window.rows, window.columns), corner, self.grid.crs, self.grid.vertical_datum)
        name = "_".join(self.layout.names) if self.layout.names != ("1",) else self.path.stem
        stated = {"datum_of_file": self.layout.datum} if self.layout.datum else {}
        return part.dataarray(values, name, self.units, source=self.path.name, untagged=untagged, **stated)


def open_raster(
    path: Path,
    variables: Sequence[str] = (),
    *,
    units: str | None = "m",
    vertical_datum: str | None = None,
    crs: str | None = None,
    nodata: Sequence[float] = (),
    expected_crs: str = "EPSG:3031",
    mean_over: Sequence[str] = (),
) -> Raster:
    """Read the header of a raster and check what it promises; values are read by `Raster.read`, window by window.

    Parameters
    ----------
    path
        NetCDF (``.nc``, ``.nc4``, ``.grd``, ``.h5``, ``.cdf``) or anything that rasterio opens.
    variables
        NetCDF variables, or 1-based band numbers as text for a GeoTIFF; several become bands. May be empty for a
        GeoTIFF (band 1) and for a NetCDF with one gridded variable.
    units
        What the values are in; a file that states other units is refused. None takes any: flags of a mask.
    vertical_datum
        Datum of the heights, None for other fields.
    crs
        The file's CRS where it does not say so itself.
    nodata
        Further values that mean "no data", beyond those the file names, -9999 and its kin, magnitudes above 1e15.
    expected_crs
        CRS that the file must be in.
    mean_over
        Dimensions, such as time, that are averaged over; by default more than one step of them is an error.

    Raises
    ------
    DataError
        For a missing or truncated file, a missing variable, or other units.
    DatumError
        When the file names another vertical datum than the one declared.
    GridError
        For a missing or other CRS, a rotated raster, or uneven coordinates.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path in the region file, or pass --data-dir")
    layout = describe(path, tuple(variables), tuple(mean_over))
    require_crs(path.name, layout.crs or crs, expected_crs)
    if units is not None:
        require_units(path.name, layout.units, units)
    stated = stated_datum(layout.datum)
    if vertical_datum is not None and stated is not None and stated != vertical_datum:
        raise DatumError(
            f"{path.name} says its heights are on {layout.datum!r}, declared is {vertical_datum}; "
            "correct vertical_datum in the region file"
        )
    grid = Grid(layout.grid.shape, layout.grid.transform, expected_crs, vertical_datum)
    return Raster(path, grid, canonical_units(units or "1"), layout, tuple(nodata), tuple(mean_over))


@lru_cache(maxsize=1024)
def _say_untagged(path: Path) -> None:
    # Once a file: a map of many windows would say it as often.
    _LOGGER.info("%s: cells hold a fill value with no tag; taken as invalid", path.name)


def _window(grid: Grid, bounds: Bounds | None, path: Path, spare: int = 3) -> Window:
    if bounds is None:
        return Window(0, 0, *grid.shape)
    xmin, ymin, xmax, ymax = bounds
    cell, left, top = grid.resolution, grid.transform.c, grid.transform.f
    column, row = int(np.floor((xmin - left) / cell)) - spare, int(np.floor((top - ymax) / cell)) - spare
    last_column, last_row = int(np.ceil((xmax - left) / cell)) + spare, int(np.ceil((top - ymin) / cell)) + spare
    column, row = max(column, 0), max(row, 0)
    last_column, last_row = min(last_column, grid.shape[1]), min(last_row, grid.shape[0])
    if last_column - column < 2 or last_row - row < 2:
        raise NoDataError(
            f"{path.name} covers {[round(edge) for edge in grid.bounds]}, nothing of "
            f"{[round(edge) for edge in bounds]}; check the bounds of the region, or x and y are swapped or in km"
        )
    return Window(row, column, last_row - row, last_column - column)
