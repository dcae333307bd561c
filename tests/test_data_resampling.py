from __future__ import annotations

import numpy as np
import pytest
from data_files import EAST, NORTH, ramp
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.resampling import METHODS, fill_gaps, resample, sample
from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Grid

SOURCE = Grid.from_bounds((0, 0, 9000, 8000), 500, vertical_datum="ellipsoid:WGS84")


def plane(grid: Grid = SOURCE):
    return grid.dataarray(ramp(grid), "bed", "m")


@settings(deadline=None, max_examples=40)
@given(
    method=st.sampled_from(["bilinear", "cubic", "average"]),
    resolution=st.sampled_from([100, 200, 250, 450, 500, 1000, 2000]),
    left=st.integers(1000, 2000),
    bottom=st.integers(1000, 2000),
)
def test_a_plane_passes_through_unshifted(method, resolution, left, bottom):
    grid = Grid.from_bounds((left, bottom, left + 3 * resolution, bottom + 2 * resolution), resolution)
    np.testing.assert_allclose(resample(plane(), grid, method), ramp(grid), atol=1e-4)


def test_nearest_takes_the_cell_it_lies_in():
    values = np.arange(SOURCE.shape[0] * SOURCE.shape[1], dtype=np.float32).reshape(SOURCE.shape)
    fine = resample(SOURCE.dataarray(values, "bed", "m"), SOURCE.refine(5), "nearest")
    np.testing.assert_array_equal(fine, values.repeat(5, 0).repeat(5, 1))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_grid_gives_the_same_numbers(method):
    values = np.random.default_rng(0).normal(size=SOURCE.shape).astype(np.float32)
    values[3, 4] = np.nan
    np.testing.assert_allclose(resample(SOURCE.dataarray(values, "bed", "m"), SOURCE, method), values, atol=1e-6)


def test_cubic_is_exact_for_parabolas_and_average_is_the_block_mean():
    x = SOURCE.x[np.newaxis, :] / 1000
    parabola = SOURCE.dataarray(np.repeat(x**2, SOURCE.shape[0], 0), "bed", "m")
    inside = SOURCE.refine(2).window((1000, 1000, 8000, 7000))
    expected = np.repeat((inside.x[np.newaxis, :] / 1000) ** 2, inside.shape[0], 0)
    np.testing.assert_allclose(resample(parabola, inside, "cubic"), expected, atol=1e-4)
    values = np.random.default_rng(1).normal(size=SOURCE.shape).astype(np.float32)
    blocks = values.reshape(8, 2, 9, 2).mean((1, 3))
    np.testing.assert_allclose(
        resample(SOURCE.dataarray(values, "v", "1"), SOURCE.coarsen(2), "average"), blocks, atol=1e-6
    )


@pytest.mark.parametrize("method", METHODS)
def test_nothing_invalid_is_averaged_in(method):
    # Fault 7 of the published code: nodata of -9999 beside 500 m became -4749.5 m.
    values = np.full(SOURCE.shape, 500, np.float32)
    values[6:9, 5:8] = np.nan
    for grid in (SOURCE.refine(2), SOURCE.coarsen(2)):
        result = np.asarray(resample(SOURCE.dataarray(values, "bed", "m"), grid, method))
        assert np.isnan(result).any()
        np.testing.assert_allclose(result[np.isfinite(result)], 500, atol=1e-3)


def test_outside_is_invalid_and_the_rim_is_continued_straight():
    result = resample(plane(), SOURCE.refine(2).pad(2), "cubic")
    valid = np.isfinite(result.to_numpy())
    assert not valid[:2].any() and not valid[:, -2:].any() and valid[2:-2, 2:-2].all()
    np.testing.assert_allclose(result[2:-2, 2:-2], ramp(SOURCE.refine(2)), atol=1e-3)


def test_bands_are_resampled_alike_and_attributes_stay():
    both = SOURCE.dataarray(np.stack([ramp(SOURCE), 2 * ramp(SOURCE)], -1), "velocity", "m yr-1")
    result = resample(both, SOURCE.refine(2), "bilinear")
    np.testing.assert_allclose(result[..., 1], 2 * result[..., 0], atol=1e-3)
    assert result.attrs["units"] == "m yr-1"
    assert Grid.of(result) == SOURCE.refine(2)


def test_unknown_method_and_other_crs_are_refused():
    with pytest.raises(GridError, match=r"'lanczos' is not known; known are nearest"):
        resample(plane(), SOURCE, "lanczos")
    with pytest.raises(GridError, match="reproject"):
        resample(plane(), Grid.from_bounds((0, 0, 1000, 1000), 500, crs="EPSG:3413"), "bilinear")


def test_points_are_sampled_where_they_lie():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 9000, 500), rng.uniform(0, 8000, 500)
    np.testing.assert_allclose(sample(plane(), x, y), EAST * x + NORTH * y, atol=1e-3)
    assert np.isnan(sample(plane(), np.array([-1.0, 9001.0, 10.0]), np.array([10.0, 10.0, 8001.0]))).all()
    holed = plane()
    holed[4, 4] = np.nan
    assert np.isnan(sample(holed, SOURCE.x[[4]], SOURCE.y[[4]]))
    # A neighbour without weight does no harm.
    assert np.isfinite(sample(holed, SOURCE.x[[3]], SOURCE.y[[4]]))


def test_gaps_are_filled_by_the_named_rule_only():
    values = np.tile(np.arange(18, dtype=np.float32), (16, 1))
    values[2, 3:5] = np.nan
    array = SOURCE.dataarray(values, "bed", "m")
    kept = fill_gaps(array, "none")
    np.testing.assert_array_equal(kept, values)
    near = fill_gaps(array, "nearest")
    assert np.isfinite(near).all() and not near["valid"][2, 3] and int((~near["valid"]).sum()) == 2
    assert near.attrs["fill"] == "nearest"
    assert (fill_gaps(array, "zero")[2, 3:5] == 0).all()
    values[:] = np.nan
    values[0, 0] = 7
    limited = fill_gaps(SOURCE.dataarray(values, "bed", "m"), "nearest", limit=1000)
    assert int(np.isfinite(limited).sum()) == 6


def test_a_vector_with_one_component_missing_is_missing():
    values = np.ones((*SOURCE.shape, 2), np.float32)
    values[1, 1, 0] = np.nan
    result = fill_gaps(SOURCE.dataarray(values, "velocity", "m yr-1"), "none")
    assert np.isnan(result[1, 1]).all()


def test_a_field_with_nothing_in_it_is_refused():
    with pytest.raises(DataError, match="'bed' has no valid cell within"):
        fill_gaps(SOURCE.dataarray(np.full(SOURCE.shape, np.nan, np.float32), "bed", "m"), "nearest")
