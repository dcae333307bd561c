"""Radar picks read from the text files in which surveys hand them out.

Every reader returns a table with the columns ``x``, ``y`` (EPSG:3031, metres), ``bed``, ``surface`` (metres above
the datum that the format promises), ``thickness`` (metres of ice) and ``segment`` (flight and segment, text);
what a format does not hold is NaN or empty. ``frame.attrs`` holds ``source``, ``rows`` (data rows in the file)
and ``masked`` (rows left out because a needed value was a fill value).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepbedmap_tf.errors import DataError

_LOGGER = logging.getLogger(__name__)

COLUMNS = ("x", "y", "bed", "surface", "thickness", "segment")
FILL_VALUE = -9999.0

# Rounding of THICK, SURFACE and BOTTOM to centimetres, with room for surveys that round to decimetres.
_CONSISTENCY = 1.0


def read_picks(path: Path, form: str) -> pd.DataFrame:
    """Read a picks file.

    Parameters
    ----------
    path
        The file.
    form
        ``cresis``: CSV with LAT, LON, UTCTIMESOD or TIME, THICK, ELEVATION, FRAME, SURFACE, BOTTOM, QUALITY.
        ``cells``: CSV with x, y and thickness_mean_m of cells (the bed follows from a surface, see
        `bed_from_thickness`). ``xyz``: x, y, z by any of comma, tab or blanks, with a header or none.

    Raises
    ------
    DataError
        For a missing file, a missing column, text where a number belongs, or no usable pick.
    """
    if form not in _READERS:
        raise DataError(f"picks format {form!r} is not known; known are {', '.join(sorted(_READERS))}")
    path = Path(path)
    frame = _READERS[form](path)
    rows = len(frame)
    needed = "thickness" if form == "cells" else "bed"
    usable = frame[["x", "y", needed]].notna().all(axis=1)
    frame = frame.loc[usable, list(COLUMNS)].reset_index(drop=True)
    frame.attrs = {"source": path.name, "rows": rows, "masked": int(rows - len(frame))}
    if not len(frame):
        raise DataError(f"{path.name}: none of {rows} rows holds a pick ({needed} is always missing); check the file")
    if frame.attrs["masked"]:
        _LOGGER.info("%s: %d of %d rows hold fill values and are left out", path.name, frame.attrs["masked"], rows)
    return frame


def bed_from_thickness(picks: pd.DataFrame, surface: np.ndarray) -> pd.DataFrame:
    """Add the bed to picks of thickness: the snow surface minus the thickness of ice.

    Parameters
    ----------
    picks
        Table with ``thickness``.
    surface
        Height of the snow surface at the picks in metres; NaN drops the pick. Its datum becomes the bed's.
    """
    surface = np.asarray(surface, np.float64)
    frame: pd.DataFrame = picks.assign(surface=surface, bed=surface - picks["thickness"].to_numpy())
    frame = frame.loc[np.isfinite(surface)].reset_index(drop=True)
    frame.attrs = {**picks.attrs, "without_surface": len(picks) - len(frame)}
    return frame


def project(longitude: np.ndarray, latitude: np.ndarray, crs: str = "EPSG:3031") -> tuple[np.ndarray, np.ndarray]:
    """Bring geographic coordinates on WGS84 (degrees) to a projection (metres)."""
    from pyproj import Transformer

    # pyproj takes an array of one number for a number, with a warning; not so a list.
    east, north = ([float(axis[0])] if np.size(axis) == 1 else axis for axis in (longitude, latitude))
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(east, north)
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _read_table(path: Path, numbers: Sequence[str], text: Sequence[str] = (), upper: bool = True) -> pd.DataFrame:
    """Read the named columns of a CSV; numbers are checked, fill values become NaN."""
    if not path.is_file():
        raise DataError(f"picks file {path} does not exist; check the path in the region file, or pass --data-dir")
    try:
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig", skipinitialspace=True)
        spelled = {(str(name).strip().upper() if upper else str(name).strip()): name for name in header.columns}
        missing = [name for name in (*numbers, *text) if name not in spelled]
        if missing:
            raise DataError(
                f"{path.name} has no column {missing[0]}; expected {', '.join((*numbers, *text))}, "
                f"got {', '.join(map(str, header.columns))[:200]}"
            )
        wanted = {spelled[name]: name for name in (*numbers, *text)}
        with path.open(encoding="utf-8-sig") as stream:
            fields = [stream.readline().count(",") + 1 for _ in range(2)]
        if fields[1] > fields[0]:
            raise DataError(f"{path.name}: Expected {fields[0]} fields in line 2, saw {fields[1]}; the file is damaged")
        _require_whole(path, ",")
        # All columns are read: with `usecols` pandas would cut two merged lines down to the first of them in silence.
        frame = pd.read_csv(
            path,
            dtype={spelled[name]: str for name in text},
            encoding="utf-8-sig",
            skipinitialspace=True,
            low_memory=False,
        )
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split()).removeprefix("Error tokenizing data. ")
        raise DataError(f"cannot read picks from {path}: {cause}; the file is damaged, get it again") from error
    frame = frame[list(wanted)].rename(columns=wanted)
    for name in numbers:
        frame[name] = _numbers(frame[name], path)
    return frame


def _require_whole(path: Path, separator: str | None) -> None:
    """Refuse a file whose last line ends early: pandas would take what is cut off for values that are missing."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 65_536))
        lines = stream.read().decode("utf-8", errors="replace").rstrip().splitlines()
    if len(lines) < 2:
        return
    before, last = (len(line.split(separator)) for line in lines[-2:])
    if last < before:
        raise DataError(f"{path.name} is cut off: its last line has {last} fields, expected {before}; get it again")


