from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.errors import DatumError, GridError
from deepbedmap_tf.grid import Grid, require_same_datum, to_datum

GRID = Grid.from_bounds((-1000, -2000, 3000, 1000), 500, vertical_datum="ellipsoid:WGS84")


def test_cells_are_registered_on_their_centres_from_north_to_south():
    assert GRID.shape == (6, 8)
    assert GRID.x[:2].tolist() == [-750, -250]
    assert GRID.y[:2].tolist() == [750, 250]
    assert GRID.bounds == (-1000, -2000, 3000, 1000)


def test_bounds_that_do_not_fit_name_the_nearest():
    with pytest.raises(GridError, match=r"nearest that fit are \[0.0, 0.0, 3000.0, 2000.0\]"):
        Grid.from_bounds((0, 0, 3200, 2100), 1000)
    with pytest.raises(GridError, match=r"nearest that fit are \[-500.0, 0.0, 500.0, 1000.0\]"):
        GRID.window((-400, 0, 400, 1100))
    with pytest.raises(GridError, match="xmin < xmax"):
        Grid.from_bounds((10, 0, 0, 10), 1)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(2, 40),
    resolution=st.sampled_from([0.5, 40, 100, 250, 450, 1000 / 3, 5000]),
    left=st.integers(-3_000_000, 3_000_000),
    top=st.integers(-3_000_000, 3_000_000),
)
def test_a_dataarray_gives_back_its_grid(rows, columns, resolution, left, top):
    grid = Grid((rows, columns), Affine(resolution, 0, left, 0, -resolution, top), vertical_datum="msl")
    found = Grid.of(grid.dataarray(np.zeros(grid.shape, np.float32), "bed", "m"))
    assert found.same_cells(grid)
    assert found.vertical_datum == "msl"


def test_window_refine_coarsen_and_pad_agree():
    assert GRID.coarsen(2).refine(2) == GRID
    assert GRID.pad(3).window(GRID.bounds) == GRID
    assert GRID.pad(1).refine(5).bounds == (-1500, -2500, 3500, 1500)
    assert GRID.window((0, -1000, 1000, 0)).x.tolist() == [250, 750]
    with pytest.raises(GridError, match="can't be coarsened by 4"):
        GRID.coarsen(4)


def test_arrays_that_run_the_wrong_way_are_refused():
    array = GRID.dataarray(np.zeros(GRID.shape), "bed", "m")
    with pytest.raises(GridError, match="southwards"):
        Grid.of(array.isel(y=slice(None, None, -1)))
    with pytest.raises(GridError, match="even square steps"):
        Grid.of(array.isel(x=[0, 1, 3]))
    with pytest.raises(GridError, match="no coordinate x"):
        Grid.of(array.drop_vars("x"))
    with pytest.raises(GridError, match="not north-up"):
        Grid((2, 2), Affine(1, 0.5, 0, 0.5, -1, 0))
    with pytest.raises(GridError, match="its grid has"):
        GRID.dataarray(np.zeros((6, 7)), "bed", "m")


def test_heights_are_converted_with_the_geoid_that_fits():
    heights = GRID.dataarray(np.full(GRID.shape, 100, np.float32), "bed", "m")
    geoid = GRID.with_datum(None).dataarray(np.full(GRID.shape, -30, np.float32), "geoid", "m", geoid="geoid:EIGEN-6C4")
    above_geoid = to_datum(heights, geoid, "geoid:EIGEN-6C4")
    assert above_geoid.attrs["vertical_datum"] == "geoid:EIGEN-6C4"
    np.testing.assert_array_equal(above_geoid, 130)
    np.testing.assert_array_equal(to_datum(above_geoid, geoid, "ellipsoid:WGS84"), heights)
    assert to_datum(heights, None, "ellipsoid:WGS84") is heights
    assert heights.attrs["vertical_datum"] == "ellipsoid:WGS84"


def test_datums_never_meet_silently():
    heights = GRID.dataarray(np.zeros(GRID.shape), "bed", "m")
    geoid = GRID.with_datum(None).dataarray(np.zeros(GRID.shape), "geoid", "m", geoid="geoid:EIGEN-6C4")
    with pytest.raises(DatumError, match="wanted on geoid:EIGEN-GL04C, but there is the layer of geoid:EIGEN-6C4"):
        to_datum(heights, geoid, "geoid:EIGEN-GL04C")
    with pytest.raises(DatumError, match="no geoid layer"):
        to_datum(heights, None, "msl")
    with pytest.raises(GridError, match="different cells"):
        to_datum(heights, geoid.isel(x=slice(1, None)), "geoid:EIGEN-6C4")
    with pytest.raises(DatumError, match=r"'bedmap2' is on geoid:EIGEN-GL04C, 'picks' on ellipsoid:WGS84"):
        require_same_datum("geoid:EIGEN-GL04C", "ellipsoid:WGS84", ("bedmap2", "picks"))
    with pytest.raises(DatumError, match="'NAVD88' is not known"):
        GRID.with_datum("NAVD88")
