"""The variables of a map: what stands beside the bed in every cell, computed block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from deepbedmap_tf.config import DEFAULT_INPUTS
from deepbedmap_tf.data.cover import COVER_FLAGS, GROUNDED_ICE, ICE_FREE_LAND, OCEAN, UNKNOWN
from deepbedmap_tf.data.resampling import resample
from deepbedmap_tf.errors import NoDataError
from deepbedmap_tf.grid import ELLIPSOID, Grid
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.pick_index import PickIndex, mapped_picks

if TYPE_CHECKING:
    from deepbedmap_tf.data.region import Region

SCALE = 4
NO_BED, NETWORK, FILLED_INPUTS, COARSE_BED, RADAR, LIMITED = range(6)
SOURCE_FLAGS = {
    NO_BED: "no_bed",
    NETWORK: "network",
    FILLED_INPUTS: "network_with_filled_inputs",
    COARSE_BED: "coarse_bed",
    RADAR: "network_honouring_radar",
    LIMITED: "limited_to_surface",
}
"""Where the bed of a cell comes from; where several hold, the last of them."""

_BED_ANCILLARY = ("bed_uncertainty", "source", "distance_to_pick", "pick_count")


@dataclass(frozen=True)
class Variable:
    """One variable of a map.

    Attributes
    ----------
    name
        In every format.
    dtype
        Of numpy; floating-point variables are NaN where undefined, whole numbers are always defined.
    fill
        What a cell holds that nothing was written to.
    attributes
        CF attributes: units, long_name, standard_name, flags.
    per_realisation
        Dimensions (realization, y, x) instead of (y, x).
    """

    name: str
    dtype: str
    fill: float | int
    attributes: dict[str, Any]
    per_realisation: bool = False


def variables(region: Region, options: MapOptions) -> tuple[Variable, ...]:
    """List the variables of a map of a region, in order, the bed first.

    `mask`, `geoid` and what tells of picks are there only where the region names a mask, a geoid layer and picks of
    the roles `pick_index.PICK_ROLES`.

    Parameters
    ----------
    region
        What is mapped.
    options
        What the map is made with.
    """
    settings = region.settings
    made = [_bed(region), *_realised(region, options)]
    made += [_surface(region), _thickness(region)]
    if settings.mask:
        made.append(_flags("mask", "what covers the bed", COVER_FLAGS, UNKNOWN))
    made.append(_flags("source", "where the bed comes from", SOURCE_FLAGS, NO_BED))
    if mapped_picks(region):
        made.append(
            Variable(
                "pick_count", "int32", 0,
                {"long_name": "number of radar picks in the cell", "standard_name": "number_of_observations",
                 "units": "1"},
            )
        )  # fmt: skip
        made.append(
            _metres("distance_to_pick", "distance from the centre of the cell to that of the nearest one with a pick")
        )
    made.append(
        _metres(
            "coarse_residual",
            "mean bed of the 4 x 4 cells of a low-resolution cell minus the low-resolution bed",
        )
    )
    if region.geoid_name is not None:
        made.append(
            _metres(
                "geoid",
                "height of the geoid above the WGS84 ellipsoid",
                "geoid_height_above_reference_ellipsoid",
                geoid=region.geoid_name,
            )
        )
    names = {each.name for each in made}
    made[0].attributes["ancillary_variables"] = " ".join(name for name in _BED_ANCILLARY if name in names)
    return tuple(made)


def block_layers(
    region: Region,
    grid: Grid,
    bed: np.ndarray,
    options: MapOptions,
    picks: PickIndex | None,
    *,
    inputs: Mapping[str, xr.DataArray] | None = None,
    honoured: np.ndarray | None = None,
    realisations: np.ndarray | None = None,
    uncertainty: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Compute every variable of a block of a map.

    Parameters
    ----------
    region
        Read by window only.
    grid
        The block's output cells, whole low-resolution cells.
    bed
        Predicted bed, metres, float32, shape of the grid; NaN where undefined.
    options
        What the map is made with.
    picks
        The region's picks; needed where it names some.
    inputs
        What the network saw, as `Region.inputs` gives it for a window that holds the block, where it has been read
        already; `source` says where any of it was filled.
    honoured
        Cells that honouring the picks has moved, bool.
    realisations, uncertainty
        Beds of shape (realization, rows, columns) and their standard deviation, metres, for `options.realisations`.

    Returns
    -------
    dict of numpy.ndarray
        By the names of `variables`, in their order and of their types; the bed is limited where that is asked for.
    """
    wanted = variables(region, options)
    if inputs is None:
        inputs = region.inputs(grid.bounds)
    surface = _surface_of(inputs["surface"], grid)
    cover = region.mask(grid.bounds).to_numpy() if region.settings.mask else None
    grounded = np.ones(grid.shape, bool) if cover is None else cover == GROUNDED_ICE
    bed = np.array(bed, np.float32)
    source = np.where(_filled(inputs, grid), FILLED_INPUTS, NETWORK)
    if honoured is not None:
        source[honoured] = RADAR
    if options.fill_with_coarse_bed and np.isnan(bed).any():
        coarse_bed = _interpolated(region, grid)
        without = np.isnan(bed) & np.isfinite(coarse_bed)
        bed[without], source[without] = coarse_bed[without], COARSE_BED
    if options.limit_to_surface:
        with np.errstate(invalid="ignore"):
            above = grounded & (bed > surface)
        bed[above], source[above] = surface[above], LIMITED
        if realisations is not None:
            with np.errstate(invalid="ignore"):
                realisations = np.where(grounded & (realisations > surface), surface, realisations)
    source[np.isnan(bed)] = NO_BED
    layers: dict[str, Any] = {
        "bed": bed,
        "bed_realization": realisations,
        "bed_uncertainty": uncertainty,
        "surface": surface,
        "thickness": _ice_thickness(bed, surface, cover),
        "mask": cover,
        "source": source,
        "coarse_residual": _coarse_residual(bed, inputs["bed_lowres"], grid),
    }
    names = {each.name for each in wanted}
    if "pick_count" in names and picks is not None:
        layers |= {"pick_count": picks.counts_on(grid), "distance_to_pick": picks.distance_on(grid)}
    if "geoid" in names:
        layers["geoid"] = _geoid(region, grid)
    return {each.name: np.asarray(layers[each.name], each.dtype) for each in wanted}


