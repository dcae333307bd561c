"""Layouts in which surveys hand out their radar picks, one reader a layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepbedmap_tf.data.pick_tables import Columns, Header, Source, find_header, read_table, sources_of, split
from deepbedmap_tf.data.projections import GEOGRAPHIC
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import ELLIPSOID

# Rounding of THICK, SURFACE and BOTTOM to centimetres, with room for surveys that round to decimetres.
_CONSISTENCY = 1.0
# Bedmap's surface, thickness and bed of one point may come from processing with and without firn.
_FIRN = 50.0


@dataclass(frozen=True)
class Table:
    """Picks as a file gives them.

    Attributes
    ----------
    frame
        Columns x, y in `crs` (longitude and latitude if geographic), bed, surface, thickness, segment, quality,
        derived, pick_count; NaN where there is nothing.
    crs
        CRS of x and y; None where the format leaves it open.
    left_out
        Rows that are given but can't be used, counted by the reason.
    header
        What the file says of itself.
    """

    frame: pd.DataFrame
    crs: str | None
    left_out: dict[str, int] = field(default_factory=dict)
    header: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A layout of picks files.

    Attributes
    ----------
    read
        Reads one.
    vertical_datum
        Datum that the format promises for its heights; None if it promises none, or holds no heights.
    needed
        Column without which a row is no pick.
    """

    read: Callable[[Path], Table]
    vertical_datum: str | None
    needed: str = "bed"


def _frame(x: pd.Series, y: pd.Series, **columns: Any) -> pd.DataFrame:
    nothing: dict[str, Any] = {"bed": np.nan, "surface": np.nan, "thickness": np.nan, "segment": "", "quality": np.nan}
    frame = pd.DataFrame({"x": x, "y": y})
    return frame.assign(**{**nothing, "derived": False, "pick_count": 1.0, **columns})


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


