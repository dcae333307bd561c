from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from data_files import ramp, write_geotiff, write_netcdf
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.rasters import canonical_units, read_raster
from deepbedmap_tf.data.resampling import resample
from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Grid

GRID = Grid.from_bounds((-1500000, -500000, -1480000, -485000), 500)


@pytest.mark.parametrize("upward", [False, True])
def test_netcdf_and_geotiff_hold_the_same_map(tmp_path, upward):
    tif = read_raster(write_geotiff(tmp_path / "bed.tif", GRID, ramp(GRID)))
    netcdf = read_raster(write_netcdf(tmp_path / "bed.nc", GRID, upward=upward, bed=ramp(GRID)), ["bed"])
    for array in (tif, netcdf):
        np.testing.assert_array_equal(array, ramp(GRID))
        assert Grid.of(array) == GRID
        assert array.dtype == np.float32


@settings(deadline=None, max_examples=15)
@given(left=st.integers(0, 30), top=st.integers(0, 20), width=st.integers(1, 9), height=st.integers(1, 9))
def test_a_part_is_a_slice_of_the_whole(tmp_path_factory, left, top, width, height):
    folder = tmp_path_factory.mktemp("rasters")
    wanted = GRID.window(
        (
            GRID.bounds[0] + left * 500,
            GRID.bounds[3] - (top + height) * 500,
            GRID.bounds[0] + (left + width) * 500,
            GRID.bounds[3] - top * 500,
        )
    )
    for path in (
        write_geotiff(folder / "bed.tif", GRID, ramp(GRID)),
        write_netcdf(folder / "bed.nc", GRID, upward=True, bed=ramp(GRID)),
    ):
        part = read_raster(path, bounds=wanted.bounds)
        assert part.size < GRID.shape[0] * GRID.shape[1]
        np.testing.assert_array_equal(resample(part, wanted, "nearest"), ramp(wanted))


def test_fill_values_are_masked_before_anything_is_interpolated(tmp_path):
    # Fault 7 of the published code: -9999 beside 500 m became -4749.5 m.
    values = np.full(GRID.shape, 500, np.float32)
    values[:, 10:20] = -9999
    for nodata in (-9999, None):
        bed = read_raster(write_geotiff(tmp_path / "bed.tif", GRID, values, nodata))
        fine = resample(bed, GRID.refine(2), "bilinear").to_numpy()
        assert set(np.unique(fine[np.isfinite(fine)])) == {500}
        assert np.isnan(bed[:, 10:20]).all()


@pytest.mark.parametrize("fill", [9.96921e36, -3.4028235e38, np.inf])
def test_fill_values_that_no_tag_names_are_masked(tmp_path, fill):
    values = ramp(GRID)
    values[0, 0] = fill
    bed = read_raster(write_netcdf(tmp_path / "bed.nc", GRID, bed=values))
    assert np.isnan(bed[0, 0]) and int(np.isnan(bed).sum()) == 1


def test_integers_keep_real_elevations(tmp_path):
    # Fault 6 of the published code: nodata of -2000 is a real elevation of the bed.
    values = np.full(GRID.shape, -2000, np.int16)
    values[0, 0] = -32768
    bed = read_raster(write_geotiff(tmp_path / "bed.tif", GRID, values, -32768))
    assert np.isnan(bed[0, 0]) and float(bed[1:].min()) == -2000
    named = read_raster(tmp_path / "bed.tif", nodata=[-2000])
    assert np.isnan(named).all()


def test_scale_and_offset_of_the_file_are_applied(tmp_path):
    path = write_geotiff(tmp_path / "bed.tif", GRID, np.full(GRID.shape, 10, np.int16), -1)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5,), (100.0,)
    assert float(read_raster(path)[0, 0]) == 105


def test_other_crs_or_none_is_refused_by_name(tmp_path):
    north = write_geotiff(tmp_path / "north.tif", GRID, ramp(GRID), crs="EPSG:3413")
    with pytest.raises(GridError, match=r"north.tif is in EPSG:3413, expected EPSG:3031; reproject"):
        read_raster(north)
    for path in (
        write_geotiff(tmp_path / "none.tif", GRID, ramp(GRID), crs=None),
        write_netcdf(tmp_path / "none.nc", GRID, crs=None, bed=ramp(GRID)),
    ):
        with pytest.raises(GridError, match="does not say its CRS"):
            read_raster(path)
        assert read_raster(path, crs="EPSG:3031").shape == GRID.shape


