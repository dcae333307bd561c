"""Transfer of the bed to the surface: the tabulated values, the limits, and the physics behind the signs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepbedmap_tf.data.transfer import TransferTable, stokes_transfer, stream_transfer, surface_transfer

# Slope, slip ratio, wavelength over thickness along and across (inf: l = 0), then T_sb and T_ub of the full system
# and T_sb, T_ub, T_vb of SSTREAM (m = 1), computed with independent code.
INF = np.inf
REFERENCE = [
    (0.003, 10, 2, INF, 0.0324 - 0.0966j, 8.6333 + 0.0538j, 0.0350 - 0.1837j, 9.6501 + 1.8374j, 0),
    (0.003, 10, 5, INF, 0.0070 - 0.0768j, 11.8638 + 0.4914j, 0.0064 - 0.0797j, 9.9361 + 0.7966j, 0),
    (0.003, 10, 10, INF, 0.0024 - 0.0473j, 11.1452 + 0.4434j, 0.0022 - 0.0471j, 9.9777 + 0.4714j, 0),
    (0.003, 10, 10, 10, 0.0020 - 0.0421j, 4.7376 + 0.1146j, 0.0018 - 0.0424j, 3.9823 + 0.1691j, 5.9997 + 0.2548j),
    (0.003, 10, 100, INF, 0.0104 - 0.1012j, 10.5822 + 1.0800j, 0.0098 - 0.0983j, 9.9024 + 0.9829j, 0),
    (0.003, 100, 2, INF, 0.3136 - 0.1021j, 83.5828 + 0.7362j, 0.7807 - 0.4138j, 21.9285 + 41.3762j, 0),
    (0.003, 100, 5, INF, 0.3567 - 0.4469j, 93.7076 + 27.2215j, 0.3654 - 0.4815j, 63.4632 + 48.1533j, 0),
    (0.003, 100, 10, INF, 0.1309 - 0.3342j, 94.7378 + 29.5407j, 0.1300 - 0.3363j, 87.0008 + 33.6294j, 0),
    (0.003, 100, 10, 10, 0.1279 - 0.3279j, 49.3560 + 12.2513j, 0.1272 - 0.3332j, 42.5616 + 16.2486j, 44.7178 + 17.0718j),  # noqa: E501
    (0.01, 1, 2, INF, 0.0083 - 0.0402j, 0.9976 - 0.0034j, 0.0048 - 0.0689j, 0.9952 + 0.0689j, 0),
    (0.01, 1, 5, INF, 0.0033 - 0.0453j, 1.6945 + 0.0473j, 0.0017 - 0.0410j, 0.9983 + 0.0410j, 0),
    (0.01, 1, 100, INF, 0.1285 - 0.3340j, 1.5689 + 0.6005j, 0.0927 - 0.2900j, 0.9073 + 0.2900j, 0),
]  # fmt: skip


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}-{row[3]}")
def test_reference_values(row: tuple[complex, ...]) -> None:
    slope, slip, along, across, *expected = row
    k, l = 2 * np.pi / along, 2 * np.pi / across  # noqa: E741
    full, stream = stokes_transfer(k, l, slope, slip), stream_transfer(k, l, slope, slip)
    found = [full.surface, full.along, stream.surface, stream.along, stream.across]
    # Four decimals are given; the stream's values hang on cot(slope) against 1 / slope in the sixth digit.
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-5, atol=6e-5)


wavenumbers = st.floats(1e-2, 12.0)
slopes, slips = st.floats(1e-3, 2e-2), st.floats(0.5, 300.0)


@given(k=wavenumbers, l=st.floats(-8.0, 8.0), slope=slopes, slip=slips)
@settings(max_examples=60, deadline=None)
def test_numerical_solution_agrees_with_closed_form(k: float, l: float, slope: float, slip: float) -> None:  # noqa: E741
    assert stokes_transfer(k, l, slope, slip).surface == pytest.approx(
        complex(surface_transfer(k, l, slope, slip)), rel=1e-6, abs=1e-9
    )


@given(k=wavenumbers, l=wavenumbers, slope=slopes, slip=slips)
@settings(max_examples=40, deadline=None)
def test_symmetries(k: float, l: float, slope: float, slip: float) -> None:  # noqa: E741
    """A real bed gives a real surface; mirrored across the flow, only the velocity across it changes sign."""
    here, opposite = stokes_transfer(k, l, slope, slip), stokes_transfer(-k, -l, slope, slip)
    mirrored = stokes_transfer(k, -l, slope, slip)
    for part, other in zip(here, opposite, strict=True):
        assert other == pytest.approx(np.conj(part), rel=1e-9, abs=1e-12)
    assert mirrored.surface == pytest.approx(complex(here.surface), rel=1e-9, abs=1e-12)
    assert mirrored.along == pytest.approx(complex(here.along), rel=1e-9, abs=1e-12)
    assert mirrored.across == pytest.approx(-complex(here.across), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("slip", [1, 10, 300])
def test_long_and_short_waves(slip: float) -> None:
    long, short = stokes_transfer(1e-3, 0, 0.003, slip), stokes_transfer(np.array([40.0, 700.0]), 0, 0.003, slip)
    assert abs(surface_transfer(1e-6, 0, 0.003, slip) - 1) < 1e-3
    assert long.surface == pytest.approx(complex(surface_transfer(1e-3, 0, 0.003, slip)), rel=1e-6)
    for part in short:
        assert np.isfinite(part).all()
        assert np.abs(part).max() < 1e-8 * (1 + slip)
    at_zero = stokes_transfer(0.0, 0.0, 0.003, slip)
    assert at_zero.surface == 1 and at_zero.along == 0 and at_zero.across == 0


def test_surface_is_raised_upstream_of_a_bump() -> None:
    """Ice is squeezed against a bump it slides over: the phase of exp(-i k x) and of NumPy's FFT differ in this."""
    n, k = 64, 2 * np.pi / 10
    x = np.arange(n) * (2 * np.pi / k) / n
    response = np.conj(complex(stokes_transfer(k, 0, 0.003, 100).surface))
    surface = np.real(response * np.exp(1j * k * x))
    assert surface[np.argmin(np.abs(x - 7.5))] > 0.3 > surface[np.argmin(np.abs(x - 2.5))]


def test_flux_is_conserved_over_long_bumps() -> None:
    """Over long waves the flux (1 + C) u_d H is the same everywhere, so speed rises as thickness falls."""
    response = stokes_transfer(2 * np.pi / 2000, 0, 0.003, 100)
    assert complex(response.along / 101) == pytest.approx(1 - complex(response.surface), rel=0.02)


def test_table_agrees_with_the_solution() -> None:
    k, l = np.meshgrid(np.geomspace(0.02, 30, 40), [-6.0, -0.1, 0.0, 2.0])  # noqa: E741
    table, exact = TransferTable(0.004, 30.0)(k, l), stokes_transfer(k, l, 0.004, 30.0)
    for tabulated, solved in zip(table, exact, strict=True):
        np.testing.assert_allclose(tabulated, solved, rtol=1e-4, atol=1e-4 * np.abs(solved).max())
