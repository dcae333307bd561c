"""The plan of blocks: it covers what is wanted once, and a block's context does not depend on what is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.inference.tiling import HALO_SHARE, JOIN, Plan, default_block, plan_blocks, snap_outward

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
        assert block.core is not None
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
    with pytest.raises(ConfigError, match="a blend of 9 cells; expected 0 to 8"):
        Plan(REGION, REGION, size=20, halo=4, blend=9)
    with pytest.raises(ConfigError, match="need 15 cells around them; expected at most 10"):
        Plan(REGION, REGION, size=10, halo=4, margin=15)
    with pytest.raises(ConfigError, match="0 blocks at a time"):
        Plan(REGION, REGION, batch=0)


@given(
    window=windows(),
    size=st.integers(1, 50),
    halo=st.integers(0, 12),
    batch=st.integers(1, 5),
    margin=st.integers(0, 3),
    data=st.data(),
)
def test_tasks_hold_every_block_once_and_batches_fit_together(
    window: Grid, size: int, halo: int, batch: int, margin: int, data: st.DataObject
) -> None:
    blend = data.draw(st.integers(0, min(size, 2 * halo)))
    plan = Plan(REGION, window, size, halo, blend, batch, min(margin, size - blend))
    tasks = plan.tasks()
    assert [task.number for task in tasks] == list(range(len(tasks)))
    predicted = [block for task in tasks if task.stage != JOIN for block in task.blocks]
    assert predicted == plan.blocks() and len({block.place for block in predicted}) == len(predicted)
    for task in tasks:
        assert 1 <= len(task.blocks) <= batch
        shapes = {(round(c[2] - c[0]), round(c[3] - c[1])) for c in (block.context for block in task.blocks)}
        assert len(shapes) == 1
    joined = [block for task in tasks if task.stage == JOIN for block in task.blocks]
    wanted = [block for block in predicted if block.core is not None]
    assert joined == (wanted if plan.joins else [])
    # All that a join looks at has been predicted.
    places = {block.place for block in predicted}
    for block in joined:
        xmin, ymin, xmax, ymax = block.core or block.whole
        edge = 1000 * plan.margin
        for x in (xmin - edge + 1, xmax + edge - 1):
            for y in (ymin - edge + 1, ymax + edge - 1):
                x, y = min(max(x, REGION.bounds[0] + 1), 6499.0), min(max(y, 7001.0), REGION.bounds[3] - 1)
                place = int((REGION.bounds[3] - y) // (1000 * size)), int((x - REGION.bounds[0]) // (1000 * size))
                assert place in places and max(abs(a - b) for a, b in zip(place, block.place, strict=True)) <= 1


@given(window=windows(), size=st.integers(1, 40), halo=st.integers(0, 10), data=st.data())
def test_weights_of_neighbours_add_up_to_one(window: Grid, size: int, halo: int, data: st.DataObject) -> None:
    blend = data.draw(st.integers(0, min(size, 2 * halo)))
    plan = Plan(REGION, window, size, halo, blend)
    fine = REGION.refine(4)
    total = np.zeros((fine.shape[0] + 2 * plan.reach, fine.shape[1] + 2 * plan.reach))
    for block in Plan(REGION, REGION, size, halo, blend).blocks():
        down, along = plan.weights(block)
        top = round((REGION.bounds[3] - block.whole[3]) / 250)
        left = round((block.whole[0] - REGION.bounds[0]) / 250)
        total[top : top + down.size, left : left + along.size] += np.outer(down, along)
    inside = total[plan.reach :, plan.reach :][: fine.shape[0], : fine.shape[1]]
    np.testing.assert_allclose(inside, 1, atol=1e-12)
    assert total.sum() == pytest.approx(inside.sum())


@pytest.mark.parametrize("halo", [0, 1, 4, 12, 16, 20, 22, 32, 60])
def test_the_default_block_pays_for_its_halo(halo: int) -> None:
    size = default_block(halo)
    assert 1 - (size / (size + 2 * halo)) ** 2 <= HALO_SHARE


def test_a_continent_is_planned() -> None:
    # 22000 x 18000 cells of 250 m; the blocks of the whole, and of a part of it.
    continent = Grid.from_bounds((-2_700_000, -2_200_000, 2_800_000, 2_300_000), 1000)
    plan = Plan(continent, continent, default_block(20), 20)
    blocks = plan.blocks()
    assert len(blocks) == 33 * 27 and plan.area == continent
    assert plan.computed() / (22_000 * 18_000) < 1 / (1 - HALO_SHARE)
    part = Plan(continent, continent.window((-1_600_000, -600_000, -1_500_000, -500_000)), plan.size, 20)
    contexts = {block.context for block in blocks}
    assert {block.context for block in part.blocks()} <= contexts
