"""Products against radar at scattered picks, which no line joins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepbedmap_tf.evaluation.transects import Product
from deepbedmap_tf.figures.style import CONFIGURATION, FORMATS, round_step, save
from deepbedmap_tf.scoring.metrics import bias, rmse

SIDE, GAP_ACROSS, GAP_DOWN = 5.0, 1.7, 2.0
"""Of a panel, and between panels, cm."""

MOST_POINTS = 15_000
"""More are thinned out evenly; the scores in the panels are those of all."""

LONGEST_LABEL = 12
"""Letters of a reference's name that fit on an axis; a longer one goes into the heading."""


def draw_scatter(
    profile: pd.DataFrame,
    products: Sequence[Product],
    path: Path,
    title: str,
    formats: Sequence[str] = FORMATS,
    reference: str = "Radar",
) -> list[Path]:
    """Draw each product's elevation and roughness over the radar's, a column a product, with the line of equality.

    Parameters
    ----------
    profile
        Columns radar, one a product, and ``roughness_<name>`` for each of them, m.
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

    names = ["radar", *(product.name for product in products)]
    # The picks that the scores are of: those where every product has a bed.
    profile = profile[np.isfinite(profile[names]).all(axis=1)]
    step = max(1, len(profile) // MOST_POINTS)
    short = reference if len(reference) <= LONGEST_LABEL else "Reference"
    headings = [(0.75, "11p,Helvetica-Bold", title)]
    if short != reference:
        headings = [(0.7, "9p", f"Reference: {reference[:1].lower()}{reference[1:]}"), (1.2, *headings[0][1:])]
    rows = (("", "bed", names), ("roughness_", "roughness", [f"roughness_{name}" for name in names]))
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        for row, (prefix, quantity, columns) in enumerate(rows):
            # Every column counts for the limits, so that the panels of a row can be compared.
            values = profile[columns].to_numpy(np.float64)
            finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.array([0.0, 1.0])
            low = 0.0 if prefix else float(finite.min())
            high = float(finite.max()) + 0.12 * float(finite.max() - low)
            tick = round_step((high - low) / 5)
            radar = profile[f"{prefix}radar"].to_numpy(np.float64)
            for column, product in enumerate(products):
                figure.shift_origin(
                    xshift=f"f{2 + column * (SIDE + GAP_ACROSS)}c", yshift=f"f{2 + (1 - row) * (SIDE + GAP_DOWN)}c"
                )
                figure.basemap(
                    region=[low, high, low, high],
                    projection=f"X{SIDE}c/{SIDE}c",
                    frame=[
                        f"xa{tick:g}f{tick / 2:g}g{tick:g}+l{short} {quantity} (m)",
                        f"ya{tick:g}f{tick / 2:g}g{tick:g}" + (f"+lProduct's {quantity} (m)" if column == 0 else ""),
                        "WSen",
                    ],
                )
                shown = profile[f"{prefix}{product.name}"].to_numpy(np.float64)
                figure.plot(x=radar[::step], y=shown[::step], style="c1.6p", fill=product.colour, transparency=40)
                figure.plot(x=[low, high], y=[low, high], pen="0.8p,black")
                figure.text(
                    position="TL",
                    justify="BL",
                    offset="0c/0.1c",
                    text=f"({'abcdefgh'[row * len(products) + column]}) {product.label}",
                    font="9p,Helvetica-Bold",
                    no_clip=True,
                )
                figure.text(
                    position="TL",
                    offset="0.15c/-0.15c",
                    text=f"RMSE {rmse(shown, radar):.1f} m, bias {bias(shown, radar):+.1f} m",
                    font="8p",
                    fill="white@25",
                )
                for up, font, text in headings if row == 0 and column == 0 else ():
                    figure.text(position="TL", justify="BL", offset=f"0c/{up}c", text=text, font=font, no_clip=True)
    return save(figure, path, formats)
