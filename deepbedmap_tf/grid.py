"""Where the cells of a raster lie, and above what its heights are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine

from deepbedmap_tf.errors import DatumError, GridError

Bounds = tuple[float, float, float, float]

ELLIPSOID = "ellipsoid:WGS84"
VERTICAL_DATUMS = (ELLIPSOID, "geoid:EIGEN-6C4", "geoid:EIGEN-GL04C", "msl")

# Coordinates are metres written as float32 or text by some products: 1 % of a cell is far above their rounding.
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Grid:
    """An immutable north-up raster geometry in pixel registration.

    Attributes
    ----------
    shape
        Rows and columns.
    transform
        Maps (column, row) of a cell's upper-left corner to (x, y); row 0 is the northernmost.
    crs
        Coordinate reference system, an EPSG code or any text that PROJ understands.
    vertical_datum
        One of `VERTICAL_DATUMS`, or None for a field that holds no heights.

    Examples
    --------
    >>> grid = Grid.from_bounds((0, 0, 3000, 2000), 1000)
    >>> grid.shape, grid.x.tolist(), grid.y.tolist()
    ((2, 3), [500.0, 1500.0, 2500.0], [1500.0, 500.0])
    >>> grid.refine(4).resolution
    250.0
    """

    shape: tuple[int, int]
    transform: Affine
    crs: str = "EPSG:3031"
    vertical_datum: str | None = None

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise GridError(f"a grid of {self.shape[0]} x {self.shape[1]} cells is empty; widen the bounds")
        t = self.transform
        if t.b or t.d or t.a <= 0 or t.e >= 0 or not np.isclose(t.a, -t.e, rtol=1e-6):
            raise GridError(
                f"transform {tuple(t)[:6]} is not north-up with square cells; reproject or flip the raster first"
            )
        _check_datum(self.vertical_datum)

    @classmethod
    def from_bounds(
        cls, bounds: Bounds, resolution: float, crs: str = "EPSG:3031", vertical_datum: str | None = None
    ) -> Grid:
        """Make a grid from the edges (xmin, ymin, xmax, ymax) of its outermost cells.

        Raises
        ------
        GridError
            When the extent is not a whole number of cells; the message names the nearest bounds that fit.
        """
        xmin, ymin, xmax, ymax = (float(edge) for edge in bounds)
        if not (xmin < xmax and ymin < ymax) or resolution <= 0:
            raise GridError(f"bounds {list(bounds)} at {resolution:g} m: expected xmin < xmax, ymin < ymax, cell > 0")
        columns, rows = (xmax - xmin) / resolution, (ymax - ymin) / resolution
        if abs(columns - round(columns)) > _TOLERANCE or abs(rows - round(rows)) > _TOLERANCE:
            fitting = [
                xmin,
                ymin,
                xmin + max(1, round(columns)) * resolution,
                ymin + max(1, round(rows)) * resolution,
            ]
            raise GridError(
                f"bounds {list(bounds)} span {columns:g} x {rows:g} cells of {resolution:g} m, expected whole "
                f"numbers; the nearest that fit are {fitting}"
            )
        transform = Affine(resolution, 0.0, xmin, 0.0, -resolution, ymax)
        return cls((round(rows), round(columns)), transform, crs, vertical_datum)

    @classmethod
    def of(cls, array: xr.DataArray) -> Grid:
        """Read the grid of a DataArray from its cell centres and its attributes ``crs`` and ``vertical_datum``.

        Raises
        ------
        GridError
            When x or y is missing, not evenly spaced, or does not run eastwards and southwards.
        """
        name = array.name or "array"
        missing = [axis for axis in ("x", "y") if axis not in array.coords]
        if missing:
            raise GridError(f"'{name}' has no coordinate {missing[0]}; expected cell centres x and y")
        x, y = np.asarray(array["x"], np.float64), np.asarray(array["y"], np.float64)
        steps = np.concatenate([np.diff(x), -np.diff(y)])
        if steps.size:
            resolution = float(np.median(steps))
            if resolution <= 0 or np.abs(steps - resolution).max() > _TOLERANCE * abs(resolution):
                raise GridError(
                    f"'{name}': x must run eastwards and y southwards in even square steps, "
                    f"got steps from {steps.min():g} to {steps.max():g}"
                )
            # The mean step of the whole axis, for the single ones are rounded.
            resolution = float((x[-1] - x[0]) / (x.size - 1) if x.size > 1 else (y[0] - y[-1]) / (y.size - 1))
        elif "resolution" in array.attrs:
            resolution = float(array.attrs["resolution"])
        else:
            raise GridError(f"'{name}' is a single cell with no attribute 'resolution'; its size can't be known")
        transform = Affine(resolution, 0.0, x[0] - resolution / 2, 0.0, -resolution, y[0] + resolution / 2)
        attributes = array.attrs
        return cls((y.size, x.size), transform, attributes.get("crs", "EPSG:3031"), attributes.get("vertical_datum"))

    @property
    def resolution(self) -> float:
        """Side of a cell in metres."""
        return float(self.transform.a)

    @property
    def bounds(self) -> Bounds:
        """Edges (xmin, ymin, xmax, ymax) of the outermost cells."""
        xmin, ymax = self.transform.c, self.transform.f
        return (
            float(xmin),
            float(ymax - self.shape[0] * self.resolution),
            float(xmin + self.shape[1] * self.resolution),
            float(ymax),
        )

    @property
    def x(self) -> np.ndarray:
        """Cell centres from west to east, float64."""
        return self.transform.c + (np.arange(self.shape[1]) + 0.5) * self.resolution

    @property
    def y(self) -> np.ndarray:
        """Cell centres from north to south, float64."""
        return self.transform.f - (np.arange(self.shape[0]) + 0.5) * self.resolution

    def window(self, bounds: Bounds) -> Grid:
        """Return the part of this grid between edges that lie on its cell edges; it may reach outside.

        Raises
        ------
        GridError
            When an edge cuts through cells; the message names the nearest bounds that fit.
        """
        xmin, ymin, xmax, ymax = bounds
        left, top = self.transform.c, self.transform.f
        edges = np.array([xmin - left, top - ymax, xmax - left, top - ymin]) / self.resolution
        whole = np.rint(edges)
        if np.abs(edges - whole).max() > _TOLERANCE:
            last = np.maximum(whole[2:], whole[:2] + 1)
            nearest = [left + whole[0] * self.resolution, top - last[1] * self.resolution]
            nearest += [left + last[0] * self.resolution, top - whole[1] * self.resolution]
            raise GridError(
                f"bounds {list(bounds)} cut through cells of {self.resolution:g} m; "
                f"the nearest that fit are {[float(edge) for edge in nearest]}"
            )
        shape = (int(whole[3] - whole[1]), int(whole[2] - whole[0]))
        return replace(self, shape=shape, transform=self.transform @ Affine.translation(whole[0], whole[1]))

    def refine(self, factor: int) -> Grid:
        """Cut every cell into ``factor`` x ``factor``."""
        shape = (self.shape[0] * factor, self.shape[1] * factor)
        return replace(self, shape=shape, transform=self.transform @ Affine.scale(1 / factor))

    def coarsen(self, factor: int) -> Grid:
        """Join ``factor`` x ``factor`` cells into one.

        Raises
        ------
        GridError
            When the number of rows or columns is not a multiple of ``factor``.
        """
        if self.shape[0] % factor or self.shape[1] % factor:
            raise GridError(
                f"a grid of {self.shape[0]} x {self.shape[1]} cells can't be coarsened by {factor}; "
                f"crop it to multiples of {factor}"
            )
        shape = (self.shape[0] // factor, self.shape[1] // factor)
        return replace(self, shape=shape, transform=self.transform @ Affine.scale(factor))

    def pad(self, cells: int) -> Grid:
        """Add ``cells`` on every side."""
        shape = (self.shape[0] + 2 * cells, self.shape[1] + 2 * cells)
        return replace(self, shape=shape, transform=self.transform @ Affine.translation(-cells, -cells))

    def with_datum(self, vertical_datum: str | None) -> Grid:
        """Return the same cells for heights above another datum; no height is converted, see `to_datum`."""
        return replace(self, vertical_datum=vertical_datum)

    def same_cells(self, other: Grid) -> bool:
        """Tell whether two grids have the same cells, to within 1 % of one, whatever their datum."""
        return (
            self.shape == other.shape
            and self.crs == other.crs
            and bool(np.allclose(self.bounds, other.bounds, rtol=0, atol=_TOLERANCE * self.resolution))
        )

    def dataarray(self, values: np.ndarray, name: str, units: str, **attributes: Any) -> xr.DataArray:
        """Wrap values of shape (rows, columns) or (rows, columns, bands) with this grid.

        Raises
        ------
        GridError
            When the values have another shape than the grid.
        """
        values = np.asarray(values)
        if values.shape[:2] != self.shape or values.ndim not in (2, 3):
            raise GridError(f"'{name}' has shape {values.shape}, its grid has {self.shape}")
        attrs: dict[str, Any] = {"units": units, "crs": self.crs, "resolution": self.resolution, **attributes}
        if self.vertical_datum is not None:
            attrs["vertical_datum"] = self.vertical_datum
        dims = ("y", "x", "band")[: values.ndim]
        return xr.DataArray(values, dims=dims, coords={"y": self.y, "x": self.x}, name=name, attrs=attrs)


def require_same_datum(first: str | None, second: str | None, names: tuple[str, str]) -> None:
    """Refuse to let heights above different datums meet.

    Parameters
    ----------
    first, second
        Vertical datums, as in ``attrs["vertical_datum"]``.
    names
        What they belong to, for the message.

    Raises
    ------
    DatumError
        When the two differ, or one is not known.
    """
    if first is None or first != second:
        raise DatumError(
            f"'{names[0]}' is on {first or 'no stated datum'}, '{names[1]}' on {second or 'no stated datum'}; "
            "convert one with deepbedmap_tf.grid.to_datum(heights, geoid, target)"
        )


def to_datum(heights: xr.DataArray, geoid: xr.DataArray | None, target: str) -> xr.DataArray:
    """Convert heights between the WGS84 ellipsoid and one geoid.

    Parameters
    ----------
    heights
        Metres above ``heights.attrs["vertical_datum"]``.
    geoid
        Height of the geoid above the WGS84 ellipsoid in metres, on the cells of `heights`;
        ``geoid.attrs["geoid"]`` names it (for example ``geoid:EIGEN-6C4``). None if nothing needs converting.
    target
        Datum of the result. Between two geoids convert to the ellipsoid first, then with the other's layer.

    Raises
    ------
    DatumError
        When the layer does not connect the two datums. Mean sea level (``msl``) is a datum of its own: which
        geoid stands for it must be declared where the data come in.
    GridError
        When the two grids differ.
    """
    source = heights.attrs.get("vertical_datum")
    _check_datum(target)
    if source == target:
        return heights
    name = heights.name or "heights"
    model = None if geoid is None else geoid.attrs.get("geoid")
    if source is None or geoid is None or {source, target} != {ELLIPSOID, model}:
        have = f"the layer of {model}" if model else "no geoid layer"
        raise DatumError(
            f"'{name}' is on {source or 'no stated datum'} and is wanted on {target}, but there is {have}; "
            f"{_way(source, target)}, named in the region file"
        )
    if not Grid.of(geoid).same_cells(Grid.of(heights)):
        raise GridError(f"'{name}' and its geoid layer lie on different cells; resample the geoid first")
    sign = 1.0 if target == ELLIPSOID else -1.0
    undulation = np.asarray(geoid, np.float32)
    if heights.ndim == 3:
        undulation = undulation[..., np.newaxis]
    converted = heights.copy(data=np.asarray(heights + sign * undulation, dtype=heights.dtype))
    converted.attrs["vertical_datum"] = target
    return converted


def _way(source: str | None, target: str) -> str:
    """Say how heights get from one datum to another."""
    if source is None:
        return "state the vertical_datum of the heights and give the geoid layer"
    geoids = [datum for datum in (source, target) if datum != ELLIPSOID]
    if len(geoids) == 1:
        return f"convert with the geoid layer of {geoids[0]}"
    return f"convert to {ELLIPSOID} with the geoid layer of {source}, then on with that of {target}"


def _check_datum(vertical_datum: str | None) -> None:
    if vertical_datum is not None and vertical_datum not in VERTICAL_DATUMS:
        raise DatumError(f"vertical datum {vertical_datum!r} is not known; known are {', '.join(VERTICAL_DATUMS)}")
