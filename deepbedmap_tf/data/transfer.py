"""How a small bump of the bed shows in the surface and velocity of ice that deforms and slides.

Steady linear response of a slab of linearly viscous ice on a slope, sliding with a speed proportional to its basal
drag (Gudmundsson 2003, J. Geophys. Res. 108(B5), doi:10.1029/2002JB002107). Lengths are in ice thicknesses `H`,
velocities in units of the deformational surface velocity `u_d`, stresses in units of the driving stress; x points
along the flow, z up from the bed at 0 to the surface at 1. The undisturbed flow is ``C + 2 z - z**2``.

Phases follow the sign convention of Gudmundsson's papers, waves ``exp(-i (k x + l y))``: ice piles up UPSTREAM of a
bump it slides over. A spectrum from NumPy's FFT has waves ``exp(+i (k x + l y))`` and needs the complex conjugate.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

# With u_d and the driving stress as units, drag 1 - z equals viscosity times 2 (1 - z).
_VISCOSITY = 0.5
# From a hundred thousand thicknesses to the shortest wave of a 250 m grid under 6 km of ice.
_TABLE_RANGE = (1e-4, 500.0)
_TABLE_NODES = 3000


class Transfer(NamedTuple):
    """Complex response to a bed perturbation ``b exp(-i (k x + l y))``.

    Attributes
    ----------
    surface
        Surface elevation per metre of bed.
    along, across
        Surface velocity along and across the mean flow, in ``u_d`` per ``b / H``.
    """

    surface: Complex
    along: Complex
    across: Complex


def stokes_transfer(k: ArrayLike, l: ArrayLike, slope: float, slip: float) -> Transfer:  # noqa: E741
    """Solve the linearised Stokes problem for every wavenumber.

    The vertical velocity is a sum of four exponentials with stress-free surface, no flow through the bed and a
    linear slip law as boundary conditions; the part of the horizontal flow that turns about the vertical is solved
    beside it; the steady kinematic condition then ties the surface to the bed.

    Parameters
    ----------
    k, l
        Wavenumbers along and across the flow times ice thickness, broadcast against each other.
    slope
        Tangent of the mean surface slope.
    slip
        Slip ratio `C`: mean sliding velocity over `u_d`.

    Returns
    -------
    Transfer
        Arrays of the broadcast shape. At ``k = l = 0`` the surface follows the bed and velocity is undisturbed.

    Examples
    --------
    >>> import numpy as np
    >>> response = stokes_transfer(2 * np.pi / 10, 0.0, slope=0.003, slip=100)
    >>> np.round(response.surface, 4), np.round(response.along, 3)
    ((0.1309-0.3342j), (94.738+29.541j))
    """
    k, l = np.broadcast_arrays(np.asarray(k, float), np.asarray(l, float))  # noqa: E741
    j = np.hypot(k, l)
    responses = _unit_responses(_no_slip(np.where(j > 0, j, 1.0).ravel()), slip).reshape(*j.shape, 8)
    return _combine(k, l, slope, slip, responses)


class TransferTable:
    """`stokes_transfer` for one slope and slip ratio, fast on large wavenumber grids.

    What has to be solved depends on the wavelength alone, not on its direction, so it is tabulated along one axis
    and interpolated (relative error below 1e-4).

    Parameters
    ----------
    slope, slip
        As in `stokes_transfer`.
    """

    def __init__(self, slope: float, slip: float) -> None:
        self.slope, self.slip = slope, slip
        self._log_start, log_end = np.log(_TABLE_RANGE)
        self._step = (log_end - self._log_start) / (_TABLE_NODES - 1)
        self._nodes = _unit_responses(_tabulated_no_slip(), slip)

    def __call__(self, k: Real, l: Real) -> Transfer:  # noqa: E741
        """Evaluate on wavenumbers of one shape."""
        j = np.hypot(k, l)
        position = (np.log(np.clip(j, *_TABLE_RANGE)) - self._log_start) / self._step
        index = np.minimum(position.astype(int), _TABLE_NODES - 2)
        weight = (position - index)[..., None]
        responses = self._nodes[index] * (1 - weight) + self._nodes[index + 1] * weight
        return _combine(k, l, self.slope, self.slip, responses)


def surface_transfer(k: ArrayLike, l: ArrayLike, slope: float, slip: float) -> Complex:  # noqa: E741
    """Surface elevation per metre of bed in closed form: a check on `stokes_transfer`.

    Parameters and returns as there (its `surface`). Written with ``exp(-j)`` scaled out, so that it decays at short
    wavelengths and does not overflow.

    Examples
    --------
    >>> round(abs(surface_transfer(1e-6, 0, 0.003, 100)), 6), float(abs(surface_transfer(2000.0, 0, 0.003, 100)))
    (1.0, 0.0)
    """
    k, l = np.broadcast_arrays(np.asarray(k, float), np.asarray(l, float))  # noqa: E741
    j = np.hypot(k, l)
    decay = np.exp(-j)
    sinh, cosh = -np.expm1(-2 * j) / 2, (1 + decay**2) / 2  # both times exp(-j)
    a = slip * j * sinh + cosh
    numerator = j * k * ((1 + slip) * a + (1 + slip + (slip * j) ** 2) * cosh) * decay
    denominator = j * k * (1 + slip) * (cosh * a + j**2 * (1 + slip) * decay**2 + decay**2)
    denominator = denominator + 1j * (a * sinh - j * decay**2) / slope
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = numerator / denominator
    return np.where(j > 0, ratio, 1.0 + 0j)


def stream_transfer(k: ArrayLike, l: ArrayLike, slope: float, slip: float) -> Transfer:  # noqa: E741
    """Shallow-ice-stream limit (Gudmundsson 2008, The Cryosphere 2, 77-93) for a linear slip law.

    Good from wavelengths of five to eight ice thicknesses upwards and when sliding dominates; kept to measure how far
    the full response departs from it. Parameters and returns as in `stokes_transfer`, without ``k = 0``.
    """
    k, l = np.broadcast_arrays(np.asarray(k, float), np.asarray(l, float))  # noqa: E741
    square = k**2 + l**2
    common = k + k + 2 * k * square * slip + 1j * square / slope
    drag = 1 / slip + square / 2
    surface = k * (2 + 2 * square * slip) / common
    along = -1j / slope * (l**2 - k**2 * (1 + square * slip / 2)) / (common * drag)
    across = 1j / slope * k * l * (2 + square * slip / 2) / (common * drag)
    return Transfer(surface, along, across)


class _NoSlip(NamedTuple):
    """Answers of ice frozen to its bed, each of shape (n, 4), to four unit boundary values.

    The boundary values are shear stress / i and normal stress at the surface, vertical velocity and horizontal
    velocity / i at the bed; the answers the vertical velocity and the horizontal one / i at the surface, and the
    shear stress / i at the bed.
    """

    vertical: Real
    horizontal: Real
    drag: Real


def _no_slip(j: Real) -> _NoSlip:
    """Solve for wavenumbers `j` of shape (n,)."""
    decay = np.exp(-j)
    one, zero = np.ones_like(j), np.zeros_like(j)
    # The four solutions exp(j (z - 1)), j (z - 1) exp(j (z - 1)), exp(-j z), j z exp(-j z) with their z-derivatives
    # divided by powers of j; each stays within order one in the whole layer.
    top = np.array([
        [one, zero, decay, j * decay],
        [one, one, -decay, (1 - j) * decay],
        [one, 2 * one, decay, (j - 2) * decay],
        [one, 3 * one, -decay, (3 - j) * decay],
    ])  # fmt: skip
    bed = np.array([
        [decay, -j * decay, one, zero],
        [decay, (1 - j) * decay, -one, one],
        [decay, (2 - j) * decay, one, -2 * one],
    ])  # fmt: skip
    # Stresses come out per unit of viscosity times j, so that all rows are of order one.
    system = np.moveaxis(np.array([top[2] + top[0], 3 * top[1] - top[3], bed[0], bed[1]]), -1, 0)
    stress = 1 / (_VISCOSITY * j)
    inverse = np.linalg.inv(system) * np.stack([stress, stress, one, one], axis=-1)[:, None, :]
    vertical, horizontal, drag = (np.einsum("in,nic->nc", row, inverse) for row in (top[0], top[1], bed[2] + bed[0]))
    return _NoSlip(vertical, horizontal, drag / stress[:, None])


@cache
def _tabulated_no_slip() -> _NoSlip:
    return _no_slip(np.geomspace(*_TABLE_RANGE, _TABLE_NODES))


def _unit_responses(frozen: _NoSlip, slip: float) -> Real:
    """Let the ice slide: shape (n, 8), vertical then horizontal surface velocity to the four boundary values.

    The last of these becomes the misfit of the slip law. The velocity at the bed is that misfit plus `slip` times the
    drag, which in turn depends on it linearly.
    """
    sliding = slip * frozen.drag / (1 - slip * frozen.drag[:, 3:])
    parts = (answer + answer[:, 3:] * sliding for answer in (frozen.vertical, frozen.horizontal))
    return np.concatenate(list(parts), axis=1)


def _combine(k: Real, l: Real, slope: float, slip: float, responses: Real) -> Transfer:  # noqa: E741
    j = np.hypot(k, l)
    safe = np.where(j > 0, j, 1.0)
    cosine, sine = k / safe, l / safe
    w_shear, w_normal, w_flow, w_slip, u_shear, u_normal, u_flow, u_slip = np.moveaxis(responses, -1, 0)
    from_bed = 1j * slip * k * w_flow + 1j * (2 + slip) * cosine * w_slip
    from_surface = 1j * (1 + slip) * k + 1j * cosine * w_shear + w_normal / slope
    surface = from_bed / np.where(j > 0, from_surface, 1.0)
    along_wave = cosine * u_shear * surface - 1j * u_normal / slope * surface
    along_wave = along_wave - slip * k * u_flow - (2 + slip) * cosine * u_slip
    # The horizontal flow along the crests: a diffusion problem, driven by drag at the surface and slip at the bed.
    decay = np.exp(-safe)
    drag_top = -sine * surface / (_VISCOSITY * safe)
    friction = slip * _VISCOSITY * safe
    d = (sine * (2 + slip) - drag_top * decay * (1 - friction)) / (1 + friction + decay**2 * (1 - friction))
    along_crest = drag_top + 2 * d * decay
    along, across = cosine * along_wave - sine * along_crest, sine * along_wave + cosine * along_crest
    still = j == 0
    surface, along, across = np.where(still, 1.0, surface), np.where(still, 0.0, along), np.where(still, 0.0, across)
    # Derived for waves exp(+i (k x + l y)), handed out in the papers' convention.
    return Transfer(np.conj(surface), np.conj(along), np.conj(across))
