"""Radar picks reduced to output cells, found by window: what a map counts, measures distances to and honours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from deepbedmap_tf.grid import Bounds, Grid

if TYPE_CHECKING:
    from deepbedmap_tf.data.region import Region
    from deepbedmap_tf.data.schema import PicksSettings

PICK_ROLES = ("target", "score")
"""Roles of the picks that a map tells of and honours; any other word keeps an entry for later, unread."""

RELATIVE_ERROR = 0.01
"""Standard error of one pick as a share of ice thickness: 1 %, what the speed of radio waves in ice is known to."""

LEAST_ERROR = 10.0
"""Standard error of one pick where the ice is thin or its thickness unknown, metres: a few samples of the radar."""

COUNT_SCALE = 2.0
"""Variance of a pick that averages out over the picks of a cell, over the variance that they all share.

As `TargetSettings.count_scale` has it, so that a cell weighs in the map as it weighs in training.
"""

_TILE = 64


@dataclass(frozen=True)
class PickIndex:
    """Cells of a grid that hold picks, sorted by squares of 64 x 64 cells.

    Attributes
    ----------
    grid
        Output cells of the whole region.
    row, column
        Of each cell that holds picks, on that grid, shape (cells,).
    bed
        Mean bed of the cell's picks, metres in the datum of the grid, shape (cells,).
    sigma
        Standard error of that mean, metres, shape (cells,).
    count
        Picks in the cell, shape (cells,).
    """

    grid: Grid
    row: np.ndarray
    column: np.ndarray
    bed: np.ndarray
    sigma: np.ndarray
    count: np.ndarray

    @classmethod
    def of_region(cls, region: Region) -> PickIndex:
        """Index the picks of a region that a map tells of; a region that names none gives an empty index."""
        roles = sorted({entry.role for entry in mapped_picks(region)})
        if not roles:
            empty = pd.DataFrame({"x": [], "y": [], "bed": []}, dtype=np.float64)
            return cls.of_picks(empty, region.grid)
        return cls.of_picks(pd.concat([region.picks(role) for role in roles]), region.grid)

    @classmethod
    def of_picks(cls, picks: pd.DataFrame, grid: Grid) -> PickIndex:
        """Reduce picks to the cells of a grid.

        Parameters
        ----------
        picks
            Columns x, y and bed, metres in the CRS and datum of `grid`; optionally thickness (m), for the error, and
            pick_count where a row is itself the mean of picks. Rows outside the grid or without a bed are left out.
        grid
            Output cells.
        """
        x, y, bed = (picks[name].to_numpy(np.float64) for name in ("x", "y", "bed"))
        left, top = grid.bounds[0], grid.bounds[3]
        column = np.floor((x - left) / grid.resolution).astype(np.int64)
        row = np.floor((top - y) / grid.resolution).astype(np.int64)
        kept = np.isfinite(bed) & (row >= 0) & (row < grid.shape[0]) & (column >= 0) & (column < grid.shape[1])
        row, column, bed = row[kept], column[kept], bed[kept]
        one = _column(picks, "pick_count", kept, 1.0)
        thickness = _column(picks, "thickness", kept, 0.0)
        across = -(-grid.shape[1] // _TILE)
        tile = (row // _TILE) * across + column // _TILE
        within = (row % _TILE) * _TILE + column % _TILE
        _, first, cell, rows = np.unique(
            tile * _TILE**2 + within, return_index=True, return_inverse=True, return_counts=True
        )
        count = np.bincount(cell, one, first.size)
        thickness = np.bincount(cell, thickness, first.size) / np.maximum(rows, 1)
        single = np.maximum(RELATIVE_ERROR * thickness, LEAST_ERROR)
        sigma = single * np.sqrt((1 + COUNT_SCALE / np.maximum(count, 1)) / (1 + COUNT_SCALE))
        mean = np.bincount(cell, one * bed, first.size) / np.where(count > 0, count, 1)
        return cls(grid, row[first], column[first], mean, sigma, count)

    def __len__(self) -> int:
        return int(self.row.size)

    def __getstate__(self) -> dict[str, Any]:
        # The search tree is made again where it is used: it is larger than the picks.
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_") or key == "_starts"}

    @property
    def x(self) -> np.ndarray:
        """Centres of the cells, metres, shape (cells,)."""
        return self.grid.bounds[0] + (self.column + 0.5) * self.grid.resolution

    @property
    def y(self) -> np.ndarray:
        """Centres of the cells, metres, shape (cells,)."""
        return self.grid.bounds[3] - (self.row + 0.5) * self.grid.resolution

    def take(self, chosen: np.ndarray) -> PickIndex:
        """Return the cells of a mask, or of ascending positions."""
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        parts = (self.row, self.column, self.bed, self.sigma, self.count)
        return PickIndex(self.grid, *(part[chosen] for part in parts))

    def near(self, bounds: Bounds, margin: float = 0.0) -> PickIndex:
        """Return the cells whose centre lies in a window or at most `margin` metres beside it.

        Their order does not depend on the window. Only the squares that the window touches are looked at.
        """
        xmin, ymin, xmax, ymax = bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin
        left, top, cell = self.grid.bounds[0], self.grid.bounds[3], self.grid.resolution
        # A millionth of a cell is the rounding of a coordinate.
        first_row, last_row = np.ceil((top - ymax) / cell - 0.5 - 1e-6), np.floor((top - ymin) / cell - 0.5 + 1e-6)
        first_column = np.ceil((xmin - left) / cell - 0.5 - 1e-6)
        last_column = np.floor((xmax - left) / cell - 0.5 + 1e-6)
        parts = [np.zeros(0, np.int64)]
        for start, stop in self._squares(int(first_row), int(last_row), int(first_column), int(last_column)):
            row, column = self.row[start:stop], self.column[start:stop]
            inside = (row >= first_row) & (row <= last_row) & (column >= first_column) & (column <= last_column)
            parts.append(start + np.flatnonzero(inside))
        return self.take(np.concatenate(parts))

    def counts_on(self, grid: Grid) -> np.ndarray:
        """Picks of each cell of a window of the region's grid, float64."""
        row, column, near = self._places(grid)
        counts = np.zeros(grid.shape)
        counts[row, column] = near.count
        return counts

    def bed_on(self, grid: Grid) -> np.ndarray:
        """Mean bed of the picks of each cell of a window of the region's grid, metres, NaN where there is none."""
        row, column, near = self._places(grid)
        bed: np.ndarray = np.full(grid.shape, np.nan)
        bed[row, column] = near.bed
        return bed

    def distance_to(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from points to the centre of the nearest cell with picks, metres; infinite where there are none."""
        x, y = np.broadcast_arrays(x, y)
        if not len(self):
            return np.full(x.shape, np.inf)
        distance, _ = self._tree.query(np.stack([x.ravel(), y.ravel()], axis=-1))
        return np.asarray(distance).reshape(x.shape)

    def distance_on(self, grid: Grid) -> np.ndarray:
        """Distance from each cell of a grid to the nearest cell with picks, metres."""
        return self.distance_to(grid.x[np.newaxis, :], grid.y[:, np.newaxis])

    def with_bed(self, bed: np.ndarray) -> PickIndex:
        """Return the same cells with other heights, for example residuals."""
        return replace(self, bed=bed)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(np.stack([self.x, self.y], axis=-1))

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where each square begins, and the end."""
        down, across = (-(-size // _TILE) for size in self.grid.shape)
        tile = (self.row // _TILE) * across + self.column // _TILE
        return np.searchsorted(tile, np.arange(down * across + 1))

    def _squares(self, top: int, bottom: int, left: int, right: int) -> Iterator[tuple[int, int]]:
        down, across = (-(-size // _TILE) for size in self.grid.shape)
        first, last = max(left // _TILE, 0), min(right // _TILE, across - 1)
        for line in range(max(top // _TILE, 0), min(bottom // _TILE, down - 1) + 1):
            if first <= last:
                yield int(self._starts[line * across + first]), int(self._starts[line * across + last + 1])

    def _places(self, grid: Grid) -> tuple[np.ndarray, np.ndarray, PickIndex]:
        near = self.near(grid.bounds)
        row = np.rint((grid.bounds[3] - self.grid.bounds[3]) / self.grid.resolution).astype(int) + near.row
        column = np.rint((self.grid.bounds[0] - grid.bounds[0]) / self.grid.resolution).astype(int) + near.column
        return row, column, near


def mapped_picks(region: Region) -> list[PicksSettings]:
    """Entries of a region file that a map of the region reads picks from: those of the roles `PICK_ROLES`."""
    return [entry for entry in region.settings.picks if entry.role in PICK_ROLES]


def _column(picks: pd.DataFrame, name: str, kept: np.ndarray, default: float) -> np.ndarray:
    if name not in picks:
        return np.full(int(kept.sum()), default)
    values = picks[name].to_numpy(np.float64)[kept]
    return np.where(np.isfinite(values), values, default)
