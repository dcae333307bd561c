"""Each row of a survey's table comes back as it stands, or is left out for a reason that is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import product_layouts as layouts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.picks import read_picks
from deepbedmap_tf.data.projections import transform
from deepbedmap_tf.errors import NoDataError


class Row(NamedTuple):
    """x and y in EPSG:3031; None is missing."""

    x: float
    y: float
    bed: float | None
    surface: float | None
    thickness: float | None


def fill(value: float | None, word: str = "-9999") -> str:
    return word if value is None else f"{value:.2f}"


def rutford(path: Path, rows: list[Row]) -> Path:
    return layouts.rutford(path / "bed_WGS84_grid.txt", [(row.x, row.y, float(fill(row.bed))) for row in rows])


def carlson(path: Path, rows: list[Row]) -> Path:
    lines = ["x,y,z", *(f"{row.x},{row.y},{fill(row.bed)}" for row in rows)]
    (path / "carlson.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path / "carlson.csv"


def cells(path: Path, rows: list[Row]) -> Path:
    lines = ["x,y,thickness_mean_m,thickness_std_m,pick_count"]
    lines += [f"{row.x},{row.y},{fill(row.thickness)},3,2" for row in rows]
    (path / "cells.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path / "cells.csv"


def pine_island(name: str) -> Callable[[Path, list[Row]], Path]:
    columns = layouts.PINE_ISLAND[name]

    def write(path: Path, rows: list[Row]) -> Path:
        own = {"x": "x", "y": "y", "z_surf": "surface", "h_fc": "thickness", "z_fc": "bed", "z_bed_fc": "bed"}
        table = [
            [float(fill(getattr(row, own[word]))) if word in own else 77.0 for word in columns.split()] for row in rows
        ]
        return layouts.pine_island(path / f"{name}.txt", columns, table)

    return write


def wise_isodyn(named: bool) -> Callable[[Path, list[Row]], Path]:
    def write(path: Path, rows: list[Row]) -> Path:
        lines = []
        for row in rows:
            longitude, latitude = transform(np.array([row.x]), np.array([row.y]), "EPSG:3031", "EPSG:4326")
            before = f"W1 L1 {longitude[0]:.9f} {latitude[0]:.9f} 1 2 3500 20051220 101500 S 1 1 10 20 -333 -444 1"
            lines.append(f"{before} {fill(row.bed, '*')} {fill(row.surface, '*')} {fill(row.thickness, '*')}")
        return layouts.wise_isodyn(path / "wise.zip", {"W1": lines}, named)

    return write


FORMATS: dict[str, tuple[str, Callable[[Path, list[Row]], Path]]] = {
    "rutford": ("rutford", rutford),
    "carlson": ("carlson", carlson),
    "cells": ("cells", cells),
    **{name: ("pine_island", pine_island(name)) for name in layouts.PINE_ISLAND},
    "wise_isodyn": ("wise_isodyn", wise_isodyn(False)),
    "wise_isodyn with names": ("wise_isodyn", wise_isodyn(True)),
}
# Whole cells of Antarctica, so that a place is the same after a journey through degrees.
PLACES = st.tuples(st.integers(-1400, -1300), st.integers(-500, -400))
METRES = st.one_of(st.none(), st.integers(0, 300000).map(lambda value: value / 100))


def expected(form: str, row: Row) -> float | None:
    """Bed that a row gives (thickness for cells), by the rules of its format; None where it gives none."""
    if form == "cells":
        return row.thickness
    if form in ("rutford", "carlson"):
        return row.bed
    bed = row.bed
    if bed is None and form == "wise_isodyn" and row.surface is not None and row.thickness is not None:
        bed = row.surface - row.thickness
    return None if bed is None or (row.surface is not None and row.surface < bed - 1) else bed


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25)
@given(rows=st.lists(st.tuples(PLACES, METRES, METRES, METRES), min_size=1, max_size=20))
def test_every_row_comes_back_or_is_accounted_for(name, rows, tmp_path_factory):
    form, write = FORMATS[name]
    table = [
        # A bed below the ellipsoid, as Carlson Inlet's has to be, and often one below its surface.
        Row(1000.0 * x, 1000.0 * y, None if bed is None else -bed, surface, thickness)
        for (x, y), bed, surface, thickness in rows
    ]
    values = [(row.x, row.y, expected(form, row)) for row in table]
    given_rows = [each for each in values if each[2] is not None]
    path = write(tmp_path_factory.mktemp("picks"), table)
    try:
        picks = read_picks(path, form)
    except NoDataError as error:
        assert not given_rows and f"none of {len(table)} rows" in str(error)
        return
    once = list(dict.fromkeys((x, y, round(value, 2)) for x, y, value in given_rows))
    column = "thickness" if form == "cells" else "bed"
    np.testing.assert_allclose(picks[["x", "y", column]].to_numpy(), np.array(once), atol=0.006)
    assert picks.attrs["rows"] == len(table)
    assert picks.attrs["masked"] == len(table) - len(given_rows) == sum(picks.attrs["left_out"].values())
    assert picks.attrs["duplicates"] == len(given_rows) - len(once)
