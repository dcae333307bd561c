"""How a GeoTIFF or a NetCDF lies on disk, and one window of it read: no file is ever read whole to find its cells."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from deepbedmap_tf.data.netcdf_classic import missing_bytes
from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Grid

NETCDF_SUFFIXES = (".nc", ".nc4", ".grd", ".h5", ".cdf")

# No height, velocity or accumulation on Earth reaches these, tagged or not: -9999 by custom, 1e20 of climate models,
# 9.97e36 of NetCDF, -1.8e308 and -3.4e38 of GDAL.
UNTAGGED = (-9999.0, -99999.0, -32768.0, -32767.0, 32767.0)
IMPOSSIBLE = 1e15

_X_NAMES = ("x", "xc", "x1", "easting", "projection_x_coordinate")
_Y_NAMES = ("y", "yc", "y1", "northing", "projection_y_coordinate")
METRES = {"m": 1.0, "meter": 1.0, "meters": 1.0, "metre": 1.0, "metres": 1.0}
METRES |= {"km": 1e3, "kilometer": 1e3, "kilometers": 1e3, "kilometre": 1e3, "kilometres": 1e3}


@dataclass(frozen=True)
class Layout:
    """Where the cells of a raster file lie and what it says of itself.

    Attributes
    ----------
    grid
        Its cells, north-up whichever way the file runs.
    south_up, east_left
        Rows run from south to north, columns from east to west, in the file.
    crs
        What the file says of its CRS, None if nothing.
    units
        Units of each variable or band that states them.
    datum
        What the first variable, or the geoid layer beside it, says of its vertical datum; None if nothing.
    names
        Variables, or numbers of bands.
    axes
        Names of the dimensions of rows and columns of a NetCDF.
    """

    grid: Grid
    south_up: bool
    east_left: bool
    crs: Any
    units: tuple[str, ...]
    datum: str | None
    names: tuple[str, ...]
    axes: tuple[str, str] = ("y", "x")


@dataclass(frozen=True)
class Window:
    """First row and column and number of rows and columns, counted on the north-up grid."""

    row: int
    column: int
    rows: int
    columns: int

    def in_file(self, layout: Layout) -> tuple[slice, slice]:
        """Rows and columns as the file counts them."""
        height, width = layout.grid.shape
        row = height - self.row - self.rows if layout.south_up else self.row
        column = width - self.column - self.columns if layout.east_left else self.column
        return slice(row, row + self.rows), slice(column, column + self.columns)


def describe(path: Path, names: tuple[str, ...], mean_over: tuple[str, ...] = ()) -> Layout:
    """Read the header of a raster file.

    Raises
    ------
    DataError
        For a damaged file, or a variable or band that is not there.
    GridError
        For cells that are rotated, oblong, uneven, in degrees, or nowhere at all.
    """
    if path.suffix.lower() in NETCDF_SUFFIXES:
        with opened_netcdf(path) as dataset:
            return _describe_netcdf(path, dataset, names, mean_over)
    with _opened_geotiff(path) as dataset:
        return _describe_geotiff(path, dataset, names)


def read_window(
    path: Path, layout: Layout, window: Window, nodata: Sequence[float] = (), mean_over: tuple[str, ...] = ()
) -> tuple[list[np.ndarray], int]:
    """Read one window of every variable, rows from north to south.

    Returns
    -------
    layers, untagged
        float32 with NaN where the file tags a cell as invalid or `untagged_fills` knows it for a fill value, and the
        number of the latter. Both are masked before any scaling or averaging.
    """
    rows, columns = window.in_file(layout)
    if path.suffix.lower() in NETCDF_SUFFIXES:
        with opened_netcdf(path) as dataset:
            part = {layout.axes[0]: rows, layout.axes[1]: columns}
            read = [_netcdf_layer(dataset[name].isel(part), layout.axes, nodata, mean_over) for name in layout.names]
    else:
        with _opened_geotiff(path) as dataset:
            read = [_geotiff_layer(dataset, int(name), rows, columns, nodata) for name in layout.names]
    steps = (slice(None, None, -1 if layout.south_up else 1), slice(None, None, -1 if layout.east_left else 1))
    return [layer[steps] for layer, _ in read], sum(count for _, count in read)


def untagged_fills(values: np.ndarray, nodata: Sequence[float] = ()) -> np.ndarray:
    """Tell which values are fill values that no tag names: infinities, impossible numbers, customary ones."""
    with np.errstate(invalid="ignore"):
        fills = np.isinf(values) | (np.abs(values) > IMPOSSIBLE) | np.isin(values, UNTAGGED)
    return np.asarray(fills | np.isin(values, np.asarray(nodata, values.dtype)) if len(nodata) else fills)


def _masked(values: np.ndarray, nodata: Sequence[float]) -> tuple[np.ndarray, int]:
    fills = untagged_fills(values, nodata)
    count = int(fills.sum())
    return np.asarray(np.where(fills, np.nan, values) if count else values, np.float32), count


@contextmanager
def _opened_geotiff(path: Path) -> Iterator[Any]:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                yield dataset
    except RasterioError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise DataError(f"cannot read {path}: {cause}; the file is damaged or cut off, get it again") from error


@contextmanager
def opened_netcdf(path: Path) -> Iterator[xr.Dataset]:
    """Open a NetCDF with its fill values decoded; damage, found now or while reading, is a `DataError`."""
    try:
        if lacking := missing_bytes(path):
            raise OSError(0, f"{lacking} bytes are missing at its end")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)
            with xr.open_dataset(path, engine="netcdf4", decode_times=False, cache=False) as dataset:
                yield dataset
    except (OSError, RuntimeError, ValueError, UnicodeDecodeError, IndexError) as error:
        cause = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot read {path}: {cause}; the file is damaged or cut off, get it again") from error


def _describe_geotiff(path: Path, dataset: Any, names: tuple[str, ...]) -> Layout:
    t = dataset.transform
    if t.is_identity and dataset.crs is None:
        raise GridError(f"{path.name} does not say where its cells lie nor its CRS; get the georeferenced file")
    if t.b or t.d:
        raise GridError(f"{path.name} is rotated against its CRS, expected north-up rows; warp it with gdalwarp first")
    height, width = dataset.height, dataset.width
    left, top = t.c + min(t.a * width, 0.0), t.f + max(t.e * height, 0.0)
    grid = _named(path, (height, width), Affine(abs(t.a), 0.0, left, 0.0, -abs(t.e), top))
    for name in names:
        if not name.isdigit() or not 1 <= int(name) <= dataset.count:
            raise DataError(
                f"{path.name} has bands 1 to {dataset.count}, not {name!r}; correct variable in the region file"
            )
    if not names and dataset.count > 1:
        raise DataError(f"{path.name} has {dataset.count} bands; name one by `variable` (1 to {dataset.count})")
    bands = names or ("1",)
    if any(np.issubdtype(dataset.dtypes[int(band) - 1], np.complexfloating) for band in bands):
        raise DataError(f"{path.name} holds complex numbers, expected heights or the like; choose another file")
    units = tuple(unit for band in bands if (unit := dataset.units[int(band) - 1]))
    found = dataset.crs.to_wkt() if dataset.crs else None
    return Layout(grid, t.e > 0, t.a < 0, found, units, dataset.tags().get("vertical_datum"), bands)


def _geotiff_layer(
    dataset: Any, band: int, rows: slice, columns: slice, nodata: Sequence[float]
) -> tuple[np.ndarray, int]:
    from rasterio.windows import Window as FileWindow

    part = FileWindow(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    masked = dataset.read(band, window=part, masked=True)
    with np.errstate(over="ignore"):
        values, count = _masked(np.asarray(masked.astype(np.float32).filled(np.nan)), nodata)
    scale, offset = dataset.scales[band - 1], dataset.offsets[band - 1]
    return (values if (scale, offset) == (1.0, 0.0) else values * np.float32(scale) + np.float32(offset)), count


def _describe_netcdf(path: Path, dataset: xr.Dataset, wanted: tuple[str, ...], mean_over: tuple[str, ...]) -> Layout:
    gridded = [str(name) for name in dataset.data_vars if dataset[name].ndim == 2]
    names = wanted or tuple(gridded)
    unknown = [name for name in names if name not in dataset.variables]
    if unknown or not names or (not wanted and len(names) > 1):
        problem = f"no variable {unknown[0]!r}" if unknown else f"{len(names)} gridded variables"
        raise DataError(f"{path.name} has {problem}; name one of {', '.join(map(str, dataset.data_vars))}")
    y_name, x_name = _axis_names(path, dataset, names[0])
    for name in names:
        further = [str(dim) for dim in dataset[name].dims if dim not in (y_name, x_name)]
        many = [dim for dim in further if dataset.sizes[dim] > 1 and dim not in mean_over]
        if many:
            raise GridError(
                f"{path.name}: '{name}' has {dataset.sizes[many[0]]} steps of {many[0]}, expected one field; "
                f"state `mean_over: [{many[0]}]` for their mean"
            )
        if not {y_name, x_name} <= set(dataset[name].dims):
            raise GridError(f"{path.name}: '{name}' is not on the cells of '{names[0]}'; read them apart")
    x, y = _axis(path, dataset, x_name), _axis(path, dataset, y_name)
    south_up, east_left = bool(y.size > 1 and y[0] < y[-1]), bool(x.size > 1 and x[0] > x[-1])
    x, y = (x[::-1] if east_left else x), (y[::-1] if south_up else y)
    # No value is needed to know the cells: one number stands for all of them.
    cells = xr.DataArray(
        np.broadcast_to(np.False_, (y.size, x.size)), dims=("y", "x"), coords={"y": y, "x": x}, name=path.name
    )
    units = tuple(str(dataset[name].attrs["units"]) for name in names if "units" in dataset[name].attrs)
    attributes = dataset[names[0]].attrs
    datum = attributes.get("vertical_datum") or attributes.get("geoid") or _geoid_beside(dataset)
    found = netcdf_crs(dataset, names[0])
    return Layout(
        Grid.of(cells), south_up, east_left, found, units, str(datum) if datum else None, names, (y_name, x_name)
    )


def _geoid_beside(dataset: xr.Dataset) -> str | None:
    """What the geoid layer of the same file says it is: BedMachine's heights stand on it without saying so."""
    models = {str(dataset[name].attrs["geoid"]) for name in dataset.data_vars if "geoid" in dataset[name].attrs}
    return models.pop() if len(models) == 1 else None


