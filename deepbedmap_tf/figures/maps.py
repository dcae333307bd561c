"""Maps of the bed and of its roughness (Leong & Horgan 2020, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from deepbedmap_tf.evaluation.transects import gmt_grid
from deepbedmap_tf.figures.style import (
    BED_COLOURS,
    CONFIGURATION,
    FORMATS,
    ROUGHNESS_COLOURS,
    colour_range,
    round_step,
    save,
)
from deepbedmap_tf.grid import Grid

if TYPE_CHECKING:
    import pygmt

PANEL_WIDTH = 8.4
PANEL_HEIGHT = 10.0
"""Largest sides of a panel, cm: two fit on the width of a page."""

GAP_ACROSS, GAP_DOWN = 1.3, 1.0
"""Room between panels, cm: for their headings and axes."""


MOST_COVERED = 0.3
"""Where picks lie in more than this share of the cells, they would hide the bed and are not drawn."""


@dataclass(frozen=True)
class RoughnessPanel:
    """One map of roughness: of a grid, or of points along flight lines.

    Attributes
    ----------
    label
        Heading.
    roughness
        Map (y, x), m, or a table with columns x, y, roughness.
    """

    label: str
    roughness: xr.DataArray | pd.DataFrame

    @property
    def values(self) -> np.ndarray:
        """All values, m."""
        if isinstance(self.roughness, pd.DataFrame):
            return self.roughness["roughness"].to_numpy(np.float64)
        return np.asarray(self.roughness.values, np.float64)


def draw_maps(
    bed: xr.DataArray,
    panels: Sequence[RoughnessPanel],
    picks: pd.DataFrame,
    path: Path,
    title: str,
    bed_label: str = "DeepBedMap bed elevation",
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw the bed and up to three maps of roughness with one colour scale.

    Parameters
    ----------
    bed
        Elevation (y, x), m.
    panels
        Roughness, one panel each.
    picks
        Columns x, y: the transect, drawn on the bed unless it covers it.
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

    layout = _Layout.around(bed, len(panels) + 1)
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        bed_range = colour_range([bed.values])
        rough_range = (0.0, *colour_range([panel.values for panel in panels], 0, 98)[1:])
        layout.place(figure, 0)
        pygmt.makecpt(cmap=BED_COLOURS, series=bed_range[:2], background=True)
        figure.grdimage(
            gmt_grid(bed, 1000),
            region=layout.region,
            projection=layout.projection,
            cmap=True,
            shading="+a315+nt0.7",
            frame=layout.frame(0),
            nan_transparent=True,
        )
        covered = len(picks) / bed.size
        if covered < MOST_COVERED:
            figure.plot(x=picks["x"] / 1000, y=picks["y"] / 1000, style=_point_style(covered), fill="black")
        _heading(figure, 0, bed_label)
        figure.text(position="TL", justify="BL", offset="0c/0.75c", text=title, font="11p,Helvetica-Bold", no_clip=True)
        bar = f"JBC+w{layout.width * 0.8}c/0.3c+h+o0c/{layout.bar_offset(0)}c+e"
        figure.colorbar(position=bar, frame=f"xa{2 * bed_range[2]:g}+lBed elevation, panel a (m)")
        for number, panel in enumerate(panels, start=1):
            layout.place(figure, number)
            _draw_roughness(figure, panel, layout, number, rough_range)
            _heading(figure, number, panel.label)
        letters = f"b-{_letter(len(panels))}" if len(panels) > 1 else "b"
        layout.place(figure, 1)
        bar = f"JBC+w{layout.width * 0.8}c/0.3c+h+o0c/{layout.bar_offset(1)}c+ef"
        figure.colorbar(
            position=bar,
            region=layout.region,
            projection=layout.projection,
            frame=f"xa{2 * rough_range[2]:g}+lRoughness, panels {letters} (m)",
        )
    return save(figure, path, formats)


@dataclass(frozen=True)
class _Layout:
    """Two columns of panels of one size, above two colour bars."""

    region: tuple[float, float, float, float]
    width: float
    height: float
    count: int

    @classmethod
    def around(cls, bed: xr.DataArray, count: int) -> _Layout:
        xmin, ymin, xmax, ymax = (edge / 1000 for edge in Grid.of(bed).bounds)
        aspect = (ymax - ymin) / (xmax - xmin)
        width = min(PANEL_WIDTH, PANEL_HEIGHT / aspect)
        return cls((xmin, xmax, ymin, ymax), width, width * aspect, count)

    @property
    def projection(self) -> str:
        return f"X{self.width}c/{self.height}c"

    @property
    def rows(self) -> int:
        return (self.count + 1) // 2

    def place(self, figure: pygmt.Figure, number: int) -> None:
        row, column = divmod(number, 2)
        up = 3.0 + (self.rows - 1 - row) * (self.height + GAP_DOWN)
        figure.shift_origin(xshift=f"f{2.0 + column * (self.width + GAP_ACROSS)}c", yshift=f"f{up}c")

    def frame(self, number: int) -> list[str]:
        left, bottom = number % 2 == 0, number + 2 >= self.count
        tick = round_step((self.region[1] - self.region[0]) / (self.width / 1.1))
        return [
            f"xa{tick:g}f{tick / 2:g}" + ("+lx (km)" if bottom else ""),
            f"ya{tick:g}f{tick / 2:g}" + ("+ly (km)" if left else ""),
            f"{'W' if left else 'w'}{'S' if bottom else 's'}en",
        ]

    def bar_offset(self, column: int) -> float:
        """Distance from the panel of the first row down to the bars below the last one, cm."""
        return (self.rows - 1) * (self.height + GAP_DOWN) + 1.25


def _point_style(covered: float) -> str:
    return "c0.8p" if covered < 0.05 else "c0.35p"


def _letter(number: int) -> str:
    return "abcdefgh"[number]


def _heading(figure: pygmt.Figure, number: int, label: str) -> None:
    figure.text(
        position="TL",
        justify="BL",
        offset="0c/0.12c",
        text=f"({_letter(number)}) {label}",
        font="9p,Helvetica-Bold",
        no_clip=True,
    )


def _draw_roughness(
    figure: pygmt.Figure, panel: RoughnessPanel, layout: _Layout, number: int, series: tuple[float, float, float]
) -> None:
    import pygmt

    # The palest end would be lost on the paper where radar points stand on white.
    pygmt.makecpt(cmap=ROUGHNESS_COLOURS, series=series[:2], background=True, truncate=[0, 0.95])
    frame, region, projection = layout.frame(number), list(layout.region), layout.projection
    if isinstance(panel.roughness, pd.DataFrame):
        known = panel.roughness.dropna(subset="roughness")
        figure.basemap(region=region, projection=projection, frame=frame)
        figure.plot(x=known["x"] / 1000, y=known["y"] / 1000, fill=known["roughness"], cmap=True, style="c0.07c")
    else:
        grid = gmt_grid(panel.roughness, 1000)
        figure.grdimage(grid, region=region, projection=projection, cmap=True, frame=frame, nan_transparent=True)
