"""What an embedded world looks like: its bed, what the coarse bed misses, and what the ice shows of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.data.region import Region
from deepbedmap_tf.data.transfer import stokes_transfer
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
from deepbedmap_tf.scoring.baselines import bicubic

if TYPE_CHECKING:
    import pygmt

_WIDTH = 8.2
_ACROSS, _DOWN = 3.0, 1.7
_SLIP_COLOURS = {1: "#440154", 10: "#31688e", 100: "#35b779", 300: "#d4a106"}


def draw_world(region: Region, path: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Draw six panels: bed and surveys, error of the coarse bed, surface, speed, slip ratio, transfer.

    Parameters
    ----------
    region
        Region of an embedded world.
    path
        File without its ending.
    formats
        Endings.

    Returns
    -------
    list of Path
        The files written.
    """
    import pygmt

    folder = region.resolve("{world}/truth_250m.nc").parent
    truth = xr.open_dataset(folder / "truth_250m.nc")
    parameters = json.loads((folder / "world.json").read_text(encoding="utf-8"))["parameters"]
    xmin, ymin, xmax, ymax = region.bounds
    truth = truth.sel(x=slice(xmin, xmax), y=slice(ymax, ymin))
    inputs = region.inputs()
    error = bicubic(inputs["bed_lowres"]) - region.reference("truth")
    surface = truth["surface"].to_numpy().astype(float)
    undulation = truth["surface"].copy(data=surface - gaussian_filter(surface, 40))
    layout = _Panels(region.bounds)
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        bed_range = colour_range([truth["bed"].values])
        pygmt.makecpt(cmap=BED_COLOURS, series=bed_range[:2], background=True)
        layout.map(figure, 0, truth["bed"], "Bed (truth), dense surveys, transect", "m", 2 * bed_range[2], shading=True)
        _draw_surveys(figure, parameters, region)
        for number, field, label in (
            (1, error, "Bicubic coarse bed minus truth"),
            (2, undulation, "Surface minus its mean over 20 km"),
        ):
            limit = colour_range([np.abs(field.values)], 0, 98)[1]
            pygmt.makecpt(cmap=DIFFERENCE_COLOURS, series=(-limit, limit), background=True)
            layout.map(figure, number, field, label, "m", limit / 2)
        for number, name, label, unit in (
            (3, "speed", "Surface speed", "m/yr"),
            (4, "slip", "Slip ratio (sliding over deformation)", "1"),
        ):
            low, high = np.log10(np.percentile(truth[name], [1, 99]))
            pygmt.makecpt(cmap="batlow", series=(np.floor(low), np.ceil(high)), log=True, background=True)
            layout.map(figure, number, truth[name], label, unit, None)
        layout.transfer(figure, 5)
        layout.place(figure, 0)
        figure.text(
            x=layout.region[0],
            y=layout.region[3],
            text=region.title,
            font="11p,Helvetica-Bold",
            justify="BL",
            offset="0c/0.75c",
            no_clip=True,
            region=list(layout.region),
            projection=layout.projection,
        )
    return save(figure, path, formats)


class _Panels:
    """Two columns of panels with a colour bar at the right of each map."""

    def __init__(self, bounds: tuple[float, float, float, float]) -> None:
        xmin, ymin, xmax, ymax = (edge / 1000 for edge in bounds)
        self.region = (xmin, xmax, ymin, ymax)
        self.height = _WIDTH * (ymax - ymin) / (xmax - xmin)
        self.projection = f"X{_WIDTH}c/{self.height}c"
        self.tick = round_step((xmax - xmin) / 8)

    def place(self, figure: pygmt.Figure, number: int) -> None:
        row, column = divmod(number, 2)
        up = 2.0 + (2 - row) * (self.height + _DOWN)
        figure.shift_origin(xshift=f"f{2.0 + column * (_WIDTH + _ACROSS)}c", yshift=f"f{up}c")

    def heading(self, figure: pygmt.Figure, number: int, label: str) -> None:
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

    def transfer(self, figure: pygmt.Figure, number: int) -> None:
        self.place(figure, number)
        wavelengths = np.geomspace(0.7, 100, 200)
        figure.basemap(
            region=[0.7, 100, 0, 1.05],
            projection=f"X{_WIDTH}cl/{self.height}c",
            frame=[
                "xa1pf3g3+lWavelength along flow / ice thickness",
                "ya0.2f0.1g0.2+lSurface per bed amplitude",
                "WSen",
            ],
        )
        for slip, colour in _SLIP_COLOURS.items():
            response = np.abs(stokes_transfer(2 * np.pi / wavelengths, 0.0, 0.003, slip).surface)
            figure.plot(x=wavelengths, y=response, pen=f"1.6p,{colour}", label=f"slip ratio {slip}")
        figure.legend(position="JTR+jTR+o0.1c", box="+gwhite+p0.4p,gray60")
        self.heading(figure, number, "What reaches the surface (slope 0.003)")


def _draw_surveys(figure: pygmt.Figure, parameters: dict[str, list[dict[str, list[float]]]], region: Region) -> None:
    boxes = [(box["bounds"], "0.9p,white") for box in parameters["dense_boxes"]]
    boxes += [(list(box), "0.9p,red,4_2") for box in region.holdout]
    for (left, bottom, right, top), pen in boxes:
        x, y = np.array([left, right, right, left, left]), np.array([bottom, bottom, top, top, bottom])
        figure.plot(x=x / 1000, y=y / 1000, pen=pen)
    if parameters["transect"]:
        corners = np.array(parameters["transect"], dtype=float) / 1000
        figure.plot(x=corners[:, 0], y=corners[:, 1], pen="1.2p,red")
