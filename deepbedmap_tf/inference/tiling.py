"""The plan by which a region of any size is predicted: blocks that cover it once, each with context around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Bounds, Grid

SCALE = 4
"""Output cells along the side of a low-resolution cell."""

BLOCK = 80
"""Side of the smallest default block in low-resolution cells."""

HALO = 20
"""Low-resolution cells of context on each side, where a model's metadata name no ``halo``.

What a model needs is measured at export (`inference.halo`). The shipped one keeps within 0.1 m from 22 cells on in the
embedded world (0.24 m at 20) and from 34 on Byrd Glacier (12 m at 20), whose relief it was not trained on. Beyond its
halo a block is the same as one pass over everything, so by default blocks are cut hard, with no blending.
"""

HALO_SHARE = 0.35
"""Largest share of what the network computes that the halo may be, for a default block."""

PREDICT, JOIN = "predict", "join"
"""Stages: the network over every block; neighbouring predictions joined, where something needs both."""


@dataclass(frozen=True)
class Block:
    """One step of a prediction.

    Attributes
    ----------
    place
        Row and column among the blocks of the region, counted from its upper-left corner.
    core
        Edges of the part that is written; None where the block only lends its prediction to a blend.
    whole
        Edges of the block without regard to the window that is wanted.
    context
        Edges of what the network sees: the whole block and its halo, as far as the region goes.
    """

    place: tuple[int, int]
    core: Bounds | None
    whole: Bounds
    context: Bounds


@dataclass(frozen=True)
class Task:
    """Unit of work, and of what a manifest records: blocks that go through the network together."""

    number: int
    stage: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Plan:
    """How a window of a region is cut; nothing is read, and equal arguments give equal plans.

    Blocks are counted from the upper-left corner of the region, not of the window, and the network sees the same
    context of a block whatever the window: so the prediction of a part is the part of the prediction, exactly.

    Attributes
    ----------
    region
        Low-resolution cells of the whole region.
    window
        Low-resolution cells that are wanted, within it.
    size
        Side of a block, low-resolution cells.
    halo
        Low-resolution cells of context on each side.
    blend
        Width, in low-resolution cells, over which the predictions of neighbours pass into each other, with its middle
        on their common edge; 0 cuts hard. It lies within the halo and costs no computing.
    batch
        Blocks of a task.

    Raises
    ------
    ConfigError
        When a number is impossible.
    """

    region: Grid
    window: Grid
    size: int = BLOCK
    halo: int = HALO
    blend: int = 0
    batch: int = 1
    margin: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.halo < 0:
            raise ConfigError(
                f"blocks of {self.size} cells with a halo of {self.halo}; expected at least 1 cell and no negative halo"
            )
        if not 0 <= self.blend <= min(2 * self.halo, self.size):
            raise ConfigError(
                f"a blend of {self.blend} cells; expected 0 to {min(2 * self.halo, self.size)}: at most the block and "
                "twice the halo, for neighbours must both have predicted what they blend"
            )
        if not 0 <= self.margin <= self.size - self.blend:
            raise ConfigError(
                f"blocks of {self.size} cells need {self.margin} cells around them; expected at most "
                f"{self.size - self.blend}, for only neighbours are joined; choose a larger --block"
            )
        if self.batch < 1:
            raise ConfigError(f"{self.batch} blocks at a time; expected at least 1")

    @property
    def joins(self) -> bool:
        """Whether blocks are finished from several predictions, in a second stage."""
        return bool(self.blend or self.margin)

    @property
    def reach(self) -> int:
        """Output cells by which a block's prediction is used beyond its edges: half of the blend."""
        return SCALE * self.blend // 2

    @property
    def area(self) -> Grid:
        """Low-resolution cells of the whole blocks that hold the window."""
        rows, columns = self._blocks_of(self.window.bounds)
        side = self.size * self.region.resolution
        left, top = self.region.bounds[0], self.region.bounds[3]
        bounds = (
            left + columns.start * side,
            top - rows.stop * side,
            left + columns.stop * side,
            top - rows.start * side,
        )
        return self.region.window(_within(bounds, self.region.bounds))

    def blocks(self) -> list[Block]:
        """Blocks from north to south and from west to east; their cores cover the window once."""
        margin = (self.blend / 2 + self.margin) * self.region.resolution
        rows, columns = self._blocks_of(_within(_grown(self.window.bounds, margin), self.region.bounds))
        return [self.block((row, column)) for row in rows for column in columns]

    def block(self, place: tuple[int, int]) -> Block:
        """Return the block at a row and column."""
        side, outer = self.size * self.region.resolution, self.region.bounds
        left, top = outer[0] + place[1] * side, outer[3] - place[0] * side
        whole = _within((left, top - side, left + side, top), outer)
        core = _within(whole, self.window.bounds)
        wanted = core[0] < core[2] and core[1] < core[3]
        context = _within(_grown(whole, self.halo * self.region.resolution), outer)
        return Block(place, core if wanted else None, whole, context)

    def tasks(self) -> list[Task]:
        """Work in the order in which it is done: all of a stage before the next.

        Only blocks that see windows of one shape go through the network together.
        """
        blocks = self.blocks()
        groups: list[tuple[str, tuple[Block, ...]]] = []
        for _, alike in groupby(blocks, key=self._shape):
            run = tuple(alike)
            groups += [(PREDICT, run[start : start + self.batch]) for start in range(0, len(run), self.batch)]
        if self.joins:
            groups += [(JOIN, (block,)) for block in blocks if block.core is not None]
        return [Task(number, stage, group) for number, (stage, group) in enumerate(groups)]

    def computed(self) -> int:
        """Output cells that the network computes, halo included."""
        return SCALE**2 * sum(math.prod(self._shape(block)) for block in self.blocks())

    def weights(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Weight of a block's prediction in the blend, for its rows and its columns of output cells.

        Counted from `reach` cells outside the block's upper-left corner to `reach` cells outside the lower-right one;
        0 beyond the region. The weights of two neighbours add up to 1 in every cell.
        """
        outer, cell = self.region.bounds, self.region.resolution / SCALE
        (left, bottom, right, top), reach = block.whole, self.reach
        north, south, west, east = (
            round(length / cell) for length in (outer[3] - top, bottom - outer[1], left - outer[0], outer[2] - right)
        )
        down = _ramps(round((top - bottom) / cell), north, south, reach)
        along = _ramps(round((right - left) / cell), west, east, reach)
        return down, along

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return {
            "region": list(self.region.bounds),
            "window": list(self.window.bounds),
            "cell": self.region.resolution,
            **{key: getattr(self, key) for key in ("size", "halo", "blend", "batch", "margin")},
        }

    def _shape(self, block: Block) -> tuple[int, int]:
        xmin, ymin, xmax, ymax = block.context
        cell = self.region.resolution
        return round((ymax - ymin) / cell), round((xmax - xmin) / cell)

    def _blocks_of(self, bounds: Bounds) -> tuple[range, range]:
        outer, side = self.region.bounds, self.size * self.region.resolution
        return (
            _steps((outer[3] - bounds[3]) / side, (outer[3] - bounds[1]) / side),
            _steps((bounds[0] - outer[0]) / side, (bounds[2] - outer[0]) / side),
        )


def plan_blocks(region: Grid, window: Grid, size: int = BLOCK, halo: int = HALO, blend: int = 0) -> list[Block]:
    """Plan the blocks that cover a window of a region; see `Plan`.

    Examples
    --------
    >>> region = Grid.from_bounds((0, 0, 10000, 4000), 1000)
    >>> [block.core for block in plan_blocks(region, region, size=6, halo=2)]
    [(0.0, 0.0, 6000.0, 4000.0), (6000.0, 0.0, 10000.0, 4000.0)]
    """
    return Plan(region, window, size, halo, blend).blocks()


def default_block(halo: int) -> int:
    """Side of a block, low-resolution cells, of which at most `HALO_SHARE` of the computing goes into the halo.

    Examples
    --------
    >>> default_block(20), default_block(4)
    (168, 80)
    """
    kept = math.sqrt(1 - HALO_SHARE)
    return max(BLOCK, 8 * math.ceil(2 * halo * kept / (1 - kept) / 8))


def snap_outward(grid: Grid, bounds: Bounds) -> Bounds:
    """Widen bounds to the edges of the cells that they cut through.

    Raises
    ------
    GridError
        When they are empty, or not wholly inside the grid.
    """
    xmin, ymin, xmax, ymax = bounds
    if not all(map(math.isfinite, bounds)) or xmin >= xmax or ymin >= ymax:
        raise GridError(f"bounds {list(bounds)}: expected xmin ymin xmax ymax in metres, xmin < xmax and ymin < ymax")
    cell, outer = grid.resolution, grid.bounds
    # A millionth of a cell is the rounding of a coordinate, not a wish for one cell more.
    left, bottom = (math.floor((v - s) / cell + 1e-6) * cell + s for v, s in ((xmin, outer[0]), (ymin, outer[1])))
    right, top = (math.ceil((v - s) / cell - 1e-6) * cell + s for v, s in ((xmax, outer[0]), (ymax, outer[1])))
    if left < outer[0] or bottom < outer[1] or right > outer[2] or top > outer[3]:
        raise GridError(f"bounds {list(bounds)} leave the region, which is {list(outer)}; choose a part of it")
    return (left, bottom, right, top)


def place_in(part: Bounds, whole: Bounds, cell: float) -> tuple[slice, slice]:
    """Rows and columns of a part of a map whose cells have this side."""
    top, bottom = round((whole[3] - part[3]) / cell), round((whole[3] - part[1]) / cell)
    left, right = round((part[0] - whole[0]) / cell), round((part[2] - whole[0]) / cell)
    return slice(top, bottom), slice(left, right)


def _ramps(size: int, before: int, after: int, reach: int) -> np.ndarray:
    """Weights along an axis: 1 inside, half a cosine down across an edge that has a neighbour, 0 beyond the region.

    `before` and `after` are the cells of the region on either side.
    """
    weights = np.ones(size + 2 * reach)
    if reach:
        fall = 0.5 - 0.5 * np.sin(np.pi * (np.arange(-reach, reach) + 0.5) / (2 * reach))
        if before:
            # One minus the neighbour's, so that two add up to 1 to the last digit.
            weights[: 2 * reach] = 1 - fall
        if after:
            weights[size:] *= fall
        weights[: max(0, reach - before)] = 0
        weights[size + reach + min(after, reach) :] = 0
    return weights


def _steps(start: float, stop: float) -> range:
    """Whole steps that cover what lies between two distances."""
    return range(math.floor(start + 1e-9), math.ceil(stop - 1e-9))


def _grown(bounds: Bounds, margin: float) -> Bounds:
    return (bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin)


def _within(bounds: Bounds, limits: Bounds) -> Bounds:
    low = (max(bounds[0], limits[0]), max(bounds[1], limits[1]))
    return (*low, min(bounds[2], limits[2]), min(bounds[3], limits[3]))
