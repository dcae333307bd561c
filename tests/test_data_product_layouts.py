"""Further products in their own layouts, and windows of any field of a region."""

from __future__ import annotations

import numpy as np
import product_layouts as layouts
import pytest
import xarray as xr
from data_files import ramp, read_raster, write_geotiff, write_netcdf
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.masks import grounded_mask
from deepbedmap_tf.data.nodes import read_nodes
from deepbedmap_tf.data.schema import LayerSettings, MaskSettings, RasterSettings
from deepbedmap_tf.errors import DatumError, GridError
from deepbedmap_tf.grid import Grid

ELLIPSOID, EIGEN = "ellipsoid:WGS84", "geoid:EIGEN-6C4"
GRID = Grid.from_bounds((-1500250, -500250, -1480250, -485250), 500)
HOLE = (slice(2, 4), slice(5, 7))


def reader(folder, geoids=None):
    return FieldReader(lambda path: folder / path, "EPSG:3031", geoids or {})


@pytest.mark.parametrize(("missing", "nodata"), [(np.nan, ()), (0.0, (0.0,)), (9.96921e36, ())])
def test_nsidc_0484_whatever_stands_for_no_velocity(tmp_path, missing, nodata):
    grid = Grid.from_bounds((-1500075, -500175, -1482075, -482175), 450)
    layouts.nsidc_0484(tmp_path / "antarctica_ice_velocity_450m_v2.nc", grid, missing)
    settings = RasterSettings(
        path="antarctica_ice_velocity_450m_v2.nc", variables=("VX", "VY"), units="m yr-1", nodata=nodata
    )
    found = reader(tmp_path).on_grid(settings, grid, "velocity")
    for band, offset in ((0, 10), (1, -10)):
        expected = ramp(grid, offset)
        expected[HOLE] = np.nan
        np.testing.assert_array_equal(found[..., band], expected)
    assert found.attrs["units"] == "m yr-1" and found.dims == ("y", "x", "band")


def test_its_live_is_a_file_a_component(tmp_path):
    grid = Grid.from_bounds((-1500000, -500000, -1490400, -490400), 120)
    paths = layouts.its_live(tmp_path, grid)
    for path, offset in zip(paths, (10, -10), strict=True):
        expected = ramp(grid, offset)
        expected[HOLE] = np.nan
        np.testing.assert_array_equal(read_raster(path, units="m yr-1"), expected)
    (tmp_path / "north").mkdir()
    northern, _ = layouts.its_live(tmp_path / "north", grid, "EPSG:3413")
    with pytest.raises(GridError, match="is in EPSG:3413, expected EPSG:3031"):
        read_raster(northern, units="m yr-1")


def test_mar_on_its_own_curvilinear_nodes(tmp_path):
    path, x, y = layouts.mar_native(tmp_path / "MARv3.nc")
    common = {"path": path.name, "kind": "nodes", "variable": "SMB", "x": "LON", "y": "LAT", "units": "kg m-2 yr-1"}
    settings = RasterSettings(**common, mean_over=("TIME",))
    found_x, found_y, smb = read_nodes(path, settings)
    np.testing.assert_allclose(found_x, x.ravel(), atol=1e-3)
    np.testing.assert_allclose(found_y, y.ravel(), atol=1e-3)
    np.testing.assert_allclose(smb, 300 + 1e-4 * x.ravel(), rtol=1e-5)
    left, bottom = (float(np.rint(axis.mean() / 1e4) * 1e4) for axis in (x, y))
    middle = Grid.from_bounds((left, bottom, left + 20000, bottom + 20000), 1000)
    field = reader(tmp_path).on_grid(settings, middle, "accumulation")
    np.testing.assert_allclose(field, np.broadcast_to(300 + 1e-4 * middle.x, middle.shape), rtol=1e-5)
    with pytest.raises(GridError, match=r"'SMB' has 3 steps of TIME, expected one field; state `mean_over: \[TIME\]`"):
        read_nodes(path, RasterSettings(**common))
    # Its axes are kilometres of a map that the file does not name: as a raster it is refused, not laid elsewhere.
    with pytest.raises(GridError, match=r"'SMB' has no coordinates x and y, expected even cells \(kind: nodes\?\)"):
        read_raster(path, ["SMB"], units="kg m-2 yr-1", mean_over=["TIME"])


