"""Windows chosen from a map and dealt to training, validation and test without any overlap.

A random split of overlapping windows leaks: nearly every validation window of the published model overlaps a training
window by 90 % or more. Here whole blocks of the map are dealt, and windows of different splits keep a distance.
"""

from __future__ import annotations

import numpy as np

from deepbedmap_tf.errors import ConfigError

TRAIN, VALIDATION, TEST, DROPPED = 0, 1, 2, 255
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "dropped": DROPPED}


def window_sums(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> np.ndarray:
    """Count True cells in windows, whatever part of them lies on the map, from one table of prefix sums.

    Parameters
    ----------
    mask
        Boolean map of shape (rows, columns).
    rows, columns
        Upper-left cells of the windows; may be negative.
    height, width
        Cells of a window.

    Examples
    --------
    >>> window_sums(np.eye(4, dtype=bool), np.array([0, 0, 2]), np.array([0, 2, 2]), 2, 2).tolist()
    [2, 0, 2]
    """
    kind = "int32" if mask.size < np.iinfo(np.int32).max else "int64"
    table: np.ndarray = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), kind)
    np.cumsum(mask, axis=0, out=table[1:, 1:])
    np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
    top, bottom = (np.clip(rows + step, 0, mask.shape[0]) for step in (0, height))
    left, right = (np.clip(columns + step, 0, mask.shape[1]) for step in (0, width))
    sums: np.ndarray = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    return sums


