"""A field named in a region file, read from its rasters or nodes onto a grid or to points, in the datum wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from deepbedmap_tf.data.rasters import canonical_units, read_raster
from deepbedmap_tf.data.resampling import resample, sample
from deepbedmap_tf.data.schema import LayerSettings, RasterSettings
from deepbedmap_tf.errors import DataError, DatumError
from deepbedmap_tf.grid import ELLIPSOID, Bounds, Grid, to_datum


@dataclass(frozen=True)
class FieldReader:
    """Reads the fields of one region.

    Attributes
    ----------
    resolve
        Turns a path of the region file into a path of the file system.
    crs
        CRS of the region.
    geoids
        Geoid layers by datum, for fields that have none of their own.
    """

    resolve: Callable[[str], Path]
    crs: str
    geoids: Mapping[str, LayerSettings]

    def on_grid(self, settings: RasterSettings, grid: Grid, name: str) -> xr.DataArray:
        """Bring a field to the cells of a grid; gaps are taken from its fallback, nothing is filled.

        Parameters
        ----------
        settings
            Where the field comes from.
        grid
            Cells wanted. Heights are converted to its vertical datum; None for a field that holds no heights.
        name
            Name of the result and of the field in messages.

        Returns
        -------
        xarray.DataArray
            float32, NaN where invalid.
        """
        if settings.kind == "nodes":
            result = self._nodes_on_grid(settings, grid, name)
        else:
            result = resample(self._native(settings, grid.bounds), grid, settings.resampling).rename(name)
        if grid.vertical_datum is not None:
            require_datum(settings.vertical_datum, name)
            result = self._converted(result, settings, grid)
        if settings.fallback is not None and bool(result.isnull().any()):
            other = self.on_grid(settings.fallback, grid, name)
            result = result.copy(data=np.where(np.isnan(result), other, result))
        if settings.label:
            result.attrs["label"] = settings.label
        return result

    def at_points(
        self, settings: RasterSettings, x: np.ndarray, y: np.ndarray, datum: str | None, name: str
    ) -> np.ndarray:
        """Bilinear values of a field at points (EPSG:3031 metres), in the field's own resolution; NaN outside."""
        bounds = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
        values = sample(self._native(settings, bounds), x, y)
        if datum is None:
            return values
        require_datum(settings.vertical_datum, name)
        values += self.datum_shift(x, y, settings.vertical_datum, datum, settings.geoid, name)
        return values

    def datum_shift(
        self, x: np.ndarray, y: np.ndarray, source: str | None, target: str, geoid: LayerSettings | None, name: str
    ) -> np.ndarray:
        """What to add to heights above `source` at points to get heights above `target`, in metres."""
        require_datum(source, name)
        shift = np.zeros(x.shape)
        if source == target:
            return shift
        bounds = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
        for datum, sign in ((source, 1.0), (target, -1.0)):
            if datum != ELLIPSOID:
                layer = self._geoid_layer(str(datum), geoid, name, str(source))
                shift += sign * sample(self._layer(layer, bounds), x, y)
        return shift

    def _native(self, settings: RasterSettings, bounds: Bounds) -> xr.DataArray:
        path = self.resolve(settings.path)
        total = read_raster(
            path,
            settings.names,
            bounds=bounds,
            units=settings.source_units or settings.units,
            vertical_datum=settings.vertical_datum,
            crs=settings.crs,
            nodata=settings.nodata,
            expected_crs=self.crs,
        )
        for layer in settings.add:
            # A variable of the same file, or a raster of its own on the same or on other cells.
            part = LayerSettings(path=settings.path, variable=layer) if isinstance(layer, str) else layer
            added = self._layer(part, bounds)
            if not Grid.of(added).same_cells(Grid.of(total)):
                added = resample(added, Grid.of(total), "bilinear")
            total = total.copy(data=total.to_numpy() + added.to_numpy())
        if settings.scale != 1.0:
            total = total.copy(data=np.asarray(total * np.float32(settings.scale), np.float32))
        total.attrs["units"] = canonical_units(settings.units)
        return total

    def _layer(self, layer: LayerSettings, bounds: Bounds) -> xr.DataArray:
        names = (layer.variable,) if layer.variable else ()
        path = self.resolve(layer.path)
        return read_raster(path, names, bounds=bounds, crs=layer.crs, nodata=layer.nodata, expected_crs=self.crs)

    def _geoid_layer(self, datum: str, own: LayerSettings | None, name: str, source: str) -> LayerSettings:
        if own is not None and (own.model or source) == datum:
            return own
        if datum in self.geoids:
            return self.geoids[datum]
        raise DatumError(
            f"'{name}' is on {source}; to convert it, the geoid layer of {datum} is needed; "
            "name it under `geoid` of this field or under `geoids` of the region file"
        )

    def _converted(self, heights: xr.DataArray, settings: RasterSettings, grid: Grid) -> xr.DataArray:
        target = str(grid.vertical_datum)
        for datum in (settings.vertical_datum, target):
            if heights.attrs["vertical_datum"] == target or datum in (ELLIPSOID, None):
                continue
            layer = self._geoid_layer(str(datum), settings.geoid, str(heights.name), str(settings.vertical_datum))
            geoid = resample(self._layer(layer, grid.bounds), grid, "bilinear")
            geoid.attrs["geoid"] = datum
            # Between two geoids the way leads over the ellipsoid.
            step = ELLIPSOID if heights.attrs["vertical_datum"] == datum else target
            heights = to_datum(heights, geoid, step)
        return heights

    def _nodes_on_grid(self, settings: RasterSettings, grid: Grid, name: str) -> xr.DataArray:
        path = self.resolve(settings.path)
        x, y, values = read_nodes(path, settings)
        cell_x, cell_y = np.meshgrid(grid.x, grid.y)
        result = interpolate_nodes(x, y, values * settings.scale, cell_x, cell_y)
        target = grid.with_datum(settings.vertical_datum)
        return target.dataarray(result.astype(np.float32), name, canonical_units(settings.units), source=path.name)


