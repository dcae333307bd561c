"""Where to evaluate, and the fields beside the bed that scores are told apart by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.evaluation.transects import sample
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.scoring.interpolation import to_ratio

if TYPE_CHECKING:
    from deepbedmap_tf.data.region import Region

WINDOW_PADDING = 10_000.0
"""Map shown and scored around the transect's picks, m."""


def window_around(x: np.ndarray, y: np.ndarray, limits: Bounds, cell: float, padding: float = WINDOW_PADDING) -> Bounds:
    """Smallest window of whole coarse cells around points, with padding, inside the limits.

    Parameters
    ----------
    x, y
        Points, m.
    limits
        Edges of the region; coarse cells are counted from its lower-left corner.
    cell
        Side of a coarse cell, m.

    Raises
    ------
    DataError
        When no point lies inside the limits.
    """
    inside = (x >= limits[0]) & (x <= limits[2]) & (y >= limits[1]) & (y <= limits[3])
    if not inside.any():
        raise DataError(
            f"none of the {x.size} picks of the transect lies inside the region's bounds {list(limits)}; "
            "choose another transect or region"
        )
    x, y = x[inside], y[inside]
    axes = ((x, limits[0]), (y, limits[1]))
    left, bottom = (math.floor((v.min() - padding - start) / cell) * cell + start for v, start in axes)
    right, top = (math.ceil((v.max() + padding - start) / cell) * cell + start for v, start in axes)
    return (max(left, limits[0]), max(bottom, limits[1]), min(right, limits[2]), min(top, limits[3]))


@dataclass(frozen=True)
class HeldOutArea:
    """A box or polygon that training never saw, to be scored by itself.

    Attributes
    ----------
    name
        As in the region file.
    bounds
        Edges of the whole low-resolution cells inside the box (of a polygon, the one around it), m.
    grid
        Output cells of the bounds.
    cells
        Which of them are the area's, boolean.
    """

    name: str
    bounds: Bounds
    grid: Grid
    cells: NDArray[np.bool_]

    def holds(self, points: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which points, columns x and y, lie in cells of the area."""
        columns = np.floor((points["x"].to_numpy(np.float64) - self.bounds[0]) / self.grid.resolution).astype(int)
        rows = np.floor((self.bounds[3] - points["y"].to_numpy(np.float64)) / self.grid.resolution).astype(int)
        inside: NDArray[np.bool_] = (
            (rows >= 0) & (columns >= 0) & (rows < self.cells.shape[0]) & (columns < self.cells.shape[1])
        )
        inside[inside] = self.cells[rows[inside], columns[inside]]
        return inside


def held_out_areas(region: Region) -> Iterator[HeldOutArea]:
    """Areas held out of training, cut to whole low-resolution cells inside the region; slivers are left out."""
    cell = 4 * region.resolution
    xmin, ymin, xmax, ymax = region.bounds
    for name, extent in region.settings.holdout.extents.items():
        clipped = (max(extent[0], xmin), max(extent[1], ymin), min(extent[2], xmax), min(extent[3], ymax))
        # Whole low-resolution cells inside, so that nothing beside a box is scored.
        left, bottom = (math.ceil((v - s) / cell) * cell + s for v, s in ((clipped[0], xmin), (clipped[1], ymin)))
        right, top = (math.floor((v - s) / cell) * cell + s for v, s in ((clipped[2], xmin), (clipped[3], ymin)))
        if right - left >= 9 * cell and top - bottom >= 9 * cell:
            bounds = (left, bottom, right, top)
            grid = region.grid.window(bounds)
            yield HeldOutArea(name, bounds, grid, region.settings.holdout.mask(grid, name))


def surface_on(grid: Grid, inputs: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Ice surface averaged on the output cells, inside the margin."""
    surface = inputs["surface"]
    ratio = surface.shape[0] // inputs["bed_lowres"].shape[0]
    values = to_ratio(surface.values, ratio, 4)[4:-4, 4:-4]
    return grid.dataarray(values.astype(np.float32), "surface", "m", long_name="ice surface elevation")


def speed_of(inputs: Mapping[str, xr.DataArray]) -> xr.DataArray | None:
    """Ice speed on the velocity's own cells, m/yr; None where the velocity isn't an input."""
    if "velocity" not in inputs:
        return None
    velocity = inputs["velocity"]
    speed = np.hypot(velocity.values[..., 0], velocity.values[..., 1])
    return xr.DataArray(speed, dims=("y", "x"), coords={"y": velocity["y"], "x": velocity["x"]}, name="speed")


def speed_on(grid: Grid, speed: xr.DataArray | None) -> np.ndarray | None:
    """Ice speed interpolated to the cells of a grid, m/yr."""
    if speed is None:
        return None
    x, y = np.meshgrid(grid.x, grid.y)
    return sample(speed, x.ravel(), y.ravel(), "l").reshape(grid.shape)
