"""The plan of blocks: it covers what is wanted once, and a block's context does not depend on what is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.inference.tiling import plan_blocks, snap_outward

REGION = Grid.from_bounds((-30_500, 7_000, 6_500, 36_000), 1000)


def cells(grid: Grid, bounds: Bounds) -> tuple[slice, slice]:
    left, top = grid.bounds[0], grid.bounds[3]
    rows = slice(round((top - bounds[3]) / 1000), round((top - bounds[1]) / 1000))
    return rows, slice(round((bounds[0] - left) / 1000), round((bounds[2] - left) / 1000))


@st.composite
def windows(draw: st.DrawFn) -> Grid:
    rows, columns = REGION.shape
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
    height, width = draw(st.integers(1, rows - top)), draw(st.integers(1, columns - left))
    xmin, ymax = REGION.bounds[0] + 1000 * left, REGION.bounds[3] - 1000 * top
    return REGION.window((xmin, ymax - 1000 * height, xmin + 1000 * width, ymax))


@given(window=windows(), size=st.integers(1, 50), halo=st.integers(0, 12))
def test_blocks_cover_the_window_once_and_see_the_same_context(window: Grid, size: int, halo: int) -> None:
    seen = np.zeros(REGION.shape, int)
    whole = plan_blocks(REGION, REGION, size, halo)
    for block in plan_blocks(REGION, window, size, halo):
        seen[cells(REGION, block.core)] += 1
        # One of the blocks of the whole region holds the core, and has the same context.
        assert block.context in [each.context for each in whole]
        inner, outer = cells(REGION, block.core), cells(REGION, block.context)
        for axis in (0, 1):
            before = inner[axis].start - outer[axis].start
            after = outer[axis].stop - inner[axis].stop
            assert before >= min(halo, inner[axis].start) and after >= min(halo, REGION.shape[axis] - inner[axis].stop)
            assert outer[axis].stop - outer[axis].start <= size + 2 * halo
    wanted = np.zeros(REGION.shape, int)
    wanted[cells(REGION, window.bounds)] = 1
    np.testing.assert_array_equal(seen, wanted)


@given(
    left=st.floats(0, 36_000),
    bottom=st.floats(0, 28_000),
    width=st.floats(1, 37_000),
    height=st.floats(1, 29_000),
)
def test_bounds_are_widened_to_whole_cells_and_no_further(
    left: float, bottom: float, width: float, height: float
) -> None:
    xmin, ymin, xmax, ymax = REGION.bounds
    bounds = (xmin + left, ymin + bottom, min(xmin + left + width, xmax), min(ymin + bottom + height, ymax))
    snapped = snap_outward(REGION, bounds)
    assert REGION.window(snapped).bounds == snapped
    for number, outward in enumerate((-1, -1, 1, 1)):
        assert -0.01 <= outward * (snapped[number] - bounds[number]) < 1000


def test_bounds_that_fit_stay_as_they_are() -> None:
    assert snap_outward(REGION, REGION.bounds) == REGION.bounds
    assert snap_outward(REGION, (-20_500, 10_000, -19_500, 12_000)) == (-20_500, 10_000, -19_500, 12_000)
    # The rounding of a coordinate is no wish for one cell more.
    assert snap_outward(REGION, (-20_500.0001, 10_000, -19_499.9999, 12_000)) == (-20_500, 10_000, -19_500, 12_000)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((-40_000, 10_000, -20_000, 20_000), r"leave the region, which is \[-30500.0, 7000.0, 6500.0, 36000.0\]"),
        ((0, 10_000, 7_000, 20_000), "leave the region"),
        ((0, 10_000, -1_000, 20_000), "xmin < xmax and ymin < ymax"),
        ((0, 10_000, float("nan"), 20_000), "xmin ymin xmax ymax in metres"),
    ],
)
def test_impossible_bounds_are_one_line(bounds: Bounds, message: str) -> None:
    with pytest.raises(GridError, match=message):
        snap_outward(REGION, bounds)


def test_impossible_blocks_are_one_line() -> None:
    with pytest.raises(ConfigError, match="expected at least 1 cell"):
        plan_blocks(REGION, REGION, size=0)
    with pytest.raises(ConfigError, match="no negative halo"):
        plan_blocks(REGION, REGION, halo=-1)
