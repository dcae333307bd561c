"""A small region with everything that a map can carry, and a finished map of it in a working store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from data_files import add_radar, ramp, region_content, write_netcdf, write_region

from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import Variable, block_layers, variables
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.pick_index import PickIndex

CELLS, CHUNK = 32, 48
ABOUT: dict[str, Any] = {
    "title": "Made for tests",
    "model": "tiny",
    "region": "planes",
    "synthetic": "no",
    "citations": ["Nobody (2020)", "Somebody (2021)"],
    "command": "deepbedmap predict --model tiny",
    "input_files": {"/somewhere/on/a/disk/bed.tif": "00", "byrd/surface.nc": "11"},
    "uncertainty": {"scale": 1.5, "coverage_50": 0.49},
    "comment": "",
}


def make_region(folder: Path, **changes: Any) -> Region:
    """Planes with a mask (half grounded, then floating, ocean, ice-free land), a geoid and radar picks."""
    folder.mkdir(parents=True, exist_ok=True)
    content = add_radar(folder, region_content(folder, cells=CELLS))
    grid = Grid.from_bounds(content["bounds"], 250).pad(8)
    mask = np.full(grid.shape, 2, np.int8)
    for flag, first in ((3, 80), (0, 100), (1, 120)):
        mask[:, first:] = flag
    write_netcdf(folder / "cover.nc", grid, mask=mask)
    write_netcdf(folder / "geoid.nc", grid, geoid=(ramp(grid) * 0 - 40, {"units": "m", "geoid": "eigen-6c4"}))
    content["mask"] = {"path": "cover.nc", "variable": "mask"}
    content["geoids"] = {"geoid:EIGEN-6C4": {"path": "geoid.nc", "variable": "geoid"}}
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    return load_region(write_region(folder, content), folder)


def predicted(region: Region) -> np.ndarray:
    """A bed with relief below the low-resolution cell and a hole; one place above the ice."""
    bed = ramp(region.grid, -500) + np.random.default_rng(1).normal(0, 20, region.grid.shape).astype(np.float32)
    bed[5:9, 9:13] = np.nan
    bed[40:44, 40:48] = 30000
    return bed


def blocks(grid: Grid, size: int = CHUNK) -> list[tuple[slice, slice, Grid]]:
    """Rows, columns and cells of each block."""
    made = []
    xmin, _, _, ymax = grid.bounds
    for top in range(0, grid.shape[0], size):
        for left in range(0, grid.shape[1], size):
            bottom, right = min(top + size, grid.shape[0]), min(left + size, grid.shape[1])
            edges = (xmin + left * 250, ymax - bottom * 250, xmin + right * 250, ymax - top * 250)
            made.append((slice(top, bottom), slice(left, right), grid.window(edges)))
    return made


def make_store(
    folder: Path, region: Region, options: MapOptions | None = None
) -> tuple[Path, tuple[Variable, ...], dict[str, np.ndarray]]:
    """Store a map block by block; returns the store, its variables, and the same map made in one go."""
    options = options or MapOptions()
    bed = predicted(region)
    realised = np.stack([bed + step for step in range(options.realisations)]) if options.realisations else None
    spread = np.full_like(bed, 12.5) if options.realisations else None
    picks = PickIndex.of_region(region)
    made = variables(region, options)
    group = zarr.open_group(str(folder / "map.zarr"), mode="w")
    for each in made:
        members, one = ((options.realisations,), (1,)) if each.per_realisation else ((), ())
        shape, chunks = (*region.grid.shape, *members), (CHUNK, CHUNK, *one)
        group.create_array(each.name, shape=shape, chunks=chunks, dtype=each.dtype, fill_value=each.fill)
    for rows, columns, grid in blocks(region.grid):
        part = block_layers(
            region,
            grid,
            bed[rows, columns],
            options,
            picks,
            realisations=None if realised is None else realised[:, rows, columns],
            uncertainty=None if spread is None else spread[rows, columns],
        )
        for each in made:
            values = part[each.name]
            group[each.name][rows, columns] = np.moveaxis(values, 0, -1) if each.per_realisation else values
    whole = block_layers(region, region.grid, bed, options, picks, realisations=realised, uncertainty=spread)
    return folder / "map.zarr", made, whole
