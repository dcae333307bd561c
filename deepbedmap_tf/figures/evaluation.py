"""The three figures of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepbedmap_tf.evaluation.report import Evaluation
from deepbedmap_tf.figures.maps import RoughnessPanel, draw_maps
from deepbedmap_tf.figures.perspective import View, draw_perspectives
from deepbedmap_tf.figures.scatter import draw_scatter
from deepbedmap_tf.figures.style import FORMATS
from deepbedmap_tf.figures.transect import draw_transect
from deepbedmap_tf.scoring.roughness import roughness

WIDEST = 60_000.0
"""Longest side of what the perspectives show, m."""


def draw_evaluation(evaluation: Evaluation, out: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Draw the perspectives, the maps and the transect into a folder.

    Picks that follow no line are drawn against the products instead of along a distance.

    Parameters
    ----------
    evaluation
        What `evaluate` returned.
    out
        Folder for ``fig3_perspectives``, ``fig5_maps`` and ``fig6_transect``.

    Returns
    -------
    list of Path
        The files written.
    """
    title = evaluation.title
    beds = {product.name: product for product in evaluation.products}
    model, smooth = beds["deepbedmap"], beds["bicubic"]
    profile = evaluation.comparison.profile
    reference_label = evaluation.reference[:1].upper() + evaluation.reference[1:]
    panels = [
        RoughnessPanel(f"{model.label}: roughness", roughness(model.bed)),
        RoughnessPanel(
            f"{reference_label}: roughness",
            _radar_points(evaluation),
        ),
    ]
    views = [
        View(f"{model.label}", model.bed),
        View(smooth.label, smooth.bed),
        View(f"{model.label} minus bicubic", (model.bed - smooth.bed).astype(np.float32), difference=True),
    ]
    for reference in [product for name, product in beds.items() if name not in ("deepbedmap", "bicubic")][:1]:
        panels.append(RoughnessPanel(f"{reference.label}: roughness", roughness(reference.bed)))
        views.append(View(reference.label, reference.bed))
    along = draw_scatter if evaluation.scattered else draw_transect
    return [
        *draw_perspectives(_close(views, profile), out / "fig3_perspectives", title, formats),
        *draw_maps(model.bed, panels, profile, out / "fig5_maps", title, f"{model.label}: bed elevation", formats),
        *along(profile, evaluation.products, out / "fig6_transect", title, formats, reference_label),
    ]


def _radar_points(evaluation: Evaluation) -> pd.DataFrame:
    rough = roughness(evaluation.radar, min_count=evaluation.comparison.min_count)
    row, column = np.nonzero(np.isfinite(rough.values))
    x, y = rough["x"].values[column], rough["y"].values[row]
    return pd.DataFrame({"x": x, "y": y, "roughness": rough.values[row, column]})


def _close(views: Sequence[View], profile: pd.DataFrame) -> list[View]:
    """Cut wide views to a stretch of the transect, where heights ten times exaggerated can still be seen."""
    heights = views[0].heights
    middle = profile.iloc[(profile["distance"] - profile["distance"].median()).abs().argmin()]
    cut = {}
    for axis in ("x", "y"):
        centres = heights[axis].values
        low, high = float(centres.min()), float(centres.max())
        start = float(np.clip(middle[axis] - WIDEST / 2, low, max(high - WIDEST, low)))
        cut[axis] = (centres >= start) & (centres <= start + WIDEST)
    return [View(view.label, view.heights[cut["y"], cut["x"]], view.difference) for view in views]