@pytest.mark.parametrize("version", [2, 3])
def test_ice_free_and_floating_cells_of_bedmachine_are_left_out(tmp_path, version):
    path = layouts.bedmachine(tmp_path / "BedMachineAntarctica.nc", GRID)
    dataset = xr.load_dataset(path)
    flags = dataset["mask"].to_numpy().copy()
    flags[3:6, 4:8] = 1
    flags[0] = 0
    dataset["mask"].data = flags
    # Version 2 has no layer that tells the data sets apart.
    dataset = dataset.drop_vars("dataid") if version == 2 else dataset
    dataset.to_netcdf(path)
    settings = RasterSettings(
        path=path.name, variable="bed", vertical_datum=EIGEN, mask=MaskSettings(variable="mask", keep=(2, 4))
    )
    geoid = LayerSettings(path=path.name, variable="geoid")
    found = reader(tmp_path, {EIGEN: geoid}).on_grid(settings, GRID.with_datum(ELLIPSOID), "bed")
    np.testing.assert_allclose(found, np.where(flags == 2, ramp(GRID, -500 - 45), np.nan), atol=1e-3)


def test_bedmap3_rock_is_left_out_and_its_thickness_gives_the_bed(tmp_path):
    path = layouts.bedmap3(tmp_path / "bedmap3.nc", GRID)
    dataset = xr.load_dataset(path)
    flags = np.ones(GRID.shape, np.int8)
    flags[:4, 3] = 4
    dataset["mask"].data = flags[::-1]
    dataset["ice_thickness"].data = np.full(GRID.shape, 800, np.float32)
    dataset.to_netcdf(path, encoding={"mask": {"_FillValue": np.int8(-127)}})
    common = {"path": path.name, "vertical_datum": EIGEN, "mask": MaskSettings(variable="mask", keep=(1, 2))}
    fields, grid = reader(tmp_path), GRID.with_datum(EIGEN)
    expected = np.where(flags == 1, ramp(GRID, 10), np.nan)
    np.testing.assert_array_equal(
        fields.on_grid(RasterSettings(**common, variable="bed_topography"), grid, "bed"), expected
    )
    hanging = RasterSettings(**common, variable="surface_topography", subtract=("ice_thickness",))
    bed = fields.on_grid(hanging, grid, "bed")
    np.testing.assert_allclose(bed, np.where(flags == 1, ramp(GRID) - 800, np.nan), atol=1e-3)
    assert bed.attrs["derived"] == "surface_topography - ice_thickness"
    with pytest.raises(DatumError, match="'bed' is on geoid:EIGEN-6C4; to convert it, the geoid layer"):
        fields.on_grid(hanging, GRID.with_datum(ELLIPSOID), "bed")


def test_a_derived_bed_says_so_in_any_datum(tmp_path):
    write_netcdf(
        tmp_path / "ice.nc", GRID, surface=ramp(GRID), thickness=ramp(GRID, 30000), geoid=np.full(GRID.shape, -45.0)
    )
    settings = RasterSettings(
        path="ice.nc", variable="surface", subtract=(LayerSettings(path="ice.nc", variable="thickness"),),
        vertical_datum=EIGEN, geoid=LayerSettings(path="ice.nc", variable="geoid"),
    )  # fmt: skip
    bed = reader(tmp_path).on_grid(settings, GRID.with_datum(ELLIPSOID), "bed")
    np.testing.assert_allclose(bed, -30045, atol=0.01)
    assert bed.attrs["derived"] == "surface - thickness"


