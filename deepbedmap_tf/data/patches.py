"""Spatially varying filters: local spectra in overlapping windows, blended by a partition of unity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Patch:
    """One window of a raster.

    Attributes
    ----------
    core
        Rows and columns that the window contributes to; they lie inside the raster.
    weight
        Share of the sum that this window makes up in its core.
    centre
        Row and column of its middle cell, inside the raster.
    """

    core: tuple[slice, slice]
    weight: Real
    centre: tuple[int, int]


def partition(shape: tuple[int, int], step: int) -> Iterator[tuple[Patch, tuple[int, int]]]:
    """Cover a raster with windows ``2 * step`` wide whose weights add up to one everywhere.

    Parameters
    ----------
    shape
        Rows and columns of the raster.
    step
        Cells between the middles of neighbouring windows.

    Yields
    ------
    Patch, tuple of int
        The window and the row and column of its first cell, which may lie outside the raster.
    """
    rise = np.sin(np.pi * (np.arange(2 * step) + 0.5) / (2 * step)) ** 2
    for top in range(-step, shape[0], step):
        for left in range(-step, shape[1], step):
            rows = slice(max(top, 0), min(top + 2 * step, shape[0]))
            columns = slice(max(left, 0), min(left + 2 * step, shape[1]))
            weight = np.outer(
                rise[rows.start - top : rows.stop - top], rise[columns.start - left : columns.stop - left]
            )
            centre = (min(max(top + step, 0), shape[0] - 1), min(max(left + step, 0), shape[1] - 1))
            yield Patch((rows, columns), weight, centre), (top, left)


def filter_in_patches(
    field: Real,
    spacing: float,
    step: int,
    margin: int,
    response: Callable[[Patch, Real, Real], list[Complex]],
    finish: Callable[[Patch, list[Real]], list[Real]] | None = None,
) -> list[Real]:
    """Filter a raster with a transfer function that differs from place to place.

    Every window is widened by a margin over which the field fades to nothing, transformed, multiplied, transformed
    back and added to its neighbours. The mean of a window is not passed on.

    Parameters
    ----------
    field
        Raster (rows from north to south), zero outside.
    spacing
        Cell size, m.
    step
        Half the width of a window, cells.
    margin
        Cells around each window that its filter sees.
    response
        Called with the patch and the wavenumbers in x and y (radians per metre, y northwards) of a half spectrum;
        returns one transfer function, for waves ``exp(+i (kx x + ky y))``, per output.
    finish
        Called with the patch and the filtered windows; returns what is blended (rotation, local scaling).

    Returns
    -------
    list of ndarray
        One raster per transfer function, zeros if `field` is zero.
    """
    size = fft.next_fast_len(2 * step + 2 * margin, real=True)
    padded = np.pad(field, ((step + margin, step + margin + size), (step + margin, step + margin + size)))
    ramp = np.sin(np.pi * (np.arange(margin) + 0.5) / (2 * margin)) ** 2
    taper = np.zeros(size)
    taper[: 2 * step + 2 * margin] = np.concatenate([ramp, np.ones(2 * step), ramp[::-1]])
    taper = np.outer(taper, taper)
    kx = 2 * np.pi * fft.rfftfreq(size, spacing)[None, :]
    ky = -2 * np.pi * fft.fftfreq(size, spacing)[:, None]
    results: list[Real] = []
    for patch, (top, left) in partition((field.shape[0], field.shape[1]), step):
        window = padded[top + step : top + step + size, left + step : left + step + size] * taper
        spectrum = fft.rfft2(window)
        spectrum[0, 0] = 0.0
        rows = slice(patch.core[0].start - top + margin, patch.core[0].stop - top + margin)
        columns = slice(patch.core[1].start - left + margin, patch.core[1].stop - left + margin)
        filtered = [
            fft.irfft2(spectrum * transfer, s=(size, size))[rows, columns] for transfer in response(patch, kx, ky)
        ]
        if finish is not None:
            filtered = finish(patch, filtered)
        if not results:
            results = [np.zeros(field.shape) for _ in filtered]
        for result, part in zip(results, filtered, strict=True):
            result[patch.core] += part * patch.weight
    return results
