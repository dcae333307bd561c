from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from product_layouts import shapefile

from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.masks import grounded_mask, polygon_mask, read_polygons
from deepbedmap_tf.data.schema import RasterSettings
from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Grid

GRID = Grid.from_bounds((0, 0, 10000, 8000), 500)


def box(xmin: float, ymin: float, xmax: float, ymax: float) -> np.ndarray:
    return np.array([[xmin, ymin], [xmin, ymax], [xmax, ymax], [xmax, ymin]], float)


def in_box(grid: Grid, xmin: float, ymin: float, xmax: float, ymax: float) -> np.ndarray:
    x, y = np.meshgrid(grid.x, grid.y)
    return (x > xmin) & (x < xmax) & (y > ymin) & (y < ymax)


def test_holes_islands_and_further_polygons(tmp_path):
    outer, hole, island = (1000, 1000, 6000, 7000), (2000, 2000, 5000, 6000), (3000, 3000, 4000, 4000)
    other = (7000, 1000, 9000, 2000)
    rings = [box(*outer), box(*hole)[::-1], box(*island)]
    path = shapefile(tmp_path / "line.shp", [rings, [box(*other)]])
    expected = in_box(GRID, *outer) & ~in_box(GRID, *hole) | in_box(GRID, *island) | in_box(GRID, *other)
    mask = grounded_mask(path, GRID)
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == bool and Grid.of(mask).same_cells(GRID)
    # A polygon off the window is not even rasterised, and a window is a slice of the whole.
    part = GRID.window((6500, 0, 9500, 4000))
    assert len(read_polygons(path, bounds=part.bounds)) == 1
    np.testing.assert_array_equal(grounded_mask(path, part), in_box(part, *other))


@given(corners=st.tuples(*[st.integers(0, 19)] * 2, *[st.integers(1, 12)] * 2))
def test_cells_are_inside_by_their_centre(corners):
    left, bottom, width, height = (500 * each for each in corners)
    shape = (left + 100, bottom + 100, left + width + 100, bottom + height + 100)
    np.testing.assert_array_equal(polygon_mask([[box(*shape)]], GRID), in_box(GRID, *shape))


def test_a_buffer_widens_and_narrows_also_from_beyond_the_window(tmp_path):
    path = shapefile(tmp_path / "line.shp", [[box(-3000, -3000, 3000, 20000)]])
    x = np.broadcast_to(GRID.x, GRID.shape)
    np.testing.assert_array_equal(grounded_mask(path, GRID, buffer=1000), x < 4000)
    np.testing.assert_array_equal(grounded_mask(path, GRID, buffer=-1000), x < 2000)
    away = shapefile(tmp_path / "away.shp", [[box(-3000, -3000, -100, 20000)]])
    np.testing.assert_array_equal(grounded_mask(away, GRID, buffer=1000), x < 1000)
    far = shapefile(tmp_path / "far.shp", [[box(-90000, 0, -80000, 1000)]])
    assert not grounded_mask(far, GRID, buffer=1000).any() and not grounded_mask(far, GRID, buffer=-1000).any()


def test_a_region_can_name_an_outline_like_any_raster(tmp_path):
    shapefile(tmp_path / "line.shp", [[box(1000, 1000, 6000, 7000)]])
    reader = FieldReader(lambda path: tmp_path / path, "EPSG:3031", {})
    settings = RasterSettings(path="line.shp", kind="outline", units="1")
    found = reader.on_grid(settings, GRID, "grounded")
    np.testing.assert_array_equal(found, in_box(GRID, 1000, 1000, 6000, 7000).astype(np.float32))
    assert found.name == "grounded" and found.attrs["units"] == "1"


def test_what_is_no_polygon_file_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_polygons(tmp_path / "none.shp")
    path = shapefile(tmp_path / "line.shp", [[box(0, 0, 1000, 1000)]])
    whole = path.read_bytes()
    for kept in (0, 20, 60, 120, len(whole) - 8):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match="damaged or cut off") as caught:
            read_polygons(path)
        assert "\n" not in str(caught.value)
    # A record that goes nowhere, or back, would be read for ever.
    for words in (-4, 0):
        path.write_bytes(whole[:104] + words.to_bytes(4, "big", signed=True) + whole[108:])
        with pytest.raises(DataError, match=f"a record at byte 100 says it has {words} words"):
            read_polygons(path)
    with pytest.raises(DataError, match=r"lines.shp holds lines, expected polygons"):
        read_polygons(shapefile(tmp_path / "lines.shp", [[box(0, 0, 1, 1)]], kind=3))
    with pytest.raises(GridError, match=r"bare.shp does not say its CRS"):
        read_polygons(shapefile(tmp_path / "bare.shp", [[box(0, 0, 1, 1)]], prj=None))
    assert len(read_polygons(tmp_path / "bare.shp", crs="EPSG:3031")) == 1
    from pyproj import CRS

    north = shapefile(tmp_path / "north.shp", [[box(0, 0, 1, 1)]], prj=CRS.from_epsg(3413).to_wkt("WKT1_ESRI"))
    with pytest.raises(GridError, match=r"north.shp is in .*, expected EPSG:3031"):
        read_polygons(north)


def test_the_grounding_line_of_antarctica(shared):
    path = next(shared("data/grounding_line").glob("*.shp"))
    grid = Grid.from_bounds((-3000000, -2500000, 3000000, 2500000), 5000)
    mask = grounded_mask(path, grid)
    # Grounded Antarctica has 12.3 million km2 without its shelves.
    assert float(mask.sum()) * 25e6 == pytest.approx(12.0e12, rel=0.05)
    assert bool(mask.sel(x=2500, y=2500))
    # The middle of the Ross Ice Shelf floats.
    assert not bool(mask.sel(x=-177500, y=-1002500, method="nearest"))
    byrd = Grid.from_bounds((349750, -1000250, 549750, -800250), 500)
    import xarray as xr

    flags = xr.open_dataset(shared("data/byrd") / "BedMachineAntarctica_v3.4_byrd.nc")["mask"].to_numpy()
    agree = grounded_mask(path, byrd).to_numpy() == np.isin(flags, (1, 2, 4))
    assert agree.mean() > 0.98
