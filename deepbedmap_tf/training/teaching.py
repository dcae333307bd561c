"""What a network may learn between flight lines: the bed of a regression that saw the training radar alone.

Radar cells are a few per cent of a map. Between them a product such as BedMachine is no truth, and nothing at all
leaves the network free. A slowly learning boosted regression of the residual (`scoring.regression`) generalises better
from few cells than a network does, and can be asked everywhere; the network learns from it what holds at long
wavelengths, and goes beyond it with what it knows of the physics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deepbedmap_tf.config import DataConfig
from deepbedmap_tf.data.cutting import deal_cells
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import Region
from deepbedmap_tf.scoring.baselines import BoostedRegression

GROUPS = 4
"""Parts of the training cells; what is taught in one comes from the radar of the other three."""

GROUP_BLOCK = 50
"""Side of the blocks that are dealt to the groups, output cells."""

SEEDS = 2


def slow_regression(inputs: dict[str, np.ndarray], radar: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bed of a regression made for few cells: small trees, slow learning, the mean of two.

    Parameters
    ----------
    inputs
        Batches of one, by name.
    radar
        Bed to learn from, shape (rows, columns), m; NaN where there is none.

    Returns
    -------
    numpy.ndarray
        Shape (rows, columns), m.
    """
    beds = []
    for seed in range(SEEDS):
        regression = BoostedRegression(iterations=250, learning_rate=0.03, leaves=15, feature_share=0.3, seed=seed)
        beds.append(regression.fit(inputs, radar[np.newaxis, ..., np.newaxis]).predict(inputs)[0, ..., 0])
    mean: NDArray[np.float32] = np.mean(beds, axis=0, dtype=np.float32)
    return mean


def teacher(region: Region, config: DataConfig, seed: int) -> Callable[[], NDArray[np.float32]] | None:
    """Return what `data.tiles.prepare_tiles` takes to teach with; None where the configuration gives that no weight."""
    return partial(taught_bed, region, region.tiling(config), seed) if config.regression_weight else None


def taught_bed(region: Region, config: DataConfig, seed: int) -> NDArray[np.float32]:
    """Bed that the training radar of a region teaches in every cell, shape of the region's grid, m.

    Near training cells it comes from the radar of other blocks, so that the network does not learn from the regression
    what that has only memorised; elsewhere, and in cells that are validated on, from all training radar and no other.

    Parameters
    ----------
    region, config, seed
        As for `data.tiles.prepare_tiles`.

    Raises
    ------
    DataError
        Without scikit-learn.
    """
    target = region.weighted_target()
    train, _ = deal_cells(region, target, config, seed)
    own = train & target["measured"].to_numpy()
    inputs = batch_of_one(region.inputs())

    def learned(cells: NDArray[np.bool_]) -> NDArray[np.float32]:
        return slow_regression(inputs, np.where(cells, target.to_numpy(), np.nan))

    bed = learned(own)
    row, column = np.indices(own.shape) // GROUP_BLOCK
    blocks = row * (column.max() + 1) + column
    groups = (np.random.default_rng([seed, 2]).permutation(blocks.max() + 1) % GROUPS)[blocks]
    for group in range(GROUPS):
        inside = (groups == group) & train
        if inside.any() and (own & ~inside).any():
            bed = np.where(inside, learned(own & (groups != group)), bed)
    return bed
