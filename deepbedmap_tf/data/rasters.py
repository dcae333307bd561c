"""GeoTIFF and NetCDF files read to DataArrays with a grid; invalid cells are NaN before anything else happens."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Bounds, Grid

_LOGGER = logging.getLogger(__name__)

# No height, velocity or accumulation on Earth reaches these, tagged or not: -9999 by custom, 9.97e36 of NetCDF,
# -1.8e308 and -3.4e38 of GDAL.
_UNTAGGED = -9999.0
_IMPOSSIBLE = 1e30

_UNITS = {
    "m": ("m", "meter", "meters", "metre", "metres"),
    "m yr-1": ("m yr-1", "m/yr", "m/y", "m a-1", "m/a", "meter/year", "meters/year", "metre/year", "metres/year"),
    "kg m-2 yr-1": ("kg m-2 yr-1", "kg/m2/yr", "kg/m^2/yr", "kg m-2 a-1", "kg/m2/a", "mm w.e. yr-1", "mm we/yr"),
}


def canonical_units(units: str) -> str:
    """Return the project's spelling of units that products spell in many ways; unknown ones come back as given."""
    plain = " ".join(units.strip().lower().split())
    return next((name for name, spellings in _UNITS.items() if plain in spellings), units.strip())


def read_raster(
    path: Path,
    variables: Sequence[str] = (),
    *,
    bounds: Bounds | None = None,
    units: str = "m",
    vertical_datum: str | None = None,
    crs: str | None = None,
    nodata: Sequence[float] = (),
    expected_crs: str = "EPSG:3031",
) -> xr.DataArray:
    """Read a raster, or the part of it that covers bounds.

    Parameters
    ----------
    path
        NetCDF (``.nc``, ``.nc4``, ``.grd``, ``.h5``) or anything that rasterio opens.
    variables
        NetCDF variables, or 1-based band numbers as text for a GeoTIFF; several become bands. May be empty for a
        GeoTIFF (band 1) and for a NetCDF with one gridded variable.
    bounds
        Edges of the part wanted; three cells more are read on each side, as far as the file goes.
    units
        What the values are in; a file that states other units is refused.
    vertical_datum
        Datum of the heights, None for other fields.
    crs
        The file's CRS where it does not say so itself.
    nodata
        Further values that mean "no data", beyond those the file names, -9999 and magnitudes above 1e30.
    expected_crs
        CRS that the file must be in.

    Returns
    -------
    xarray.DataArray
        float32, dims (y, x) or (y, x, band), rows from north to south, NaN where invalid.

    Raises
    ------
    DataError
        For a missing or truncated file, a missing variable, other units, or bounds off the file.
    GridError
        For a missing or other CRS, a rotated raster, or uneven coordinates.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path in the region file, or pass --data-dir")
    reader = _read_netcdf if path.suffix.lower() in (".nc", ".nc4", ".grd", ".h5") else _read_geotiff
    layers, grid, found_crs, found_units = reader(path, tuple(variables), bounds)
    _check_crs(path, found_crs or crs, expected_crs)
    for found in found_units:
        known = canonical_units(found) in _UNITS and canonical_units(units) in _UNITS
        if known and canonical_units(found) != canonical_units(units):
            raise DataError(
                f"{path.name} is in {found!r}, expected {units!r}; correct units or source_units in the region file"
            )
    values = np.stack([_masked(layer, path, nodata) for layer in layers], axis=-1)
    values = values[..., 0] if len(layers) == 1 else values
    grid = Grid(grid.shape, grid.transform, expected_crs, vertical_datum)
    name = "_".join(variables) or path.stem
    return grid.dataarray(values, name, canonical_units(units), source=path.name)


def _masked(layer: np.ndarray, path: Path, nodata: Sequence[float]) -> np.ndarray:
    values = np.asarray(layer, np.float64 if layer.dtype == np.float64 else np.float32)
    untagged = ~np.isfinite(values) & ~np.isnan(values) | (np.abs(values) > _IMPOSSIBLE) | (values == _UNTAGGED)
    for value in nodata:
        untagged |= values == value
    if untagged.any():
        _LOGGER.info("%s: %d cells hold a fill value with no tag; taken as invalid", path.name, untagged.sum())
        values = np.where(untagged, np.nan, values)
    return values.astype(np.float32)


_Raw = tuple[list[np.ndarray], Grid, Any, list[str]]


def _read_geotiff(path: Path, variables: tuple[str, ...], bounds: Bounds | None) -> _Raw:
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    try:
        with rasterio.open(path) as dataset:
            if dataset.transform.e > 0 and not (dataset.transform.b or dataset.transform.d):
                raise GridError(f"{path.name} runs from south to north; flip it (gdalwarp does) and try again")
            grid = Grid((dataset.height, dataset.width), Affine(*tuple(dataset.transform)[:6]))
            row, column, rows, columns = _window(grid, bounds, path)
            bands = [_band_number(name, dataset.count, path) for name in variables] or [1]
            layers = []
            for band in bands:
                masked = dataset.read(band, window=Window(column, row, columns, rows), masked=True)
                values = masked.astype(np.float32).filled(np.nan)
                scale, offset = dataset.scales[band - 1], dataset.offsets[band - 1]
                layers.append(values if (scale, offset) == (1.0, 0.0) else values * scale + offset)
            units = [unit for band in bands if (unit := dataset.units[band - 1])]
            found = dataset.crs.to_wkt() if dataset.crs else None
    except RasterioError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise DataError(f"cannot read {path}: {cause}; the file is damaged or cut off, get it again") from error
    return layers, _part(grid, row, column, rows, columns), found, units


def _band_number(name: str, count: int, path: Path) -> int:
    if not name.isdigit() or not 1 <= int(name) <= count:
        raise DataError(f"{path.name} has bands 1 to {count}, not {name!r}; correct variable in the region file")
    return int(name)


def _read_netcdf(path: Path, variables: tuple[str, ...], bounds: Bounds | None) -> _Raw:
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_times=False, cache=False) as dataset:
            gridded = [str(name) for name in dataset.data_vars if dataset[name].ndim == 2]
            names = variables or tuple(gridded)
            unknown = [name for name in names if name not in dataset.variables]
            if unknown or not names or (not variables and len(names) > 1):
                wanted = f"no variable {unknown[0]!r}" if unknown else f"{len(names)} gridded variables"
                raise DataError(f"{path.name} has {wanted}; name one of {', '.join(map(str, dataset.data_vars))}")
            first = dataset[names[0]]
            if first.ndim != 2 or any(dim not in dataset.coords for dim in first.dims):
                raise GridError(
                    f"{path.name}: '{names[0]}' has no coordinates x and y, expected even cells (kind: nodes?)"
                )
            y_name, x_name = (str(dim) for dim in first.dims)
            # Reversed, a file with y from south to north is a file like any other.
            if dataset.sizes[y_name] > 1 and dataset[y_name][0] < dataset[y_name][-1]:
                dataset = dataset.isel({y_name: slice(None, None, -1)})
            axes = xr.DataArray(
                np.empty((dataset.sizes[y_name], dataset.sizes[x_name]), np.bool_),
                dims=("y", "x"),
                coords={"y": dataset[y_name].to_numpy(), "x": dataset[x_name].to_numpy()},
                name=path.name,
            )
            grid = Grid.of(axes)
            row, column, rows, columns = _window(grid, bounds, path)
            part = {y_name: slice(row, row + rows), x_name: slice(column, column + columns)}
            layers = [np.asarray(dataset[name].isel(part).transpose(y_name, x_name)) for name in names]
            units = [str(dataset[name].attrs["units"]) for name in names if "units" in dataset[name].attrs]
            found = _netcdf_crs(dataset, names[0])
    except (OSError, RuntimeError, ValueError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"cannot read {path}: {cause}; the file is damaged or cut off, get it again") from error
    return layers, _part(grid, row, column, rows, columns), found, units


def _netcdf_crs(dataset: xr.Dataset, name: str) -> Any:
    mapping = dataset[name].attrs.get("grid_mapping") or dataset[name].encoding.get("grid_mapping")
    attributes: dict[str, Any] = dict(dataset[mapping].attrs) if mapping in dataset.variables else {}
    for key in ("crs_wkt", "spatial_ref"):
        if attributes.get(key):
            return attributes[key]
    if attributes.get("grid_mapping_name"):
        return attributes
    for key in ("crs", "proj4", "spatial_ref"):
        text = dataset[name].attrs.get(key) or dataset.attrs.get(key)
        if text:
            return re.sub(r"^\+init=", "", str(text))
    return None


def _check_crs(path: Path, found: Any, expected: str) -> None:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    if not found:
        raise GridError(f"{path.name} does not say its CRS, expected {expected}; declare `crs` in the region file")
    try:
        crs = CRS.from_cf(found) if isinstance(found, dict) else CRS.from_user_input(found)
    except (CRSError, KeyError) as error:
        raise GridError(f"{path.name}: its CRS {str(found)[:60]!r} is not understood, expected {expected}") from error
    wanted = CRS.from_user_input(expected)
    if crs.equals(wanted, ignore_axis_order=True) or _projection(crs) == _projection(wanted):
        return
    raise GridError(
        f"{path.name} is in {crs.to_string()[:60]}, expected {expected}; reproject it (gdalwarp -t_srs {expected})"
    )


def _projection(crs: Any) -> tuple[Any, ...]:
    # Products spell one projection in many ways, names and authorities aside; what counts is what moves a cell.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        terms = crs.to_dict()
    axis = crs.ellipsoid.semi_major_metre if crs.ellipsoid else 6378137.0
    numbers = (float(terms.get(key, 0.0)) for key in ("lat_0", "lat_ts", "lon_0", "x_0", "y_0"))
    return (terms.get("proj"), *numbers, round(axis), terms.get("units", "m"))


def _window(grid: Grid, bounds: Bounds | None, path: Path, spare: int = 3) -> tuple[int, int, int, int]:
    """First row and column, number of rows and columns of the part that covers bounds."""
    if bounds is None:
        return 0, 0, grid.shape[0], grid.shape[1]
    xmin, ymin, xmax, ymax = bounds
    cell, left, top = grid.resolution, grid.transform.c, grid.transform.f
    column, row = int(np.floor((xmin - left) / cell)) - spare, int(np.floor((top - ymax) / cell)) - spare
    last_column, last_row = int(np.ceil((xmax - left) / cell)) + spare, int(np.ceil((top - ymin) / cell)) + spare
    column, row = max(column, 0), max(row, 0)
    last_column, last_row = min(last_column, grid.shape[1]), min(last_row, grid.shape[0])
    if last_column - column < 2 or last_row - row < 2:
        raise DataError(
            f"{path.name} covers {[round(edge) for edge in grid.bounds]}, nothing of "
            f"{[round(edge) for edge in bounds]}; check the bounds of the region, or x and y are swapped"
        )
    return row, column, last_row - row, last_column - column


def _part(grid: Grid, row: int, column: int, rows: int, columns: int) -> Grid:
    return Grid((rows, columns), grid.transform @ Affine.translation(column, row))
