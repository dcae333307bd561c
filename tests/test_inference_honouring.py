"""Kriging of residuals at picks: against the whole system solved at once, within the picks' error, without seams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference import honouring
from deepbedmap_tf.inference.honouring import correlation, honour, reach_cells, remaining_share
from deepbedmap_tf.inference.pick_index import PickIndex

GRID = Grid.from_bounds((0, 0, 40e3, 30e3), 250)
RANGE = 4000.0


def survey(number: int, spread: float, seed: int = 0, grid: Grid = GRID) -> PickIndex:
    generator = np.random.default_rng(seed)
    xmin, ymin, xmax, ymax = grid.bounds
    return PickIndex.of_picks(
        pd.DataFrame(
            {
                "x": generator.uniform(xmin, xmax, number),
                "y": generator.uniform(ymin, ymax, number),
                "bed": generator.normal(-500, spread, number),
                "thickness": 2000.0,
            }
        ),
        grid,
    )


def dense(bed: np.ndarray, picks: PickIndex) -> np.ndarray:
    """Simple kriging with all picks in one system."""
    points = np.stack([picks.x, picks.y], axis=-1)
    x, y = np.meshgrid(GRID.x, GRID.y)
    cells = np.stack([x.ravel(), y.ravel()], axis=-1)
    row, column = picks.row, picks.column
    residual = picks.bed - bed[row, column]
    between = np.linalg.norm(points[:, np.newaxis] - points, axis=-1)
    system = correlation(between, RANGE) + np.diag(picks.sigma**2 / np.mean(residual**2))
    toward = correlation(np.linalg.norm(cells[:, np.newaxis] - points, axis=-1), RANGE)
    return bed + (toward @ np.linalg.solve(system, residual)).reshape(bed.shape)


def test_like_one_system_for_all_picks() -> None:
    # Residuals far apart, all of one size, so that the patches' variances are the same.
    picks = survey(60, 0.0)
    picks = picks.with_bed(-500 + 80 * np.where(np.arange(len(picks)) % 2, 1.0, -1.0))
    bed = np.full(GRID.shape, -500.0)
    made, _ = honour(bed, GRID, picks, RANGE)
    exact = dense(bed, picks)
    assert np.abs(exact - bed).max() > 60
    difference = np.abs(made - exact)
    # What lies beyond the range has 5 % of correlation, most of it screened by what is nearer.
    assert np.sqrt(np.mean(difference**2)) < 0.02 * np.std(exact)
    assert difference.max() < 8


def test_one_pick_by_hand() -> None:
    bed = np.full(GRID.shape, -600.0)
    picks = PickIndex.of_picks(
        pd.DataFrame({"x": [20125.0], "y": [15125.0], "bed": [-500.0], "thickness": [0.0]}), GRID
    )
    made, honoured = honour(bed, GRID, picks, RANGE)
    share = 100**2 / (100**2 + 10**2)
    row, column = int(picks.row[0]), int(picks.column[0])
    for away in (0, 1, 5, 16):
        assert made[row, column + away] == pytest.approx(-600 + 100 * share * np.exp(-3 * 250 * away / RANGE))
    distance = np.hypot(*np.meshgrid(GRID.x - 20125.0, GRID.y - 15125.0))
    np.testing.assert_array_equal(honoured, np.exp(-3 * distance / RANGE) >= 0.5)


def test_variance_that_remains_is_that_of_the_whole_system() -> None:
    picks = survey(60, 0.0)
    picks = picks.with_bed(-500 + 80 * np.where(np.arange(len(picks)) % 2, 1.0, -1.0))
    bed = np.full(GRID.shape, -500.0)
    share = remaining_share(bed, GRID, picks, RANGE)
    points = np.stack([picks.x, picks.y], axis=-1)
    system = correlation(np.linalg.norm(points[:, np.newaxis] - points, axis=-1), RANGE) + np.diag(
        picks.sigma**2 / 80**2
    )
    for row, column in ((3, 5), (60, 80), (int(picks.row[7]), int(picks.column[7]))):
        toward = correlation(np.hypot(picks.x - GRID.x[column], picks.y - GRID.y[row]), RANGE)
        expected = 1 - toward @ np.linalg.solve(system, toward)
        assert share[row, column] == pytest.approx(expected, abs=0.01)
    far = picks.distance_on(GRID) > 1.5 * RANGE
    assert far.any()
    assert share[far].min() > 0.98
    assert share[picks.row, picks.column].max() < 0.1


@settings(max_examples=8)
@given(number=st.integers(1, 1500), spread=st.sampled_from([5.0, 60.0, 400.0]), seed=st.integers(0, 9))
def test_every_pick_is_met_within_its_error(number: int, spread: float, seed: int) -> None:
    # Neighbouring picks contradict each other here by up to 80 times their error.
    picks = survey(number, spread, seed)
    made, _ = honour(np.full(GRID.shape, -480.0), GRID, picks, RANGE)
    missed = np.abs(made[picks.row, picks.column] - picks.bed)
    assert (missed <= picks.sigma).all()


def test_dense_surveys_are_thinned_and_met(monkeypatch: pytest.MonkeyPatch) -> None:
    picks = survey(30000, 50.0)
    assert len(picks) > 0.6 * GRID.shape[0] * GRID.shape[1]
    seen: list[int] = []
    solve = honouring._solve

    def watched(points: np.ndarray, *others: Any) -> Any:
        seen.append(len(points))
        return solve(points, *others)

    monkeypatch.setattr(honouring, "_solve", watched)
    window = GRID.window((10e3, 10e3, 16e3, 15e3))
    made, _ = honour(np.full(window.shape, -500.0), window, picks, RANGE)
    near = picks.near(window.bounds)
    rows, columns = near.row - 60, near.column - 40
    assert (np.abs(made[rows, columns] - near.bed) <= near.sigma).all()
    assert max(seen) < 1000


@pytest.mark.parametrize("block", [(40, 52), (64, 160), (120, 80)])
def test_blocks_leave_no_trace(block: tuple[int, int]) -> None:
    picks = survey(900, 80.0, 3)
    bed = np.random.default_rng(4).normal(-500, 30, GRID.shape)
    whole, flags = honour(bed, GRID, picks, 2000.0)
    reach = reach_cells(2000.0, 250)
    for top in range(0, GRID.shape[0], block[0]):
        for left in range(0, GRID.shape[1], block[1]):
            bottom, right = min(top + block[0], GRID.shape[0]), min(left + block[1], GRID.shape[1])
            first, before = max(top - reach, 0), max(left - reach, 0)
            last, after = min(bottom + reach, GRID.shape[0]), min(right + reach, GRID.shape[1])
            edges = (before * 250.0, 30e3 - last * 250.0, after * 250.0, 30e3 - first * 250.0)
            part, flagged = honour(bed[first:last, before:after], GRID.window(edges), picks, 2000.0)
            core = np.s_[top - first : bottom - first, left - before : right - before]
            np.testing.assert_array_equal(part[core], whole[top:bottom, left:right])
            np.testing.assert_array_equal(flagged[core], flags[top:bottom, left:right])


def test_what_is_unknown_or_not_allowed_has_no_say() -> None:
    picks = survey(200, 100.0, 5)
    bed = np.full(GRID.shape, -500.0, np.float32)
    bed[:, :40] = np.nan
    allowed = np.zeros(GRID.shape, bool)
    allowed[:, 80:] = True
    made, honoured = honour(bed, GRID, picks, 500.0, allowed)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(made), np.isnan(bed))
    assert not honoured[:, :79].any()
    # Nothing from before column 80 reaches further than the patches of its neighbours.
    east = picks.take(picks.column >= 80)
    np.testing.assert_array_equal(made[:, 40:], honour(bed, GRID, east, 500.0)[0][:, 40:])


def test_without_picks_nothing_moves() -> None:
    bed = np.random.default_rng(0).normal(size=GRID.shape)
    made, honoured = honour(bed, GRID, survey(5, 1.0).take(np.zeros(5, bool)), RANGE)
    np.testing.assert_array_equal(made, bed)
    assert not honoured.any()


def test_refusals() -> None:
    bed = np.zeros(GRID.shape)
    with pytest.raises(ConfigError, match="above 0 m"):
        honour(bed, GRID, survey(5, 1.0), 0.0)
    with pytest.raises(GridError, match="same grid"):
        honour(bed[1:], GRID, survey(5, 1.0), RANGE)
