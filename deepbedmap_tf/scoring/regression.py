"""A per-cell boosted regression of what bicubic interpolation misses: the baseline a network has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.scoring.features import cell_features
from deepbedmap_tf.scoring.interpolation import fill_nearest, upsample

Inputs = Mapping[str, NDArray[np.floating]]


class BoostedRegression:
    """Gradient-boosted trees that predict bed minus bicubic bed, one cell at a time.

    It sees the same inputs as the network, as hand-made features: surface and coarse bed high-passed at several
    scales, slopes and curvatures along and across the flow, velocity perturbations, strain rates, accumulation and
    the neighbours up and down the flow (see `cell_features`). scikit-learn's HistGradientBoostingRegressor; NaN in
    a feature is a branch of its own.

    Parameters
    ----------
    max_cells
        At most so many cells are learned from, drawn at random with the seed, evenly over the tiles.
    iterations, learning_rate, leaves, feature_share
        Trees, shrinkage, leaves of a tree, and the share of the features that a split may choose from.
    seed
        Seed of the draw.

    Examples
    --------
    ``BoostedRegression().fit(tiles.inputs, tiles.bed).predict(held_out.inputs)``
    """

    def __init__(
        self,
        max_cells: int = 1_000_000,
        iterations: int = 250,
        learning_rate: float = 0.1,
        leaves: int = 63,
        feature_share: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.max_cells = max_cells
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.leaves = leaves
        self.feature_share = feature_share
        self.seed = seed
        self.feature_names: tuple[str, ...] = ()
        self._model: Any = None

    def fit(self, inputs: Inputs, bed: NDArray[np.floating]) -> BoostedRegression:
        """Learn from tiles.

        Parameters
        ----------
        inputs
            Name to array (n, rows, columns, channels); ``bed_lowres`` with a margin of one cell.
        bed
            Shape (n, 4 (rows - 2), 4 (columns - 2), 1), m; NaN cells teach nothing.

        Raises
        ------
        DataError
            When scikit-learn isn't installed, or no cell has a bed.
        """
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError as error:
            raise DataError(
                "the boosted regression needs scikit-learn, a development dependency that is not installed here; "
                "run: pip install -e '.[dev]'"
            ) from error
        generator = np.random.default_rng(self.seed)
        total = int(np.isfinite(bed).sum())
        if total == 0:
            raise DataError("no cell of the target bed is finite; expected tiles with a bed to learn from")
        share = min(1.0, self.max_cells / total)
        samples, targets = [], []
        for part, names, table in self._tables(inputs):
            self.feature_names = names
            residual = np.asarray(bed[part, ..., 0], dtype=np.float64) - _bicubic(inputs["bed_lowres"][part])
            chosen = np.isfinite(residual.ravel())
            chosen &= generator.random(chosen.size) < share
            samples.append(table[chosen])
            targets.append(residual.ravel()[chosen])
        self._model = HistGradientBoostingRegressor(
            learning_rate=self.learning_rate,
            max_iter=self.iterations,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=100,
            l2_regularization=1.0,
            max_features=self.feature_share,
            early_stopping=False,
            random_state=self.seed,
        ).fit(np.concatenate(samples), np.concatenate(targets))
        return self

    def predict(self, inputs: Inputs) -> NDArray[np.float32]:
        """Predict the bed of tiles or of a whole window.

        Returns
        -------
        ndarray
            Shape (n, 4 (rows - 2), 4 (columns - 2), 1), m; NaN where the bicubic bed is.

        Raises
        ------
        RuntimeError
            Before `fit`.
        DataError
            When the inputs are others than those it learned from.
        """
        if self._model is None:
            raise RuntimeError("call fit before predict")
        beds = []
        for part, names, table in self._tables(inputs):
            if names != self.feature_names:
                raise DataError(f"the regression learned from {self.feature_names}, the inputs give {names}")
            base = _bicubic(inputs["bed_lowres"][part])
            beds.append(base + self._model.predict(table).reshape(base.shape))
        predicted: NDArray[np.float32] = np.concatenate(beds)[..., np.newaxis].astype(np.float32)
        return predicted

    @staticmethod
    def _tables(inputs: Inputs) -> Iterator[tuple[slice, tuple[str, ...], NDArray[np.float32]]]:
        """Yield the tiles in groups small enough for memory: slice, feature names, table (cells, features)."""
        count, rows, columns = inputs["bed_lowres"].shape[:3]
        group = max(1, 1_000_000 // (16 * rows * columns))
        for start in range(0, count, group):
            part = slice(start, start + group)
            features = cell_features({name: values[part] for name, values in inputs.items()})
            table = np.stack([values.ravel() for values in features.values()], axis=1, dtype=np.float32)
            yield part, tuple(features), table


def _bicubic(bed_lowres: NDArray[np.floating]) -> NDArray[np.float64]:
    fine = upsample(fill_nearest(bed_lowres[..., 0]), 4)[..., 4:-4, 4:-4]
    known = np.isfinite(bed_lowres[..., 1:-1, 1:-1, 0]).repeat(4, axis=-2).repeat(4, axis=-1)
    return np.where(known, fine, np.nan)
