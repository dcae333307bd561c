"""The ice of an embedded world: plastic surface, balance flux, sliding, and what the bed does to them."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.data.patches import Patch, filter_in_patches
from deepbedmap_tf.data.transfer import TransferTable
from deepbedmap_tf.data.world_parameters import WorldParameters
from deepbedmap_tf.grid import Grid

Real = NDArray[np.float64]

ICE_DENSITY = 917.0
GRAVITY = 9.81


class Flow(NamedTuple):
    """Large-scale state of the ice on a grid.

    Attributes
    ----------
    surface, thickness
        Height above the ellipsoid and ice thickness, m.
    slope
        Tangent of the surface slope.
    speed
        Surface speed, m yr-1.
    direction_x, direction_y
        Unit vector of the flow.
    slip
        Sliding over deformational surface speed.
    flux_x, flux_y
        Depth-integrated flux, m2 yr-1 of ice.
    accumulation
        kg m-2 yr-1, smoothed as the flux is: the divergence of the flux is this over the density of ice.
    """

    surface: Real
    thickness: Real
    slope: Real
    speed: Real
    direction_x: Real
    direction_y: Real
    slip: Real
    flux_x: Real
    flux_y: Real
    accumulation: Real


def plastic_surface(bed: Real, stress: Real, spacing: float, start: Real) -> Real:
    """Surface of perfectly plastic ice: ``thickness * |grad surface| = stress / (density * gravity)``.

    A front marches from the low-x edge upwards over the ice sheet (fast marching), so that every cell but those of
    the edge has a lower neighbour.

    Parameters
    ----------
    bed, stress
        Bed, m, and driving stress, Pa, of shape (rows, columns).
    spacing
        Cell size, m.
    start
        Surface at the first column, m, of shape (rows,).

    Returns
    -------
    ndarray
        Surface height, m.
    """
    rows, columns = bed.shape
    base, rise = bed.tolist(), (stress * spacing / (ICE_DENSITY * GRAVITY)).tolist()
    surface = [[float("inf")] * columns for _ in range(rows)]
    final = [[False] * columns for _ in range(rows)]
    front = []
    for row, height in enumerate(start.tolist()):
        surface[row][0] = height
        front.append((height, row, 0))
    heapq.heapify(front)
    infinite = float("inf")
    while front:
        height, row, column = heapq.heappop(front)
        if final[row][column]:
            continue
        final[row][column] = True
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if not (0 <= r < rows and 0 <= c < columns) or final[r][c]:
                continue
            a = min(
                surface[r - 1][c] if r > 0 and final[r - 1][c] else infinite,
                surface[r + 1][c] if r < rows - 1 and final[r + 1][c] else infinite,
            )
            b = min(
                surface[r][c - 1] if c > 0 and final[r][c - 1] else infinite,
                surface[r][c + 1] if c < columns - 1 and final[r][c + 1] else infinite,
            )
            # The thickness is that of the lower neighbour's surface: 100 m at least where the bed stands above it.
            step = rise[r][c] / max(min(a, b) - base[r][c], 100.0)
            if abs(a - b) < step:
                value = (a + b + (2 * step * step - (a - b) ** 2) ** 0.5) / 2
            else:
                value = min(a, b) + step
            if value < surface[r][c]:
                surface[r][c] = value
                heapq.heappush(front, (value, r, c))
    return np.array(surface)


def route_flux(surface: Real, source: Real, spacing: float, inflow: Real) -> tuple[Real, Real]:
    """Carry accumulation down the surface; nothing is lost on the way.

    From the highest cell to the lowest, each passes what it received and what fell on it to its lower neighbours in
    proportion to the drop, so that the flux follows the slope. Cells of the low-x edge let it out.

    Parameters
    ----------
    surface
        Height, m, of shape (rows, columns), without pits except at the first column.
    source
        Accumulation, m yr-1 of ice.
    spacing
        Cell size, m.
    inflow
        Ice entering each cell of the last column from outside, m3 yr-1, of shape (rows,).

    Returns
    -------
    tuple of ndarray
        Flux through the cells' faces, m2 yr-1: in x of shape (rows, columns + 1), positive eastwards, and in y of
        shape (rows + 1, columns), positive northwards (row 0 is the north).
    """
    rows, columns = surface.shape
    height = surface.tolist()
    load = source * spacing**2
    load[:, -1] += inflow
    held = load.tolist()
    east = np.zeros((rows, columns + 1))
    north = np.zeros((rows + 1, columns))
    east[:, -1] = -inflow / spacing
    for index in np.argsort(-surface, axis=None, kind="stable").tolist():
        row, column = divmod(index, columns)
        amount, here = held[row][column], height[row][column]
        if column == 0:
            east[row, 0] = -amount / spacing
            continue
        drops = [
            (max(here - height[r][c], 0.0), r, c)
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
            if 0 <= r < rows and 0 <= c < columns
        ]
        total = sum(drop for drop, _, _ in drops)
        for drop, r, c in drops:
            if drop > 0:
                part = amount * drop / total
                held[r][c] += part
                if r < row:
                    north[row, column] = part / spacing
                elif r > row:
                    north[row + 1, column] = -part / spacing
                elif c < column:
                    east[row, column] = -part / spacing
                else:
                    east[row, column + 1] = part / spacing
    return east, north


def gate_flux(flux_x: Real, flux_y: Real, spacing: float, rows: slice, columns: slice) -> float:
    """Ice that leaves a rectangle of cells through its four sides, m3 yr-1.

    Parameters
    ----------
    flux_x, flux_y
        Flux through faces, m2 yr-1, as `route_flux` returns it.
    spacing
        Cell size, m.
    rows, columns
        The rectangle.
    """
    sides = flux_x[rows, columns.stop].sum() - flux_x[rows, columns.start].sum()
    ends = flux_y[rows.start, columns].sum() - flux_y[rows.stop, columns].sum()
    return float((sides + ends) * spacing)


def accumulation(grid: Grid, surface: Real, parameters: WorldParameters) -> Real:
    """Snow accumulation, kg m-2 yr-1, falling off from the coast inland and with height."""
    xmin, _, xmax, _ = parameters.bounds
    inland = np.clip((grid.x - xmin) / (xmax - xmin), -0.3, 1.3)[None, :]
    coast, interior = parameters.accumulation_coast, parameters.accumulation_inland
    rain_shadow = 1 - 0.15 * np.tanh((surface - surface.mean(axis=0)) / 300.0)
    return np.asarray(coast * (interior / coast) ** inland * rain_shadow)


def balance_flow(grid: Grid, bed: Real, trough: Real, parameters: WorldParameters) -> tuple[Flow, Real, Real]:
    """Large-scale ice over a smooth bed: plastic surface, balance flux, sliding and deformation.

    Parameters
    ----------
    grid
        Coarse grid (about 2 km) with a wide rim around the sector.
    bed, trough
        Smooth bed, m, and the trough's weight, 0 to 1.
    parameters
        Stresses, rate factor, accumulation and inflow.

    Returns
    -------
    flow : Flow
        On cell centres.
    flux_x, flux_y : ndarray
        Smoothed flux through the cells' faces; its divergence is the smoothed accumulation exactly.
    """
    p = parameters
    spacing = grid.resolution
    xmin, _, xmax, _ = p.bounds
    coast = np.clip(1 - (grid.x - xmin) / (xmax - xmin), 0, 1)[None, :]
    fast = np.clip(trough * (0.6 + 0.4 * coast) + 0.25 * coast, 0, 1)
    stress = p.stress_slow * (p.stress_fast / p.stress_slow) ** fast
    start = gaussian_filter(np.maximum(bed[:, 0] + p.surface_coast, 150.0), 10_000 / spacing, mode="nearest")
    routed = plastic_surface(bed, stress, spacing, start)
    surface = gaussian_filter(routed, 4000 / spacing, mode="nearest")
    thickness = np.maximum(surface - bed, p.minimum_thickness)
    surface = bed + thickness
    fallen = accumulation(grid, surface, p)
    gate = trough[:, -1] + 0.1
    flux_x, flux_y = route_flux(routed, fallen / ICE_DENSITY, spacing, p.inflow * 1e9 * gate / gate.sum())
    # Outside there is neither flux nor accumulation: a filter that is the same everywhere keeps the balance exact.
    sigma = p.flux_smoothing / spacing
    flux_x, flux_y, fallen = (gaussian_filter(part, sigma, mode="constant") for part in (flux_x, flux_y, fallen))
    centre_x, centre_y = (flux_x[:, 1:] + flux_x[:, :-1]) / 2, (flux_y[1:] + flux_y[:-1]) / 2
    flux = np.maximum(np.hypot(centre_x, centre_y), 1.0)
    slope_y, slope_x = np.gradient(gaussian_filter(surface, 4000 / spacing, mode="nearest"), spacing)
    slope = np.maximum(np.hypot(slope_x, slope_y), 5e-4)
    stress = ICE_DENSITY * GRAVITY * thickness * slope
    deformation = 0.5 * p.rate_factor * np.minimum(stress, 2e5) ** 3 * thickness
    # A parabolic profile moves at two thirds of its surface speed on average, a sliding one at all of it.
    slip = np.clip(flux / thickness / deformation - 2 / 3, p.slip_minimum, p.slip_maximum)
    slip = np.exp(gaussian_filter(np.log(slip), 6000 / spacing, mode="nearest"))
    speed = flux / thickness * (1 + slip) / (2 / 3 + slip)
    flow = Flow(surface, thickness, slope, speed, centre_x / flux, centre_y / flux, slip, centre_x, centre_y, fallen)
    return flow, flux_x, flux_y


def bed_to_surface(grid: Grid, bump: Real, flow: Flow) -> tuple[Real, Real, Real]:
    """What a bed perturbation does to surface and velocity, by the full-system transfer functions.

    Windows of 24 km see 18 km of their surroundings; each has one mean thickness, slope, slip ratio and direction of
    flow.

    Parameters
    ----------
    grid
        Grid of everything that follows, about 500 m.
    bump
        Bed minus the large-scale bed, m.
    flow
        Large-scale ice on `grid`.

    Returns
    -------
    surface, velocity_x, velocity_y : ndarray
        Perturbations, m and m yr-1; exactly zero where `bump` is zero everywhere.
    """
    step = max(4, round(12_000 / grid.resolution))

    def local(patch: Patch) -> tuple[float, float, float, float, float]:
        rows, columns = patch.core

        def mean(values: Real) -> float:
            return float((values[rows, columns] * patch.weight).sum() / patch.weight.sum())

        dx, dy = mean(flow.direction_x), mean(flow.direction_y)
        norm = np.hypot(dx, dy)
        return mean(flow.thickness), mean(flow.slope), float(np.exp(mean(np.log(flow.slip)))), dx / norm, dy / norm

    def response(patch: Patch, kx: Real, ky: Real) -> list[NDArray[np.complex128]]:
        thickness, slope, slip, dx, dy = local(patch)
        transfer = TransferTable(slope, slip)((kx * dx + ky * dy) * thickness, (ky * dx - kx * dy) * thickness)
        # The FFT's waves run the other way round than those of the papers. Per metre of bed, in mean surface speeds.
        along, across = (np.conj(part) / thickness / (1 + slip) for part in (transfer.along, transfer.across))
        return [np.conj(transfer.surface), along * dx - across * dy, along * dy + across * dx]

    def finish(patch: Patch, parts: list[Real]) -> list[Real]:
        speed = flow.speed[patch.core]
        return [parts[0], parts[1] * speed, parts[2] * speed]

    surface, velocity_x, velocity_y = filter_in_patches(
        bump, grid.resolution, step, round(18_000 / grid.resolution), response, finish
    )
    return surface, velocity_x, velocity_y
