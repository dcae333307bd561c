"""Coordinates brought from one projection to another, and the CRS of a file held against the one expected."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

from deepbedmap_tf.errors import GridError

GEOGRAPHIC = "EPSG:4326"


def transform(x: np.ndarray, y: np.ndarray, source: Any, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Bring coordinates (x or longitude first) of any shape from one CRS to another; NaN stays NaN."""
    from pyproj import Transformer

    if source == target:
        return np.asarray(x, np.float64), np.asarray(y, np.float64)
    # pyproj takes an array of one number for a number, with a warning; not so a list.
    along, across = (np.ravel(axis).tolist() if np.size(axis) == 1 else axis for axis in (x, y))
    east, north = Transformer.from_crs(source, target, always_xy=True).transform(along, across)
    both = np.isfinite(east) & np.isfinite(north)
    return (
        np.where(both, east, np.nan).reshape(np.shape(x)),
        np.where(both, north, np.nan).reshape(np.shape(y)),
    )


def project(longitude: np.ndarray, latitude: np.ndarray, crs: str = "EPSG:3031") -> tuple[np.ndarray, np.ndarray]:
    """Bring geographic coordinates on WGS84 (degrees) to a projection (metres)."""
    return transform(longitude, latitude, GEOGRAPHIC, crs)


def understood(found: Any, name: str, expected: str) -> Any:
    """Make a pyproj CRS of what a file says: text, or the attributes of a CF grid mapping.

    Raises
    ------
    GridError
        When PROJ does not understand it.
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        if isinstance(found, dict):
            return CRS.from_cf(found)
        return CRS.from_user_input(re.sub(r"^\+init=", "", found.strip()) if isinstance(found, str) else found)
    except (CRSError, KeyError) as error:
        raise GridError(f"{name}: its CRS {str(found)[:60]!r} is not understood, expected {expected}") from error


def require_crs(name: str, found: Any, expected: str) -> None:
    """Refuse a file that is in another projection than expected, however either is spelled.

    Raises
    ------
    GridError
        When the file says no CRS, one that is not understood, or another one.
    """
    from pyproj import CRS

    if not found:
        raise GridError(f"{name} does not say its CRS, expected {expected}; declare `crs` in the region file")
    crs, wanted = understood(found, name, expected), CRS.from_user_input(expected)
    if crs.equals(wanted, ignore_axis_order=True) or _terms(crs) == _terms(wanted):
        return
    raise GridError(
        f"{name} is in {crs.to_string()[:60]}, expected {expected}; reproject it (gdalwarp -t_srs {expected})"
    )


def _terms(crs: Any) -> tuple[Any, ...]:
    # Products spell one projection in many ways, names and authorities aside; what counts is what moves a cell.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        terms = crs.to_dict()
    axis = crs.ellipsoid.semi_major_metre if crs.ellipsoid else 6378137.0
    numbers = (float(terms.get(key, 0.0)) for key in ("lat_0", "lat_ts", "lon_0", "x_0", "y_0"))
    return (terms.get("proj"), *numbers, round(axis), terms.get("units", "m"))
