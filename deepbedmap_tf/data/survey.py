"""Airborne radar over an embedded world: flight lines, noisy picks in the CReSIS form, and gridding them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyproj import Transformer
from scipy.ndimage import map_coordinates, spline_filter
from scipy.signal import lfilter

from deepbedmap_tf.data.world_parameters import Bounds
from deepbedmap_tf.grid import Grid

Real = NDArray[np.float64]

PICK_COLUMNS = ("LAT", "LON", "UTCTIMESOD", "THICK", "ELEVATION", "FRAME", "SURFACE", "BOTTOM", "QUALITY")
_GROUND_SPEED = 130.0
_FRAME_LENGTH = 50_000.0
_ERROR_LENGTH = 3_000.0


class Track(NamedTuple):
    """Positions along flight lines, one after the other.

    Attributes
    ----------
    x, y
        Metres in EPSG:3031, shape (n,).
    line
        Number of the line that each position belongs to.
    """

    x: Real
    y: Real
    line: NDArray[np.int64]


def parallel_lines(
    bounds: Bounds,
    azimuth: float,
    spacing: float,
    pick_spacing: float,
    random: np.random.Generator,
    gaps: float = 0.0,
    gap_length: float = 600.0,
) -> Track:
    """Fly a rectangle on parallel lines.

    Parameters
    ----------
    bounds
        Edges (xmin, ymin, xmax, ymax), m.
    azimuth
        Direction of the lines, degrees anticlockwise from the x axis.
    spacing, pick_spacing
        Distance between lines and between picks along them, m.
    random
        Where the first line lies, how the aircraft drifts (some 50 m) and where gaps are.
    gaps, gap_length
        Share of the track without picks, and the length of one gap, m.
    """
    xmin, ymin, xmax, ymax = bounds
    angle = np.deg2rad(azimuth)
    dx, dy = np.cos(angle), np.sin(angle)
    half_length = (abs(dx) * (xmax - xmin) + abs(dy) * (ymax - ymin)) / 2
    half_width = (abs(dy) * (xmax - xmin) + abs(dx) * (ymax - ymin)) / 2
    offsets = np.arange(-half_width + spacing * random.uniform(0.1, 0.5), half_width, spacing)
    along = np.arange(-half_length, half_length, pick_spacing)
    line = np.arange(offsets.size)[:, None]
    drift = 50.0 * np.sin(2 * np.pi * along / 23_000 + random.uniform(0, 2 * np.pi, offsets.size)[:, None])
    across = offsets[:, None] + drift * min(1.0, spacing / 500.0)
    x = (xmin + xmax) / 2 + along * dx - across * dy
    y = (ymin + ymax) / 2 + along * dy + across * dx
    inside = (x > xmin) & (x < xmax) & (y > ymin) & (y < ymax)
    if gaps > 0:
        pieces = ((along + half_length) // gap_length).astype(int)
        inside &= (random.random((offsets.size, pieces[-1] + 1)) >= gaps)[:, pieces]
    return Track(x[inside], y[inside], np.broadcast_to(line, x.shape)[inside])


def polyline(corners: tuple[tuple[float, float], ...], pick_spacing: float) -> Track:
    """Fly from corner to corner, with picks every `pick_spacing` metres."""
    points = np.asarray(corners, dtype=float)
    legs = np.hypot(*np.diff(points, axis=0).T)
    distance = np.concatenate([[0.0], np.cumsum(legs)])
    at = np.arange(0.0, distance[-1], pick_spacing)
    x, y = np.interp(at, distance, points[:, 0]), np.interp(at, distance, points[:, 1])
    return Track(x, y, np.zeros(at.size, dtype=np.int64))


def join(tracks: list[Track]) -> Track:
    """Put tracks one after the other and number their lines through."""
    lines, first = [], 0
    for track in tracks:
        lines.append(track.line + first)
        first += int(track.line.max(initial=-1)) + 1
    return Track(
        np.concatenate([track.x for track in tracks]),
        np.concatenate([track.y for track in tracks]),
        np.concatenate(lines),
    )


class Sampler:
    """Cubic interpolation of a raster at any position inside it.

    Parameters
    ----------
    grid, values
        The raster.
    """

    def __init__(self, grid: Grid, values: Real) -> None:
        self._grid = grid
        self._coefficients = spline_filter(values, order=3, mode="nearest")

    def __call__(self, x: Real, y: Real) -> Real:
        """Interpolate at positions of one shape."""
        xmin, _, _, ymax = self._grid.bounds
        rows, columns = (ymax - y) / self._grid.resolution - 0.5, (x - xmin) / self._grid.resolution - 0.5
        values: Real = map_coordinates(self._coefficients, [rows, columns], order=3, mode="nearest", prefilter=False)
        return values

    def on(self, grid: Grid) -> Real:
        """Interpolate at the cell centres of another grid."""
        return self(*np.meshgrid(grid.x, grid.y))


def pick(
    track: Track,
    surface: Sampler,
    bed: Sampler,
    date: int,
    segment: int,
    error: float,
    line_share: float,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Measure ice thickness along a track.

    The error is a share of thickness: part of its variance is white, pick by pick (tracking, bin size), part is
    correlated over 3 km of the line (off-nadir echoes, a wrong layer), which neither block medians nor a denser
    sampling along the line remove.

    Parameters
    ----------
    track
        Where the picks are.
    surface, bed
        Truth, m above the ellipsoid.
    date, segment
        YYYYMMDD and the number of the segment of that day; frames of 50 km are counted up from 1.
    error
        Standard deviation of thickness over thickness.
    line_share
        Share of the error's variance that is correlated.
    random
        Source of the errors.

    Returns
    -------
    pandas.DataFrame
        The columns of `PICK_COLUMNS` as CReSIS defines them: degrees on WGS84, seconds of the day, thickness, aircraft
        height above the WGS84 ellipsoid, YYYYMMDDSSFFF, ranges from the aircraft to ice surface and bottom, and 1
        (good) to 3 (doubtful). Metres. The bed is ELEVATION - BOTTOM.
    """
    n = track.x.size
    top = surface(track.x, track.y)
    truth = top - bed(track.x, track.y)
    distance = np.concatenate([[0.0], np.minimum(np.hypot(np.diff(track.x), np.diff(track.y)), 10_000.0)])
    travelled = np.cumsum(distance)
    typical = float(np.median(distance)) if n > 1 else 1.0
    memory = float(np.exp(-max(typical, 1e-3) / _ERROR_LENGTH))
    white = random.standard_normal(n)
    correlated = lfilter([np.sqrt(1 - memory**2)], [1.0, -memory], random.standard_normal(n))
    relative = error * (np.sqrt(1 - line_share) * white + np.sqrt(line_share) * correlated)
    thickness = np.round(np.maximum(truth * (1 + relative), 1.0), 2)
    height = np.round(top + 450.0 + 60.0 * np.sin(travelled / 9_000.0), 2)
    to_surface = np.round(height - top, 2)
    quality = np.where(np.abs(relative) < 1.5 * error, 1, np.where(np.abs(relative) < 2.5 * error, 2, 3))
    latitude, longitude = Transformer.from_crs("EPSG:3031", "EPSG:4326").transform(track.x, track.y)
    frame = np.minimum(1 + (travelled // _FRAME_LENGTH).astype(np.int64), 999)
    return pd.DataFrame({
        "LAT": np.round(latitude, 6),
        "LON": np.round(longitude, 6),
        "UTCTIMESOD": np.round((43_200.0 + travelled / _GROUND_SPEED) % 86_400.0, 2),
        "THICK": thickness,
        "ELEVATION": height,
        "FRAME": date * 100_000 + segment * 1000 + frame,
        "SURFACE": to_surface,
        "BOTTOM": np.round(to_surface + thickness, 2),
        "QUALITY": quality,
    })  # fmt: skip


def grid_picks(x: Real, y: Real, bed: Real, grid: Grid, tension: float = 0.35) -> Real:
    """Block median and continuous curvature spline under tension (PyGMT), at the cell centres of a grid.

    Parameters
    ----------
    x, y, bed
        Picks, m.
    grid
        Pixel registration.
    tension
        Of GMT's ``surface``.
    """
    import pygmt

    xmin, ymin, xmax, ymax = grid.bounds
    where = {"region": [xmin, xmax, ymin, ymax], "spacing": grid.resolution, "registration": "p"}
    table = np.column_stack([x, y, bed])
    medians = pygmt.blockmedian(data=table, output_type="numpy", **where)
    surface = pygmt.surface(data=medians, tension=tension, verbose="q", **where)
    return np.asarray(surface.sortby("y", ascending=False).to_numpy(), dtype=np.float64)