def _numbers(column: pd.Series, path: Path) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce")
    wrong = values.isna() & column.notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        # Two lines further in the file: the header, and counting from one.
        raise DataError(
            f"{path.name}, line {row + 2}: {column.name} is {column.iloc[row]!r}, expected a number; "
            "correct or delete that line"
        )
    values = values.astype(np.float64)
    return values.mask(~np.isfinite(values) | (values == FILL_VALUE))


def _read_cresis(path: Path) -> pd.DataFrame:
    heights = ("THICK", "ELEVATION", "SURFACE", "BOTTOM")
    table = _read_table(path, ("LAT", "LON", *heights), ("FRAME",))
    latitude, longitude = table["LAT"].to_numpy(), table["LON"].to_numpy()
    if np.nanmax(np.abs(latitude), initial=0) > 90 or np.nanmax(np.abs(longitude), initial=0) > 360:
        raise DataError(f"{path.name}: LAT or LON is off the globe, expected degrees; the columns may be swapped")
    thickness, elevation, surface, bottom = (table[name].to_numpy() for name in heights)
    # Where THICK is a fill value, some files hold BOTTOM = SURFACE + 9999: a number that looks like a depth.
    complete = np.isfinite(thickness) & np.isfinite(surface) & np.isfinite(bottom) & (thickness >= 0)
    as_ranges = complete & (np.abs(bottom - surface - thickness) <= _CONSISTENCY) & np.isfinite(elevation)
    as_heights = complete & (np.abs(surface - bottom - thickness) <= _CONSISTENCY)
    # Most files give ranges below the aircraft, some (with a TIME header) heights above the ellipsoid.
    heights_given = int(as_heights.sum()) > int(as_ranges.sum())
    usable = as_heights if heights_given else as_ranges
    odd = int((complete & ~usable).sum())
    if odd:
        _LOGGER.warning("%s: in %d rows SURFACE, BOTTOM and THICK contradict each other; left out", path.name, odd)
    bed = np.where(usable, bottom if heights_given else elevation - bottom, np.nan)
    x, y = project(longitude, latitude)
    segment = [_segment(frame) for frame in table["FRAME"].fillna("").to_list()]
    return pd.DataFrame(
        {
            "x": np.where(np.isfinite(x), x, np.nan),
            "y": np.where(np.isfinite(y), y, np.nan),
            "bed": bed,
            "surface": np.where(usable, surface if heights_given else elevation - surface, np.nan),
            "thickness": np.where(usable, thickness, np.nan),
            "segment": segment,
        }
    )


def _segment(frame: str) -> str:
    """Flight and segment of a frame number: 2014112105001 is frame 1 of segment 05 on 2014-11-21."""
    frame = str(frame).strip()
    return f"{frame[:8]}_{frame[8:10]}" if len(frame) == 13 and frame.isdigit() else frame


def _read_cells(path: Path) -> pd.DataFrame:
    table = _read_table(path, ("x", "y", "thickness_mean_m"), upper=False)
    thickness = table["thickness_mean_m"]
    empty = np.full(len(table), np.nan)
    return pd.DataFrame(
        {
            "x": table["x"],
            "y": table["y"],
            "bed": empty,
            "surface": empty,
            "thickness": thickness.mask(thickness < 0),
            "segment": "",
        }
    )


def _read_xyz(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"picks file {path} does not exist; check the path in the region file, or pass --data-dir")
    try:
        with path.open(encoding="utf-8-sig") as stream:
            first = stream.readline()
        separator = "," if "," in first else r"\s+"
        words = [word.strip().lower() for word in (first.split(",") if separator == "," else first.split())]
        headed = not _is_number(words[0] if words else "")
        _require_whole(path, "," if separator == "," else None)
        table = pd.read_csv(path, sep=separator, header=0 if headed else None, index_col=False, encoding="utf-8-sig")
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split()).removeprefix("Error tokenizing data. ")
        raise DataError(f"cannot read picks from {path}: {cause}; the file is damaged, get it again") from error
    if len(table.columns) < 3:
        raise DataError(f"{path.name} has {len(table.columns)} columns, expected x, y and z")
    order = [0, 1, 2]
    if headed:
        heights = [name for name in ("z", "bed", "elevation") if name in words]
        missing = [name for name in ("x", "y") if name not in words] or ([] if heights else ["z"])
        if missing:
            raise DataError(f"{path.name} has no column {missing[0]}; expected x, y, z, got {', '.join(words)[:200]}")
        order = [words.index("x"), words.index("y"), words.index(heights[0])]
    x, y, bed = (_numbers(table.iloc[:, position], path) for position in order)
    return pd.DataFrame({"x": x, "y": y, "bed": bed, "surface": np.nan, "thickness": np.nan, "segment": ""})


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "cresis": _read_cresis,
    "cells": _read_cells,
    "xyz": _read_xyz,
}
