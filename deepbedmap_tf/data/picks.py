"""Radar picks read from the text files in which surveys hand them out, to one table in one projection.

Every format comes back as a table with the columns of `COLUMNS`: ``x``, ``y`` (metres in the CRS asked for),
``bed``, ``surface`` (metres above ``frame.attrs["vertical_datum"]``), ``thickness`` (metres of ice), ``segment``
(flight and segment, text), ``quality`` (1 good, 2 moderate, 3 bad), ``derived`` (the bed is surface - thickness, for
the file gives none) and ``pick_count`` (soundings that a row stands for). What a format does not hold is NaN or empty.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from deepbedmap_tf.data.pick_formats import FORMATS, Table
from deepbedmap_tf.data.projections import GEOGRAPHIC, project, transform
from deepbedmap_tf.errors import DataError, NoDataError

__all__ = ["COLUMNS", "FORMATS", "bed_from_thickness", "duplicates", "project", "read_picks"]

_LOGGER = logging.getLogger(__name__)

# Nothing to warn of: every survey has soundings without an echo from the bed.
_USUAL = ("hold fill values",)

COLUMNS = ("x", "y", "bed", "surface", "thickness", "segment", "quality", "derived", "pick_count")


def read_picks(
    path: Path,
    form: str,
    *,
    crs: str = "EPSG:3031",
    source_crs: str | None = None,
    max_quality: int | None = None,
    thickness_alone: bool = False,
) -> pd.DataFrame:
    """Read a picks file; whatever is left out is counted and said.

    Parameters
    ----------
    path
        The file; for ``wise_isodyn`` also a zip or a folder of them.
    form
        A key of `FORMATS`. ``cresis``: CSV with LAT, LON, UTCTIMESOD or TIME, THICK, ELEVATION, FRAME, SURFACE,
        BOTTOM, QUALITY. ``bedmap``: the standardised points of Bedmap1, 2 and 3. ``rutford``, ``wise_isodyn``,
        ``pine_island``, ``carlson``: tables of these surveys. ``cells``: CSV with x, y and thickness_mean_m of cells
        (the bed follows from a surface, see `bed_from_thickness`). ``xyz``: x, y, z by any of comma, tab or blanks,
        with a header or none.
    crs
        Projection of the result.
    source_crs
        Projection of x and y in ``cells`` and ``xyz``; by default `crs`. The other formats promise theirs.
    max_quality
        Leave out picks of a worse QUALITY (1 good, 2 moderate, 3 bad), or of none.
    thickness_alone
        Keep rows that give a thickness with neither surface nor bed, as some surveys of Bedmap do; their bed is NaN
        until `bed_from_thickness` hangs it from a surface. By default they are left out.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`. ``attrs``: ``source`` (name of the file), ``rows`` (data rows in it), ``masked`` (rows left
        out for a missing or unusable value), ``left_out`` (the same by reason), ``duplicates``, ``vertical_datum``
        (None where the format promises none), ``crs``, ``header``.

    Raises
    ------
    DataError
        For a missing file, a missing column, other units than promised, text where a number belongs, lines that are
        merged or cut off, or latitude and longitude swapped.
    NoDataError
        For a sound file with no usable pick.
    """
    if form not in FORMATS:
        raise DataError(f"picks format {form!r} is not known; known are {', '.join(sorted(FORMATS))}")
    path = Path(path)
    made = FORMATS[form]
    table = made.read(path)
    if source_crs is not None and table.crs not in (None, source_crs):
        raise DataError(f"{path.name}: picks of format {form} are in {table.crs}, not {source_crs}; leave `crs` out")
    frame = _projected(table, path, crs, source_crs or table.crs or crs)
    rows, left_out = len(frame), dict(table.left_out)
    placed = frame[["x", "y"]].notna().all(axis=1)
    usable = placed & frame[made.needed].notna()
    if made.needed == "bed":
        alone = placed & frame["thickness"].notna() & frame[["surface", "bed"]].isna().all(axis=1)
        usable |= alone & thickness_alone
        left_out["give thickness with neither surface nor bed"] = 0 if thickness_alone else int(alone.sum())
    if max_quality is not None:
        if not frame["quality"].notna().any():
            raise DataError(f"{path.name} holds no QUALITY, as max_quality {max_quality} needs; leave max_quality out")
        good = frame["quality"].between(1, max_quality)
        left_out[f"are of a worse quality than {max_quality} or of none"] = int((usable & ~good).sum())
        usable &= good
    frame = frame.loc[usable, list(COLUMNS)]
    masked = rows - len(frame)
    duplicated = duplicates(frame)
    frame = frame.loc[~duplicated].reset_index(drop=True)
    left_out = {_USUAL[0]: masked - sum(left_out.values()), **left_out}
    left_out = {reason: count for reason, count in left_out.items() if count > 0}
    frame.attrs = {
        "source": path.name,
        "rows": rows,
        "masked": masked,
        "left_out": left_out,
        "duplicates": int(duplicated.sum()),
        "vertical_datum": made.vertical_datum,
        "crs": crs,
        "header": table.header,
    }
    if not len(frame):
        why = " and ".join(left_out) or "it is empty"
        raise NoDataError(f"{path.name}: none of {rows} rows holds a pick with a {made.needed} ({why}); check the file")
    for reason, count in left_out.items():
        level = logging.INFO if reason in _USUAL else logging.WARNING
        _LOGGER.log(level, "%s: %d of %d rows %s and are left out", path.name, count, rows, reason)
    if duplicated.any():
        _LOGGER.info("%s: %d of %d rows repeat an earlier pick and are left out", path.name, duplicated.sum(), rows)
    if frame["derived"].any():
        _LOGGER.info("%s: the bed of %d picks is surface - thickness", path.name, frame["derived"].sum())
    return frame


def duplicates(picks: pd.DataFrame) -> np.ndarray:
    """Tell which rows have the place and the bed (or the thickness, where there is no bed) of an earlier row."""
    value = picks["bed"].where(picks["bed"].notna(), picks["thickness"])
    keys = {"x": picks["x"], "y": picks["y"], "value": value, "is_bed": picks["bed"].notna()}
    return np.asarray(pd.DataFrame(keys).duplicated())


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
    frame: pd.DataFrame = picks.assign(surface=surface, bed=surface - picks["thickness"].to_numpy(), derived=True)
    frame = frame.loc[np.isfinite(surface)].reset_index(drop=True)
    frame.attrs = {**picks.attrs, "without_surface": len(picks) - len(frame)}
    return frame


def _projected(table: Table, path: Path, crs: str, source_crs: str) -> pd.DataFrame:
    x, y = table.frame["x"].to_numpy(), table.frame["y"].to_numpy()
    if source_crs == GEOGRAPHIC and _within_share(y, x, crs) > 0.5 > _within_share(x, y, crs):
        cause = "these columns are swapped"
        if _within_share(x, -y, crs) > 0.5:
            cause += ", or the latitudes have lost the sign of the south"
        raise DataError(
            f"{path.name}: its picks lie off the area of {crs}, but in it when latitude and longitude are exchanged; "
            f"{cause}"
        )
    x, y = transform(x, y, source_crs, crs)
    return table.frame.assign(x=x, y=y)


def _within_share(longitude: np.ndarray, latitude: np.ndarray, crs: str) -> float:
    from pyproj import CRS

    area = CRS.from_user_input(crs).area_of_use
    if area is None or not longitude.size:
        return 1.0
    within = (latitude >= area.south) & (latitude <= area.north)
    if area.west > -180 or area.east < 180:
        within &= (longitude >= area.west) & (longitude <= area.east)
    return float(np.mean(within))
