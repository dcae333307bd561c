from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.errors
import rasterio.windows
import xarray as xr
from affine import Affine
from data_files import ramp, read_raster, write_geotiff, write_netcdf
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.fields import sample_blocks
from deepbedmap_tf.data.netcdf_classic import missing_bytes
from deepbedmap_tf.data.rasters import canonical_units, open_raster
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


def test_rotated_uneven_and_placeless_rasters_are_refused_by_name(tmp_path):
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "float32"}
    for name, transform, crs, words in (
        ("rotated", Affine.rotation(20) @ Affine.scale(500, -500), "EPSG:3031", "rotated against its CRS.*north-up"),
        ("turned", Affine(0, 500, 0, 500, 0, 0), "EPSG:3031", "rotated against its CRS.*north-up"),
        ("oblong", Affine(500, 0, 0, 0, -400, 0), "EPSG:3031", "square cells"),
        ("placeless", None, None, "does not say where its cells lie"),
    ):
        path = tmp_path / f"{name}.tif"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as out:
                out.write(np.zeros((1, 4, 4), np.float32))
        with pytest.raises(GridError, match=rf"{name}\.tif.*{words}"):
            read_raster(path)
    path = write_netcdf(tmp_path / "uneven.nc", GRID, bed=ramp(GRID))
    xr.load_dataset(path).isel(x=[0, 1, 2, 4, 7]).to_netcdf(tmp_path / "gaps.nc")
    with pytest.raises(GridError, match=r"gaps.nc.*even square steps"):
        read_raster(tmp_path / "gaps.nc")
    holed = xr.load_dataset(path)
    holed = holed.assign_coords(x=holed.x.where(holed.x != GRID.x[3]))
    holed.to_netcdf(tmp_path / "nan.nc")
    with pytest.raises(GridError, match=r"nan.nc: x has missing values"):
        read_raster(tmp_path / "nan.nc")


@pytest.mark.parametrize(("east_left", "south_up"), [(False, True), (True, False), (True, True)])
def test_rasters_that_run_the_other_way_are_read_right(tmp_path, east_left, south_up):
    rows, columns = slice(None, None, -1 if south_up else 1), slice(None, None, -1 if east_left else 1)
    values = ramp(GRID)[rows, columns]
    xmin, ymin, xmax, ymax = GRID.bounds
    transform = Affine(-500 if east_left else 500, 0, xmax if east_left else xmin, 0, 500 if south_up else -500,
                       ymin if south_up else ymax)  # fmt: skip
    tif = tmp_path / "bed.tif"
    shape = {"height": GRID.shape[0], "width": GRID.shape[1], "count": 1, "dtype": "float32"}
    with rasterio.open(tif, "w", driver="GTiff", **shape, crs="EPSG:3031", transform=transform) as out:
        out.write(values, 1)
    netcdf = tmp_path / "bed.nc"
    axes = {"y": GRID.y[rows], "x": GRID.x[columns]}
    xr.Dataset({"bed": (("y", "x"), values)}, axes, {"crs": "EPSG:3031"}).to_netcdf(netcdf)
    # Rows and columns exchanged in the file's own order.
    xr.load_dataset(netcdf).transpose("x", "y").to_netcdf(tmp_path / "exchanged.nc")
    for path in (tif, netcdf, tmp_path / "exchanged.nc"):
        whole = read_raster(path)
        np.testing.assert_array_equal(whole, ramp(GRID))
        assert Grid.of(whole) == GRID
        part = read_raster(path, bounds=(xmin + 3000, ymin + 4000, xmin + 4000, ymin + 5500))
        assert part.size < whole.size / 4
        np.testing.assert_array_equal(part, whole.sel(x=part.x, y=part.y))


def test_a_geotiff_of_points_is_centred_on_them(tmp_path):
    path = write_geotiff(tmp_path / "points.tif", GRID, ramp(GRID))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(AREA_OR_POINT="Point")
    np.testing.assert_array_equal(read_raster(path), ramp(Grid.of(read_raster(path))))


@settings(max_examples=25)
@given(
    edges=st.tuples(st.floats(0, 20000), st.floats(0, 15000), st.floats(1, 20000), st.floats(1, 15000)),
    flip=st.tuples(st.booleans(), st.booleans()),
    suffix=st.sampled_from(["tif", "nc"]),
)
def test_any_window_is_a_slice_of_the_whole(windows_folder, edges, flip, suffix):
    left, bottom, width, height = edges
    bounds = (
        GRID.bounds[0] + left,
        GRID.bounds[1] + bottom,
        GRID.bounds[0] + left + width,
        GRID.bounds[1] + bottom + height,
    )
    raster = open_raster(windows_folder / f"{flip[0]:d}{flip[1]:d}.{suffix}")
    part, whole = raster.read(bounds), raster.read()
    np.testing.assert_array_equal(part, whole.sel(x=part.x, y=part.y))
    # It covers what was asked for, as far as the file goes, and hardly more.
    cells = Grid.of(part).bounds
    assert cells[0] <= max(bounds[0], GRID.bounds[0]) and cells[2] >= min(bounds[2], GRID.bounds[2])
    assert cells[1] <= max(bounds[1], GRID.bounds[1]) and cells[3] >= min(bounds[3], GRID.bounds[3])
    assert cells[2] - cells[0] <= width + 8 * 500 and cells[3] - cells[1] <= height + 8 * 500


