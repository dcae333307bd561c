"""Baselines that have to be trained, as further products of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.evaluation.transects import Product
from deepbedmap_tf.grid import Bounds
from deepbedmap_tf.scoring.baselines import BoostedRegression

if TYPE_CHECKING:
    from deepbedmap_tf.data.region import Region


class BoostedProduct:
    """The boosted regression as a product: ``BoostedProduct(regression)(region, bounds)``.

    Parameters
    ----------
    regression
        Fitted.
    """

    def __init__(self, regression: BoostedRegression) -> None:
        self.regression = regression

    @classmethod
    def from_tiles(cls, *stores: Path | str) -> BoostedProduct:
        """Fit on the training tiles of one or several tile stores.

        Raises
        ------
        DeepBedMapError
            When the store can't be read, or scikit-learn isn't installed.
        """
        from deepbedmap_tf.data.tiles import Tiles, open_tiles

        tiles = Tiles.concatenate([open_tiles(store).select("train") for store in stores])
        return cls(BoostedRegression().fit(tiles.inputs, tiles.bed))

    def __call__(self, region: Region, bounds: Bounds) -> Product:
        """Predict the bed of a window of a region."""
        bed = self.regression.predict(batch_of_one(region.inputs(bounds)))[0, ..., 0]
        return Product(
            "boosted", "Boosted regression", region.grid.window(bounds).dataarray(bed, "bed", "m"), "0/158/115"
        )
