"""Which windows of a region become tiles, and the co-located windows of inputs and bed, cut all at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from affine import Affine

from deepbedmap_tf.config import DataConfig, InputConfig
from deepbedmap_tf.data.region import MARGIN, SCALE, Region
from deepbedmap_tf.data.split import (
    DROPPED,
    TRAIN,
    VALIDATION,
    complete_windows,
    leak_fraction,
    split_cells,
    split_windows,
    window_sums,
)
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TilePlan:
    """Which windows of a region become tiles.

    Attributes
    ----------
    rows, columns
        Upper-left output cells.
    split
        Labels.
    coarse_cells
        Low-resolution cells along a tile, without margin.
    dropped
        Number of windows left out because they are close to another split.
    leak
        Share of validation and test windows that overlap a training window; for sparse supervision the share of the
        radar cells validated on that are trained on.
    cells
        For sparse supervision, by split: boolean map of the cells that its windows may be measured on.
    taught
        For sparse supervision: bed that is learned where a training window has no radar; None for the target's own.
    taught_weight
        What each cell of it counts.
    """

    rows: np.ndarray
    columns: np.ndarray
    split: np.ndarray
    coarse_cells: int
    dropped: int
    leak: float
    cells: dict[int, np.ndarray] | None = None
    taught: np.ndarray | None = None
    taught_weight: float = 0.0


def plan_tiles(
    region: Region, target: xr.DataArray, config: DataConfig, seed: int, taught: np.ndarray | None = None
) -> TilePlan:
    """Choose the windows of a target and deal them to splits.

    Complete windows belong to one split as a whole. For sparse supervision (a target with weights) it is cells that are
    dealt: a window then carries the weights of one split's cells, and one that reaches into both is cut for each. With
    a bed that is `taught` where there is no radar, every window that this covers is trained on.

    Raises
    ------
    DataError
        When no window is complete, or none holds enough radar.
    """
    size = SCALE * config.tile_size
    if config.supervision == "sparse":
        return _plan_sparse(region, target, config, seed, size, taught)
    valid = np.isfinite(target.to_numpy())
    rows, columns = complete_windows(valid, size, config.stride)
    if not rows.size:
        raise DataError(
            f"region {region.name} has no complete window of {size} x {size} cells in its {target.attrs['label']} bed "
            f"({valid.mean():.1%} of the cells are valid); reduce data.tile_size or data.stride"
        )
    split = split_windows(
        rows,
        columns,
        size,
        valid.shape,
        block_size=config.block_size,
        buffer=config.buffer,
        validation_fraction=config.validation_fraction,
        seed=seed,
        test=region.held_out,
        folds=config.folds,
        fold=config.fold,
    )
    kept = split != DROPPED
    kept[_surplus(split, config, seed)] = False
    leak = leak_fraction(rows[kept], columns[kept], split[kept], size, valid.shape)
    dropped = int((split == DROPPED).sum())
    return TilePlan(*_in_order(rows[kept], columns[kept], split[kept]), config.tile_size, dropped, leak)


def deal_cells(region: Region, target: xr.DataArray, config: DataConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a weighted target that may be trained on, and those validated on; see `split_cells`."""
    return split_cells(
        target["measured"].to_numpy(),
        block_size=config.block_size,
        buffer=config.buffer,
        validation_fraction=config.validation_fraction,
        seed=seed,
        test=region.held_out,
        folds=config.folds,
        fold=config.fold,
    )


def _plan_sparse(
    region: Region, target: xr.DataArray, config: DataConfig, seed: int, size: int, taught: np.ndarray | None
) -> TilePlan:
    measured = target["measured"].to_numpy()
    cells = deal_cells(region, target, config, seed)
    found = []
    for label, own in zip((TRAIN, VALIDATION), cells, strict=True):
        covered = own & measured
        if taught is not None and label == TRAIN:
            covered = np.isfinite(taught)
        rows, columns = complete_windows(covered, size, config.stride, config.minimum_coverage)
        if not rows.size:
            raise DataError(
                f"region {region.name} has no window of {size} x {size} cells with radar in "
                f"{config.minimum_coverage:.1%} of them for {'training' if label == TRAIN else 'validation'}; "
                "reduce data.minimum_coverage"
            )
        found.append((rows, columns, np.full(rows.size, label, np.uint8)))
    rows, columns, split = (np.concatenate(values) for values in zip(*found, strict=True))
    kept = np.ones(rows.size, bool)
    kept[_surplus(split, config, seed)] = False
    leak = float((cells[0] & cells[1] & measured).sum() / (cells[1] & measured).sum())
    weights = {TRAIN: cells[0], VALIDATION: cells[1]}
    ordered = _in_order(rows[kept], columns[kept], split[kept])
    return TilePlan(*ordered, config.tile_size, 0, leak, weights, taught, config.regression_weight)


