"""A map that meets the radar: the residual at cells with picks, spread by simple kriging.

The residual has an exponential correlation, which is what the residuals of trained models show (docs/science.md), zero
mean, and the picks' error as nugget. One system for all picks of a map would tie every cell to every pick. Instead the
region is cut into small patches, counted from its upper-left corner; each is kriged from the picks within the range of
it, and neighbouring patches pass into each other over a few cells. So a cell depends on the picks within `reach_cells`
alone, whatever block it is computed in, and a patch costs the same however many picks the region has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from deepbedmap_tf.data.region import SCALE
from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.pick_index import PickIndex

PATCH = 16
"""Side of a patch, output cells."""

OVERLAP = 4
"""Output cells by which a patch reaches into its neighbours."""

MOST_PICKS = 800
"""Cells with picks around a patch above which those outside it are averaged over squares, so that time is bounded."""

_DECAY = 3.0
_HALF = math.log(2) / _DECAY
_ROUNDS = 12


def correlation(distance: np.ndarray, range_m: float) -> np.ndarray:
    """Exponential correlation that falls to 5 % at the range, as geostatistics has it.

    Examples
    --------
    >>> correlation(np.array([0.0, 5000.0]), 5000.0).round(3).tolist()
    [1.0, 0.05]
    """
    return np.exp(-_DECAY * distance / range_m)


def reach_cells(range_m: float, resolution: float) -> int:
    """Output cells around a cell within which picks, and the bed there, decide about it; whole low-resolution cells."""
    cells = PATCH + 2 * OVERLAP + math.ceil(range_m / resolution)
    return SCALE * math.ceil(cells / SCALE)


def honour(
    bed: np.ndarray, grid: Grid, picks: PickIndex, range_m: float, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Move a bed so that it meets the picks within their error.

    Parameters
    ----------
    bed
        Predicted bed on `grid`, metres, NaN where there is none. Cells less than `reach_cells` inside the edges of the
        grid, where those are not the region's, lack some of the picks that belong to them: cut them off.
    grid
        Cells of `picks.grid`, all or a window of them.
    picks
        Picks of the region, or at least those in the window.
    range_m
        Distance, metres, at which the correlation of the residual has fallen to 5 %. Nothing further away than this
        from all picks is moved much.
    allowed
        Cells whose picks are used, such as those of grounded ice, shape of the grid; all by default.

    Returns
    -------
    tuple of numpy.ndarray
        The bed, of the type it came in, and the cells that picks decide about: where the correlation with the nearest
        pick is 0.5 or more.

    Raises
    ------
    ConfigError
        When the range is not positive.
    GridError
        When the grid is no window of the picks' grid.
    """
    moved, _, used = _kriged(bed, grid, picks, range_m, allowed, shares=False)
    near = used.distance_on(grid) <= _HALF * range_m
    return (bed + moved).astype(bed.dtype), near & np.isfinite(bed)


