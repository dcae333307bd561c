"""Maps side by side: two columns of panels of one size, each with a colour bar at its right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from deepbedmap_tf.evaluation.transects import gmt_grid
from deepbedmap_tf.figures.style import round_step

if TYPE_CHECKING:
    import pygmt

WIDTH = 8.2
"""Of a panel, cm."""

_ACROSS, _DOWN = 3.0, 1.7


class Panels:
    """Two columns of panels with a colour bar at the right of each map.

    Parameters
    ----------
    bounds
        Edges (xmin, ymin, xmax, ymax) of every map, m.
    count
        Panels, numbered from 0 row by row.
    """

    def __init__(self, bounds: tuple[float, float, float, float], count: int) -> None:
        xmin, ymin, xmax, ymax = (edge / 1000 for edge in bounds)
        self.region = (xmin, xmax, ymin, ymax)
        self.height = WIDTH * (ymax - ymin) / (xmax - xmin)
        self.projection = f"X{WIDTH}c/{self.height}c"
        self.tick = round_step((xmax - xmin) / 8)
        self.rows = (count + 1) // 2

    def place(self, figure: pygmt.Figure, number: int) -> None:
        """Move the origin to a panel."""
        row, column = divmod(number, 2)
        up = 2.0 + (self.rows - 1 - row) * (self.height + _DOWN)
        figure.shift_origin(xshift=f"f{2.0 + column * (WIDTH + _ACROSS)}c", yshift=f"f{up}c")

    def title(self, figure: pygmt.Figure, text: str) -> None:
        """Write above the first panel."""
        self.place(figure, 0)
        figure.text(
            x=self.region[0],
            y=self.region[3],
            text=text,
            font="11p,Helvetica-Bold",
            justify="BL",
            offset="0c/0.75c",
            no_clip=True,
            region=list(self.region),
            projection=self.projection,
        )

    def heading(self, figure: pygmt.Figure, number: int, label: str) -> None:
        """Write a panel's letter and label above it."""
        figure.text(
            position="TL",
            justify="BL",
            offset="0c/0.12c",
            text=f"({'abcdef'[number]}) {label}",
            font="9p,Helvetica-Bold",
            no_clip=True,
        )

    def map(
        self,
        figure: pygmt.Figure,
        number: int,
        field: xr.DataArray,
        label: str,
        unit: str,
        tick: float | None,
        shading: bool = False,
    ) -> None:
        """Draw a map with the colours that are set, and its bar.

        Parameters
        ----------
        field
            Dims (y, x), cell centres in metres.
        label, unit
            Heading of the panel, label of the bar.
        tick
            Step of the bar's annotation; None for a logarithmic bar.
        shading
            Light it from the north-west.
        """
        self.place(figure, number)
        figure.grdimage(
            gmt_grid(field, 1000),
            region=list(self.region),
            projection=self.projection,
            cmap=True,
            shading="+a315+nt0.6" if shading else None,
            frame=[f"xa{self.tick:g}f{self.tick / 2:g}+lx (km)", f"ya{self.tick:g}f{self.tick / 2:g}+ly (km)", "WSen"],
        )
        self.heading(figure, number, label)
        bar = f"JMR+w{0.9 * self.height}c/0.25c+o0.3c/0c+e"
        if tick is None:
            figure.colorbar(position=bar, frame=["xa1p", f"y+l{unit}"], log=True)
        else:
            figure.colorbar(position=bar, frame=[f"xa{tick:g}", f"y+l{unit}"])
