"""A STAC item that describes the files of a map, for catalogues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.stored_map import StoredMap

MEDIA_TYPES = {
    ".nc": "application/netcdf",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd.zarr; version=2",
}
_TITLES = {
    ".nc": "All variables, CF-1.10 NetCDF",
    ".tif": "Bed, Cloud-Optimised GeoTIFF",
    ".zarr": "All variables, Zarr",
}
_KEYS = {".nc": "netcdf", ".tif": "cog", ".zarr": "zarr"}
# SHA-256 and its length, as multihashes begin.
_MULTIHASH = "1220"
_POINTS_A_SIDE = 32


def write_item(stored: StoredMap, products: Sequence[Path], path: Path, name: str) -> None:
    """Describe the files of a map as a STAC item with the projection and the file extension.

    Parameters
    ----------
    stored
        The map.
    products
        Its files, all in one folder; the item refers to them by their bare names.
    path
        File to make.
    name
        Identifier of the item.
    """
    from pystac import Asset, Item
    from pystac.extensions.file import FileExtension
    from pystac.extensions.projection import ProjectionExtension

    grid = stored.grid
    geometry, box = footprint(grid)
    item = Item(name, geometry, box, stored.created, _properties(stored))
    for product in products:
        suffix = product.suffix.lower()
        roles = ["data", *(["overview"] if suffix == ".tif" else [])]
        asset = Asset(f"./{product.name}", _TITLES[suffix], None, MEDIA_TYPES[suffix], roles)
        item.add_asset(_KEYS[suffix], asset)
        about = FileExtension.ext(asset, add_if_missing=True)
        if product.is_dir():
            # A folder has no checksum of its own.
            about.size = sum(each.stat().st_size for each in product.rglob("*") if each.is_file())
        else:
            about.size = product.stat().st_size
            with product.open("rb") as stream:
                about.checksum = _MULTIHASH + hashlib.file_digest(stream, "sha256").hexdigest()
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    projection.apply(
        code=grid.crs if grid.crs.startswith("EPSG:") else None,
        bbox=[float(edge) for edge in grid.bounds],
        shape=list(grid.shape),
        transform=[float(value) for value in tuple(grid.transform)[:6]],
    )
    text = json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """Outline of a grid in longitude and latitude as GeoJSON wants it, and its box (west, south, east, north).

    An outline around a pole runs along that pole from -180 to 180 degrees; one across the antimeridian is two, and
    its box has its west east of its east (RFC 7946).
    """
    from pyproj import Transformer

    xmin, ymin, xmax, ymax = grid.bounds
    share = np.linspace(0, 1, _POINTS_A_SIDE, endpoint=False)
    # Counter-clockwise in the projection; of the south, clockwise seen from above the equator.
    x = np.concatenate([xmin + share * (xmax - xmin), np.full(share.size, xmax), xmax - share * (xmax - xmin)])
    x = np.concatenate([x, np.full(share.size, xmin)])
    y = np.concatenate([np.full(share.size, ymin), ymin + share * (ymax - ymin), np.full(share.size, ymax)])
    y = np.concatenate([y, ymax - share * (ymax - ymin)])
    transformer = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = (np.asarray(each, np.float64) for each in transformer.transform(x, y))
    turns = np.diff(longitude, append=longitude[0])
    winding = np.rint(((turns + 180) % 360 - 180).sum() / 360)
    if winding:
        pole = -90.0 if latitude.mean() < 0 else 90.0
        order = np.argsort(longitude)
        longitude, latitude = longitude[order], latitude[order]
        # Where the outline meets the antimeridian, between its last and its first point.
        gap = longitude[0] + 360 - longitude[-1]
        edge = latitude[-1] + (latitude[0] - latitude[-1]) * (180 - longitude[-1]) / gap
        ring = [(-180.0, pole), (180.0, pole), (180.0, edge)]
        ring += zip(longitude[::-1], latitude[::-1], strict=True)
        ring += [(-180.0, edge), (-180.0, pole)]
        ring = ring if pole < 0 else ring[::-1]
        south, north = sorted((pole, float(latitude.min() if pole > 0 else latitude.max())))
        return _polygon(ring), [-180.0, south, 180.0, north]
    unrolled = np.degrees(np.unwrap(np.radians(longitude)))
    unrolled -= 360 * np.floor((unrolled.min() + 180) / 360)
    ring = list(zip(unrolled, latitude, strict=True))
    south, north = float(latitude.min()), float(latitude.max())
    if unrolled.max() <= 180:
        return _polygon(ring), [float(unrolled.min()), south, float(unrolled.max()), north]
    west = _polygon(_clipped(ring, 180.0, 1))
    east = _polygon([(each - 360, lat) for each, lat in _clipped(ring, 180.0, -1)])
    coordinates = [west["coordinates"], east["coordinates"]]
    box = [float(unrolled.min()), south, float(unrolled.max() - 360), north]
    return {"type": "MultiPolygon", "coordinates": coordinates}, box


def _clipped(ring: list[tuple[float, float]], limit: float, sign: int) -> list[tuple[float, float]]:
    """The part of a ring on one side of a meridian (Sutherland & Hodgman 1974)."""
    result = []
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        inside, next_inside = sign * (limit - x0) >= 0, sign * (limit - x1) >= 0
        if inside:
            result.append((x0, y0))
        if inside != next_inside:
            result.append((limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)))
    return result


def _polygon(ring: list[tuple[float, float]]) -> dict[str, Any]:
    points = [[round(float(x), 7), round(float(y), 7)] for x, y in ring]
    points = points if points[0] == points[-1] else [*points, points[0]]
    x, y = np.array(points).T
    # RFC 7946: outer rings run counter-clockwise.
    area = float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())
    return {"type": "Polygon", "coordinates": [points if area > 0 else points[::-1]]}


def _properties(stored: StoredMap) -> dict[str, Any]:
    attributes = stored.global_attributes()
    chosen = ("model", "model_sha256", "region", "synthetic", "vertical_datum", "references", "comment")
    return {
        "title": stored.title,
        "description": f"Bed elevation with {', '.join(each.name for each in stored.variables[1:]) or 'nothing else'}.",
        "created": stored.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gsd": stored.grid.resolution,
        **{f"deepbedmap:{key}": attributes[key] for key in chosen if key in attributes},
    }