def _axis_names(path: Path, dataset: xr.Dataset, name: str) -> tuple[str, str]:
    dims = [str(dim) for dim in dataset[name].dims]
    known = [dim for dim in dims if dim in dataset.coords and dataset[dim].ndim == 1]
    found: dict[str, str] = {}
    for dim in known:
        attributes = dataset[dim].attrs
        words = (dim.lower(), str(attributes.get("standard_name", "")), f"axis {attributes.get('axis', '')}".lower())
        for axis, names in (("x", (*_X_NAMES, "axis x")), ("y", (*_Y_NAMES, "axis y"))):
            if any(word in names for word in words):
                found.setdefault(axis, dim)
    if len(found) < 2 and len(known) >= 2 and known == dims[-len(known) :]:
        found = {"y": known[-2], "x": known[-1]}
    if len(found) < 2:
        raise GridError(f"{path.name}: '{name}' has no coordinates x and y, expected even cells (kind: nodes?)")
    return found["y"], found["x"]


def _axis(path: Path, dataset: xr.Dataset, name: str) -> np.ndarray:
    axis, attributes = np.asarray(dataset[name], np.float64), dataset[name].attrs
    units = str(attributes.get("units", "m")).strip().lower()
    if units.startswith("degree"):
        raise GridError(
            f"{path.name}: {name} is in degrees, expected metres of a projection; read it with `kind: nodes`"
        )
    if units not in METRES:
        raise GridError(f"{path.name}: {name} is in {units!r}, expected m or km; correct the file's attribute")
    if not np.isfinite(axis).all():
        raise GridError(f"{path.name}: {name} has missing values, expected cell centres; the file is damaged")
    _require_registration(path, name, axis, dataset)
    return axis * METRES[units]


