"""Written maps: values, grid and metadata come back, other programs read them right, and nothing half-written stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from data_files import ramp

from deepbedmap_tf.data.rasters import read_raster
from deepbedmap_tf.errors import ConfigError, DataError, DatumError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference import products
from deepbedmap_tf.inference.products import require_writable, write_netcdf

GRID = Grid.from_bounds((-1_600_000, -600_000, -1_585_000, -588_000), 500, vertical_datum="geoid:EIGEN-6C4")
ABOUT = {
    "title": "Made for tests",
    "model": "tiny",
    "synthetic": "no",
    "citations": ["Nobody (2020)", "Somebody (2021)"],
    "command": "deepbedmap predict --model tiny",
    "input_files": {"/somewhere/on/a/disk/bed.tif": "00", "byrd/surface.nc": "11"},
    "comment": "",
}


@pytest.fixture
def bed() -> xr.DataArray:
    values = ramp(GRID)
    values[3, 4] = np.nan
    # A real height, and what others took for "no data".
    values[0, 0] = -2000
    return GRID.dataarray(values, "bed", "m")


def test_what_is_written_is_read_again(bed: xr.DataArray, tmp_path: Path) -> None:
    path = write_netcdf(bed, tmp_path / "map.nc", ABOUT)
    again = read_raster(path, ("bed",), vertical_datum="geoid:EIGEN-6C4")
    assert Grid.of(again).same_cells(GRID)
    np.testing.assert_array_equal(again, bed)


def test_conventions(bed: xr.DataArray, tmp_path: Path) -> None:
    with xr.open_dataset(write_netcdf(bed, tmp_path / "map.nc", ABOUT), mask_and_scale=False) as file:
        assert file.attrs["Conventions"] == "CF-1.10"
        assert file.attrs["vertical_datum"] == file["bed"].attrs["vertical_datum"] == "geoid:EIGEN-6C4"
        assert file.attrs["references"] == "Nobody (2020); Somebody (2021)"
        assert file.attrs["history"].endswith(": deepbedmap predict --model tiny")
        assert "tensorflow 2.15.1" in file.attrs["software"] and "comment" not in file.attrs
        assert file.attrs["input_files_sha256"] == '{"bed.tif": "00", "byrd/surface.nc": "11"}'
        variable, mapping = file["bed"], file[file["bed"].attrs["grid_mapping"]]
        assert variable.attrs["units"] == "m" and variable.attrs["standard_name"] == "bedrock_altitude"
        assert np.isnan(variable.attrs["_FillValue"]) and variable.dtype == np.float32
        assert variable.attrs["actual_range"].tolist() == [float(np.nanmin(bed)), float(np.nanmax(bed))]
        assert mapping.attrs["grid_mapping_name"] == "polar_stereographic"
        assert mapping.attrs["latitude_of_projection_origin"] == -90.0
        assert mapping.attrs["standard_parallel"] == -71.0 and mapping.attrs["long_name"]
        assert mapping.attrs["geoid_name"] == "EIGEN-6C4"
        for axis in "xy":
            attributes = file[axis].attrs
            assert attributes["standard_name"] == f"projection_{axis}_coordinate" and attributes["units"] == "m"
            assert "_FillValue" not in attributes


def test_heights_above_the_ellipsoid_are_no_altitudes(bed: xr.DataArray, tmp_path: Path) -> None:
    above = bed.assign_attrs(vertical_datum="ellipsoid:WGS84")
    with xr.open_dataset(write_netcdf(above, tmp_path / "map.nc", ABOUT)) as file:
        assert file["bed"].attrs["standard_name"] == "height_above_reference_ellipsoid"
        assert "geoid_name" not in file["crs"].attrs


def test_other_programs_see_the_same_cells(bed: xr.DataArray, tmp_path: Path) -> None:
    path = write_netcdf(bed, tmp_path / "map.nc", ABOUT)
    with rasterio.open(f"netcdf:{path}:bed") as file:
        assert file.transform.almost_equals(GRID.transform) and file.crs.to_epsg() == 3031
        np.testing.assert_array_equal(file.read(1), bed)
    told = subprocess.run(
        ["gmt", "grdinfo", "-C", f"{path}?bed"], capture_output=True, text=True, check=True
    ).stdout.split("\t")
    xmin, ymin, xmax, ymax = GRID.bounds
    assert [float(word) for word in told[1:5]] == [xmin, xmax, ymin, ymax]
    # Cells, columns, rows, and 1 for pixel registration.
    assert [float(word) for word in told[7:12]] == [500, 500, 30, 24, 1]


def test_synthetic_stands_in_the_title(bed: xr.DataArray, tmp_path: Path) -> None:
    with xr.open_dataset(write_netcdf(bed, tmp_path / "map.nc", ABOUT | {"synthetic": "region"})) as file:
        assert file.attrs["title"] == "SYNTHETIC Made for tests" and file.attrs["synthetic"] == "region"


def test_a_map_with_no_height_at_all_is_written(bed: xr.DataArray, tmp_path: Path) -> None:
    with xr.open_dataset(write_netcdf(bed * np.nan, tmp_path / "map.nc", ABOUT)) as file:
        assert "actual_range" not in file["bed"].attrs and bool(file["bed"].isnull().all())


def test_what_was_there_stays_until_the_new_is_complete(
    bed: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_netcdf(bed, tmp_path / "map.nc", ABOUT)
    before = path.read_bytes()

    def fail(self: xr.Dataset, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("NetCDF: HDF error")

    monkeypatch.setattr(products.xr.Dataset, "to_netcdf", fail)
    with pytest.raises(DataError, match=r"cannot write .*map.nc: NetCDF: HDF error; free some space"):
        write_netcdf(bed, path, ABOUT)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_names_that_cannot_be_written(bed: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out map ends in 'nothing'; expected a NetCDF file"):
        require_writable(tmp_path / "map")
    (tmp_path / "folder.nc").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        require_writable(tmp_path / "folder.nc")
    with pytest.raises(DatumError, match="is not known"):
        write_netcdf(bed.assign_attrs(vertical_datum="NAVD88"), tmp_path / "map.nc", ABOUT)
