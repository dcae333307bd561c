"""What a per-cell regression may look at: each input around the cell, at several scales, turned to the flow.

The features hold no position and no absolute height of the bed, so what is learned in one place can be used in
another. Lengths are counted in output cells.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from deepbedmap_tf.scoring.interpolation import fill_nearest, repeat, to_ratio, upsample

FloatArray = NDArray[np.float64]
Features = dict[str, FloatArray]

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the Gaussian smoothing, output cells."""

OFFSETS = ((-8, 0), (-4, 0), (-2, 0), (2, 0), (4, 0), (8, 0), (0, -3), (0, 3))
"""Neighbours that a cell looks at: cells downstream and cells to the left of the flow."""


def cell_features(inputs: Mapping[str, NDArray[np.floating]], ratio: int = 4, margin: int = 1) -> Features:
    """Compute every feature of every output cell.

    Parameters
    ----------
    inputs
        ``bed_lowres`` (n, rows, columns, 1) with its margin and, of the same extent, any of ``surface``,
        ``velocity`` (VX, VY) and ``accumulation``; NaN where missing. Other inputs are left out.
    ratio, margin
        Output cells per coarse cell, and coarse cells of margin.

    Returns
    -------
    dict
        Name to array (n, ratio * (rows - 2 margin), ratio * (columns - 2 margin)); NaN where the input is missing.
    """
    lowres = np.asarray(inputs["bed_lowres"], dtype=np.float64)[..., 0]

    def fine(name: str, band: int = 0) -> FloatArray:
        field = np.asarray(inputs[name], dtype=np.float64)[..., band]
        return to_ratio(field, field.shape[-2] // lowres.shape[-2], ratio)

    bed = upsample(fill_nearest(lowres), ratio)
    present: dict[str, NDArray[np.bool_]] = {"bed": repeat(np.isfinite(lowres), ratio) > 0}
    features: Features = {}
    fields: Features = {"bed": bed}
    if "surface" in inputs:
        surface = fine("surface")
        present["surface"] = np.isfinite(surface)
        fields["surface"] = fill_nearest(surface)
        features["surface_thickness"] = fields["surface"] - bed
    if "velocity" in inputs:
        vx, vy = fine("velocity", 0), fine("velocity", 1)
        present["velocity"] = np.isfinite(vx) & np.isfinite(vy)
        fields["vx"], fields["vy"] = fill_nearest(vx), fill_nearest(vy)
    if "accumulation" in inputs:
        accumulation = fine("accumulation")
        present["accumulation"] = np.isfinite(accumulation)
        features["accumulation"] = fill_nearest(accumulation)

    along_x, along_y = _flow_direction(fields)
    for name in ("bed", "surface"):
        if name in fields:
            features.update(_relief(name, fields[name], along_x, along_y))
    if "vx" in fields:
        features.update(_flow(fields["vx"], fields["vy"], along_x, along_y))
    for name in ("surface_band", "velocity_along", "bed_band"):
        if name in features:
            features.update(_neighbours(name, features[name], along_x, along_y))
    if "surface_thickness" in features and "surface_slope_along_8" in features:
        features["surface_stress"] = -features["surface_thickness"] * features["surface_slope_along_8"]

    cut = ratio * margin
    inside = (..., slice(cut, bed.shape[-2] - cut), slice(cut, bed.shape[-1] - cut))
    return {
        name: np.where(present[name.split("_")[0]][inside], values[inside], np.nan) for name, values in features.items()
    }


def _smooth(field: FloatArray, scale: float) -> FloatArray:
    return np.asarray(gaussian_filter(field, scale, axes=(-2, -1), mode="nearest", truncate=3.0))


def _gradient(field: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eastward and northward difference per cell; rows run southwards."""
    southward, eastward = np.gradient(field, axis=(-2, -1))
    return eastward, -southward


def _flow_direction(fields: Features) -> tuple[FloatArray, FloatArray]:
    """Unit vector of the flow: that of the velocity, downhill where the ice hardly moves or none is given."""
    x, y = np.zeros_like(fields["bed"]), np.zeros_like(fields["bed"])
    if "surface" in fields:
        east, north = _gradient(_smooth(fields["surface"], 8.0))
        steepness = np.maximum(np.hypot(east, north), 1e-9)
        x, y = -east / steepness, -north / steepness
    if "vx" in fields:
        vx, vy = _smooth(fields["vx"], 4.0), _smooth(fields["vy"], 4.0)
        # At 5 m/yr the measured direction is worth as much as the surface's.
        x, y = np.nan_to_num(x) * 5 + np.nan_to_num(vx), np.nan_to_num(y) * 5 + np.nan_to_num(vy)
    length = np.hypot(x, y)
    still = length < 1e-6
    return np.where(still, 1.0, x / np.maximum(length, 1e-6)), np.where(still, 0.0, y / np.maximum(length, 1e-6))


def _relief(name: str, field: FloatArray, along_x: FloatArray, along_y: FloatArray) -> Features:
    smoothed = {scale: _smooth(field, scale) for scale in SCALES}
    result = {f"{name}_high_{scale:g}": field - smoothed[scale] for scale in SCALES}
    result[f"{name}_band"] = smoothed[1.0] - smoothed[8.0]
    result[f"{name}_band_2_8"] = smoothed[2.0] - smoothed[8.0]
    result[f"{name}_texture"] = np.sqrt(_smooth((field - smoothed[2.0]) ** 2, 2.0))
    for scale in SCALES:
        east, north = _gradient(smoothed[scale])
        along, across = east * along_x + north * along_y, north * along_x - east * along_y
        result[f"{name}_slope_along_{scale:g}"] = along
        result[f"{name}_slope_across_{scale:g}"] = across
        if scale <= 4:
            along_east, along_north = _gradient(along)
            across_east, across_north = _gradient(across)
            result[f"{name}_curvature_along_{scale:g}"] = along_east * along_x + along_north * along_y
            result[f"{name}_curvature_across_{scale:g}"] = across_north * along_x - across_east * along_y
    return result


def _flow(vx: FloatArray, vy: FloatArray, along_x: FloatArray, along_y: FloatArray) -> Features:
    speed = np.hypot(vx, vy)
    result = {"velocity_speed": np.log10(1 + _smooth(speed, 4.0))}
    mean_x, mean_y = _smooth(vx, 8.0), _smooth(vy, 8.0)
    for scale in (0.0, 1.0, 2.0, 4.0):
        dx = (_smooth(vx, scale) if scale else vx) - mean_x
        dy = (_smooth(vy, scale) if scale else vy) - mean_y
        label = "" if scale == 1 else f"_{scale:g}"
        result[f"velocity_along{label}"] = dx * along_x + dy * along_y
        result[f"velocity_across{label}"] = dy * along_x - dx * along_y
    for scale in (1.0, 3.0):
        xx, xy = _gradient(_smooth(vx, scale))
        yx, yy = _gradient(_smooth(vy, scale))
        result[f"velocity_stretching_{scale:g}"] = xx * along_x**2 + (xy + yx) * along_x * along_y + yy * along_y**2
        result[f"velocity_divergence_{scale:g}"] = xx + yy
        result[f"velocity_shear_{scale:g}"] = yx - xy
    return result


def _neighbours(name: str, field: FloatArray, along_x: FloatArray, along_y: FloatArray) -> Features:
    index, row, column = np.indices(field.shape, dtype=np.float32)
    result = {}
    for downstream, left in OFFSETS:
        east, north = downstream * along_x - left * along_y, downstream * along_y + left * along_x
        places = np.stack([index, row - north, column + east])
        label = f"{name}_at_{downstream:+d}_{left:+d}"
        result[label] = np.asarray(map_coordinates(field, places, order=1, mode="nearest"))
    return result