def _require_registration(path: Path, name: str, axis: np.ndarray, dataset: xr.Dataset) -> None:
    """Hold the coordinates of a GMT grid against its registration; gridline nodes are centres of cells around them."""
    offset = dataset.attrs.get("node_offset", dataset.attrs.get("node_offset".upper()))
    extent = np.ravel(dataset[name].attrs.get("actual_range", ()))
    if offset is None or extent.size != 2 or axis.size < 2:
        return
    step = (axis.max() - axis.min()) / (axis.size - 1)
    beyond = np.array([axis.min() - extent.min(), extent.max() - axis.max()]) / step
    if np.abs(beyond - 0.5 * float(offset)).max() > 0.1:
        registration = "pixel" if offset else "gridline"
        raise GridError(
            f"{path.name} says {registration} registration, but {name} runs from {axis.min():g} to {axis.max():g} in "
            f"an extent of {extent.min():g} to {extent.max():g}; correct node_offset (gmt grdedit -T)"
        )


def _netcdf_layer(
    values: xr.DataArray, axes: tuple[str, str], nodata: Sequence[float], mean_over: tuple[str, ...]
) -> tuple[np.ndarray, int]:
    steps = [dim for dim in values.dims if dim not in axes and dim in mean_over]
    single = {dim: 0 for dim in values.dims if dim not in axes and dim not in mean_over}
    masked, count = masked_values(values.isel(single).transpose(*steps, *axes), nodata)
    return masked.mean(axis=tuple(range(len(steps))), dtype=np.float64).astype(np.float32) if steps else masked, count


