"""The NetCDF of a map: conventions checked by a checker, and the same cells in xarray, GDAL and GMT."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import rasterio
import xarray as xr
from map_files import ABOUT, make_region, make_store

from deepbedmap_tf.data.rasters import open_raster
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.products import write_map


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Grid, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("map")
    region = make_region(folder)
    store, variables, whole = make_store(folder, region, MapOptions(realisations=2))
    path, _ = write_map(store, region.grid, variables, [folder / "map.nc"], ABOUT)
    return path, region.grid, whole


def complaints(path: Path) -> list[str]:
    """What compliance-checker holds against a file, by the rules of CF-1.10."""
    checker = Path(sys.executable).with_name("compliance-checker")
    told = subprocess.run([checker, "--test=cf:1.10", path], capture_output=True, text=True, check=False).stdout
    assert "cf:1.10" in told, told
    return re.findall(r"^\* (.*)$", told, re.MULTILINE)


def test_values_come_back(made: tuple[Path, Grid, dict[str, np.ndarray]]) -> None:
    path, grid, whole = made
    with xr.open_dataset(path) as file:
        assert set(file.data_vars) == {*whole, "crs"}
        for name, values in whole.items():
            assert file[name].dtype == values.dtype
            np.testing.assert_allclose(file[name], values, rtol=0, atol=0.02, err_msg=name)
            assert file[name].dims[-2:] == ("y", "x") and file[name].attrs["grid_mapping"] == "crs"
        assert file["bed_realization"].dims[0] == "realization" and file["realization"].values.tolist() == [1, 2]
        np.testing.assert_array_equal(file["bed"], whole["bed"])
        low, high = file["bed"].attrs["actual_range"]
        assert (low, high) == (np.nanmin(whole["bed"]), np.nanmax(whole["bed"]))
    again = open_raster(path, ("bed",), vertical_datum="ellipsoid:WGS84").read()
    assert Grid.of(again).same_cells(grid)


def test_attributes_tell_what_it_is_and_comes_from(made: tuple[Path, Grid, dict[str, np.ndarray]]) -> None:
    with xr.open_dataset(made[0], mask_and_scale=False) as file:
        assert file.attrs["Conventions"] == "CF-1.10" and file.attrs["title"] == "Made for tests"
        assert file.attrs["references"] == "Nobody (2020); Somebody (2021)"
        assert file.attrs["history"].endswith(": deepbedmap predict --model tiny")
        assert "tensorflow 2.15.1" in file.attrs["software"] and "comment" not in file.attrs
        assert file.attrs["input_files_sha256"] == '{"bed.tif": "00", "byrd/surface.nc": "11"}'
        assert file.attrs["uncertainty"] == '{"coverage_50": 0.49, "scale": 1.5}'
        assert file.attrs["vertical_datum"] == file["bed"].attrs["vertical_datum"] == "ellipsoid:WGS84"
        assert file["bed"].attrs["standard_name"] == "height_above_reference_ellipsoid"
        assert np.isnan(file["bed"].attrs["_FillValue"]) and file["geoid"].attrs["geoid"] == "geoid:EIGEN-6C4"
        mapping = file["crs"].attrs
        assert mapping["grid_mapping_name"] == "polar_stereographic" and "geoid_name" not in mapping
        assert mapping["latitude_of_projection_origin"] == -90.0 and mapping["standard_parallel"] == -71.0
        for name in ("mask", "source"):
            values, meanings = file[name].attrs["flag_values"], file[name].attrs["flag_meanings"].split()
            assert values.dtype == file[name].dtype == np.int8 and values.size == len(meanings)
            assert "_FillValue" not in file[name].attrs
        flags = dict(zip(file["mask"].attrs["flag_meanings"].split(), file["mask"].attrs["flag_values"], strict=True))
        assert (flags["ocean"], flags["grounded_ice"], flags["floating_ice"]) == (0, 2, 3)


def test_checker_finds_nothing(made: tuple[Path, Grid, dict[str, np.ndarray]]) -> None:
    assert complaints(made[0]) == []


def test_checker_does_not_know_the_geoid(tmp_path: Path) -> None:
    region = make_region(tmp_path, vertical_datum="geoid:EIGEN-6C4")
    store, variables, _ = make_store(tmp_path, region)
    path, _ = write_map(store, region.grid, variables, [tmp_path / "map.nc"], ABOUT)
    # CF wants the name of the geoid; the checker looks it up in EPSG's list, which holds none of the EIGEN geoids.
    (only,) = complaints(path)
    assert only.startswith("Vertical datum value 'EIGEN-6C4' for attribute 'geoid_name'")
    with xr.open_dataset(path) as file:
        assert file["crs"].attrs["geoid_name"] == "EIGEN-6C4"
        assert file["bed"].attrs["standard_name"] == "bedrock_altitude"
        assert file["surface"].attrs["standard_name"] == "surface_altitude"


def test_gdal_sees_the_same_cells(made: tuple[Path, Grid, dict[str, np.ndarray]]) -> None:
    path, grid, whole = made
    for name in ("bed", "mask"):
        with rasterio.open(f"netcdf:{path}:{name}") as file:
            assert file.transform.almost_equals(grid.transform) and file.crs.to_epsg() == 3031
            np.testing.assert_array_equal(file.read(1), whole[name])


def test_gmt_sees_the_same_cells(made: tuple[Path, Grid, dict[str, np.ndarray]], tmp_path: Path) -> None:
    path, grid, whole = made
    told = subprocess.run(
        ["gmt", "grdinfo", "-C", f"{path}?bed"], capture_output=True, text=True, check=True
    ).stdout.split("\t")
    xmin, ymin, xmax, ymax = grid.bounds
    assert [float(word) for word in told[1:5]] == [xmin, xmax, ymin, ymax]
    np.testing.assert_allclose([float(word) for word in told[5:7]], [np.nanmin(whole["bed"]), 30000], rtol=1e-6)
    # Cells, columns, rows, and 1 for pixel registration.
    assert [float(word) for word in told[7:12]] == [250, 250, *reversed(grid.shape), 1]
    (tmp_path / "points").write_text(f"{grid.x[3]} {grid.y[60]}\n{grid.x[100]} {grid.y[7]}\n", encoding="utf-8")
    sampled = subprocess.run(
        ["gmt", "grdtrack", tmp_path / "points", f"-G{path}?bed", "-nn"], capture_output=True, text=True, check=True
    ).stdout.split()
    np.testing.assert_allclose([float(sampled[2]), float(sampled[5])], whole["bed"][[60, 7], [3, 100]], atol=1e-2)


def test_what_is_nowhere_defined_takes_no_room(tmp_path: Path) -> None:
    import zarr

    grid = Grid.from_bounds((0, 0, 1_024_000, 1_024_000), 250, vertical_datum="ellipsoid:WGS84")
    variable = Variable("bed", "float32", float("nan"), {"long_name": "bed elevation", "units": "m"})
    array = zarr.open_group(str(tmp_path / "map.zarr"), mode="w").create_array(
        "bed", shape=grid.shape, chunks=(512, 512), dtype="float32", fill_value=float("nan")
    )
    array[600:700, 900:1000] = 5
    path, _ = write_map(tmp_path / "map.zarr", grid, [variable], [tmp_path / "map.nc"], {})
    assert path.stat().st_size < 500_000
    with netCDF4.Dataset(path) as file:
        assert file["bed"].chunking() == [512, 512]
        assert np.isnan(file["bed"][0, 0].filled(np.nan)) and (file["bed"][600:700, 900:1000] == 5).all()
        assert file["bed"].actual_range.tolist() == [5, 5]
