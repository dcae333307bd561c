from __future__ import annotations

import numpy as np
import pytest
from data_files import ramp, write_geotiff, write_netcdf
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.data.fields import FieldReader, sample_blocks
from deepbedmap_tf.data.nodes import interpolate_nodes
from deepbedmap_tf.data.rasters import open_raster
from deepbedmap_tf.data.resampling import sample
from deepbedmap_tf.data.schema import LayerSettings, RasterSettings
from deepbedmap_tf.errors import DataError, DatumError, NoDataError
from deepbedmap_tf.grid import Grid

GRID = Grid.from_bounds((-1500000, -500000, -1480000, -485000), 500)
ELLIPSOID = "ellipsoid:WGS84"


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    values = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    values[10:12, 7:20] = np.nan
    return open_raster(write_geotiff(tmp_path_factory.mktemp("fields") / "field.tif", GRID, values))


@given(
    points=st.lists(st.tuples(st.floats(-2000, 22000), st.floats(-2000, 17000)), min_size=1, max_size=40),
    cells=st.sampled_from([4, 7, 1000]),
)
def test_points_read_in_squares_are_points_of_the_whole(raster, points, cells):
    x, y = np.array(points).T + np.array([[GRID.bounds[0]], [GRID.bounds[1]]])
    expected = sample(raster.read(), x, y)
    try:
        found = sample_blocks(raster.read, raster.grid, x, y, cells)
    except NoDataError:
        assert np.isnan(expected).all()
        return
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_only_squares_with_points_are_read(raster):
    sizes = []

    def read(bounds):
        part = raster.read(bounds)
        sizes.append(part.size)
        return part

    x, y = np.array([GRID.x[3], GRID.x[-3], GRID.x[3] + 100]), np.array([GRID.y[3], GRID.y[-3], GRID.y[3]])
    sample_blocks(read, raster.grid, x, y, 10)
    assert len(sizes) == 2 and sum(sizes) < GRID.shape[0] * GRID.shape[1] / 4


def test_picks_far_apart_get_the_same_shift_as_near_ones(tmp_path):
    write_netcdf(tmp_path / "geoid.nc", GRID, geoid=ramp(GRID) / 200)
    reader = FieldReader(lambda path: tmp_path / path, "EPSG:3031", {"geoid:EIGEN-6C4": LayerSettings(path="geoid.nc")})
    x, y = GRID.x[[2, -2]], GRID.y[[2, -2]]
    shift = reader.datum_shift(x, y, ELLIPSOID, "geoid:EIGEN-6C4", None, "picks")
    np.testing.assert_allclose(shift, -(0.011 * x - 0.007 * y) / 200, atol=1e-4)
    assert not reader.datum_shift(x, y, ELLIPSOID, ELLIPSOID, None, "picks").any()
    with pytest.raises(DatumError, match="the geoid layer of geoid:EIGEN-GL04C is needed"):
        reader.datum_shift(x, y, "geoid:EIGEN-GL04C", ELLIPSOID, None, "picks")


def test_nodes_are_triangulated_once_and_again_when_the_file_changes(tmp_path):
    import xarray as xr

    x, y = np.meshgrid(np.arange(-1500000, -1480000, 5000.0), np.arange(-500000, -480000, 5000.0))
    settings = RasterSettings(path="nodes.nc", kind="nodes", variable="smb", units="m yr-1")
    path = tmp_path / "nodes.nc"
    for level in (1.0, 2.0):
        arrays = {name: (("j", "i"), values) for name, values in (("x_ps", x), ("y_ps", y), ("smb", 0 * x + level))}
        xr.Dataset(arrays, attrs={"level": "x" * int(level)}).to_netcdf(path)
        at = np.array([-1490000.0, -1e6]), np.array([-490000.0, -1e6])
        np.testing.assert_allclose(interpolate_nodes(path, settings, "EPSG:3031", *at), level)
    line = {name: (("i",), np.arange(5.0)) for name in ("x_ps", "y_ps", "smb")}
    xr.Dataset(line).to_netcdf(tmp_path / "line.nc")
    with pytest.raises(DataError, match="5 nodes lie on one line"):
        interpolate_nodes(tmp_path / "line.nc", settings, "EPSG:3031", *at)


def test_nodes_in_another_projection_than_the_region(tmp_path):
    from pyproj import Transformer

    x, y = np.meshgrid(np.arange(-1500000, -1470000, 5000.0), np.arange(-500000, -470000, 5000.0))
    other_x, other_y = Transformer.from_crs("EPSG:3031", "EPSG:3412", always_xy=True).transform(x, y)
    import xarray as xr

    arrays = {name: (("j", "i"), values) for name, values in (("x", other_x), ("y", other_y), ("smb", 1e-6 * x))}
    xr.Dataset(arrays).to_netcdf(tmp_path / "nodes.nc")
    settings = RasterSettings(
        path="nodes.nc", kind="nodes", variable="smb", x="x", y="y", crs="EPSG:3412", units="m yr-1"
    )
    found = interpolate_nodes(
        tmp_path / "nodes.nc", settings, "EPSG:3031", np.array([-1487000.0]), np.array([-488000.0])
    )
    np.testing.assert_allclose(found, -1.487, rtol=1e-6)