def masked_values(values: xr.DataArray, nodata: Sequence[float] = ()) -> tuple[np.ndarray, int]:
    """Values of a NetCDF variable with NaN for fill values, tagged or not, and the number of those that are not.

    xarray has scaled what the file packs; an untagged -9999 in it is known by what it was before.
    """
    field = np.asarray(values)
    field = field if field.dtype == np.float64 else field.astype(np.float32)
    scale, offset = (values.encoding.get(key, neutral) for key, neutral in (("scale_factor", 1), ("add_offset", 0)))
    if (scale, offset) == (1, 0):
        return _masked(field, nodata)
    packed = (field.astype(np.float64) - offset) / scale
    whole = np.issubdtype(values.encoding.get("dtype", np.dtype("f4")), np.integer)
    fills = untagged_fills(np.rint(packed) if whole else packed.astype(np.float32), nodata)
    return np.asarray(np.where(fills, np.nan, field), np.float32), int(fills.sum())


def netcdf_crs(dataset: xr.Dataset, name: str) -> Any:
    """What a NetCDF says of the CRS of a variable: text, the attributes of its grid mapping, or None."""
    mapping = dataset[name].attrs.get("grid_mapping") or dataset[name].encoding.get("grid_mapping")
    if mapping not in dataset.variables:
        mappings = [each for each in dataset.variables if "grid_mapping_name" in dataset[each].attrs]
        mapping = mappings[0] if len(mappings) == 1 else None
    attributes: dict[str, Any] = dict(dataset[mapping].attrs) if mapping is not None else {}
    for key in ("crs_wkt", "spatial_ref"):
        if attributes.get(key):
            return attributes[key]
    if attributes.get("grid_mapping_name"):
        return attributes
    for key in ("crs", "proj4", "spatial_ref"):
        text = dataset[name].attrs.get(key) or dataset.attrs.get(key)
        if text:
            return str(text)
    return None


def _named(path: Path, shape: tuple[int, int], affine: Affine) -> Grid:
    try:
        return Grid(shape, affine)
    except GridError as error:
        raise GridError(f"{path.name}: {error}") from error