def test_crs_is_understood_however_it_is_spelled(tmp_path):
    mapping = {
        "grid_mapping_name": "polar_stereographic",
        "latitude_of_projection_origin": -90.0,
        "standard_parallel": -71.0,
        "straight_vertical_longitude_from_pole": 0.0,
        "false_easting": 0.0,
        "false_northing": 0.0,
    }
    import xarray as xr

    path = write_netcdf(tmp_path / "bed.nc", GRID, crs=None, bed=(ramp(GRID), {"grid_mapping": "mapping"}))
    dataset = xr.load_dataset(path)
    dataset["mapping"] = xr.DataArray(np.int8(0), attrs=mapping)
    dataset.to_netcdf(tmp_path / "mapped.nc")
    assert read_raster(tmp_path / "mapped.nc", ["bed"]).attrs["crs"] == "EPSG:3031"
    assert (
        read_raster(write_netcdf(tmp_path / "old.nc", GRID, crs="+init=epsg:3031", bed=ramp(GRID))).shape == GRID.shape
    )


@pytest.mark.parametrize("name", ["bed.tif", "bed.nc"])
def test_missing_and_truncated_files_are_one_line(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(DataError, match="does not exist"):
        read_raster(path)
    large = Grid.from_bounds((0, 0, 200000, 200000), 500)
    noise = np.random.default_rng(0).normal(size=large.shape).astype(np.float32)
    if name.endswith("tif"):
        write_geotiff(path, large, noise)
    else:
        write_netcdf(path, large, bed=noise)
    content = path.read_bytes()
    for kept in (len(content) // 2, 100, 0):
        path.write_bytes(content[:kept])
        with pytest.raises(DataError, match="damaged or cut off") as caught:
            read_raster(path)
        assert "\n" not in str(caught.value)


def test_rotated_upside_down_and_uneven_rasters_are_refused(tmp_path):
    rotated = tmp_path / "rotated.tif"
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "float32", "crs": "EPSG:3031"}
    with rasterio.open(rotated, "w", **profile, transform=Affine.rotation(20) @ Affine.scale(500, -500)) as out:
        out.write(np.zeros((1, 4, 4), np.float32))
    with pytest.raises(GridError, match="north-up"):
        read_raster(rotated)
    upward = tmp_path / "upward.tif"
    with rasterio.open(upward, "w", **profile, transform=Affine(500, 0, 0, 0, 500, 0)) as out:
        out.write(np.zeros((1, 4, 4), np.float32))
    with pytest.raises(GridError, match="south to north"):
        read_raster(upward)
    import xarray as xr

    path = write_netcdf(tmp_path / "uneven.nc", GRID, bed=ramp(GRID))
    xr.load_dataset(path).isel(x=[0, 1, 2, 4, 7]).to_netcdf(tmp_path / "gaps.nc")
    with pytest.raises(GridError, match="even square steps"):
        read_raster(tmp_path / "gaps.nc")


def test_variables_units_and_extent_are_checked(tmp_path):
    path = write_netcdf(tmp_path / "v.nc", GRID, VX=(ramp(GRID), {"units": "meter/year"}), VY=ramp(GRID))
    assert read_raster(path, ["VX", "VY"], units="m yr-1").shape == (*GRID.shape, 2)
    with pytest.raises(DataError, match="no variable 'VZ'; name one of VX, VY"):
        read_raster(path, ["VZ"], units="m yr-1")
    with pytest.raises(DataError, match="2 gridded variables; name one of VX, VY"):
        read_raster(path, units="m yr-1")
    with pytest.raises(DataError, match="is in 'meter/year', expected 'm'"):
        read_raster(path, ["VX"])
    with pytest.raises(DataError, match=r"covers .* nothing of .* x and y are swapped"):
        read_raster(path, ["VX"], units="m yr-1", bounds=(-500000, -1500000, -490000, -1490000))
    with pytest.raises(DataError, match="bands 1 to 1, not '2'"):
        read_raster(write_geotiff(tmp_path / "bed.tif", GRID, ramp(GRID)), ["2"])
    assert canonical_units(" Metres ") == "m" and canonical_units("K") == "K"


def test_real_cut_outs_are_read_in_their_own_layouts(shared):
    formats = shared("data/formats")
    dem = read_raster(formats / "rema_like_dem_40m.tif")
    assert dem.shape == (222, 449) and Grid.of(dem).resolution == 40
    with pytest.raises(GridError, match="EPSG:3413"):
        read_raster(formats / "its_live_vx_120m.tif", units="m yr-1")
    continent = read_raster(shared("data/continent") / "BedMachine_bed_5k_wgs.nc", crs="EPSG:3031")
    assert continent.shape == (1046, 1036) or continent.shape == (1036, 1046)
