"""Several equally likely beds and their spread: a mean over symmetries, a calibrated error, a texture drawn for it.

What was measured and why it is done so: docs/science.md, *Realisations and spread*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import uniform_filter

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.augment import NUMBER_OF_SYMMETRIES, VECTORS, transform
from deepbedmap_tf.errors import ConfigError, GridError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.honouring import correlation

RELIEF_WINDOW = 25
"""Side of the square whose relief tells how far off a bed is likely to be, output cells."""

REACH = RELIEF_WINDOW // 2
"""Output cells around a cell that its uncertainty depends on."""

TILE = 128
_LONGEST = 96
_FAR = 2**40
_INVERSE = (0, 1, 2, 5, 4, 3, 6, 7)
"""Symmetry that undoes each of `data.augment`: of the quarter turns, those that turn back."""


class Network(Protocol):
    """A network with its inputs, such as `inference.export.SuperResolution`."""

    config: GeneratorConfig

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return (n, 4(h-2), 4(w-2), 1) for inputs (n, height, width, bands) by name."""


@dataclass(frozen=True)
class Calibration:
    """What the error of a model's mean bed was found to be like, where it could be measured.

    The error's variance in a cell is floor^2 + (spread x the members' standard deviation)^2 + (relief x the standard
    deviation of the bed within `RELIEF_WINDOW`)^2, times the share that honoured picks leave.

    Attributes
    ----------
    floor, spread, relief
        Coefficients: metres, and without unit.
    range
        Distance at which the error's correlation has fallen to 5 %, metres.
    factor_50, factor_90
        Half widths of the intervals that held 50 and 90 % of the errors, in standard deviations; 0.67 and 1.64 for
        Gaussian ones.
    symmetries
        Members that the mean and the spread are over.
    region
        Where it was measured.
    cells
        Cells with picks that it was measured on.
    resolution
        Side of a cell, metres.
    """

    floor: float
    spread: float
    relief: float
    range: float
    factor_50: float
    factor_90: float
    symmetries: int
    region: str
    cells: int
    resolution: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for model.json and the metadata of a map."""
        return {key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in asdict(self).items()}

    @classmethod
    def of_model(cls, metadata: Mapping[str, Any], region: str) -> Calibration:
        """Take what model.json holds for a region, as `stored_uncertainty` finds it."""
        found = stored_uncertainty(metadata, region)
        return cls(**{each.name: found[each.name] for each in fields(cls)})


def stored_uncertainty(metadata: Mapping[str, Any], region: str) -> dict[str, Any]:
    """Find what model.json holds of a model's error, for a region, else the first that it holds; `region` tells which.

    Returns
    -------
    dict
        The attributes of `Calibration`, and the coverage of its intervals where it was checked.

    Raises
    ------
    ConfigError
        When the model has not been calibrated.
    """
    stored = metadata.get("uncertainty") or {}
    found = stored.get(region) or next(iter(stored.values()), None)
    if not isinstance(found, Mapping) or not {each.name for each in fields(Calibration)} <= found.keys():
        raise ConfigError(
            f"model {metadata.get('name', '')} has no calibrated uncertainty, which realisations need; measure it: "
            "deepbedmap calibrate --model MODEL --region REGION"
        )
    return dict(found)


def predict_members(
    models: Network | Sequence[Network], inputs: dict[str, np.ndarray], symmetries: int = NUMBER_OF_SYMMETRIES
) -> tuple[np.ndarray, np.ndarray]:
    """Predict windows as each model sees them turned and flipped, and turn the beds back.

    Parameters
    ----------
    models
        One model or several.
    inputs
        (n, height, width, bands) by name, with the margin of one low-resolution cell.
    symmetries
        How many of the eight symmetries of the square.

    Returns
    -------
    tuple of numpy.ndarray
        Mean and standard deviation over the members, each (n, 4(h-2), 4(w-2)), float32. Only two beds are held at a
        time, however many members there are.
    """
    if not 1 <= symmetries <= NUMBER_OF_SYMMETRIES:
        raise ConfigError(f"{symmetries} symmetries of the square; expected 1 to {NUMBER_OF_SYMMETRIES}")
    members = models if isinstance(models, Sequence) else (models,)
    mean, squares, number = np.zeros(()), np.zeros(()), 0
    for model in members:
        for symmetry in range(symmetries):
            turned = {name: transform(values, symmetry, name in VECTORS) for name, values in inputs.items()}
            bed = transform(np.asarray(model(turned)), _INVERSE[symmetry])[..., 0].astype(np.float64)
            number += 1
            change = bed - mean
            mean = mean + change / number
            squares = squares + change * (bed - mean)
    spread = np.sqrt(squares / max(number - 1, 1))
    return mean.astype(np.float32), spread.astype(np.float32)


def relief(bed: np.ndarray) -> np.ndarray:
    """Standard deviation of the bed within `RELIEF_WINDOW` cells, over its known cells; NaN where there is no bed."""
    known = np.isfinite(bed)
    if not known.any():
        return np.full(bed.shape, np.nan)
    # A fixed level: one that depends on the window would change the last digits from block to block.
    values = np.where(known, bed.astype(np.float64), 0.0)
    count = uniform_filter(known.astype(np.float64), RELIEF_WINDOW, mode="constant")
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = uniform_filter(values, RELIEF_WINDOW, mode="constant") / count
        square = uniform_filter(values**2, RELIEF_WINDOW, mode="constant") / count
        return np.where(known, np.sqrt(np.maximum(square - mean**2, 0)), np.nan)


def uncertainty(
    bed: np.ndarray, spread: np.ndarray, calibration: Calibration, remaining: np.ndarray | float = 1.0
) -> np.ndarray:
    """Standard error of a bed, metres.

    Parameters
    ----------
    bed, spread
        From `predict_members`, of a window with `REACH` cells more than wanted on each side.
    calibration
        Of the model.
    remaining
        From `honouring.remaining_share`, where picks are honoured.

    Returns
    -------
    numpy.ndarray
        Shape of the bed, float32; NaN where there is no bed.
    """
    c = calibration
    variance = c.floor**2 + (c.spread * spread.astype(np.float64)) ** 2 + (c.relief * relief(bed)) ** 2
    return np.sqrt(variance * remaining).astype(np.float32)


def realise(bed: np.ndarray, sigma: np.ndarray, grid: Grid, whole: Grid, number: int, seed: int, range_m: float) -> Any:
    """Draw a realisation: the bed plus a texture of its standard error and the error's correlation.

    Parameters
    ----------
    bed, sigma
        Mean bed and its standard error, metres, shape of `grid`.
    grid
        Cells wanted.
    whole
        Cells of the region, which the texture is tied to.
    number
        Of the realisation, from 0.
    seed
        Of all realisations.
    range_m
        Distance at which the correlation has fallen to 5 %, metres.

    Returns
    -------
    numpy.ndarray
        Shape and type of `bed`. The same cell gets the same value whatever window it is drawn in.
    """
    return (bed + sigma * texture(grid, whole, number, seed, range_m)).astype(bed.dtype)


def texture(grid: Grid, whole: Grid, number: int, seed: int, range_m: float) -> np.ndarray:
    """Gaussian texture of mean 0, variance 1 and exponential correlation, a pure function of the cell.

    White noise is numbered by squares of `TILE` cells of the region, each from a counter-based generator (Salmon et
    al. 2011), and filtered by a kernel of compact support. Filtering goes square by square too, so that the
    rounding of a value does not depend on the window.

    Returns
    -------
    numpy.ndarray
        Shape of the grid, float32.
    """
    if not np.isclose(grid.resolution, whole.resolution):
        raise GridError(f"cells of {grid.resolution:g} m in a region of {whole.resolution:g} m; expected the same")
    top = round((whole.bounds[3] - grid.bounds[3]) / grid.resolution)
    left = round((grid.bounds[0] - whole.bounds[0]) / grid.resolution)
    bottom, right = top + grid.shape[0], left + grid.shape[1]
    # A hundredth of a cell more or less makes no other kernel.
    reach = round(range_m / grid.resolution, 2)
    result = np.empty(grid.shape, np.float32)
    for row in range(top // TILE, -(-bottom // TILE)):
        for column in range(left // TILE, -(-right // TILE)):
            first, last = max(row * TILE, top), min((row + 1) * TILE, bottom)
            before, after = max(column * TILE, left), min((column + 1) * TILE, right)
            square = _textured(row, column, number, seed, reach)
            part = square[first - row * TILE : last - row * TILE, before - column * TILE : after - column * TILE]
            result[first - top : last - top, before - left : after - left] = part
    return result


@lru_cache(maxsize=64)
def _textured(row: int, column: int, number: int, seed: int, reach: float) -> np.ndarray:
    kernel = _kernel(reach)
    half = kernel.shape[0] // 2
    noise = np.block([[_noise(row + i, column + j, number, seed) for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    part = noise[TILE - half : 2 * TILE + half, TILE - half : 2 * TILE + half]
    size = next_fast_len(part.shape[0], real=True)
    product = irfft2(rfft2(part, (size, size)) * rfft2(kernel, (size, size)), (size, size))
    return product[2 * half : 2 * half + TILE, 2 * half : 2 * half + TILE].astype(np.float32)


@lru_cache(maxsize=128)
def _noise(row: int, column: int, number: int, seed: int) -> np.ndarray:
    # The first word counts the draws of a square; the others tell squares and realisations apart.
    counter = np.array([0, row + _FAR, column + _FAR, number], np.uint64)
    stream = np.random.Philox(key=np.array([seed % 2**64, 0], np.uint64), counter=counter)
    return np.random.Generator(stream).standard_normal((TILE, TILE))


@lru_cache(maxsize=8)
def _kernel(reach: float) -> np.ndarray:
    """Kernel whose autocorrelation is exponential with a range of `reach` cells, as far as its support allows."""
    half = int(np.clip(np.ceil(reach), 2, _LONGEST))
    size = 8 * half
    axis = np.minimum(np.arange(size), size - np.arange(size)).astype(np.float64)
    model = correlation(np.hypot(axis[:, np.newaxis], axis), max(reach, 0.1))
    amplitude = np.sqrt(np.maximum(rfft2(model).real, 0))
    kernel = np.roll(irfft2(amplitude, (size, size)), (half, half), (0, 1))[: 2 * half + 1, : 2 * half + 1]
    # Faded out rather than cut: an edge of the kernel would be one of the texture.
    away = np.hypot(*np.meshgrid(*2 * [np.arange(-half, half + 1) / (half + 1)]))
    kernel = kernel * np.clip(np.cos(np.pi / 2 * np.minimum(away, 1)), 0, None) ** 0.5
    return kernel / np.sqrt(np.sum(kernel**2))