def _surplus(split: np.ndarray, config: DataConfig, seed: int) -> np.ndarray:
    """Training windows beyond the largest number of them."""
    train = np.flatnonzero(split == TRAIN)
    if config.max_tiles is None:
        return train[:0]
    surplus: np.ndarray = np.random.default_rng([seed, 1]).permutation(train)[config.max_tiles :]
    return surplus


def _in_order(rows: np.ndarray, columns: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put windows whose corners lie alike within a low-resolution cell together: they share one set of input grids."""
    order = np.lexsort((columns, rows, columns % SCALE, rows % SCALE))
    return rows[order], columns[order], split[order]


@dataclass(frozen=True)
class Phase:
    """Tiles whose corners have one offset (rows, columns in output cells) within a low-resolution cell."""

    offset: tuple[int, int]
    index: np.ndarray
    coarse_rows: np.ndarray
    coarse_columns: np.ndarray


def phases(plan: TilePlan) -> list[Phase]:
    """Group the tiles of a plan by their offset against the low-resolution cells."""
    found = []
    for row in range(SCALE):
        for column in range(SCALE):
            index = np.flatnonzero((plan.rows % SCALE == row) & (plan.columns % SCALE == column))
            if index.size:
                found.append(Phase((row, column), index, plan.rows // SCALE, plan.columns // SCALE))
    return found


def shifted(coarse: Grid, rows: int, columns: int) -> Grid:
    """Low-resolution grid moved south and east by output cells; it loses the row or column that falls off."""
    shape = (coarse.shape[0] - (rows > 0), coarse.shape[1] - (columns > 0))
    return replace(coarse, shape=shape, transform=coarse.transform @ Affine.translation(columns / SCALE, rows / SCALE))


def with_data(phase: Phase, fields: dict[str, xr.DataArray], inputs: Sequence[InputConfig], width: int) -> np.ndarray:
    """Tiles with at least one valid cell of every input."""
    kept = np.ones(phase.index.size, bool)
    for each in inputs:
        values = fields[each.name].to_numpy()
        finite = np.isfinite(values) if values.ndim == 2 else np.isfinite(values).all(axis=-1)
        rows, columns = phase.coarse_rows[phase.index] * each.ratio, phase.coarse_columns[phase.index] * each.ratio
        kept &= window_sums(finite, rows, columns, width * each.ratio, width * each.ratio) > 0
    index: np.ndarray = phase.index[kept]
    return index


def cut_tiles(
    index: np.ndarray,
    phase: Phase,
    plan: TilePlan,
    region: Region,
    target: xr.DataArray,
    fields: dict[str, xr.DataArray],
    inputs: Sequence[InputConfig],
) -> dict[str, np.ndarray]:
    """Cut the tiles of an index, by the names of the store's arrays."""
    rows, columns = plan.rows[index], plan.columns[index]
    width = plan.coarse_cells + 2 * MARGIN
    result = {
        "bed": windows(target.to_numpy(), rows, columns, SCALE * plan.coarse_cells)[..., np.newaxis],
        "split": plan.split[index],
        "x": region.bounds[0] + columns * region.resolution,
        "y": region.bounds[3] - rows * region.resolution,
    }
    if plan.cells is not None:
        weight, measured = target["weight"].to_numpy(), target["measured"].to_numpy()
        size = SCALE * plan.coarse_cells
        cut = np.zeros((index.size, size, size, 2), np.float32)
        for label, own in plan.cells.items():
            mine = plan.split[index] == label
            radar = own & measured
            both = np.where(own, weight, 0)
            if plan.taught is not None and label == TRAIN:
                # Radar of other splits is hidden: there, too, the network learns what the training radar teaches.
                bed = np.where(radar, target.to_numpy(), plan.taught).astype(np.float32)
                result["bed"][mine] = windows(bed, rows[mine], columns[mine], size)[..., np.newaxis]
                both = np.where(radar, weight, plan.taught_weight * np.isfinite(plan.taught))
            cut[mine] = windows(np.stack([both, np.where(radar, weight, 0)], -1), rows[mine], columns[mine], size)
        result["weight"] = cut
    for each in inputs:
        # In the padded grid the window with its margin begins where the tile begins in the unpadded one.
        first = (phase.coarse_rows[index] * each.ratio, phase.coarse_columns[index] * each.ratio)
        values = fields[each.name].to_numpy()
        values = values if values.ndim == 3 else values[..., np.newaxis]
        result[f"inputs/{each.name}"] = windows(values, *first, width * each.ratio)
        result[f"valid/{each.name}"] = windows(fields[each.name]["valid"].to_numpy(), *first, width * each.ratio)
    return result


def windows(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int) -> np.ndarray:
    """Copy square windows out of an array (rows, columns[, bands]), all at once.

    Returns
    -------
    numpy.ndarray
        Shape (windows, size, size[, bands]).
    """
    view: np.ndarray = np.lib.stride_tricks.sliding_window_view(values, (size, size), axis=(0, 1))  # type: ignore[call-overload]
    view = view[rows, columns]
    return np.ascontiguousarray(np.moveaxis(view, 1, -1) if values.ndim == 3 else view)
