"""Small files in the layouts of the products, made for the tests of the data package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
import yaml

from deepbedmap_tf.data.rasters import open_raster
from deepbedmap_tf.grid import Bounds, Grid

EAST, NORTH = 0.011, -0.007


def ramp(grid: Grid, offset: float = 0.0) -> np.ndarray:
    """A plane in map coordinates: whatever moves a cell changes it."""
    return (EAST * grid.x[np.newaxis, :] + NORTH * grid.y[:, np.newaxis] + offset).astype(np.float32)


def read_raster(path: Path, variables: Sequence[str] = (), bounds: Bounds | None = None, **said: Any) -> xr.DataArray:
    """What `open_raster` opens, read whole or in a window."""
    return open_raster(path, variables, **said).read(bounds)


def write_geotiff(
    path: Path, grid: Grid, values: np.ndarray, nodata: float | None = None, crs: str | None = "EPSG:3031"
) -> Path:
    bands = values[np.newaxis] if values.ndim == 2 else values
    profile = {"driver": "GTiff", "height": grid.shape[0], "width": grid.shape[1], "count": len(bands)}
    with rasterio.open(
        path, "w", **profile, dtype=values.dtype, crs=crs, transform=grid.transform, nodata=nodata
    ) as out:
        out.write(bands)
    return path


def write_netcdf(path: Path, grid: Grid, upward: bool = False, crs: str | None = "EPSG:3031", **variables: Any) -> Path:
    """Each variable is values, or (values, attributes)."""
    step = -1 if upward else 1
    arrays = {}
    for name, content in variables.items():
        values, attributes = content if isinstance(content, tuple) else (content, {})
        arrays[name] = (("y", "x"), values[::step], attributes)
    dataset = xr.Dataset(arrays, coords={"y": grid.y[::step], "x": grid.x}, attrs={"crs": crs} if crs else {})
    dataset.to_netcdf(path)
    return path


def region_content(folder: Path, *, seed: int = 0, cells: int = 48, resolution: float = 250.0) -> dict[str, Any]:
    """Write the files of a region whose fields are planes, and return the content of its region file.

    The bed is known everywhere; the region is `cells` low-resolution cells square, with data two cells beyond.
    """
    coarse = Grid.from_bounds(
        (-1600000, -600000, -1600000 + cells * 4 * resolution, -600000 + cells * 4 * resolution), 4 * resolution
    )
    wide = coarse.pad(2)
    rng = np.random.default_rng(seed)
    fine = wide.refine(4)
    relief = rng.normal(0, 20, fine.shape).astype(np.float32)
    write_geotiff(folder / "bed_1km.tif", wide, ramp(wide, -500))
    write_geotiff(folder / "surface.tif", wide.refine(10), ramp(wide.refine(10), 900))
    write_netcdf(folder / "velocity.nc", wide.refine(2), VX=ramp(wide.refine(2), 10), VY=ramp(wide.refine(2), -10))
    write_geotiff(folder / "accumulation.tif", wide, ramp(wide, 20000))
    write_netcdf(folder / "bed.nc", fine, bed=ramp(fine, -500) + relief, plane=ramp(fine, -500))
    ellipsoid = "ellipsoid:WGS84"
    return {
        "name": "planes",
        "title": "Planes",
        "resolution": resolution,
        "bounds": list(coarse.bounds),
        "inputs": {
            "bed_lowres": {"path": "bed_1km.tif", "vertical_datum": ellipsoid},
            "surface": {"path": "surface.tif", "vertical_datum": ellipsoid},
            "velocity": {"path": "velocity.nc", "variables": ["VX", "VY"], "units": "m yr-1"},
            "accumulation": {"path": "accumulation.tif", "units": "kg m-2 yr-1"},
        },
        "target": {"kind": "raster", "path": "bed.nc", "variable": "plane", "vertical_datum": ellipsoid},
    }


def write_region(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "region.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def add_radar(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Two flight lines over the planes of `region_content`, 7 m above the product; two picks in some cells."""
    xmin, ymin, xmax, ymax = content["bounds"]
    along = np.arange(xmin + 125, xmax, 250.0)
    x = np.concatenate([along, along, along[:40] + 30])
    y = np.concatenate([np.full(size, ymax - north) for size, north in ((along.size, 8125.0), (along.size, 30125.0))])
    y = np.concatenate([y, np.full(40, ymax - 8125.0)])
    plane = ramp(Grid.from_bounds((xmin, ymin, xmax, ymax), 250), -500)
    row, column = ((ymax - y) // 250).astype(int), ((x - xmin) // 250).astype(int)
    table = "\n".join(f"{a},{b},{c}" for a, b, c in zip(x, y, plane[row, column] + 7.0, strict=True))
    (folder / "radar.csv").write_text(f"x,y,z\n{table}\n", encoding="utf-8")
    content["picks"] = [{"path": "radar.csv", "format": "xyz", "role": "score", "vertical_datum": "ellipsoid:WGS84"}]
    content["target"] |= {"radar": "radar", "count_scale": 2.0, "unmeasured_weight": 0.1}
    return content
