from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import CloughTocher2DInterpolator

from deepbedmap_tf.data.gridding import block_median, check_registration, grid_picks
from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Grid

GRID = Grid.from_bounds((-1500000, -500000, -1490000, -492000), 250, vertical_datum="ellipsoid:WGS84")


def relief(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -800 + 0.02 * (x + 1495000) + 60 * np.sin((x + 1500000) / 900) + 40 * np.cos((y + 500000) / 1100)


def scattered(count: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    xmin, ymin, xmax, ymax = GRID.bounds
    x, y = rng.uniform(xmin, xmax, count), rng.uniform(ymin, ymax, count)
    return pd.DataFrame({"x": x, "y": y, "bed": relief(x, y)})


def test_block_medians_are_the_medians_of_the_cells():
    centre_x, centre_y = GRID.x[3], GRID.y[5]
    picks = pd.DataFrame(
        {"x": centre_x + np.array([-100, 0, 100, 300]), "y": centre_y, "bed": [10.0, 500.0, 20.0, 7.0]}
    )
    medians = block_median(picks, GRID)
    assert sorted(medians["bed"]) == [7, 20]
    assert medians.loc[medians["bed"] == 20, "x"].tolist() == [centre_x]


def test_the_grid_agrees_with_an_independent_interpolation():
    # Fault 11 of the published code: pixel and gridline registration confused, half a cell of shift.
    picks = scattered(8000)
    bed = grid_picks(picks, GRID)
    assert Grid.of(bed) == GRID
    x, y = np.meshgrid(GRID.x, GRID.y)
    medians = block_median(picks, GRID)
    independent = CloughTocher2DInterpolator(medians[["x", "y"]].to_numpy(), medians["bed"].to_numpy())
    inner = np.zeros(GRID.shape, bool)
    inner[2:-2, 2:-2] = True

    def misfit(east: float, north: float) -> float:
        return float(np.sqrt(np.nanmean((bed.to_numpy() - independent(x + east, y + north))[inner] ** 2)))

    unshifted = misfit(0, 0)
    assert unshifted < 2.0
    assert min(misfit(e, n) for e in (-125, 125) for n in (-125, 125)) > 3 * unshifted
    np.testing.assert_allclose(bed.to_numpy()[inner], relief(x, y)[inner], atol=8)


@pytest.mark.parametrize("cells", [(44, 44), (52, 48), (48, 52), (53, 47), (64, 40)])
def test_no_size_of_grid_is_shifted(cells):
    rows, columns = cells
    bounds = (-1500000, -500000, -1500000 + 250 * columns, -500000 + 250 * rows)
    grid = Grid.from_bounds(bounds, 250, vertical_datum="ellipsoid:WGS84")
    x, y = np.meshgrid(grid.x, grid.y)
    picks = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "bed": (0.01 * x - 0.02 * y).ravel()})
    np.testing.assert_allclose(grid_picks(picks, grid), 0.01 * x - 0.02 * y, atol=2e-3)


def test_a_plane_comes_back_exactly():
    # One pick a cell: of several, the median place and the median height need not lie on the plane.
    x, y = np.meshgrid(GRID.x + 40, GRID.y - 70)
    picks = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "bed": (0.01 * x - 0.02 * y).ravel()})
    bed = grid_picks(picks, GRID).to_numpy()
    expected = 0.01 * GRID.x[np.newaxis, :] - 0.02 * GRID.y[:, np.newaxis]
    assert np.nanmax(np.abs(bed - expected)) < 0.2


def test_cells_beyond_three_of_a_pick_are_masked():
    x = np.arange(GRID.bounds[0] + 125, GRID.bounds[2], 250)
    picks = pd.DataFrame({"x": x, "y": GRID.y[10], "bed": 100.0 + 0.01 * np.arange(x.size)})
    bed = grid_picks(picks, GRID)
    assert np.isfinite(bed[7:14]).all()
    assert np.isnan(bed[:7]).all() and np.isnan(bed[14:]).all()
    assert bed["measured"].to_numpy().sum() == x.size and bed["measured"][10].all()


def test_a_shifted_surface_is_refused():
    picks = scattered(4000)
    x, y = np.meshgrid(GRID.x, GRID.y)
    medians = block_median(picks, GRID)
    check_registration(GRID.dataarray(relief(x, y), "bed", "m"), medians)
    with pytest.raises(GridError, match="not pixel registered"):
        check_registration(GRID.dataarray(relief(x - 125, y + 125), "bed", "m"), medians)


def test_picks_elsewhere_are_an_error():
    picks = scattered(10).assign(x=0.0)
    with pytest.raises(DataError, match="none of 10 picks lies within"):
        grid_picks(picks, GRID)