@pytest.fixture(scope="module")
def windows_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    for south_up in (False, True):
        for east_left in (False, True):
            rows, columns = slice(None, None, -1 if south_up else 1), slice(None, None, -1 if east_left else 1)
            values = ramp(GRID)
            values[4, 5] = np.nan
            values = values[rows, columns]
            axes = {"y": GRID.y[rows], "x": GRID.x[columns]}
            name = f"{south_up:d}{east_left:d}"
            dataset = xr.Dataset({"bed": (("y", "x"), values)}, axes, {"crs": "EPSG:3031"})
            dataset.to_netcdf(folder / f"{name}.nc", encoding={"bed": {"chunksizes": (7, 11)}})
            xmin, ymin, xmax, ymax = GRID.bounds
            transform = Affine(-500 if east_left else 500, 0, xmax if east_left else xmin, 0,
                               500 if south_up else -500, ymin if south_up else ymax)  # fmt: skip
            profile = {"driver": "GTiff", "height": GRID.shape[0], "width": GRID.shape[1], "count": 1}
            with rasterio.open(
                folder / f"{name}.tif", "w", **profile, dtype="float32", crs="EPSG:3031", transform=transform
            ) as out:
                out.write(values, 1)
    return folder


HUGE = Grid((55000, 45000), Affine(100, 0, -2700000, 0, -100, 2300000))


def huge_geotiff(path):
    profile = {"driver": "GTiff", "height": HUGE.shape[0], "width": HUGE.shape[1], "count": 1, "dtype": "float32"}
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", **profile, **options, crs="EPSG:3031", transform=HUGE.transform, nodata=-9999) as out:
        out.write(np.full((256, 256), 7, np.float32), 1, window=rasterio.windows.Window(25600, 25600, 256, 256))
    return path


def huge_netcdf(path):
    import netCDF4

    with netCDF4.Dataset(path, "w") as out:
        out.crs = "EPSG:3031"
        # Rows northwards, so that a window of the flipped axis must not read it all either.
        for name, centres in (("y", HUGE.y[::-1]), ("x", HUGE.x)):
            out.createDimension(name, centres.size)
            out.createVariable(name, "f8", (name,))[:] = centres
        z = out.createVariable("z", "f4", ("y", "x"), chunksizes=(256, 256), fill_value=-9999.0)
        rows = HUGE.shape[0] - 25600 - 256
        z[rows : rows + 256, 25600:25856] = 7
    return path


