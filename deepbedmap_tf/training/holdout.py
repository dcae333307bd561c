"""Nothing is chosen by what a model is tested on."""

from __future__ import annotations

import numpy as np

from deepbedmap_tf.data.region import Region
from deepbedmap_tf.data.tiles import Tiles
from deepbedmap_tf.errors import DataError


def refuse_test_transects(region: Region, validation: Tiles, resolution: float) -> None:
    """Make sure that nothing is chosen by what a model is tested on.

    Parameters
    ----------
    region
        The one that is validated on, with the transects that `evaluate.py` tests along.
    validation
        Its validation tiles.
    resolution
        Metres a cell.

    Raises
    ------
    DataError
        When a cell that the validation RMSE counts holds a point of a test transect.
    """
    for name in region.transects:
        points = region.transect(name)
        hits = cells_hit(validation, points["x"].to_numpy(), points["y"].to_numpy(), resolution)
        if hits:
            raise DataError(
                f"{hits} validation cells of region {region.name} lie on its test transect {name!r}: that would "
                "choose a model by its test; put the transect's area under `holdout` in the region file"
            )


def cells_hit(tiles: Tiles, x: np.ndarray, y: np.ndarray, resolution: float) -> int:
    """Count the cells of tiles that an error is measured in and that hold a point.

    Parameters
    ----------
    x, y
        Points, shape (n,), metres.
    """
    rows, columns = tiles.bed.shape[1:3]
    known = np.isfinite(tiles.bed[..., 0]) if tiles.weight is None else tiles.weight[..., 1] > 0
    total = 0
    for left, top, measured in zip(tiles.x, tiles.y, known, strict=True):
        row = np.floor((top - y) / resolution).astype(np.int64)
        column = np.floor((x - left) / resolution).astype(np.int64)
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        hit = np.zeros_like(measured)
        hit[row[inside], column[inside]] = True
        total += int((hit & measured).sum())
    return total
