"""What a map is made from: the inputs and picks that it reads, their files, and whether they can be what they say."""

from __future__ import annotations

import logging
import math

import numpy as np
import xarray as xr

from deepbedmap_tf.config import DEFAULT_INPUTS, GeneratorConfig, InputConfig
from deepbedmap_tf.data.cover import GROUNDED_ICE
from deepbedmap_tf.data.region import MARGIN, SCALE, Region
from deepbedmap_tf.data.sources import fingerprints
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.pick_index import mapped_picks

_LOGGER = logging.getLogger(__name__)

SHOWN = ("bed_lowres", "surface")
"""Inputs that every map is compared with, whether its network takes them or not."""

SQUARE = 32
"""Side of a square in which surface and bed are compared, low-resolution cells."""

SQUARES = 5
"""Most squares along each axis of a map: all of it up to 160 cells, a sample of larger ones."""

LEAST_CELLS = 64
"""Fewer cells than these tell nothing of a product as a whole."""

# Rounding of products to whole metres, on either side.
_TOLERANCE = 1.0


def map_inputs(config: GeneratorConfig) -> tuple[InputConfig, ...]:
    """Inputs that a map by a network is made from: the network's own and those of `SHOWN`."""
    own = {each.name for each in config.inputs}
    return (*config.inputs, *(each for each in DEFAULT_INPUTS if each.name in SHOWN and each.name not in own))


def map_sources(region: Region, config: GeneratorConfig) -> dict[str, str]:
    """Fingerprint every file that a map of a region is made from, and no other.

    These are those of `map_inputs`, of the geoid layers, of the mask, and of the picks that a map tells of; picks of
    another role may be absent.

    Parameters
    ----------
    region
        What is mapped.
    config
        The network's.

    Returns
    -------
    dict
        Path of each file, as the region file has it, to sha256.

    Raises
    ------
    DataError
        When a file is absent.
    """
    settings = region.settings
    inputs = [settings.inputs[each.name] for each in map_inputs(config) if each.name in settings.inputs]
    return fingerprints([*inputs, *settings.geoids.values(), *settings.mask, *mapped_picks(region)], region.resolve)


def require_ice(region: Region, window: Grid) -> None:
    """Refuse a map whose surface lies below its low-resolution bed on most of the grounded ice.

    Then one of the two is not what the region file takes it for: exchanged, in other units, or on another datum by
    kilometres. That much is looked for and no more: here and there two products cross, around rock and along coasts.
    Squares spread evenly over the map are compared, at most `SQUARES` x `SQUARES` of them, so that the work does not
    grow with the map, in cells where neither field was filled.

    Parameters
    ----------
    region
        Read by square. Where it names no mask, all of it counts as grounded ice. What can't be read is left to the
        map, which says so at that place.
    window
        Low-resolution cells that are mapped.

    Raises
    ------
    DataError
        When the surface lies below the bed in more than half of the cells compared, of which there are `LEAST_CELLS`.
    """
    inputs = [each for each in DEFAULT_INPUTS if each.name in SHOWN]
    compared, below, worst, place = 0, 0, 0.0, (0.0, 0.0)
    for square in _squares(window):
        try:
            fields = region.inputs(square.bounds, inputs)
            ice = _grounded(region, square)
        except DataError as error:
            _LOGGER.debug("a square is not compared: %s", error)
            continue
        thickness = np.where(ice, _thickness(fields["bed_lowres"], fields["surface"]), np.nan)
        if not np.isfinite(thickness).any():
            continue
        compared += int(np.isfinite(thickness).sum())
        below += int((thickness < -_TOLERANCE).sum())
        row, column = np.unravel_index(np.nanargmin(thickness), thickness.shape)
        if thickness[row, column] < worst:
            worst, place = float(thickness[row, column]), (square.x[column], square.y[row])
    if compared >= LEAST_CELLS and below > compared / 2:
        raise DataError(
            f"region {region.name}: the surface lies below the low-resolution bed in {below} of {compared} cells of "
            f"grounded ice, by {-worst:.0f} m at x {place[0]:.0f}, y {place[1]:.0f}; check variable, units and "
            "vertical_datum of surface and bed_lowres, which may be exchanged"
        )


def _squares(window: Grid) -> list[Grid]:
    """Squares spread evenly over a grid, none larger than it."""
    (left, _, _, top), cell = window.bounds, window.resolution
    starts, sides = [], []
    for size in window.shape:
        side = min(SQUARE, size)
        number = min(SQUARES, math.ceil(size / side))
        # The last begins where it just fits; up to the largest number they cover everything.
        starts.append([round(step * (size - side) / max(number - 1, 1)) for step in range(number)])
        sides.append(side)
    return [
        window.window(
            (
                left + column * cell,
                top - (row + sides[0]) * cell,
                left + (column + sides[1]) * cell,
                top - row * cell,
            )
        )
        for row in starts[0]
        for column in starts[1]
    ]


def _thickness(bed: xr.DataArray, surface: xr.DataArray) -> np.ndarray:
    """Mean surface of each low-resolution cell minus its bed, without the margin, NaN where a rule filled either."""
    inner = slice(MARGIN, -MARGIN)
    measured = _measured(bed)[inner, inner]
    ratio = surface.shape[0] // bed.shape[0]
    edge = slice(MARGIN * ratio, -MARGIN * ratio)
    rows, columns = measured.shape
    mean = _measured(surface)[edge, edge].reshape(rows, ratio, columns, ratio).mean(axis=(1, 3))
    return np.asarray(mean - measured)


def _measured(field: xr.DataArray) -> np.ndarray:
    values = field.to_numpy().astype(np.float64)
    return np.where(field["valid"].to_numpy(), values, np.nan) if "valid" in field.coords else values


def _grounded(region: Region, square: Grid) -> np.ndarray:
    if not region.settings.mask:
        return np.ones(square.shape, bool)
    rows, columns = square.shape
    ice = region.mask(square.bounds).to_numpy() == GROUNDED_ICE
    return np.asarray(ice.reshape(rows, SCALE, columns, SCALE).all(axis=(1, 3)))
