"""Areas that are never trained or validated on: boxes and polygons of a region file, by name."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from deepbedmap_tf.config import Settings
from deepbedmap_tf.data.masks import area_mask
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.grid import Bounds, Grid

# What all areas together are called.
ALL = "holdout"


class HoldoutSettings(Settings):
    """Areas that are never trained or validated on.

    Attributes
    ----------
    test
        Boxes (xmin, ymin, xmax, ymax), by name or not; without names they are called box 1, box 2, ...
    polygons
        Rings of (x, y) by name.
    """

    test: tuple[Bounds, ...] | dict[str, Bounds] = ()
    polygons: dict[str, tuple[tuple[float, float], ...]] = Field(default_factory=dict)

    @property
    def boxes(self) -> dict[str, Bounds]:
        """Boxes by name."""
        if isinstance(self.test, dict):
            return self.test
        return {f"box {number}": box for number, box in enumerate(self.test, start=1)}

    @property
    def extents(self) -> dict[str, Bounds]:
        """Box around each area, by name."""
        around = {}
        for name, ring in self.polygons.items():
            x, y = zip(*ring, strict=True)
            around[name] = (min(x), min(y), max(x), max(y))
        return {**self.boxes, **around}

    @model_validator(mode="after")
    def _are_areas(self) -> HoldoutSettings:
        for box in self.boxes.values():
            if box[2] <= box[0] or box[3] <= box[1]:
                raise ValueError(f"holdout box {list(box)} is empty; expected [xmin, ymin, xmax, ymax]")
        for name, ring in self.polygons.items():
            if len(ring) < 3:
                raise ValueError(f"holdout polygon {name!r} has {len(ring)} corners, expected 3 or more")
        for name in self.extents:
            if (name in self.boxes and name in self.polygons) or name == ALL:
                raise ValueError(f"holdout area {name!r} is a name given twice; `holdout` itself is that of all areas")
        return self

    def require_within(self, bounds: Bounds) -> None:
        """Refuse an area that does not meet bounds: it would hold out nothing, and nothing else would tell.

        Raises
        ------
        ValueError
            With the name of the area.
        """
        for name, area in self.extents.items():
            beside = area[0] >= bounds[2] or area[2] <= bounds[0] or area[1] >= bounds[3] or area[3] <= bounds[1]
            if beside:
                raise ValueError(
                    f"holdout area {name!r} lies within {list(area)}, outside bounds {list(bounds)}; correct it "
                    "(x and y exchanged?) or take it out"
                )

    def mask(self, grid: Grid, name: str = ALL) -> np.ndarray:
        """Cells of a grid that one area, or all of them, holds out: boolean, shape of the grid.

        Parameters
        ----------
        grid
            The cells.
        name
            Of a box or a polygon, ``box 1`` and so on for boxes without a name; or ``holdout``.

        Raises
        ------
        ConfigError
            When there is no such area.
        """
        if name not in (ALL, *self.extents):
            known = ", ".join(self.extents) or "none"
            raise ConfigError(f"there is no area {name!r} under `holdout` of the region file; known are: {known}")
        boxes = [box for key, box in self.boxes.items() if name in (key, ALL)]
        rings = [ring for key, ring in self.polygons.items() if name in (key, ALL)]
        return area_mask(grid, boxes, rings)
