"""Beds seen from the side: four perspective views (Leong & Horgan 2020, Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from deepbedmap_tf.evaluation.transects import gmt_grid
from deepbedmap_tf.figures.style import (
    BED_COLOURS,
    CONFIGURATION,
    DIFFERENCE_COLOURS,
    FORMATS,
    colour_range,
    round_step,
    save,
)
from deepbedmap_tf.grid import Grid

if TYPE_CHECKING:
    import pygmt

AZIMUTH, ELEVATION = 202.5, 60.0
EXAGGERATION = 10.0
WIDTH = 7.0
"""Of the drawn map before it is turned, cm."""


@dataclass(frozen=True)
class View:
    """One surface to look at.

    Attributes
    ----------
    label
        Heading.
    heights
        Shape (y, x), m.
    difference
        True for a difference of two beds: it gets the diverging colours, with 0 in their middle.
    """

    label: str
    heights: xr.DataArray
    difference: bool = False


def draw_perspectives(views: Sequence[View], path: Path, title: str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Draw up to four surfaces from azimuth 202.5 and elevation 60 degrees, heights ten times exaggerated.

    Beds share one colour scale, differences another; a metre is equally high in every view.

    Parameters
    ----------
    views
        Surfaces on the same cells.
    path
        File without its ending.
    title
        Heading of the figure.

    Returns
    -------
    list of Path
        The files written.
    """
    import pygmt

    frame = _Frame.around(views)
    beds = [view.heights.values for view in views if not view.difference]
    differences = [view.heights.values for view in views if view.difference]
    bed_range, difference_range = colour_range(beds), _symmetric(differences)
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        for number, view in enumerate(views):
            frame.place(figure, number, len(views))
            series = difference_range if view.difference else bed_range
            pygmt.makecpt(
                cmap=DIFFERENCE_COLOURS if view.difference else BED_COLOURS, series=series[:2], background=True
            )
            frame.draw(figure, view)
            frame.heading(figure, f"({'abcdefgh'[number]}) {view.label}", 0.1, "9p")
            if number == 0:
                frame.heading(figure, f"{title}, heights x {EXAGGERATION:g}", 0.9, "11p")
        frame.place(figure, len(views) - 2 + len(views) % 2, len(views))
        _bar(figure, frame, BED_COLOURS, bed_range, "Bed elevation (m)", 0)
        if differences:
            _bar(figure, frame, DIFFERENCE_COLOURS, difference_range, "Difference (m)", 1)
    return save(figure, path, formats)


@dataclass(frozen=True)
class _Frame:
    """Sizes on the page of maps that are turned and tilted alike, cm."""

    bounds: tuple[float, float, float, float]
    lengths: tuple[float, float]
    heights: tuple[float, float]

    @classmethod
    def around(cls, views: Sequence[View]) -> _Frame:
        bounds = tuple(edge / 1000 for edge in Grid.of(views[0].heights).bounds)
        xmin, ymin, xmax, ymax = bounds
        width = min(WIDTH, WIDTH * 1.3 * (xmax - xmin) / (ymax - ymin))
        scale = width / (xmax - xmin)
        beds = np.concatenate([view.heights.values.ravel() for view in views if not view.difference])
        beds = beds[np.isfinite(beds)]
        return cls((xmin, ymin, xmax, ymax), (width, scale * (ymax - ymin)), (float(beds.min()), float(beds.max())))

    def rise(self, low: float, high: float) -> float:
        """Height on the z axis of a range of metres, cm."""
        xmin, _, xmax, _ = self.bounds
        return max((high - low) / 1000 * EXAGGERATION * self.lengths[0] / (xmax - xmin), 0.01)

    @property
    def page(self) -> tuple[float, float]:
        """Width and height of a view on the page, cm."""
        width, height = self.lengths
        turn, tilt = np.radians(AZIMUTH - 180), np.radians(ELEVATION)
        across = width * np.cos(turn) + height * np.sin(turn)
        up = (width * np.sin(turn) + height * np.cos(turn)) * np.sin(tilt) + self.rise(*self.heights) * np.cos(tilt)
        return float(across), float(up)

    def place(self, figure: pygmt.Figure, number: int, count: int) -> None:
        row, column = divmod(number, 2)
        rows = (count + 1) // 2
        across, up = self.page
        figure.shift_origin(
            xshift=f"f{2 + column * (across + 2.4)}c", yshift=f"f{3.5 + (rows - 1 - row) * (up + 1.9)}c"
        )

    def draw(self, figure: pygmt.Figure, view: View) -> None:
        xmin, ymin, xmax, ymax = self.bounds
        # Beds stand on one base; a difference stands on its own lowest place.
        low, high = self.heights
        if view.difference:
            finite = view.heights.values[np.isfinite(view.heights.values)]
            low, high = float(finite.min()), float(finite.max())
        width, height = self.lengths
        zsize = self.rise(low, high)
        tick = round_step((xmax - xmin) / (width / 1.3))
        # Annotations at least 4 mm apart on the page.
        z_tick = round_step((high - low) * 0.4 / (zsize * np.cos(np.radians(ELEVATION))))
        upright = [f"za{z_tick:g}", "SWenZ"] if z_tick < high - low and not view.difference else ["SWen"]
        figure.grdview(
            gmt_grid(view.heights, 1000),
            region=[xmin, xmax, ymin, ymax, low, high],
            projection=f"X{width}c/{height}c",
            zsize=f"{zsize}c",
            perspective=[AZIMUTH, ELEVATION],
            surftype="i300",
            plane=f"{low}+ggray70" if _complete_edges(view) else None,
            shading="+a315+nt0.7",
            cmap=True,
            frame=[f"xa{tick:g}+lx (km)", f"ya{tick:g}+ly (km)", *upright],
        )

    def heading(self, figure: pygmt.Figure, text: str, lift: float, size: str) -> None:
        across, up = self.page
        figure.text(
            x=0,
            y=1,
            text=text,
            region=[0, 1, 0, 1],
            projection=f"X{across}c/{up}c",
            justify="BL",
            offset=f"-0.8c/{lift}c",
            font=f"{size},Helvetica-Bold",
            no_clip=True,
        )


def _complete_edges(view: View) -> bool:
    """Tell whether a facade can stand all round: GMT draws it awry across a gap."""
    values = view.heights.values
    return bool(np.isfinite(np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])).all())


def _bar(
    figure: pygmt.Figure, frame: _Frame, colours: str, series: tuple[float, float, float], label: str, column: int
) -> None:
    import pygmt

    across, up = frame.page
    pygmt.makecpt(cmap=colours, series=series[:2], background=True)
    figure.colorbar(
        position=f"JBL+jTL+w{across * 0.8}c/0.3c+h+o{column * (across + 2.4) + across * 0.1}c/1.6c+e",
        region=[0, 1, 0, 1],
        projection=f"X{across}c/{up}c",
        frame=f"xa{2 * series[2]:g}+l{label}",
    )


def _symmetric(arrays: Sequence[np.ndarray]) -> tuple[float, float, float]:
    if not arrays:
        return -1.0, 1.0, 0.2
    _, end, step = colour_range([np.abs(array) for array in arrays])
    return -end, end, step
