"""Picks by cell and by window."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.pick_index import PickIndex

GRID = Grid.from_bounds((-1000e3, 200e3, -950e3, 240e3), 250)


@pytest.fixture(scope="module")
def picks() -> pd.DataFrame:
    generator = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "x": generator.uniform(-1001e3, -949e3, 5000),
            "y": generator.uniform(199e3, 241e3, 5000),
            "bed": generator.normal(-500, 100, 5000),
            "thickness": generator.uniform(100, 3000, 5000),
        }
    )


def test_cells_hold_the_mean_and_the_number_of_their_picks(picks: pd.DataFrame) -> None:
    index = PickIndex.of_picks(picks, GRID)
    inside = picks[picks["x"].between(-1000e3, -950e3) & picks["y"].between(200e3, 240e3)]
    place = (np.floor((240e3 - inside["y"]) / 250), np.floor((inside["x"] + 1000e3) / 250))
    by_cell = inside["bed"].groupby([place[0], place[1]]).agg(["mean", "size"])
    mean, count = index.bed_on(GRID), index.counts_on(GRID)
    assert count.sum() == len(inside)
    assert np.isfinite(mean).sum() == len(by_cell) == len(index)
    for (row, column), (bed, size) in by_cell.iterrows():
        assert mean[int(row), int(column)] == pytest.approx(bed)
        assert count[int(row), int(column)] == size


def test_error_falls_with_picks_to_what_they_share() -> None:
    one = {"x": -999e3, "y": 201e3, "bed": 0.0, "thickness": 2000.0}
    rows = [{**one, "pick_count": number} for number in (1, 2, 1000)]
    sigma = [PickIndex.of_picks(pd.DataFrame([row]), GRID).sigma[0] for row in rows]
    assert sigma[0] == pytest.approx(20.0)
    assert sigma[1] == pytest.approx(20.0 * np.sqrt(2 / 3))
    assert sigma[2] == pytest.approx(20.0 / np.sqrt(3), rel=2e-3)
    thin = PickIndex.of_picks(pd.DataFrame([{**one, "thickness": 5.0}]), GRID)
    assert thin.sigma[0] == pytest.approx(10.0)


@given(
    corner=st.tuples(st.integers(-20, 190), st.integers(-20, 150)),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    margin=st.sampled_from([0.0, 250.0, 3333.0]),
)
def test_near_is_what_a_search_of_all_finds(
    picks: pd.DataFrame, corner: tuple[int, int], size: tuple[int, int], margin: float
) -> None:
    index = PickIndex.of_picks(picks, GRID)
    left, top = -1000e3 + 250 * corner[0], 240e3 - 250 * corner[1]
    bounds = (left, top - 250 * size[1], left + 250 * size[0], top)
    near = index.near(bounds, margin)
    inside = (index.x >= bounds[0] - margin) & (index.x <= bounds[2] + margin)
    inside &= (index.y >= bounds[1] - margin) & (index.y <= bounds[3] + margin)
    np.testing.assert_array_equal(near.bed, index.bed[inside])
    np.testing.assert_array_equal(near.x, index.x[inside])


def test_distance_is_to_the_nearest_cell_with_picks(picks: pd.DataFrame) -> None:
    index = PickIndex.of_picks(picks.head(40), GRID)
    window = GRID.window((-990e3, 210e3, -985e3, 214e3))
    x, y = np.meshgrid(window.x, window.y)
    every = np.hypot(x[..., np.newaxis] - index.x, y[..., np.newaxis] - index.y).min(axis=-1)
    np.testing.assert_allclose(index.distance_on(window), every)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(index)).distance_on(window), every)


def test_windows_see_the_same_cells_as_the_whole(picks: pd.DataFrame) -> None:
    index = PickIndex.of_picks(picks, GRID)
    window = GRID.window((-980e3, 215e3, -965e3, 230e3))
    rows, columns = slice(40, 100), slice(80, 140)
    np.testing.assert_array_equal(index.bed_on(window), index.bed_on(GRID)[rows, columns])
    np.testing.assert_array_equal(index.counts_on(window), index.counts_on(GRID)[rows, columns])


def test_a_region_without_picks() -> None:
    index = PickIndex.of_picks(pd.DataFrame({"x": [], "y": [], "bed": []}, dtype=float), GRID)
    assert len(index.near(GRID.bounds)) == 0
    assert np.isinf(index.distance_on(GRID)).all()
    assert index.counts_on(GRID).sum() == 0
