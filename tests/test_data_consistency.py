"""A surface below its bed, where both are inputs from two products."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import ramp, region_content, write_geotiff, write_netcdf, write_region

from deepbedmap_tf.config import DataConfig
from deepbedmap_tf.data.consistency import require_surface_above_bed
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.data.tiles import prepare_tiles
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    return region_content(tmp_path, cells=14)


def load(folder: Path, content: dict[str, Any], name: str) -> Region:
    return load_region(write_region(folder, {**content, "name": name}), folder)


def test_few_cells_are_counted_and_said_once(tmp_path: Path, content: dict[str, Any], caplog: Any) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    bed = ramp(grid, -500)
    bed[5, 6:9] += [1400.5, 1500, 1430]
    bed[9, 9] = np.nan
    write_geotiff(tmp_path / "bed_1km.tif", grid, bed)
    region = load(tmp_path, content, "few")
    for _ in range(2):
        fields = region.inputs()
        with caplog.at_level(logging.WARNING):
            require_surface_above_bed(fields, region.name)
        # The first of the three is within the metre that rounding may take; the ice is 1400 m thick elsewhere.
        assert fields["surface"].attrs["cells_below_bed"] == 2
    (said,) = (record.getMessage() for record in caplog.records)
    place = f"by 100 m at x {grid.x[7]:.0f}, y {grid.y[5]:.0f}"
    assert said.startswith(f"few: the surface lies below the bed in 2 of 255 low-resolution cells, {place}")


def test_exchanged_fields_are_refused_by_name(tmp_path: Path) -> None:
    content = region_content(tmp_path, cells=26)
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    write_geotiff(tmp_path / "bed_1km.tif", grid, ramp(grid, 3000))
    region = load(tmp_path, content, "exchanged")
    config = DataConfig(tile_size=9, stride=4, block_size=52, buffer=0)
    with pytest.raises(DataError, match=r"region exchanged: the surface lies below the bed in 784 of 784 .*exchanged"):
        prepare_tiles(region, config, tmp_path / "tiles.zarr", 0, progress=False)
    assert not (tmp_path / "tiles.zarr").exists()


def test_filled_cells_are_not_compared(tmp_path: Path, content: dict[str, Any]) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    surface = ramp(grid.refine(10), 900)
    surface[:, 50:] = np.nan
    write_geotiff(tmp_path / "surface.tif", grid.refine(10), surface)
    bed = ramp(grid, -500)
    bed[:, 6:] += 5000
    write_geotiff(tmp_path / "bed_1km.tif", grid, bed)
    content["inputs"]["surface"]["fill"] = "nearest"
    fields = load(tmp_path, content, "filled").inputs()
    require_surface_above_bed(fields, "filled")
    assert fields["surface"].attrs["cells_below_bed"] == 0


def test_negative_thickness_makes_no_bed(tmp_path: Path, content: dict[str, Any], caplog: Any) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    thickness = np.full(grid.shape, 1400, np.float32)
    thickness[5, 6] = -30
    write_netcdf(tmp_path / "ice.nc", grid, surface=ramp(grid, 900), thickness=thickness)
    content["inputs"]["bed_lowres"] = {
        "path": "ice.nc", "variable": "surface", "subtract": ["thickness"], "vertical_datum": "ellipsoid:WGS84",
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        bed = load(tmp_path, content, "thickness").inputs()["bed_lowres"]
    # A margin of one cell is read of the two that the file goes beyond the region.
    expected = np.where(thickness < 0, np.nan, ramp(grid, -500))[1:-1, 1:-1]
    np.testing.assert_allclose(bed, expected, atol=1e-3)
    assert "ice.nc: cells of thickness hold negative thickness; taken as invalid" in caplog.text
    assert bed.attrs["derived"] == "surface - thickness"
