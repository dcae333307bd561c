"""A field named in a region file, read from its rasters or nodes onto a grid or to points, in the datum wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from deepbedmap_tf.data.masks import polygon_mask, read_polygons
from deepbedmap_tf.data.nodes import interpolate_nodes
from deepbedmap_tf.data.rasters import Raster, canonical_units, open_raster, stated_datum
from deepbedmap_tf.data.resampling import resample, sample
from deepbedmap_tf.data.schema import LayerSettings, PicksSettings, RasterSettings
from deepbedmap_tf.errors import DatumError
from deepbedmap_tf.grid import ELLIPSOID, Bounds, Grid, to_datum

_LOGGER = logging.getLogger(__name__)

# South of India the geoid lies 106 m below the ellipsoid, in New Guinea 85 m above it.
_FARTHEST_GEOID = 120.0


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
        elif settings.kind == "outline":
            result = self._outline_on_grid(settings, grid, name)
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
        """Bilinear values of a field at points (metres in the region's CRS), at its own resolution; NaN outside.

        The file is read in squares around the points, so that the memory needed does not grow with its extent.
        """
        values = sample_blocks(lambda bounds: self._native(settings, bounds), self._open(settings).grid, x, y)
        if datum is None:
            return values
        require_datum(settings.vertical_datum, name)
        values += self.datum_shift(x, y, settings.vertical_datum, datum, settings.geoid, name)
        return values

    def cells(self, entry: PicksSettings, bounds: Bounds) -> pd.DataFrame:
        """List the valid cells of a gridded file as picks at their centres, in the datum of the file."""
        native = self._native(
            RasterSettings(
                path=entry.path, variable=entry.variable, mask=entry.mask, vertical_datum=entry.vertical_datum
            ),
            bounds,
        )
        values = native.to_numpy()
        row, column = np.nonzero(np.isfinite(values))
        x, y = native["x"].to_numpy()[column], native["y"].to_numpy()[row]
        frame = pd.DataFrame({"x": x, "y": y, "bed": values[row, column].astype(np.float64)})
        frame = frame.assign(
            surface=np.nan, thickness=np.nan, segment="", quality=np.nan, derived=False, pick_count=1.0
        )
        frame.attrs = {"source": Path(entry.path).name, "rows": values.size, "masked": values.size - len(frame)}
        return frame

    def datum_shift(
        self, x: np.ndarray, y: np.ndarray, source: str | None, target: str, geoid: LayerSettings | None, name: str
    ) -> np.ndarray:
        """What to add to heights above `source` at points to get heights above `target`, in metres."""
        require_datum(source, name)
        shift = np.zeros(x.shape)
        if source == target:
            return shift
        for datum, sign in ((source, 1.0), (target, -1.0)):
            if datum != ELLIPSOID:
                layer = self._geoid_layer(str(datum), geoid, name, str(source))
                raster = self._open_layer(layer)
                _require_geoid(raster, str(datum))
                heights = sample_blocks(raster.read, raster.grid, x, y)
                _require_geoid_heights(heights, raster)
                shift += sign * heights
        return shift

    def geoid_on_grid(self, datum: str, grid: Grid) -> xr.DataArray:
        """Height of a geoid of the region above the WGS84 ellipsoid, metres, on the cells of a grid."""
        return self._read_geoid(self._geoid_layer(datum, None, "geoid", datum), datum, grid).rename("geoid")

    def _read_geoid(self, layer: LayerSettings, datum: str, grid: Grid) -> xr.DataArray:
        raster = self._open_layer(layer)
        _require_geoid(raster, datum)
        heights = resample(raster.read(grid.bounds), grid, "bilinear").assign_attrs(geoid=datum)
        _require_geoid_heights(heights.to_numpy(), raster)
        return heights

    def _native(self, settings: RasterSettings, bounds: Bounds) -> xr.DataArray:
        total = self._open(settings).read(bounds)
        if settings.vertical_datum is not None:
            total.attrs["vertical_datum"] = settings.vertical_datum
        if settings.mask is not None:
            part = LayerSettings(path=settings.path, variable=settings.mask.variable, crs=settings.crs)
            kept = np.isin(self._open_layer(part, units=None).read(bounds).to_numpy(), settings.mask.keep)
            kept = kept if total.ndim == 2 else kept[..., np.newaxis]
            total = total.copy(data=np.where(kept, total, np.float32(np.nan)))
        for sign, layers in ((1, settings.add), (-1, settings.subtract)):
            for layer in layers:
                # A variable of the same file, or a raster of its own on the same or on other cells.
                part = LayerSettings(path=settings.path, variable=layer) if isinstance(layer, str) else layer
                further = _possible(self._open_layer(part).read(bounds), part)
                if not Grid.of(further).same_cells(Grid.of(total)):
                    further = resample(further, Grid.of(total), "bilinear")
                total = total.copy(data=total.to_numpy() + sign * further.to_numpy())
        if settings.subtract:
            less = (
                each if isinstance(each, str) else each.variable or Path(each.path).stem for each in settings.subtract
            )
            total.attrs["derived"] = " - ".join((str(total.name), *less))
        if settings.valid_range is not None:
            low, high = settings.valid_range
            total = total.where((total >= low) & (total <= high))
        if settings.scale != 1.0:
            total = total.copy(data=np.asarray(total * np.float32(settings.scale), np.float32))
        total.attrs["units"] = canonical_units(settings.units)
        return total

    def _open(self, settings: RasterSettings) -> Raster:
        return open_raster(
            self.resolve(settings.path),
            settings.names,
            units=settings.source_units or settings.units,
            # What a file says of its own variable no longer holds once a geoid is added.
            vertical_datum=settings.vertical_datum if _keep_datum(settings) else None,
            crs=settings.crs,
            nodata=settings.nodata,
            expected_crs=self.crs,
            mean_over=settings.mean_over,
        )

    def _open_layer(self, layer: LayerSettings, units: str | None = "m") -> Raster:
        names = (layer.variable,) if layer.variable else ()
        path = self.resolve(layer.path)
        return open_raster(path, names, units=units, crs=layer.crs, nodata=layer.nodata, expected_crs=self.crs)

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
            geoid = self._read_geoid(layer, str(datum), grid)
            # Between two geoids the way leads over the ellipsoid.
            step = ELLIPSOID if heights.attrs["vertical_datum"] == datum else target
            heights = to_datum(heights, geoid, step)
        return heights

    def _outline_on_grid(self, settings: RasterSettings, grid: Grid, name: str) -> xr.DataArray:
        path = self.resolve(settings.path)
        mask = polygon_mask(read_polygons(path, crs=settings.crs, expected_crs=grid.crs, bounds=grid.bounds), grid)
        return (
            mask.astype(np.float32).rename(name).assign_attrs(source=path.name, units=canonical_units(settings.units))
        )

    def _nodes_on_grid(self, settings: RasterSettings, grid: Grid, name: str) -> xr.DataArray:
        path = self.resolve(settings.path)
        cell_x, cell_y = np.meshgrid(grid.x, grid.y)
        result = interpolate_nodes(path, settings, self.crs, cell_x, cell_y) * settings.scale
        target = grid.with_datum(settings.vertical_datum)
        return target.dataarray(result.astype(np.float32), name, canonical_units(settings.units), source=path.name)


def sample_blocks(
    read: Callable[[Bounds], xr.DataArray], grid: Grid, x: np.ndarray, y: np.ndarray, cells: int = 2048
) -> np.ndarray:
    """Bilinear values at points of a raster that is read square by square around them; NaN outside it.

    Parameters
    ----------
    read
        Gives the part of the raster that covers bounds, with a few cells more.
    grid
        All cells of the raster.
    x, y
        The points.
    cells
        Side of a square in cells of the raster.

    Raises
    ------
    NoDataError
        When no point lies on the raster.
    """
    result = np.full(np.shape(x), np.nan)
    # A point on the edge is on the raster, rounding of coordinates included, as it is for `sample`.
    rounding = 1e-6 * grid.resolution
    xmin, ymin, xmax, ymax = (edge + sign * rounding for edge, sign in zip(grid.bounds, (-1, -1, 1, 1), strict=True))
    inside = np.flatnonzero((x >= xmin) & (x <= xmax) & (y >= ymin) & (y <= ymax))
    if not inside.size:
        # The reader says best what it has and what was asked for.
        read((float(x.min()), float(y.min()), float(x.max()), float(y.max())))
        return result
    side = cells * grid.resolution
    column, row = ((x[inside] - xmin) // side).astype(int), ((ymax - y[inside]) // side).astype(int)
    block = row * (int((xmax - xmin) // side) + 1) + column
    order = np.argsort(block, kind="stable")
    for part in np.split(inside[order], np.flatnonzero(np.diff(block[order])) + 1):
        bounds = (float(x[part].min()), float(y[part].min()), float(x[part].max()), float(y[part].max()))
        result[part] = sample(read(bounds), x[part], y[part])
    return result


def _keep_datum(settings: RasterSettings) -> bool:
    """Tell whether the layers added are firn or ice, which leave heights above what they were above."""
    layers = (*settings.add, *settings.subtract)
    names = (each if isinstance(each, str) else each.variable or Path(each.path).stem for each in layers)
    return all("firn" in name.lower() or "thickness" in name.lower() for name in names)


def _possible(layer: xr.DataArray, settings: LayerSettings) -> xr.DataArray:
    """Take negative values from a layer of ice thickness; they would put a bed above its surface."""
    if "thickness" not in (settings.variable or Path(settings.path).stem).lower():
        return layer
    negative = layer.to_numpy() < 0
    if not negative.any():
        return layer
    _say_negative(settings.path, settings.variable or "")
    return layer.where(~negative)


@lru_cache(maxsize=1024)
def _say_negative(path: str, variable: str) -> None:
    # Once a layer: a map of many windows would say it as often.
    _LOGGER.warning("%s: cells of %s hold negative thickness; taken as invalid", path, variable or "the raster")


def _require_geoid(raster: Raster, datum: str) -> None:
    stated = stated_datum(raster.layout.datum)
    # A geoid layer may name the geoid that it is, or the ellipsoid that its heights stand on.
    if stated not in (None, datum, "ellipsoid:WGS84"):
        raise DatumError(
            f"{raster.path.name} says its layer is {raster.layout.datum!r}, used as {datum}; name the right geoid layer"
        )


def _require_geoid_heights(heights: np.ndarray, raster: Raster) -> None:
    farthest = float(np.nanmax(np.abs(heights), initial=0.0))
    if farthest > _FARTHEST_GEOID:
        raise DatumError(
            f"{raster.path.name} holds {farthest:.0f} where a geoid's height above the ellipsoid belongs, which is "
            f"never beyond {_FARTHEST_GEOID:.0f} m; correct the path or variable of the geoid layer"
        )


def batch_of_one(fields: Mapping[str, xr.DataArray]) -> dict[str, np.ndarray]:
    """Turn fields of one window into what networks and baselines take: (1, rows, columns, bands) float32 by name."""
    arrays = {name: field.to_numpy().astype(np.float32) for name, field in fields.items()}
    return {
        name: (values[..., np.newaxis] if values.ndim == 2 else values)[np.newaxis] for name, values in arrays.items()
    }


def require_datum(datum: str | None, name: str) -> None:
    """Refuse heights with no stated vertical datum.

    Raises
    ------
    DatumError
        When `datum` is None.
    """
    if datum is None:
        raise DatumError(f"'{name}' holds heights with no vertical_datum; state it in the region file")
