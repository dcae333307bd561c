"""The plan by which a region of any size is predicted: blocks that cover it once, each with context around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Bounds, Grid

BLOCK = 80
"""Side of a block in low-resolution cells. With its halo, 480 x 480 output cells: 1.1 GB for the default network."""

HALO = 20
"""Low-resolution cells of context on each side, where a model's metadata name no ``halo``.

The default network's bed within 16 low-resolution cells of a window's edge depends on where that edge is: by up to
27 m at 16 cells on Byrd Glacier, 0.5 m (rms 0.015 m) at 20; on the embedded world 0.08 m and 0.003 m. Twenty cells
from an edge a block is the same as one pass over everything, so blocks are cut hard, with no blending.
"""


@dataclass(frozen=True)
class Block:
    """One step of a prediction.

    Attributes
    ----------
    core
        Edges of the part that is kept.
    context
        Edges of what the network sees: the core and its halo, as far as the region goes.
    """

    core: Bounds
    context: Bounds


def plan_blocks(region: Grid, window: Grid, size: int = BLOCK, halo: int = HALO) -> list[Block]:
    """Plan the blocks that cover a window of a region.

    Blocks are counted from the upper-left corner of the region, not of the window, and the network sees the same
    context of a block whatever the window: so the prediction of a part is the part of the prediction, exactly.

    Parameters
    ----------
    region
        Low-resolution cells of the whole region.
    window
        Low-resolution cells that are wanted, within it.
    size
        Side of a block, low-resolution cells.
    halo
        Low-resolution cells of context on each side.

    Returns
    -------
    list of Block
        From north to south and from west to east; cores of neighbours share an edge and cover the window once.

    Raises
    ------
    ConfigError
        When the block or the halo is impossible.

    Examples
    --------
    >>> region = Grid.from_bounds((0, 0, 10000, 4000), 1000)
    >>> [block.core for block in plan_blocks(region, region, size=6, halo=2)]
    [(0.0, 0.0, 6000.0, 4000.0), (6000.0, 0.0, 10000.0, 4000.0)]
    """
    if size < 1 or halo < 0:
        raise ConfigError(
            f"blocks of {size} cells with a halo of {halo}; expected at least 1 cell and no negative halo"
        )
    outer, wanted = region.bounds, window.bounds
    blocks = []
    for top, bottom in _spans(outer[3] - wanted[3], outer[3] - wanted[1], size * region.resolution):
        for left, right in _spans(wanted[0] - outer[0], wanted[2] - outer[0], size * region.resolution):
            # Where a block begins and ends without regard to the window is what decides about its context.
            whole = (outer[0] + left, outer[3] - bottom, outer[0] + right, outer[3] - top)
            context = _within(_grown(whole, halo * region.resolution), outer)
            blocks.append(Block(core=_within(whole, wanted), context=context))
    return blocks


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


def _spans(start: float, stop: float, side: float) -> Iterator[tuple[float, float]]:
    """Multiples of `side` that cover what lies between two distances from the region's corner."""
    for number in range(math.floor(start / side + 1e-9), math.ceil(stop / side - 1e-9)):
        yield number * side, (number + 1) * side


def _grown(bounds: Bounds, margin: float) -> Bounds:
    return (bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin)


def _within(bounds: Bounds, limits: Bounds) -> Bounds:
    low = (max(bounds[0], limits[0]), max(bounds[1], limits[1]))
    return (*low, min(bounds[2], limits[2]), min(bounds[3], limits[3]))
