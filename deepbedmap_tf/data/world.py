"""The truth of an embedded world: its bed, the ice over it, and what the bed does to surface and velocity."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepbedmap_tf.data.ice import Flow, balance_flow, bed_to_surface
from deepbedmap_tf.data.survey import Sampler
from deepbedmap_tf.data.terrain import bedforms, landscape, limit_bed, relief
from deepbedmap_tf.data.world_parameters import WorldParameters
from deepbedmap_tf.grid import ELLIPSOID, Grid

Real = NDArray[np.float64]

# The ice is modelled well beyond the sector, so that no edge shows in it.
_RIM = 40_000.0
_ICE_SPACING = 2000.0
# 500 m resolve the waves that reach the surface (above one ice thickness), 250 m those of the bed.
_WAVE_FACTOR, _BED_FACTOR = 4, 8


class World(NamedTuple):
    """Truth of an embedded world, before any instrument.

    Attributes
    ----------
    grid
        250 m cells, a rim beyond the sector included; `bed` lies on it.
    bed, bed_smooth
        The bed and its large-scale part, m above the ellipsoid.
    wave_grid
        500 m cells; all that follows lies on it.
    flow
        Large-scale ice.
    surface, velocity_x, velocity_y
        Ice surface, m above the ellipsoid, and surface velocity, m yr-1, with what the bed does to them.
    """

    grid: Grid
    bed: Real
    bed_smooth: Real
    wave_grid: Grid
    flow: Flow
    surface: Real
    velocity_x: Real
    velocity_y: Real


def simulate(parameters: WorldParameters) -> World:
    """Make bed, ice and velocity of a world, without instruments or files.

    Parameters
    ----------
    parameters
        Of the world.
    """
    p = parameters
    xmin, ymin, xmax, ymax = p.bounds
    west, south = (_ICE_SPACING * np.floor((edge - _RIM) / _ICE_SPACING) for edge in (xmin, ymin))
    east, north = (_ICE_SPACING * np.ceil((edge + _RIM) / _ICE_SPACING) for edge in (xmax, ymax))
    ice_grid = Grid.from_bounds((west, south, east, north), _ICE_SPACING, vertical_datum=ELLIPSOID)
    shape = landscape(ice_grid, p)
    flow_2km, _, _ = balance_flow(ice_grid, shape.bed, shape.trough, p)
    wave_grid, grid = ice_grid.refine(_WAVE_FACTOR), ice_grid.refine(_BED_FACTOR)
    bed_smooth = Sampler(ice_grid, shape.bed).on(grid)
    flow = _refine(ice_grid, flow_2km, wave_grid, bed_smooth)

    upland = np.clip(Sampler(ice_grid, shape.upland).on(grid), 0, 1)
    bump = relief(grid, upland, p)
    if p.bedform_rms > 0:
        sliding = flow.slip / (flow.slip + 30.0)
        on_bed = [Sampler(wave_grid, part).on(grid) for part in (flow.direction_x, flow.direction_y, sliding)]
        bump += bedforms(grid, (on_bed[0], on_bed[1]), on_bed[2], p)
    ice_surface = bed_smooth + Sampler(ice_grid, flow_2km.thickness).on(grid)
    bump = limit_bed(bed_smooth + bump, ice_surface - p.minimum_thickness) - bed_smooth if bump.any() else bump
    joined = bump.reshape(wave_grid.shape[0], 2, wave_grid.shape[1], 2).mean(axis=(1, 3))
    rise, extra_x, extra_y = bed_to_surface(wave_grid, joined, flow)
    surface = flow.surface + rise
    velocity_x, velocity_y = flow.speed * flow.direction_x + extra_x, flow.speed * flow.direction_y + extra_y
    # Where a bump lowered the surface towards a shallow bed, the bed gives way: it is never above the ice.
    bed = np.minimum(bed_smooth + bump, Sampler(wave_grid, surface).on(grid) - 0.5 * p.minimum_thickness)
    return World(grid, bed, bed_smooth, wave_grid, flow, surface, velocity_x, velocity_y)


def _refine(coarse: Grid, flow: Flow, fine: Grid, bed: Real) -> Flow:
    """Carry the large-scale ice to a finer grid, keeping logarithms smooth and directions unit vectors."""

    def to_fine(values: Real) -> Real:
        return Sampler(coarse, values).on(fine)

    bed_fine = bed.reshape(fine.shape[0], 2, fine.shape[1], 2).mean(axis=(1, 3))
    thickness = to_fine(flow.thickness)
    dx, dy = to_fine(flow.direction_x), to_fine(flow.direction_y)
    norm = np.maximum(np.hypot(dx, dy), 1e-9)
    return Flow(
        bed_fine + thickness,
        thickness,
        np.exp(to_fine(np.log(flow.slope))),
        np.exp(to_fine(np.log(flow.speed))),
        dx / norm,
        dy / norm,
        np.exp(to_fine(np.log(flow.slip))),
        to_fine(flow.flux_x),
        to_fine(flow.flux_y),
        to_fine(flow.accumulation),
    )
