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
from deepbedmap_tf.figures.panels import WIDTH, Panels
from deepbedmap_tf.figures.style import (
    BED_COLOURS,
    CONFIGURATION,
    DIFFERENCE_COLOURS,
    FORMATS,
    colour_range,
    save,
)
from deepbedmap_tf.scoring.baselines import bicubic

if TYPE_CHECKING:
    import pygmt

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
    layout = Panels(region.bounds, 6)
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
        _draw_transfer(layout, figure, 5)
        layout.title(figure, region.title)
    return save(figure, path, formats)


def _draw_transfer(panels: Panels, figure: pygmt.Figure, number: int) -> None:
    panels.place(figure, number)
    wavelengths = np.geomspace(0.7, 100, 200)
    figure.basemap(
        region=[0.7, 100, 0, 1.05],
        projection=f"X{WIDTH}cl/{panels.height}c",
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
    panels.heading(figure, number, "What reaches the surface (slope 0.003)")


def _draw_surveys(figure: pygmt.Figure, parameters: dict[str, list[dict[str, list[float]]]], region: Region) -> None:
    boxes = [(box["bounds"], "0.9p,white") for box in parameters["dense_boxes"]]
    boxes += [(list(box), "0.9p,red,4_2") for box in region.holdout]
    for (left, bottom, right, top), pen in boxes:
        x, y = np.array([left, right, right, left, left]), np.array([bottom, bottom, top, top, bottom])
        figure.plot(x=x / 1000, y=y / 1000, pen=pen)
    if parameters["transect"]:
        corners = np.array(parameters["transect"], dtype=float) / 1000
        figure.plot(x=corners[:, 0], y=corners[:, 1], pen="1.2p,red")