def _surface_of(field: xr.DataArray, grid: Grid) -> np.ndarray:
    """Mean over 2 x 2 points of each cell: slopes pass unchanged, as they do not through areas of 2.5 x 2.5 cells."""
    fine = resample(field, grid.refine(2), "bilinear").to_numpy()
    rows, columns = grid.shape
    return np.asarray(fine.reshape(rows, 2, columns, 2).mean(axis=(1, 3), dtype=np.float64), np.float32)


def _ice_thickness(bed: np.ndarray, surface: np.ndarray, cover: np.ndarray | None) -> np.ndarray:
    """Surface minus bed where the ice rests on the bed, 0 where there is none, NaN where it floats or none is known."""
    thickness = surface - bed
    if cover is None:
        return thickness
    without = (cover == OCEAN) | (cover == ICE_FREE_LAND)
    return np.where(cover == GROUNDED_ICE, thickness, np.where(without, np.float32(0), np.float32(np.nan)))


def _coarse_residual(bed: np.ndarray, lowres: xr.DataArray, grid: Grid) -> np.ndarray:
    coarse = grid.coarsen(SCALE)
    rows, columns = coarse.shape
    # In double precision: heights of kilometres, residuals of millimetres.
    mean = bed.reshape(rows, SCALE, columns, SCALE).mean(axis=(1, 3), dtype=np.float64)
    residual = mean - _cut(lowres, coarse).to_numpy()
    return np.asarray(residual.repeat(SCALE, axis=0).repeat(SCALE, axis=1), np.float32)


def _interpolated(region: Region, grid: Grid) -> np.ndarray:
    # Cubics reach two cells far: with one cell more than the usual margin, neighbouring blocks agree at their edge.
    lowres = region.inputs_on(grid.coarsen(SCALE).pad(1), DEFAULT_INPUTS[:1])["bed_lowres"]
    return resample(lowres, grid, "cubic").to_numpy()


def _filled(inputs: Mapping[str, xr.DataArray], grid: Grid) -> np.ndarray:
    """Tell which output cells lie in low-resolution cells that a fill rule gave an input of."""
    coarse = grid.coarsen(SCALE)
    rows, columns = coarse.shape
    filled = np.zeros(coarse.shape, bool)
    for field in inputs.values():
        if "valid" in field.coords:
            ratio = max(1, round(coarse.resolution / Grid.of(field).resolution))
            valid = _cut(field["valid"].assign_attrs(field.attrs), coarse.refine(ratio)).to_numpy()
            filled |= ~valid.reshape(rows, ratio, columns, ratio).all(axis=(1, 3))
    return np.asarray(filled.repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def _cut(field: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Take the cells of `grid` out of a field that has them among its own."""
    (left, _, _, top), (xmin, _, _, ymax) = Grid.of(field).bounds, grid.bounds
    row, column = round((top - ymax) / grid.resolution), round((xmin - left) / grid.resolution)
    return field.isel(y=slice(row, row + grid.shape[0]), x=slice(column, column + grid.shape[1]))


def _geoid(region: Region, grid: Grid) -> np.ndarray:
    try:
        return region.geoid(grid.bounds).to_numpy()
    except NoDataError:
        # A layer that ends before the region does.
        return np.full(grid.shape, np.nan, np.float32)


def _bed(region: Region) -> Variable:
    return _height(region, "bed", "bed elevation", "bedrock_altitude")


def _realised(region: Region, options: MapOptions) -> list[Variable]:
    if not options.realisations:
        return []
    one = _height(region, "bed_realization", "realization of the bed elevation", "bedrock_altitude")
    error = _metres(
        "bed_uncertainty",
        "standard deviation of the error of the bed",
        f"{one.attributes['standard_name']} standard_error",
    )
    return [Variable(one.name, one.dtype, one.fill, one.attributes, per_realisation=True), error]


def _surface(region: Region) -> Variable:
    return _height(region, "surface", "surface elevation that the network was given", "surface_altitude")


def _thickness(region: Region) -> Variable:
    where = "grounded ice, 0 where there is no ice" if region.settings.mask else "grounded ice, taken to be everywhere"
    return _metres("thickness", f"surface minus bed of {where}", "land_ice_thickness")


def _height(region: Region, name: str, long_name: str, altitude: str) -> Variable:
    # In CF an altitude is a height above the geoid, and one above the ellipsoid has a name of its own.
    standard = "height_above_reference_ellipsoid" if region.vertical_datum == ELLIPSOID else altitude
    return _metres(name, long_name, standard, vertical_datum=region.vertical_datum)


def _metres(name: str, long_name: str, standard_name: str | None = None, **further: str) -> Variable:
    attributes: dict[str, Any] = {"long_name": long_name, "units": "m", **further}
    if standard_name is not None:
        attributes["standard_name"] = standard_name
    return Variable(name, "float32", float("nan"), attributes)


def _flags(name: str, long_name: str, flags: Mapping[int, str], fill: int) -> Variable:
    attributes = {
        "long_name": long_name,
        "flag_values": list(flags),
        "flag_meanings": " ".join(flags.values()),
    }
    return Variable(name, "int8", fill, attributes)
