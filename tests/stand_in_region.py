"""A region made in memory, with the same methods as one read from files, for tests of what comes after the data."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.data.holdout import HoldoutSettings
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.grid import Bounds, Grid

DATUM = "ellipsoid:WGS84"


class StandInRegion:
    """A small embedded world: bed of smoothed noise, its block mean as low-resolution bed, one flight line."""

    name = "stand-in"
    title = "SYNTHETIC world of the tests"
    synthetic = True
    resolution = 250.0
    vertical_datum = DATUM
    citations = ("nobody",)

    def __init__(self, bounds: Bounds = (-1500e3, -500e3, -1440e3, -460e3), seed: int = 0, truth: bool = True) -> None:
        self.bounds = bounds
        self.grid = Grid.from_bounds(bounds, self.resolution, vertical_datum=DATUM)
        xmin, ymin, xmax, ymax = bounds
        self.transects = {"thwaites": SimpleNamespace(order="track", title=None)}
        names = ("bedmachine", "truth") if truth else ("bedmachine",)
        self.settings = SimpleNamespace(
            references={name: SimpleNamespace(label=None) for name in names},
            holdout=HoldoutSettings(test=((xmin, ymin, xmin + 12e3, ymin + 12e3),)),
        )
        generator = np.random.default_rng(seed)
        self._wide = self.grid.pad(4)
        noise = generator.normal(size=self._wide.shape)
        relief = sum(gaussian_filter(noise, scale) * scale**1.6 for scale in (1, 2, 4, 8, 16, 32))
        relief = 200 * relief / relief.std()
        column = np.linspace(0, 1, self._wide.shape[1])
        self._bed = (relief * (0.5 + column) - 900).astype(np.float32)
        x, y = self._wide.x, self._wide.y
        self._surface = (300 + 1200 * column + 0.02 * gaussian_filter(relief, 4)).astype(np.float32)
        self._speed = np.broadcast_to(900 * (1 - column) ** 2 + 5, self._bed.shape).astype(np.float32)
        along = np.arange(0, (xmax - xmin) * 0.8, 40.0)
        px = xmin + 0.1 * (xmax - xmin) + along * np.cos(0.3)
        py = ymin + 0.3 * (ymax - ymin) + along * np.sin(0.3) + 1500 * np.sin(along / 9000)
        kept = (py > ymin) & (py < ymax) & (px < xmax)
        array = xr.DataArray(self._bed, dims=("y", "x"), coords={"y": y, "x": x})
        px, py, along = px[kept], py[kept], along[kept]
        bed = array.interp(x=xr.DataArray(px), y=xr.DataArray(py)).values + generator.normal(size=px.size) * 5
        self._picks = pd.DataFrame({"distance": along, "x": px, "y": py, "bed": bed})

    def _cut(self, values: np.ndarray, bounds: Bounds, cells: int) -> tuple[np.ndarray, Grid]:
        window = self.grid.window(bounds).pad(cells)
        left, _, _, top = self._wide.bounds
        row = round((top - window.bounds[3]) / self.resolution)
        column = round((window.bounds[0] - left) / self.resolution)
        return values[row : row + window.shape[0], column : column + window.shape[1]], window

    def inputs(self, bounds: Bounds | None = None) -> dict[str, xr.DataArray]:
        """Inputs with a margin of one coarse cell."""
        bounds = bounds or self.bounds
        bed, fine = self._cut(self._bed, bounds, 4)
        surface, _ = self._cut(self._surface, bounds, 4)
        speed, _ = self._cut(self._speed, bounds, 4)

        def mean(values: np.ndarray, size: int) -> np.ndarray:
            return values.reshape(values.shape[0] // size, size, -1, size).mean(axis=(1, 3))

        coarse = fine.coarsen(4)
        tenth = coarse.refine(10)
        finer = mean(surface.repeat(5, axis=0).repeat(5, axis=1), 2)
        velocity = np.stack([-mean(speed, 2), 0.1 * mean(speed, 2)], axis=-1)
        return {
            "bed_lowres": coarse.dataarray(mean(bed, 4), "bed_lowres", "m"),
            "surface": tenth.dataarray(finer, "surface", "m"),
            "velocity": coarse.refine(2).dataarray(velocity, "velocity", "m yr-1"),
            "accumulation": coarse.dataarray(np.full(coarse.shape, 500, np.float32), "accumulation", "kg m-2 yr-1"),
        }

    def reference(self, name: str, bounds: Bounds | None = None) -> xr.DataArray:
        """The true bed, or a smoothed one in the place of BedMachine."""
        bed = self._bed if name == "truth" else gaussian_filter(self._bed, 3)
        values, grid = self._cut(bed, bounds or self.bounds, 0)
        return grid.dataarray(values, name, "m")

    def picks(self, role: str | None = None) -> pd.DataFrame:
        """Every pick."""
        return self._picks.drop(columns="distance")

    def transect(self, name: str) -> pd.DataFrame:
        """The flight line."""
        if name not in self.transects:
            raise ConfigError(f"unknown transect '{name}'; known: {', '.join(self.transects)}")
        return self._picks.copy()


def predict(model: float, region: StandInRegion, bounds: Bounds) -> xr.DataArray:
    """Stand in for a network: the truth with noise of `model` metres."""
    bed = region.reference("truth", bounds)
    noise = np.random.default_rng(1).normal(size=bed.shape).astype(np.float32) * model
    return bed.copy(data=bed.values + gaussian_filter(noise, 1) * 3.5)
