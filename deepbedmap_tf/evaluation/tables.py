"""Scores as text for a console."""

from __future__ import annotations

import math
from collections.abc import Mapping

from deepbedmap_tf.evaluation.transects import Scores

COLUMNS = (
    ("rmse", "RMSE m", "{:.1f}"),
    ("mae", "MAE m", "{:.1f}"),
    ("bias", "bias m", "{:+.1f}"),
    ("skill", "gain", "{:.0%}"),
    ("roughness", "roughness m", "{:.1f}"),
    ("roughness_ratio", "ratio", "{:.2f}"),
    ("roughness_rmse", "its RMSE m", "{:.1f}"),
    ("spectral_slope", "slope", "{:.2f}"),
)
"""Key, heading and format of each column; the gain is the share of the bicubic bed's RMSE that is saved."""


def format_tables(
    heading: str,
    scores: Mapping[str, Scores],
    areas: Mapping[str, Mapping[str, Scores]],
    maps: Mapping[str, Mapping[str, Scores]],
    labels: Mapping[str, str],
    reference: str = "radar",
) -> str:
    """Format the scores against radar, in all and by area, and those against the truth on maps.

    Parameters
    ----------
    heading
        First line.
    scores
        Product name to scores along the transect.
    areas, maps
        The same against radar in each held-out area, and against the truth on each map.
    labels
        Product name to what the table calls it.
    reference
        What the picks are, if not radar.
    """
    labels = {**labels, "radar": reference[:1].upper() + reference[1:], "truth": "Truth"}
    picks = "radar picks" if reference == "radar" else "points of it"
    parts = [heading, _table(scores, labels)]
    speeds = _speed_table(scores, labels)
    if speeds:
        parts += ["RMSE (m) at the picks by ice speed (m/yr)", speeds]
    for name, each in areas.items():
        parts += [f"Held-out {name}: {each['radar']['count']} {picks}", _table(each, labels)]
    for name, each in maps.items():
        parts += [f"Against the true bed, {name}: {each['truth']['count']} cells", _table(each, labels)]
        speeds = _speed_table(each, labels)
        if speeds:
            parts += [f"RMSE (m), {name}, by ice speed (m/yr)", speeds]
    return "\n\n".join(parts)


def _table(scores: Mapping[str, Scores], labels: Mapping[str, str]) -> str:
    rows = [["", *(heading for _, heading, _ in COLUMNS)]]
    for name in _order(scores):
        rows.append([labels.get(name, name), *(_cell(scores[name].get(key), form) for key, _, form in COLUMNS)])
    return _align(rows)


def _speed_table(scores: Mapping[str, Scores], labels: Mapping[str, str]) -> str:
    classes: list[str] = []
    rows = []
    for name in _order(scores):
        values = scores[name].get("rmse_by_speed")
        if isinstance(values, dict):
            classes = [key for key in values if any(_known(scores, other, key) for other in scores)]
            rows.append([labels.get(name, name), *(_cell(values[key], "{:.1f}") for key in classes)])
    return _align([["", *classes], *rows]) if classes else ""


def _known(scores: Mapping[str, Scores], name: str, speed: str) -> bool:
    values = scores[name].get("rmse_by_speed")
    return isinstance(values, dict) and math.isfinite(values[speed])


def _order(scores: Mapping[str, Scores]) -> list[str]:
    last = ("truth", "radar")
    return [*(name for name in scores if name not in last), *(name for name in last if name in scores)]


def _cell(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) and math.isfinite(value) else "-"


def _align(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)