def test_a_grounding_line_of_the_published_form(tmp_path):
    """Two polygons with a hole, the axis and order of the shapefile format, brought to a mask with and without .prj."""
    xmin, ymin, xmax, ymax = GRID.bounds
    outer = np.array([(xmin + 2000, ymin + 2000), (xmin + 2000, ymax - 2000), (xmax, ymax - 2000), (xmax, ymin + 2000)])
    hole = np.array([(xmin + 5000, ymin + 5000), (xmin + 8000, ymin + 5000), (xmin + 8000, ymin + 9000)])
    island = np.array([(xmin, ymin), (xmin, ymin + 1000), (xmin + 1000, ymin + 1000), (xmin + 1000, ymin)])
    path = layouts.shapefile(tmp_path / "GroundingLine_Antarctica_v2.shp", [[outer, hole], [island]])
    found = grounded_mask(path, GRID)
    x, y = np.meshgrid(GRID.x, GRID.y)
    inside = (x > xmin + 2000) & (y > ymin + 2000) & (y < ymax - 2000)
    inside &= ~(
        (x > xmin + 5000) & (x < xmin + 8000) & (y > ymin + 5000) & (y - ymin - 5000 < (x - xmin - 5000) * 4 / 3)
    )
    inside |= (x < xmin + 1000) & (y < ymin + 1000)
    np.testing.assert_array_equal(found, inside)
    without = layouts.shapefile(tmp_path / "bare.shp", [[outer, hole], [island]], prj=None)
    with pytest.raises(GridError, match=r"bare\.shp does not say its CRS"):
        grounded_mask(without, GRID)
    np.testing.assert_array_equal(grounded_mask(without, GRID, crs="EPSG:3031"), inside)


@pytest.fixture(scope="module")
def windows_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    values = np.random.default_rng(1).normal(800, 50, GRID.shape).astype(np.float32)
    values[7:10, 12:20] = np.nan
    write_geotiff(folder / "holed.tif", GRID, values)
    write_netcdf(
        folder / "ice.nc", GRID, upward=True, surface=values, thickness=ramp(GRID, 20000),
        mask=np.random.default_rng(2).integers(1, 4, GRID.shape).astype(np.int8),
    )  # fmt: skip
    wide = Grid.from_bounds((-1501000, -501000, -1479000, -484000), 1000)
    write_geotiff(folder / "coarse.tif", wide, ramp(wide))
    layouts.racmo(folder / "racmo.nc")
    xmin, ymin, xmax, ymax = GRID.bounds
    ring = np.array([(xmin + 3000, ymin + 2000), (xmin + 9000, ymax - 1000), (xmax - 2000, ymin + 4000)])
    layouts.shapefile(folder / "line.shp", [[ring]])
    return folder