def read_nodes(path: Path, settings: RasterSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read x, y and the values of a field given at scattered nodes; nodes with no value are left out.

    Raises
    ------
    DataError
        When the file or a variable is missing, the units are others, or too few nodes are valid.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path in the region file, or pass --data-dir")
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
            names = (settings.x, settings.y, *settings.names)
            unknown = [name for name in names if name not in dataset.variables]
            if unknown or len(names) != 3:
                found = ", ".join(map(str, dataset.variables))
                raise DataError(f"{path.name}: expected coordinates and one variable {names}, it has {found}")
            units = dataset[names[2]].attrs.get("units")
            x, y, values = (np.asarray(dataset[name], np.float64).ravel() for name in names)
    except (OSError, RuntimeError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"cannot read {path}: {cause}; the file is damaged or cut off, get it again") from error
    expected = canonical_units(settings.source_units or settings.units)
    if (
        units is not None
        and canonical_units(units) != expected
        and canonical_units(units)
        in (
            "m",
            "m yr-1",
            "kg m-2 yr-1",
        )
    ):
        raise DataError(f"{path.name} is in {units!r}, expected {expected!r}; correct source_units in the region file")
    if not x.size == y.size == values.size:
        raise DataError(f"{path.name}: {x.size} x, {y.size} y and {values.size} values, expected as many of each")
    fills = np.isin(values, (-9999.0, *settings.nodata)) | (np.abs(values) > 1e30)
    usable = np.isfinite(x) & np.isfinite(y) & np.isfinite(values) & ~fills
    if usable.sum() < 3:
        raise DataError(f"{path.name} has {int(usable.sum())} valid nodes, expected 3 or more; check the file")
    return x[usable], y[usable], values[usable]


def interpolate_nodes(
    x: np.ndarray, y: np.ndarray, values: np.ndarray, at_x: np.ndarray, at_y: np.ndarray
) -> np.ndarray:
    """Values at points: linear on the triangles between nodes, the nearest node's outside their hull."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    nodes = np.column_stack([x, y])
    try:
        result = LinearNDInterpolator(nodes, values)(at_x, at_y)
    except QhullError as error:
        raise DataError(f"{len(x)} nodes lie on one line, expected a field; check x and y of the nodes") from error
    outside = np.isnan(result)
    if outside.any():
        result[outside] = NearestNDInterpolator(nodes, values)(at_x[outside], at_y[outside])
    return np.asarray(result)


def require_datum(datum: str | None, name: str) -> None:
    """Refuse heights with no stated vertical datum.

    Raises
    ------
    DatumError
        When `datum` is None.
    """
    if datum is None:
        raise DatumError(f"'{name}' holds heights with no vertical_datum; state it in the region file")