def remaining_share(
    bed: np.ndarray, grid: Grid, picks: PickIndex, range_m: float, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Share of the error's variance that is left after picks have been honoured: the kriging variance over the sill.

    Parameters
    ----------
    bed, grid, picks, range_m, allowed
        As for `honour`, and with the same reach.

    Returns
    -------
    numpy.ndarray
        Between 0 (at picks without error) and 1 (far from all), shape of the grid, float64.
    """
    return _kriged(bed, grid, picks, range_m, allowed, shares=True)[1]


def _kriged(
    bed: np.ndarray, grid: Grid, picks: PickIndex, range_m: float, allowed: np.ndarray | None, shares: bool
) -> tuple[np.ndarray, np.ndarray, PickIndex]:
    """Correction, metres, remaining share of the variance (where it is asked for), and the picks that were used."""
    if not (math.isfinite(range_m) and range_m > 0):
        raise ConfigError(f"picks are honoured over {range_m:g} m; expected a range above 0 m")
    if bed.shape != grid.shape or not math.isclose(grid.resolution, picks.grid.resolution):
        raise GridError(
            f"a bed of {bed.shape} on {grid.shape} cells of {grid.resolution:g} m, picks on cells of "
            f"{picks.grid.resolution:g} m; expected the same grid"
        )
    known = _Known.within(bed, grid, picks, allowed)
    top, left = known.corner
    moved, removed = np.zeros(bed.shape), np.zeros(bed.shape)
    for row in range(*_patches(top, bed.shape[0])):
        for column in range(*_patches(left, bed.shape[1])):
            _add_patch(moved, removed if shares else None, (row, column), known, range_m / grid.resolution)
    return moved, 1 - removed, picks.near(grid.bounds).take(known.positions)


@dataclass(frozen=True)
class _Known:
    """Residuals at cells with picks: rows and columns of the region, metres."""

    corner: tuple[int, int]
    row: np.ndarray
    column: np.ndarray
    residual: np.ndarray
    sigma: np.ndarray
    positions: np.ndarray

    @classmethod
    def within(cls, bed: np.ndarray, grid: Grid, picks: PickIndex, allowed: np.ndarray | None) -> _Known:
        top = round((picks.grid.bounds[3] - grid.bounds[3]) / grid.resolution)
        left = round((grid.bounds[0] - picks.grid.bounds[0]) / grid.resolution)
        near = picks.near(grid.bounds)
        residual = near.bed - bed[near.row - top, near.column - left]
        used = np.isfinite(residual)
        if allowed is not None:
            used &= allowed[near.row - top, near.column - left]
        kept = np.flatnonzero(used)
        return cls((top, left), near.row[kept], near.column[kept], residual[kept], near.sigma[kept], kept)

    def around(self, top: float, bottom: float, left: float, right: float) -> np.ndarray:
        """Positions of the cells within limits in rows and columns."""
        # Rows are searched first, for most of a large block is far away.
        return np.flatnonzero((self.row >= top) & (self.row < bottom) & (self.column >= left) & (self.column < right))


def _patches(first: int, cells: int) -> tuple[int, int]:
    """Number the patches that reach cells from the `first`."""
    return (first - OVERLAP) // PATCH, -(-(first + cells + OVERLAP) // PATCH)


def _add_patch(
    moved: np.ndarray, removed: np.ndarray | None, number: tuple[int, int], known: _Known, reach: float
) -> None:
    """Add a patch's share of the correction and of the variance that it takes away; `reach` is the range in cells."""
    margin = math.ceil(reach)
    top, left = (each * PATCH - OVERLAP for each in number)
    side = PATCH + 2 * OVERLAP
    place = known.around(top - margin, top + side + margin, left - margin, left + side + margin)
    if not place.size:
        return
    rows, columns = np.arange(top, top + side), np.arange(left, left + side)
    weight = np.outer(_ramp(rows - top), _ramp(columns - left))
    inside_rows = (rows >= known.corner[0]) & (rows < known.corner[0] + moved.shape[0])
    inside_columns = (columns >= known.corner[1]) & (columns < known.corner[1] + moved.shape[1])
    rows, columns = rows[inside_rows], columns[inside_columns]
    if not rows.size or not columns.size:
        return
    row, column, residual, sigma = (part[place] for part in (known.row, known.column, known.residual, known.sigma))
    points = np.stack([row, column], axis=-1).astype(np.float64)
    if place.size > MOST_PICKS:
        within = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
        points, residual, sigma = _thinned(points, residual, sigma, within, side + 2 * margin)
    weights, system = _solve(points, residual, sigma, reach)
    cells = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float64)
    toward = correlation(_distances(cells, points), reach)
    shape = rows.size, columns.size
    here = np.ix_(rows - known.corner[0], columns - known.corner[1])
    weight = weight[np.ix_(inside_rows, inside_columns)]
    moved[here] += weight * (toward @ weights).reshape(shape)
    if removed is not None:
        taken = np.einsum("ij,ij->j", toward.T, cho_solve(system, toward.T, check_finite=False))
        removed[here] += weight * np.clip(taken, 0, 1).reshape(shape)


def _solve(points: np.ndarray, residual: np.ndarray, sigma: np.ndarray, reach: float) -> tuple[np.ndarray, Any]:
    """Weights of the correlation functions around the points, and the factors of the system that they solve.

    The residual's variance is that of the picks around. Where neighbouring picks contradict each other more than this
    allows, the nugget of those that would be missed by more than their error is lowered until none is.
    """
    variance = max(float(np.mean(residual**2)), float(np.mean(sigma**2)))
    nugget = sigma**2 / variance
    plain = correlation(_distances(points, points), reach)
    weights, factors = np.zeros_like(residual), None
    for _ in range(_ROUNDS):
        system = plain.copy()
        system[np.diag_indices_from(system)] += nugget
        factors = cho_factor(system, lower=True, overwrite_a=True)
        weights = cho_solve(factors, residual)
        # What is left at a pick is its nugget times its weight.
        missed = np.abs(nugget * weights) > 0.99 * sigma
        if not missed.any():
            break
        nugget[missed] *= 0.1
    return weights, factors


def _thinned(
    points: np.ndarray, residual: np.ndarray, sigma: np.ndarray, kept: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average picks outside a patch over squares so large that some hundred are left; those inside stay as they are."""
    square = math.ceil(side / 20)
    far = ~kept
    _, group = np.unique(points[far] // square, axis=0, return_inverse=True)
    group = group.ravel()
    count = np.bincount(group)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(group, values[far]) / count)

    centres = np.stack([mean(points[:, 0]), mean(points[:, 1])], axis=-1)
    return (
        np.concatenate([points[kept], centres]),
        np.concatenate([residual[kept], mean(residual)]),
        np.concatenate([sigma[kept], mean(sigma)]),
    )


def _ramp(cell: np.ndarray) -> np.ndarray:
    """Weight of a patch across it: rises over twice the overlap, so that neighbours add up to 1."""
    end = PATCH + 2 * OVERLAP
    return np.clip(np.minimum(cell + 0.5, end - cell - 0.5) / (2 * OVERLAP), 0.0, 1.0)


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.hypot(first[:, np.newaxis, 0] - second[:, 0], first[:, np.newaxis, 1] - second[:, 1])
