"""The Cloud-Optimised GeoTIFF of a map: valid by a validator, the same bed, overviews that leave NaN out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from map_files import ABOUT
from rio_cogeo.cogeo import cog_info, cog_validate

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference import geotiff
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.products import write_map

BED = Variable("bed", "float32", float("nan"), {"long_name": "bed elevation", "units": "m"})


def make(folder: Path, shape: tuple[int, int] = (1100, 1500)) -> tuple[Path, Grid, np.ndarray]:
    grid = Grid.from_bounds(
        (-1_600_000, -600_000, -1_600_000 + shape[1] * 250, -600_000 + shape[0] * 250), 250, vertical_datum="msl"
    )
    values = np.random.default_rng(0).normal(-1000, 300, shape).astype(np.float32)
    values[: shape[0] // 2, : shape[1] // 2] = np.nan
    # A real height, and what others took for "no data".
    values[-1, -1] = -2000
    array = zarr.open_group(str(folder / "map.zarr"), mode="w").create_array(
        "bed", shape=shape, chunks=(320, 320), dtype="float32", fill_value=float("nan")
    )
    array[:] = values
    path, _ = write_map(folder / "map.zarr", grid, [BED], [folder / "map.tif"], ABOUT)
    return path, grid, values


@pytest.mark.parametrize("shape", [(1100, 1500), (64, 96)])
def test_is_cloud_optimised(tmp_path: Path, shape: tuple[int, int]) -> None:
    path, grid, values = make(tmp_path, shape)
    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid and not errors and not warnings
    with rasterio.open(path) as file:
        assert file.count == 1 and file.dtypes == ("float32",) and math.isnan(file.nodata)
        assert file.transform.almost_equals(grid.transform) and file.crs.to_epsg() == 3031
        np.testing.assert_array_equal(file.read(1), values)
        assert file.descriptions == ("bed elevation (m above msl)",) and file.units == ("m",)
        tags = file.tags()
        assert tags["AREA_OR_POINT"] == "Area" and tags["vertical_datum"] == "msl" and tags["model"] == "tiny"
        structure = file.tags(ns="IMAGE_STRUCTURE")
        assert structure["LAYOUT"] == "COG" and structure["COMPRESSION"] == "DEFLATE" and structure["PREDICTOR"] == "3"


def test_overviews_are_means_of_what_is_known(tmp_path: Path) -> None:
    path, _, values = make(tmp_path)
    with rasterio.open(path) as file:
        assert file.overviews(1) == [2, 4]
    with rasterio.open(path, overview_level=0) as file:
        smaller = file.read(1)
    means = values.reshape(550, 2, 750, 2).mean(axis=(1, 3))
    whole = np.isfinite(means)
    np.testing.assert_allclose(smaller[whole], means[whole], rtol=1e-5)
    assert np.isnan(smaller[:274, :374]).all()
    assert cog_info(path).IFD[0].Blocksize == (512, 512)


def test_a_file_that_does_not_read_back_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, _ = make(tmp_path)
    before = path.read_bytes()
    # GDAL takes a tile that was never written for one with no data; damage is told by the cells that are missing.
    complete = geotiff._Total

    class Forgetful(complete):  # type: ignore[misc, valid-type]
        def see(self, values: np.ndarray) -> None:
            super().see(values if self.count < 300_000 else values * np.nan)

    monkeypatch.setattr(geotiff, "_read_back", lambda path: Forgetful())
    with pytest.raises(DataError, match="does not read back as it was written"):
        write_map(tmp_path / "map.zarr", Grid.from_bounds((0, 0, 375_000, 275_000), 250), [BED], [path], ABOUT)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.json", "map.tif", "map.zarr"]