def _without_impossible(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Take thickness and bed from rows whose ice has no or negative thickness, by thickness or by its two faces."""
    negative = frame["thickness"] < 0
    below = ~negative & (frame["surface"] < frame["bed"] - _CONSISTENCY)
    unusable = negative | below
    counts = {"have negative thickness": int(negative.sum()), "have the surface below the bed": int(below.sum())}
    frame.loc[unusable, ["bed", "thickness"]] = np.nan
    return frame, {reason: count for reason, count in counts.items() if count}


def read_cresis(path: Path) -> Table:
    """CReSIS ``csv_good``: heights of the aircraft and ranges below it, or heights."""
    heights = ("THICK", "ELEVATION", "SURFACE", "BOTTOM")
    (source,) = sources_of(path)
    columns = Columns(_same("LAT", "LON", *heights, "QUALITY"), _same("FRAME"), optional=("QUALITY",))
    header = find_header(source, [(name,) for name in ("LAT", "LON", *heights, "FRAME")])
    table = read_table(source, header, columns)
    _require_globe(source, table["LON"], table["LAT"], "LON", "LAT")
    thickness, elevation, surface, bottom = (table[name].to_numpy() for name in heights)
    # Where THICK is a fill value, some files hold BOTTOM = SURFACE + 9999: a number that looks like a depth.
    given = np.isfinite(thickness) & np.isfinite(surface) & np.isfinite(bottom)
    complete = given & (thickness >= 0)
    as_ranges = complete & (np.abs(bottom - surface - thickness) <= _CONSISTENCY) & np.isfinite(elevation)
    as_heights = complete & (np.abs(surface - bottom - thickness) <= _CONSISTENCY)
    # Most files give ranges below the aircraft, some (with a TIME header) heights above the ellipsoid.
    heights_given = int(as_heights.sum()) > int(as_ranges.sum())
    usable = as_heights if heights_given else as_ranges
    counts = {
        "have negative thickness": int((given & ~complete).sum()),
        "have SURFACE, BOTTOM and THICK that contradict each other": int((complete & ~usable).sum()),
    }
    frame = _frame(
        table["LON"],
        table["LAT"],
        bed=np.where(usable, bottom if heights_given else elevation - bottom, np.nan),
        surface=np.where(usable, surface if heights_given else elevation - surface, np.nan),
        thickness=np.where(usable, thickness, np.nan),
        segment=[_segment(each) for each in table["FRAME"].to_list()],
        quality=table.get("QUALITY", np.nan),
    )
    return Table(frame, GEOGRAPHIC, {reason: count for reason, count in counts.items() if count})


def _segment(frame: str) -> str:
    """Flight and segment of a frame number: 2014112105001 is frame 1 of segment 05 on 2014-11-21."""
    return f"{frame[:8]}_{frame[8:10]}" if len(frame) == 13 and frame.isdigit() else frame


def _require_globe(source: Source, longitude: pd.Series, latitude: pd.Series, *names: str) -> None:
    if np.nanmax(np.abs(latitude), initial=0) > 90 or np.nanmax(np.abs(longitude), initial=0) > 360:
        raise DataError(
            f"{source.name}: {names[1]} or {names[0]} is off the globe, expected degrees; the columns may be swapped"
        )


def read_bedmap(path: Path) -> Table:
    """Bedmap1, 2 and 3 standardised points: ``#key: value`` lines, then columns with their units in the names."""
    promised = {
        "longitude": ("longitude (degree_east)", "lon"),
        "latitude": ("latitude (degree_north)", "lat"),
        "surface": ("surface_altitude (m)", "s"),
        "thickness": ("land_ice_thickness (m)", "h"),
        "bed": ("bedrock_altitude (m)", "b"),
    }
    (source,) = sources_of(path)
    _require_promised_units(source, [spellings[0] for spellings in promised.values()])
    header = find_header(source, list(promised.values()))
    columns = Columns(promised, {"segment": ("trajectory_id",)}, optional=("segment",))
    table = read_table(source, header, columns)
    _require_globe(source, table["longitude"], table["latitude"], "longitude", "latitude")
    surface, thickness, bed = (table[name].to_numpy() for name in ("surface", "thickness", "bed"))
    derived = ~np.isfinite(bed) & np.isfinite(surface) & np.isfinite(thickness)
    frame = _frame(
        table["longitude"],
        table["latitude"],
        bed=np.where(derived, surface - thickness, bed),
        surface=surface,
        thickness=thickness,
        segment=table.get("segment", ""),
        derived=derived,
    )
    frame, left_out = _without_impossible(frame)
    frame["thickness"] = frame["thickness"].fillna(frame["surface"] - frame["bed"])
    apart = np.asarray(np.abs(frame["surface"] - frame["thickness"] - frame["bed"]) > _FIRN)
    frame.loc[apart, "bed"] = np.nan
    left_out |= {"have a bed that is not surface - thickness, to 50 m": int(apart.sum())} if apart.any() else {}
    lines = (line[1:].partition(":") for line in source.head() if line.startswith("#"))
    return Table(frame, GEOGRAPHIC, left_out, {key.strip(): value.strip() for key, _, value in lines})


def _require_promised_units(source: Source, promised: list[str]) -> None:
    units = {name: unit.rstrip(")") for name, _, unit in (each.partition(" (") for each in promised)}
    for line in source.head():
        words = [] if line.startswith("#") else split(line, ",")
        for word in words:
            name, _, unit = word.partition("(")
            expected = units.get(name.strip().casefold())
            if unit and expected and unit.strip(" )") != expected:
                raise DataError(f"{source.name}: {name.strip()} is in {unit.strip(' )')!r}, expected {expected!r}")


def read_rutford(path: Path) -> Table:
    """BAS table of Rutford Ice Stream: 20 lines of text, which may name the columns, then x, y, z, column and row."""
    return _read_heights(path, "EPSG:3031", None, Header(20, ("x", "y", "z", "column", "row"), "\t"))


def read_carlson(path: Path) -> Table:
    """Carlson Inlet: CSV of x, y and z, the height of the bed (negative below the ellipsoid)."""
    table = _read_heights(path, "EPSG:3031", ",")
    if table.frame["bed"].median() > 0:
        raise DataError(
            f"{path.name}: z is mostly above 0, expected heights of a bed below the ellipsoid; these may be depths"
        )
    return table


def _read_heights(path: Path, crs: str, separator: str | None, nameless: Header | None = None) -> Table:
    (source,) = sources_of(path)
    if nameless is not None and _begins_with_data(source, nameless):
        header = nameless
    else:
        header = find_header(source, [("x",), ("y",), ("z",)], separator)
    table = read_table(source, header, Columns(_same("x", "y", "z"), {}, coordinates=("x", "y")))
    return Table(_frame(table["x"], table["y"], bed=table["z"]), crs)


def _begins_with_data(source: Source, header: Header) -> bool:
    """Tell whether a table has numbers right after its header and no line that names its columns."""
    lines = source.head()
    named = any([word.casefold() for word in line.split()[:3]] == ["x", "y", "z"] for line in lines)
    words = split(lines[header.lines], header.separator) if len(lines) > header.lines else []
    return not named and len(words) == len(header.words) and all(_is_number(word) for word in words)


_WISE = (
    *("FlightID", "Line_name", "lon", "lat", "x", "y", "Height_WGS1984", "Date", "Time", "Segy_name", "traceNum"),
    *(
        "PriNum",
        "surfPickLoc",
        "bedPickLoc",
        "bed",
        "Bedrock_and_BEDMAP2",
        "Mask",
        "picked_bedElev",
        "surfElev",
        "tIce",
    ),
)


def read_wise_isodyn(path: Path) -> Table:
    """BAS tables of the Wilkes Subglacial Basin: 11 lines of text, 20 columns by blanks, ``*`` for missing.

    The bed is ``picked_bedElev``, or ``surfElev`` - ``tIce`` where only these are given; the column
    ``Bedrock_and_BEDMAP2`` is mixed with a product and is not read.
    """
    names = {"longitude": ("lon",), "latitude": ("lat",), "bed": ("picked_bedElev",)}
    names |= {"surface": ("surfElev",), "thickness": ("tIce",)}
    frames = []
    left_out: dict[str, int] = {}
    for source in sources_of(path):
        lines = source.head()
        # A file with no row of names has its data right after the 11 lines.
        positional = len(lines) > 11 and len(lines[11].split()) == len(_WISE) and not _names_wise(lines)
        header = Header(11, _WISE, None) if positional else find_header(source, [(name,) for name in _WISE], None)
        columns = Columns(names, {"segment": ("FlightID",)})
        table = read_table(source, header, columns, missing=("*",))
        _require_globe(source, table["longitude"], table["latitude"], "lon", "lat")
        surface, thickness, bed = (table[name].to_numpy() for name in ("surface", "thickness", "bed"))
        derived = ~np.isfinite(bed) & np.isfinite(surface - thickness)
        values = {"surface": surface, "thickness": thickness, "segment": table["segment"], "derived": derived}
        bed = np.where(derived, surface - thickness, bed)
        frame, reasons = _without_impossible(_frame(table["longitude"], table["latitude"], bed=bed, **values))
        frames.append(frame)
        left_out = {key: left_out.get(key, 0) + reasons.get(key, 0) for key in {**left_out, **reasons}}
    return Table(pd.concat(frames, ignore_index=True), GEOGRAPHIC, left_out)


def _names_wise(lines: list[str]) -> bool:
    return any("picked_bedelev" in line.casefold() for line in lines)


def read_pine_island(path: Path) -> Table:
    """Pine Island Glacier, ``2007t?``, ``2010tr`` and ``istar??``: x, y, heights with and without firn correction."""
    names = {"x": ("x",), "y": ("y",), "surface": ("z_surf",), "thickness": ("h_fc",), "bed": ("z_bed_fc", "z_fc")}
    (source,) = sources_of(path)
    header = find_header(source, list(names.values()), None)
    table = read_table(source, header, Columns(names, {}, coordinates=("x", "y")))
    values = {name: table[name].to_numpy() for name in ("surface", "thickness", "bed")}
    frame, left_out = _without_impossible(_frame(table["x"], table["y"], **values, segment=path.stem))
    return Table(frame, "EPSG:3031", left_out)


def read_cells(path: Path) -> Table:
    """Cells of thickness: x, y, thickness_mean_m and, if there, pick_count; heights come from a surface."""
    (source,) = sources_of(path)
    header = find_header(source, [("x",), ("y",), ("thickness_mean_m",)])
    columns = Columns(
        _same("x", "y", "thickness_mean_m", "pick_count"), {}, optional=("pick_count",), coordinates=("x", "y")
    )
    table = read_table(source, header, columns)
    counts = table["pick_count"].fillna(1.0) if "pick_count" in table else 1.0
    frame, left_out = _without_impossible(
        _frame(table["x"], table["y"], thickness=table["thickness_mean_m"], pick_count=counts)
    )
    # A cell's weight is n / (n + count_scale): of a negative n it would be anything.
    unsounded = frame["thickness"].notna() & (frame["pick_count"] <= 0)
    frame.loc[unsounded, "thickness"] = np.nan
    left_out |= {"have a pick_count of 0 or less": int(unsounded.sum())} if unsounded.any() else {}
    return Table(frame, None, left_out)


def read_xyz(path: Path) -> Table:
    """Plain points: x, y and z (or bed, elevation) by comma, tab or blanks, with a header or none."""
    (source,) = sources_of(path)
    first = next((line for line in source.head() if line.strip() and not line.startswith("#")), "")
    separator = "," if "," in first else "\t" if "\t" in first.strip() else None
    words = split(first.strip(), separator)
    heights = ("z", "bed", "elevation")
    if words and _is_number(words[0]):
        if len(words) < 3:
            raise DataError(f"{source.name} has {len(words)} columns, expected x, y and z")
        before = next(i for i, line in enumerate(source.head()) if line.strip() and not line.startswith("#"))
        header = Header(before, ("x", "y", "z", *(f"column {i}" for i in range(4, len(words) + 1))), separator)
    else:
        header = find_header(source, [("x",), ("y",), heights], separator)
    columns = Columns({"x": ("x",), "y": ("y",), "bed": heights}, {}, coordinates=("x", "y"))
    table = read_table(source, header, columns)
    return Table(_frame(table["x"], table["y"], bed=table["bed"]), None)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


FORMATS = {
    "bedmap": Format(read_bedmap, ELLIPSOID),
    "carlson": Format(read_carlson, ELLIPSOID),
    "cells": Format(read_cells, None, "thickness"),
    "cresis": Format(read_cresis, ELLIPSOID),
    # The tables do not say what their heights are above: the region file has to.
    "pine_island": Format(read_pine_island, None),
    "rutford": Format(read_rutford, ELLIPSOID),
    "wise_isodyn": Format(read_wise_isodyn, ELLIPSOID),
    "xyz": Format(read_xyz, None),
}