FIELDS = {
    **{
        method: RasterSettings(path="holed.tif", resampling=method)
        for method in ("nearest", "bilinear", "cubic", "average")
    },
    "fallback": RasterSettings(path="holed.tif", fallback=RasterSettings(path="coarse.tif")),
    "less thickness": RasterSettings(path="ice.nc", variable="surface", subtract=("thickness",)),
    "plus another": RasterSettings(path="holed.tif", add=(LayerSettings(path="coarse.tif"),)),
    "masked": RasterSettings(path="ice.nc", variable="surface", mask=MaskSettings(variable="mask", keep=(2,))),
    "limited": RasterSettings(path="holed.tif", valid_range=(770, 830)),
    "outline": RasterSettings(path="line.shp", kind="outline", units="1"),
    "nodes": RasterSettings(
        path="racmo.nc", kind="nodes", variable="smb", x="lon", y="lat", units="kg m-2 yr-1", mean_over=("time",)
    ),
}


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=12)
@given(
    cell=st.sampled_from([250, 500, 800, 1000]),
    place=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_window_of_any_field_is_a_slice_of_the_whole(windows_folder, name, cell, place):
    whole = Grid.from_bounds((-1499000, -499000, -1483000, -487000), cell)
    rows, columns = whole.shape
    top, left = int(place[0] * (rows - 2)), int(place[1] * (columns - 2))
    bottom = top + 2 + int(place[2] * (rows - top - 2))
    right = left + 2 + int(place[3] * (columns - left - 2))
    xmin, _, _, ymax = whole.bounds
    window = whole.window((xmin + left * cell, ymax - bottom * cell, xmin + right * cell, ymax - top * cell))
    fields = reader(windows_folder)
    part = fields.on_grid(FIELDS[name], window, name).to_numpy()
    expected = fields.on_grid(FIELDS[name], whole, name).to_numpy()[top:bottom, left:right]
    np.testing.assert_allclose(part, expected, atol=2e-3)


@pytest.fixture(scope="module")
def layouts_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    layouts.bedmachine(folder / "bedmachine.nc", GRID)
    layouts.bedmap3(folder / "bedmap3.nc", GRID)
    layouts.nsidc_0484(folder / "nsidc_0484.nc", GRID, 9.96921e36)
    layouts.its_live(folder, GRID)
    layouts.mar(folder / "mar.nc", GRID)
    for registration in ("pixel", "gridline"):
        layouts.gmt_grid(folder / f"{registration}.grd", GRID, registration)
    packed = np.rint(ramp(GRID)).astype(np.int16)
    packed[3, 4] = -9999
    write_netcdf(folder / "packed.nc", GRID, bed=(packed, {"scale_factor": 0.5, "add_offset": 10.0}))
    xr.load_dataset(folder / "bedmap3.nc").transpose("x", "y").to_netcdf(folder / "exchanged.nc")
    months = np.stack([ramp(GRID), ramp(GRID, 2)])
    dataset = xr.Dataset(
        {"smb": (("time", "y", "x"), months)}, {"y": GRID.y, "x": GRID.x, "time": [0, 1]}, {"crs": "EPSG:3031"}
    )
    dataset.to_netcdf(folder / "months.nc", format="NETCDF3_64BIT", unlimited_dims=["time"])
    layouts.geotiff(folder / "tiled.tif", GRID, ramp(GRID), tiled=True, blockxsize=16, blockysize=16, compress="lzw")
    return folder


LAYOUTS = {
    "bedmachine.nc": (["surface"], {}),
    "bedmap3.nc": (["bed_topography"], {}),
    "exchanged.nc": (["bed_topography"], {}),
    "nsidc_0484.nc": (["VX", "VY"], {"units": "m yr-1"}),
    "ANT_G0120_0000_vx.tif": ([], {"units": "m yr-1"}),
    "mar.nc": (["SMB"], {"units": "kg m-2 yr-1"}),
    "pixel.grd": ([], {"crs": "EPSG:3031"}),
    "gridline.grd": ([], {"crs": "EPSG:3031"}),
    "packed.nc": ([], {}),
    "months.nc": (["smb"], {"mean_over": ["time"]}),
    "tiled.tif": ([], {}),
}


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=10)
@given(place=st.tuples(*[st.floats(0, 1)] * 4))
def test_a_window_of_any_layout_is_a_slice_of_the_whole(layouts_folder, name, place):
    variables, said = LAYOUTS[name]
    xmin, ymin, xmax, ymax = GRID.bounds
    left, bottom = xmin + place[0] * (xmax - xmin - 1), ymin + place[1] * (ymax - ymin - 1)
    bounds = (left, bottom, left + 1 + place[2] * (xmax - left - 1), bottom + 1 + place[3] * (ymax - bottom - 1))
    part, whole = (read_raster(layouts_folder / name, variables, each, **said) for each in (bounds, None))
    assert Grid.of(whole).same_cells(GRID)
    np.testing.assert_array_equal(part, whole.sel(x=part.x, y=part.y))
    cells = Grid.of(part).bounds
    assert cells[0] <= bounds[0] and cells[1] <= bounds[1] and cells[2] >= bounds[2] and cells[3] >= bounds[3]
