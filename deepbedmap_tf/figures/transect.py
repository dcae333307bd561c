"""Elevation and roughness along a transect (Leong & Horgan 2020, Figure 6)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepbedmap_tf.evaluation.transects import Product
from deepbedmap_tf.figures.style import CONFIGURATION, FORMATS, round_step, save

if TYPE_CHECKING:
    import pygmt

WIDTH, HEIGHT, GAP = 17.0, 5.6, 0.7
"""Of a panel, and between the two, cm."""

LONGEST_GAP = 2000.0
"""Lines are broken where picks lie further apart than this, m."""

LONG, CLOSE_UP = 80.0, 30.0
"""A track longer than the one gets a close-up as long as the other, and its roughness as a running mean, km."""

RADAR_COLOUR = "gray50"

MOST_POINTS = 20_000


def draw_transect(
    profile: pd.DataFrame,
    products: Sequence[Product],
    path: Path,
    title: str,
    formats: Sequence[str] = FORMATS,
    reference: str = "Radar",
) -> list[Path]:
    """Draw the products over the radar along the track: elevation above, roughness below.

    A long track gets a close-up of the elevation between them, and its roughness as a running mean.

    Parameters
    ----------
    profile
        Columns distance (m), radar, one a product, and ``roughness_<name>`` for each of them, m.
    products
        Which of them to draw, with label and colour.
    path
        File without its ending.
    title
        Heading of the figure.
    reference
        What column radar holds.

    Returns
    -------
    list of Path
        The files written.
    """
    import pygmt

    table = profile.iloc[:: max(1, len(profile) // MOST_POINTS)].sort_values("distance", kind="stable")
    names = [product.name for product in products]
    extent = (0.0, float(table["distance"].max()) / 1000)
    heights = table[["distance", "radar", *names]].rename(columns=lambda name: name.removeprefix("roughness_"))
    rough = table[["distance", *(f"roughness_{name}" for name in ("radar", *names))]]
    rough = rough.rename(columns=lambda name: name.removeprefix("roughness_"))
    rough_label = "Bed roughness (m)"
    panels = [_Panel(heights, extent, "Bed elevation (m)", dotted_radar=True)]
    if extent[1] > LONG:
        middle = _busiest(table["distance"].to_numpy(np.float64) / 1000)
        panels.append(_Panel(heights, (middle, middle + CLOSE_UP), "Bed elevation (m)", dotted_radar=True))
        length = round_step(extent[1] / 100)
        rough = _running_mean(rough, length * 1000)
        rough_label = f"Roughness, {length:g} km mean (m)"
    panels.append(_Panel(rough, extent, rough_label, from_zero=True))

    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        for number, panel in enumerate(panels):
            figure.shift_origin(xshift="f2c", yshift=f"f{2 + (len(panels) - 1 - number) * (HEIGHT + GAP)}c")
            last = number == len(panels) - 1
            panel.draw(figure, products, "Distance along the track (km)" if last else "")
            _letter(figure, f"({'abc'[number]})")
            if number == 0:
                _legend(figure, products, reference)
                figure.text(
                    position="TL", justify="BL", offset="0c/0.95c", text=title, font="11p,Helvetica-Bold", no_clip=True
                )
    return save(figure, path, formats)


@dataclass(frozen=True)
class _Panel:
    """Lines over distance: a table with distance (m), radar and a column a product."""

    table: pd.DataFrame
    extent: tuple[float, float]
    label: str
    dotted_radar: bool = False
    from_zero: bool = False

    def draw(self, figure: pygmt.Figure, products: Sequence[Product], x_label: str) -> None:
        distance = self.table["distance"].to_numpy(np.float64)
        seen = self.table[(distance >= self.extent[0] * 1000) & (distance <= self.extent[1] * 1000)]
        up = _limits(seen.drop(columns="distance").to_numpy(np.float64))
        up = (0.0, up[1]) if self.from_zero else up
        x, y = round_step((self.extent[1] - self.extent[0]) / 12), round_step((up[1] - up[0]) / 7)
        figure.basemap(
            region=[*self.extent, *up],
            projection=f"X{WIDTH}c/{HEIGHT}c",
            frame=[
                f"xa{x:g}f{x / 2:g}" + (f"+l{x_label}" if x_label else ""),
                f"ya{y:g}f{y / 2:g}g{y:g}+l{self.label}",
                "WSen",
            ],
        )
        # The first product is what the figure is about, so it lies on top.
        drawn = [("radar", RADAR_COLOUR), *((product.name, product.colour) for product in reversed(products))]
        for name, colour in drawn:
            along, values = _broken(distance, self.table[name].to_numpy(np.float64))
            if name == "radar" and self.dotted_radar:
                size = 1.6 if self.extent[1] - self.extent[0] <= CLOSE_UP else 0.9
                figure.plot(x=along / 1000, y=values, style=f"c{size}p", fill=colour)
            else:
                figure.plot(x=along / 1000, y=values, pen=f"{1.8 if name == 'radar' else 0.8}p,{colour}")


def _busiest(distance: NDArray[np.float64]) -> float:
    """Start, km, of the close-up: of the stretches with most picks, the one nearest to the middle."""
    starts = np.arange(0, distance.max() - CLOSE_UP, CLOSE_UP / 4)
    count = np.searchsorted(distance, starts + CLOSE_UP) - np.searchsorted(distance, starts)
    full = starts[count >= 0.9 * count.max()]
    return float(full[np.argmin(np.abs(full + CLOSE_UP / 2 - distance.max() / 2))])


def _running_mean(table: pd.DataFrame, length: float) -> pd.DataFrame:
    """Mean over a length of the track, m, of every column but distance; NaN where the column is."""
    distance = table["distance"].to_numpy(np.float64)
    start = np.searchsorted(distance, distance - length / 2)
    end = np.searchsorted(distance, distance + length / 2, side="right")
    result = table.copy()
    for name in table.columns.drop("distance"):
        values = table[name].to_numpy(np.float64)
        known = np.isfinite(values)
        sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0))])
        counts = np.concatenate([[0], np.cumsum(known)])
        mean = (sums[end] - sums[start]) / np.maximum(counts[end] - counts[start], 1)
        result[name] = np.where(known, mean, np.nan)
    return result


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = 0.05 * max(high - low, 1.0)
    return low - margin, high + margin


def _legend(figure: pygmt.Figure, products: Sequence[Product], reference: str) -> None:
    lines = [f"N {len(products) + 1}", f"S 0.3c c 3.5p {RADAR_COLOUR} - 0.7c {reference}"]
    for product in products:
        lines.append(f"S 0.3c - 0.5c - 1.2p,{product.colour} 0.7c {product.label}")
    figure.legend(spec=io.StringIO("\n".join(lines) + "\n"), position=f"JTL+jBL+w{WIDTH}c+o0c/0.05c", box=False)


def _broken(
    distance: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Put a NaN in each long gap, at which GMT lifts its pen."""
    gaps = np.flatnonzero(np.diff(distance) > LONGEST_GAP) + 1
    return np.insert(distance, gaps, distance[gaps]), np.insert(values, gaps, np.nan)


def _letter(figure: pygmt.Figure, letter: str) -> None:
    figure.text(position="TL", offset="0.15c/-0.15c", text=letter, font="9p,Helvetica-Bold", fill="white@30")
