"""Fields given at scattered nodes, or on the curvilinear or rotated grid of a climate model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from deepbedmap_tf.data.projections import GEOGRAPHIC, transform, understood
from deepbedmap_tf.data.raster_formats import METRES, masked_values, netcdf_crs, opened_netcdf
from deepbedmap_tf.data.rasters import require_units
from deepbedmap_tf.data.schema import RasterSettings
from deepbedmap_tf.errors import DataError, GridError

_ROTATED = ("grid_longitude", "grid_latitude", "rlon", "rlat")
_GEOGRAPHIC = ("longitude", "latitude", "lon", "lat")


def read_nodes(
    path: Path, settings: RasterSettings, crs: str = "EPSG:3031"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read x, y and the values of a field given at nodes; nodes with no value are left out.

    Coordinates may be metres or kilometres of a projection, longitude and latitude, or degrees on a rotated pole
    that the file's grid mapping defines; and vectors of the axes, or arrays of the field's own shape.

    Returns
    -------
    x, y, values
        One-dimensional, x and y in metres of `crs`.

    Raises
    ------
    DataError
        When the file or a variable is missing, the units are others, or too few nodes are valid.
    GridError
        When the coordinates do not fit the field, or their CRS is not understood.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path in the region file, or pass --data-dir")
    with opened_netcdf(path) as dataset:
        names = (settings.x, settings.y, *settings.names)
        unknown = [name for name in names if name not in dataset.variables]
        if unknown or len(names) != 3:
            found = ", ".join(map(str, dataset.variables))
            raise DataError(f"{path.name}: expected coordinates and one variable {names}, it has {found}")
        field = dataset[names[2]]
        units = [str(field.attrs["units"])] if "units" in field.attrs else []
        require_units(path.name, units, settings.source_units or settings.units)
        source, factor = _source(path, dataset, settings, crs)
        x, y, values = _together(path, dataset[settings.x], dataset[settings.y], field, settings)
    x, y = transform(x * factor, y * factor, source, crs)
    usable = np.isfinite(x) & np.isfinite(y) & np.isfinite(values)
    if usable.sum() < 3:
        raise DataError(f"{path.name} has {int(usable.sum())} valid nodes, expected 3 or more; check the file")
    return x[usable], y[usable], values[usable]


def _together(
    path: Path, x: xr.DataArray, y: xr.DataArray, field: xr.DataArray, settings: RasterSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    places = dict.fromkeys([*y.dims, *x.dims])
    steps = [dim for dim in field.dims if dim not in places and dim in settings.mean_over]
    many = [dim for dim in field.dims if dim not in places and dim not in steps and field.sizes[dim] > 1]
    if many:
        raise GridError(
            f"{path.name}: '{field.name}' has {field.sizes[many[0]]} steps of {many[0]}, expected one field; "
            f"state `mean_over: [{many[0]}]` for their mean, or check x and y of the nodes"
        )
    field = field.isel({dim: 0 for dim in field.dims if dim not in places and dim not in steps})
    absent = [dim for dim in places if dim not in field.dims]
    if absent:
        raise GridError(f"{path.name}: '{field.name}' has no dimension {absent[0]}; check x and y of the nodes")
    values = np.asarray(masked_values(field.transpose(*steps, *places), settings.nodata)[0], np.float64)
    values = values.mean(axis=tuple(range(len(steps)))) if steps else values
    sizes = {dim: field.sizes[dim] for dim in places}
    east, north = (np.asarray(axis.variable.set_dims(sizes).transpose(*places), np.float64) for axis in (x, y))
    return east.ravel(), north.ravel(), values.ravel()


def _source(path: Path, dataset: xr.Dataset, settings: RasterSettings, crs: str) -> tuple[Any, float]:
    """CRS of the nodes' coordinates, and the factor to its units."""
    axis = dataset[settings.x]
    units = str(axis.attrs.get("units", "")).strip().lower()
    words = {settings.x.lower(), str(axis.attrs.get("standard_name", "")).lower()}
    mapping = netcdf_crs(dataset, settings.names[0])
    if words & set(_ROTATED):
        if mapping is None and settings.crs is None:
            raise GridError(
                f"{path.name}: {settings.x} is on a rotated pole that the file does not define; use lon, lat"
            )
        return understood(mapping or settings.crs, path.name, crs), 1.0
    if units.startswith("degree") or words & set(_GEOGRAPHIC):
        return GEOGRAPHIC, 1.0
    if units and units not in METRES:
        raise GridError(f"{path.name}: {settings.x} is in {units!r}, expected degrees, m or km")
    return understood(mapping, path.name, crs) if mapping else settings.crs or crs, METRES[units or "m"]


def interpolate_nodes(path: Path, settings: RasterSettings, crs: str, at_x: np.ndarray, at_y: np.ndarray) -> np.ndarray:
    """Values at points: linear on the triangles between nodes, the nearest node's outside their hull."""
    status = path.stat() if path.is_file() else None
    stamp = (status.st_size, status.st_mtime_ns) if status else (0, 0)
    linear, nearest = _interpolators(path, stamp, settings.model_dump_json(), crs)
    result = linear(at_x, at_y)
    outside = np.isnan(result)
    if outside.any():
        result[outside] = nearest(at_x[outside], at_y[outside])
    return np.asarray(result)


@lru_cache(maxsize=4)
def _interpolators(path: Path, stamp: tuple[int, int], settings: str, crs: str) -> tuple[Any, Any]:
    # A map of many windows triangulates the nodes once; `stamp` tells a changed file from the one that is known.
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    x, y, values = read_nodes(path, RasterSettings.model_validate_json(settings), crs)
    nodes = np.column_stack([x, y])
    try:
        return LinearNDInterpolator(nodes, values), NearestNDInterpolator(nodes, values)
    except QhullError as error:
        raise DataError(f"{len(x)} nodes lie on one line, expected a field; check x and y of the nodes") from error
