"""Masks on a grid from polygons, such as the grounding line of MEaSUREs (NSIDC-0709)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from deepbedmap_tf.data.projections import require_crs
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Bounds, Grid

# Of the shapefile format (ESRI, 1998): number of the file, and types of shape with rings.
_FILE_CODE = 9994
_POLYGONS = (5, 15, 25)
_TYPES = {0: "nothing", 1: "points", 3: "lines", 8: "points", 11: "points", 13: "lines", 18: "points", 23: "lines"}

Polygon = list[np.ndarray]


def read_polygons(
    path: Path, *, crs: str | None = None, expected_crs: str = "EPSG:3031", bounds: Bounds | None = None
) -> list[Polygon]:
    """Read the polygons of a shapefile.

    Parameters
    ----------
    path
        The ``.shp``; its CRS is read from the ``.prj`` beside it.
    crs
        The CRS where there is no ``.prj``.
    expected_crs
        CRS that it must be in.
    bounds
        Leave out polygons that lie wholly outside.

    Returns
    -------
    list of list of numpy.ndarray
        Rings of each polygon, outer ones and holes alike, as arrays of (x, y).

    Raises
    ------
    DataError
        For a missing or truncated file, or one that holds no polygons.
    GridError
        For a missing or another CRS.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the path in the region file, or pass --data-dir")
    projection = path.with_suffix(".prj")
    found = projection.read_text(encoding="utf-8", errors="replace") if projection.is_file() else crs
    require_crs(path.name, found, expected_crs)
    try:
        return [rings for box, rings in _records(path) if bounds is None or _meet(box, bounds)]
    except (struct.error, ValueError, OSError) as error:
        raise DataError(f"cannot read {path}: {error}; the file is damaged or cut off, get it again") from error


def _records(path: Path) -> Iterator[tuple[Bounds, Polygon]]:
    content = path.read_bytes()
    (code,) = struct.unpack_from(">i", content, 0)
    (words,) = struct.unpack_from(">i", content, 24)
    (kind,) = struct.unpack_from("<i", content, 32)
    if code != _FILE_CODE or 2 * words != len(content):
        raise ValueError(f"it is no whole shapefile ({2 * words} bytes promised, {len(content)} there)")
    if kind not in _POLYGONS:
        raise DataError(f"{path.name} holds {_TYPES.get(kind, f'shapes of type {kind}')}, expected polygons")
    place = 100
    while place < len(content):
        _, length = struct.unpack_from(">2i", content, place)
        if length < 2:
            raise ValueError(f"a record at byte {place} says it has {length} words")
        place += 8
        (kind,) = struct.unpack_from("<i", content, place)
        if kind:
            box = struct.unpack_from("<4d", content, place + 4)
            parts, points = struct.unpack_from("<2i", content, place + 36)
            starts = np.frombuffer(content, "<i4", parts, place + 44)
            corners = np.frombuffer(content, "<f8", 2 * points, place + 44 + 4 * parts).reshape(points, 2)
            yield box, np.split(corners, starts[1:])
        place += 2 * length


def _meet(box: Bounds, bounds: Bounds) -> bool:
    return box[0] <= bounds[2] and box[2] >= bounds[0] and box[1] <= bounds[3] and box[3] >= bounds[1]


def polygon_mask(polygons: list[Polygon], grid: Grid, name: str = "mask") -> xr.DataArray:
    """Tell which cells have their centre inside a polygon; a hole, and an island in it, are what they look like.

    Parameters
    ----------
    polygons
        Rings, as from `read_polygons`.
    grid
        Cells of the result.

    Returns
    -------
    xarray.DataArray
        bool, dims (y, x).
    """
    from rasterio.features import rasterize

    inside = np.zeros(grid.shape, bool)
    # One at a time: where two polygons meet, a cell counts once.
    for rings in polygons:
        shape = {"type": "Polygon", "coordinates": [ring.tolist() for ring in rings]}
        inside |= rasterize([shape], grid.shape, transform=grid.transform, dtype="uint8").astype(bool)
    return grid.with_datum(None).dataarray(inside, name, "1")


def area_mask(grid: Grid, boxes: Iterable[Bounds], rings: Iterable[Sequence[tuple[float, float]]]) -> np.ndarray:
    """Tell which cells lie in boxes (xmin, ymin, xmax, ymax) or rings of (x, y), or are touched by one.

    Returns
    -------
    numpy.ndarray
        bool, shape of the grid.
    """
    inside = np.zeros(grid.shape, bool)
    left, top, cell = grid.bounds[0], grid.bounds[3], grid.resolution
    for xmin, ymin, xmax, ymax in boxes:
        rows = slice(max(int(np.floor((top - ymax) / cell)), 0), max(int(np.ceil((top - ymin) / cell)), 0))
        columns = slice(max(int(np.floor((xmin - left) / cell)), 0), max(int(np.ceil((xmax - left) / cell)), 0))
        inside[rows, columns] = True
    closed = [[*ring, ring[0]] for ring in rings]
    if closed:
        from rasterio.features import geometry_mask

        shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in closed]
        inside |= geometry_mask(shapes, grid.shape, grid.transform, all_touched=True, invert=True)
    return inside


def grounded_mask(path: Path, grid: Grid, *, crs: str | None = None, buffer: float = 0.0) -> xr.DataArray:
    """Tell which cells lie inside a grounding line.

    Parameters
    ----------
    path
        Shapefile of polygons in the CRS of the grid.
    grid
        Cells of the result.
    crs
        CRS of a file with no ``.prj``.
    buffer
        Metres by which the mask is widened, or narrowed if negative; Leong & Horgan (2020) widen it by 10 km.

    Returns
    -------
    xarray.DataArray
        bool, dims (y, x).
    """
    from scipy import ndimage

    cells = int(np.ceil(abs(buffer) / grid.resolution)) + 1 if buffer else 0
    wide = grid.pad(cells)
    mask = polygon_mask(read_polygons(path, crs=crs, expected_crs=grid.crs, bounds=wide.bounds), wide, "grounded")
    if not buffer:
        return mask
    inside = mask.to_numpy()
    away = ~inside if buffer > 0 else inside
    # With nothing to measure from there is no distance: the mask is the same everywhere.
    near = ndimage.distance_transform_edt(away) * grid.resolution <= abs(buffer) if not away.all() else ~away
    result = near if buffer > 0 else ~near
    return grid.with_datum(None).dataarray(result[cells:-cells, cells:-cells], "grounded", "1")