def complete_windows(
    valid: np.ndarray, size: int, stride: int, minimum_coverage: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Upper-left cells (rows, columns) of the square windows at a stride that are covered by valid cells.

    Parameters
    ----------
    valid
        Boolean map.
    size, stride
        Cells along a window, and between the first cells of neighbouring windows.
    minimum_coverage
        Least share of valid cells; 1 wants every cell.
    """
    first_rows, first_columns = (np.arange(0, max(extent - size + 1, 0), stride) for extent in valid.shape)
    rows, columns = (axis.ravel() for axis in np.meshgrid(first_rows, first_columns, indexing="ij"))
    kept = window_sums(valid, rows, columns, size, size) >= minimum_coverage * size * size
    return rows[kept], columns[kept]


def split_windows(
    rows: np.ndarray,
    columns: np.ndarray,
    size: int,
    shape: tuple[int, int],
    *,
    block_size: int,
    buffer: int,
    validation_fraction: float,
    seed: int,
    test: np.ndarray | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> np.ndarray:
    """Deal windows to training (0), validation (1) and test (2); those between two splits are dropped (255).

    Parameters
    ----------
    rows, columns, size
        Upper-left cells and side of the windows.
    shape
        Rows and columns of the map.
    block_size
        Side of the square blocks of which some are kept for validation, in cells.
    buffer
        Least number of cells between a training window and any validation window or test box, and between a
        validation window and a test box.
    validation_fraction
        Blocks are kept for validation until they hold about this share of the windows that lie in a single block.
    seed
        Decides which.
    test
        Boolean map of the cells held out for testing. A window all of such cells is test.
    folds, fold
        Blocked cross-validation: the blocks are dealt to so many folds of about equal weight, and this one is kept
        for validation instead of a fraction.

    Returns
    -------
    numpy.ndarray
        uint8, one label a window.

    Raises
    ------
    ConfigError
        When no block holds a whole window, or no window is left to train on.
    """
    labels = np.full(rows.size, TRAIN, np.uint8)
    test = np.zeros(shape, bool) if test is None else test
    labels[_near(test, rows, columns, size, buffer)] = DROPPED
    labels[window_sums(test, rows, columns, size, size) == size * size] = TEST

    block_rows, block_columns = rows // block_size, columns // block_size
    whole = ((rows + size - 1) // block_size == block_rows) & ((columns + size - 1) // block_size == block_columns)
    number = block_rows * (shape[1] // block_size + 1) + block_columns
    blocks, counts = np.unique(number[whole & (labels == TRAIN)], return_counts=True)
    if blocks.size < (folds or 2):
        raise ConfigError(
            f"{blocks.size} blocks of {block_size} cells hold a whole tile of {size} cells, expected {folds or 2} or "
            "more; choose another data.block_size or a larger region"
        )
    if folds is None:
        chosen = _choose_blocks(blocks, counts, validation_fraction, seed)
    else:
        chosen = blocks[deal_folds(counts, folds, seed) == fold]
    in_chosen = np.isin(number, chosen) & whole & (labels == TRAIN)
    validation = covered_cells(rows[in_chosen], columns[in_chosen], size, shape)
    near = _near(validation, rows, columns, size, buffer) & (labels == TRAIN)
    labels[near] = DROPPED
    labels[in_chosen] = VALIDATION
    if not (labels == TRAIN).any():
        raise ConfigError(
            f"no tile is left to train on after a buffer of {buffer} cells around {chosen.size} of {blocks.size} "
            "blocks; reduce data.buffer, data.block_size or data.validation_fraction"
        )
    return labels


def deal_folds(counts: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Deal blocks to folds that hold about the same: the largest first, each to the fold that holds least so far.

    Parameters
    ----------
    counts
        What each block holds.
    folds
        Number of folds, at most that of the blocks.
    seed
        Decides the order of equal blocks.

    Returns
    -------
    numpy.ndarray
        Fold of each block.

    Examples
    --------
    >>> np.bincount(deal_folds(np.array([5, 4, 3, 3, 3]), 2, seed=0), weights=[5, 4, 3, 3, 3]).tolist()
    [8.0, 10.0]
    """
    shuffled = np.random.default_rng(seed).permutation(counts.size)
    order = shuffled[np.argsort(-counts[shuffled], kind="stable")]
    held, dealt = np.zeros(folds), np.zeros(counts.size, int)
    for block in order:
        dealt[block] = np.argmin(held)
        held[dealt[block]] += counts[block]
    return dealt


def split_cells(
    measured: np.ndarray,
    *,
    block_size: int,
    buffer: int,
    validation_fraction: float,
    seed: int,
    test: np.ndarray | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Deal cells to training and validation by blocks, for supervision that weighs every cell on its own.

    Windows may then overlap: what is kept apart is the cells that anything is measured on. Inputs are known
    everywhere, also where the map is to be predicted.

    Parameters
    ----------
    measured
        Boolean map of the cells with radar.
    block_size
        Side of the square blocks, in cells.
    buffer
        Least number of cells between training and validation cells, and between test cells and either.
    validation_fraction, seed, test, folds, fold
        As in `split_windows`; the share is of measured cells.

    Returns
    -------
    tuple of numpy.ndarray
        Boolean maps of the cells that may be trained on and of those validated on, measured or not.

    Raises
    ------
    ConfigError
        When there are fewer blocks with radar than folds, or no measured cell is left on one side.
    """
    number = np.add.outer(
        np.arange(measured.shape[0]) // block_size * (measured.shape[1] // block_size + 1),
        np.arange(measured.shape[1]) // block_size,
    )
    free = np.ones(measured.shape, bool) if test is None or not test.any() else ~_grown(test, buffer)
    blocks, counts = np.unique(number[measured & free], return_counts=True)
    dealt_to = folds or max(2, round(1 / validation_fraction))
    if blocks.size < dealt_to:
        raise ConfigError(
            f"{blocks.size} blocks of {block_size} cells hold radar, expected {dealt_to} or more; "
            "choose another data.block_size or a larger region"
        )
    validation = free & np.isin(number, blocks[deal_folds(counts, dealt_to, seed) == fold])
    train = free & ~_grown(validation, buffer)
    if not (train & measured).any():
        raise ConfigError(
            f"no radar is left to train on after a buffer of {buffer} cells; reduce data.buffer or data.block_size"
        )
    return train, validation


def _grown(mask: np.ndarray, cells: int) -> np.ndarray:
    """Cells at most so many rows and columns away from a True one."""
    size = 2 * cells + 1
    rows, columns = (axis.ravel() for axis in np.indices(mask.shape))
    return (window_sums(mask, rows - cells, columns - cells, size, size) > 0).reshape(mask.shape)


def _choose_blocks(blocks: np.ndarray, counts: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw blocks until they hold about a fraction of the windows."""
    wanted = fraction * counts.sum()
    order = np.random.default_rng(seed).permutation(blocks.size)
    # Scraps at the edge of the data cost as much buffer as a full block and validate little: they come last.
    scraps = counts[order] < 0.25 * counts.max()
    order = order[np.argsort(scraps, kind="stable")]
    chosen: list[int] = []
    held = 0
    for index in order:
        if held < wanted and held + counts[index] <= 1.5 * wanted:
            chosen.append(int(index))
            held += int(counts[index])
    if not chosen:
        full = order[: int((~scraps).sum())]
        chosen = [int(full[np.argmin(counts[full])])]
    picked: np.ndarray = blocks[chosen]
    return picked


def covered_cells(rows: np.ndarray, columns: np.ndarray, size: int, shape: tuple[int, int]) -> np.ndarray:
    """Boolean map of the cells that lie in any of the windows."""
    steps = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    for row_step, column_step, sign in ((0, 0, 1), (size, 0, -1), (0, size, -1), (size, size, 1)):
        np.add.at(steps, (rows + row_step, columns + column_step), sign)
    np.cumsum(steps, axis=0, out=steps)
    np.cumsum(steps, axis=1, out=steps)
    covered: np.ndarray = steps[:-1, :-1] > 0
    return covered


def leak_fraction(
    rows: np.ndarray, columns: np.ndarray, labels: np.ndarray, size: int, shape: tuple[int, int]
) -> float:
    """Share of the validation and test windows that overlap a training window in at least one cell."""
    train = labels == TRAIN
    scored = (labels == VALIDATION) | (labels == TEST)
    if not scored.any():
        return 0.0
    covered = covered_cells(rows[train], columns[train], size, shape)
    return float((window_sums(covered, rows[scored], columns[scored], size, size) > 0).mean())


def _near(mask: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: int, buffer: int) -> np.ndarray:
    """Windows with a True cell less than `buffer` cells away (or inside), seen along rows and columns."""
    reach = size + 2 * buffer
    return window_sums(mask, rows - buffer, columns - buffer, reach, reach) > 0