@pytest.mark.parametrize("make", [huge_geotiff, huge_netcdf])
def test_a_raster_of_ten_gigabytes_is_never_read_whole(tmp_path, make):
    path = make(tmp_path / f"huge.{'tif' if make is huge_geotiff else 'nc'}")
    left, top = HUGE.bounds[0] + 25600 * 100, HUGE.bounds[3] - 25600 * 100
    tracemalloc.start()
    raster = open_raster(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6 and raster.grid == HUGE
    part = raster.read((left, top - 25600, left + 25600, top))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert part.shape == (262, 262)
    assert float(part.sum()) == 7 * 256 * 256 and int(np.isnan(part).sum()) == 262**2 - 256**2
    # Points in two far corners and in the middle: squares around them are read, not what lies between.
    tracemalloc.start()
    x = np.array([HUGE.bounds[0] + 5000, left + 12800, HUGE.bounds[2] - 5000, HUGE.bounds[2] + 5000])
    y = np.array([HUGE.bounds[1] + 5000, top - 12800, HUGE.bounds[3] - 5000, 0])
    found = sample_blocks(raster.read, raster.grid, x, y)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    np.testing.assert_array_equal(found, [np.nan, 7, np.nan, np.nan])


def test_all_kinds_of_unmarked_fill_are_said_once(tmp_path, caplog):
    values = ramp(GRID).astype(np.float64)
    values[0, :6] = (-1.797e308, 9.97e36, -9999, 1e20, -32768, np.inf)
    for path in (
        write_geotiff(tmp_path / "bed.tif", GRID, values),
        write_netcdf(tmp_path / "bed.nc", GRID, bed=values),
    ):
        with caplog.at_level("INFO"):
            for _ in range(3):
                bed = read_raster(path)
        assert np.isnan(bed[0, :6]).all() and int(np.isnan(bed).sum()) == 6
        assert bed.attrs["untagged"] == 6
        assert caplog.text.count(f"{path.name}: cells hold a fill value with no tag") == 1


def test_fills_are_masked_before_scaling_and_averaging(tmp_path):
    raw = np.full(GRID.shape, 10, np.int16)
    raw[2, 3] = -9999
    path = write_geotiff(tmp_path / "bed.tif", GRID, raw)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.5,), (0.0,)
    scaled = read_raster(path).to_numpy()
    assert np.isnan(scaled[2, 3]) and set(scaled[np.isfinite(scaled)]) == {5.0}
    # xarray scales by itself, and would make -900 m of what no tag names.
    for packing in ({"scale_factor": 0.1}, {"scale_factor": 0.01, "add_offset": 100.0}, {"add_offset": 3.0}):
        write_netcdf(tmp_path / "packed.nc", GRID, bed=(raw, packing))
        packed = read_raster(tmp_path / "packed.nc")
        assert packed.attrs["untagged"] == 1 and int(np.isnan(packed).sum()) == 1 and np.isnan(packed[2, 3])
        np.testing.assert_allclose(
            packed[0], 10 * packing.get("scale_factor", 1) + packing.get("add_offset", 0), rtol=1e-6
        )
    months = np.stack([ramp(GRID), ramp(GRID) + 2])
    months[0, 3, 4] = -9999
    arrays = {"smb": (("time", "y", "x"), months)}
    axes = {"y": GRID.y, "x": GRID.x, "time": [0, 1]}
    xr.Dataset(arrays, axes, {"crs": "EPSG:3031"}).to_netcdf(tmp_path / "smb.nc")
    mean = read_raster(tmp_path / "smb.nc", ["smb"], mean_over=["time"])
    assert int(np.isnan(mean).sum()) == 1 and np.isnan(mean[3, 4])
    np.testing.assert_allclose(mean[4:], ramp(GRID, 1)[4:], atol=2e-3)
    with pytest.raises(GridError, match=r"'smb' has 2 steps of time, expected one field; state `mean_over"):
        read_raster(tmp_path / "smb.nc", ["smb"])


@pytest.mark.parametrize("variables", [1, 2])
def test_the_end_of_a_classic_netcdf_with_records_is_known(tmp_path, variables):
    arrays = {f"v{i}": (("time", "y", "x"), np.ones((3, 4, 5), np.int16)) for i in range(variables)}
    path = tmp_path / "records.nc"
    xr.Dataset(arrays, attrs={"text": "abc"}).to_netcdf(path, format="NETCDF3_64BIT", unlimited_dims=["time"])
    assert missing_bytes(path) == 0
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert 0 < missing_bytes(path) <= 10


@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.9, 0.99])
def test_netcdf_cut_anywhere_is_one_line(tmp_path, form, share):
    large = Grid.from_bounds((0, 0, 100000, 100000), 500)
    noise = np.random.default_rng(0).normal(size=large.shape).astype(np.float32)
    dataset = xr.Dataset({"bed": (("y", "x"), noise)}, {"y": large.y, "x": large.x}, {"crs": "EPSG:3031"})
    dataset.to_netcdf(tmp_path / "bed.nc", format=form)
    np.testing.assert_array_equal(read_raster(tmp_path / "bed.nc"), noise)
    content = (tmp_path / "bed.nc").read_bytes()
    (tmp_path / "bed.nc").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="damaged or cut off") as caught:
        read_raster(tmp_path / "bed.nc")
    assert "\n" not in str(caught.value)


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
    picture = write_geotiff(tmp_path / "picture.tif", GRID, np.zeros((3, *GRID.shape), np.uint8))
    with pytest.raises(DataError, match=r"picture\.tif has 3 bands; name one by `variable`"):
        read_raster(picture)
    assert read_raster(picture, ["3"]).shape == GRID.shape
    with pytest.raises(DataError, match=r"phase\.tif holds complex numbers"):
        read_raster(write_geotiff(tmp_path / "phase.tif", GRID, ramp(GRID).astype(np.complex64)))
    assert canonical_units(" Metres ") == "m" and canonical_units("K") == "K"


def test_real_cut_outs_are_read_in_their_own_layouts(shared):
    formats = shared("data/formats")
    dem = read_raster(formats / "rema_like_dem_40m.tif")
    assert dem.shape == (222, 449) and Grid.of(dem).resolution == 40
    with pytest.raises(GridError, match="EPSG:3413"):
        read_raster(formats / "its_live_vx_120m.tif", units="m yr-1")
    continent = read_raster(shared("data/continent") / "BedMachine_bed_5k_wgs.nc", crs="EPSG:3031")
    assert continent.shape == (1046, 1036) or continent.shape == (1036, 1046)
