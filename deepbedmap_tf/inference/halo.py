"""How much context a trained network needs: the change of its bed where the context ends nearby, measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import MARGIN, SCALE, Region
from deepbedmap_tf.errors import DataError, ModelError, NoDataError
from deepbedmap_tf.grid import Bounds

if TYPE_CHECKING:
    from deepbedmap_tf.inference.export import SuperResolution

_LOGGER = logging.getLogger(__name__)

TOLERANCE = 0.1
"""Largest change of the bed that counts as none, metres: far below the radar's error of some ten metres."""

CANDIDATES = (0, 2, 4, 8, 12, 16, 20, 24, 32)
REFERENCE_HALO = 40
"""Context of the bed that others are compared with, low-resolution cells."""

CORE = 40
"""Side of the part that is compared, low-resolution cells."""

WINDOWS = 2
"""Windows of a region, along each axis, that are measured on."""

_SMALLEST_CORE = 4


class Network(Protocol):
    """A network with its inputs, such as `inference.export.SuperResolution`."""

    config: GeneratorConfig

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return (n, 4(h-2), 4(w-2), 1) for inputs (n, height, width, bands) by name."""


def measure_halo(
    model: Network,
    inputs: dict[str, np.ndarray],
    tolerance: float = TOLERANCE,
    candidates: Sequence[int] = CANDIDATES,
    reference: int = REFERENCE_HALO,
) -> dict[str, Any]:
    """Find the least halo with which a block is what it is in a much larger context.

    The middle of a window is predicted once with all of the window around it, then with its context cut off, on all
    four sides, after each number of low-resolution cells. Between the last candidate that fails and the first from
    which on all hold, every whole number is tried.

    Parameters
    ----------
    model
        The network.
    inputs
        A window, (1, height, width, bands) by name, with its margin of one low-resolution cell.
    tolerance
        Largest change that counts as none, metres.
    candidates
        Halos to try, low-resolution cells, ascending.
    reference
        Context of the middle in the comparison, low-resolution cells; less where the window is small.

    Returns
    -------
    dict
        ``halo``: low-resolution cells; ``halo_tolerance``: metres; ``halo_changes``: largest change of the bed in
        metres by halo, as a list of [halo, change]; ``halo_reference``: context compared with. A halo as large as
        that means that no smaller one suffices.

    Raises
    ------
    DataError
        When the window is too small for two candidates.
    """
    size = min(values.shape[axis] // _ratio(model, name) for name, values in inputs.items() for axis in (1, 2))
    size -= 2 * MARGIN
    around = min(reference, (size - _SMALLEST_CORE) // 2)
    tried = sorted({int(each) for each in candidates if 0 <= each < around})
    if len(tried) < 2:
        raise DataError(
            f"a window of {size} x {size} low-resolution cells is too small to measure a halo; "
            f"expected at least {2 * 3 + _SMALLEST_CORE}"
        )
    whole = _middle(model, inputs, around, around)
    changes = {halo: _largest(_middle(model, inputs, around, halo) - whole) for halo in tried}
    failing = [halo for halo in tried if changes[halo] > tolerance]
    if failing:
        holding = [halo for halo in tried if halo > failing[-1]]
        for halo in range(failing[-1] + 1, holding[0] if holding else around):
            changes[halo] = _largest(_middle(model, inputs, around, halo) - whole)
    return _result(changes, tolerance, around)


def measure_region_halo(
    model: Network, region: Region, tolerance: float = TOLERANCE, windows: int = WINDOWS
) -> dict[str, Any]:
    """Measure the halo on several windows of a region and take the largest; see `measure_halo`.

    Raises
    ------
    DataError
        When the region is too small, or no window of it has all inputs.
    """
    changes: dict[int, float] = {}
    around, used = REFERENCE_HALO, []
    for bounds in _windows(region, windows):
        try:
            inputs = batch_of_one(region.inputs(bounds, model.config.inputs))
        except NoDataError:
            continue
        if not model.config.normalise and not all(np.isfinite(values).all() for values in inputs.values()):
            continue
        found = measure_halo(model, inputs, tolerance)
        around = min(around, found["halo_reference"])
        for halo, change in found["halo_changes"]:
            changes[halo] = max(change, changes.get(halo, 0.0))
        used.append(found["halo"])
    if not used:
        raise DataError(f"no window of region {region.name} has all inputs; the halo can't be measured on it")
    # A halo that only one window tried stands for that window alone: the largest of the windows' own halos counts.
    result = _result(changes, tolerance, around)
    result["halo"] = max(used)
    result["halo_region"] = region.name
    if result["halo"] >= around:
        _LOGGER.warning(
            "no halo below %d low-resolution cells holds the bed within %g m on region %s",
            around,
            tolerance,
            region.name,
        )
    return result


def store_halo(
    model: SuperResolution, region: Region, tolerance: float = TOLERANCE, windows: int = WINDOWS
) -> dict[str, Any]:
    """Measure the halo of an exported model and write it into its model.json.

    Returns
    -------
    dict
        As from `measure_halo`, with ``halo_region``, the name of the region.
    """
    found = measure_region_halo(model, region, tolerance, windows)
    by_region = {**model.metadata.get("halo_by_region", {}), region.name: found["halo"]}
    # What was measured where the model was trained stays the model's halo; other regions may need more.
    trained = {store.get("region") for store in model.metadata.get("training_data", {}).get("stores", ())}
    keeps = "halo" in model.metadata and model.metadata.get("halo_region") in trained and region.name not in trained
    entries = {"halo_by_region": by_region} if keeps else {**found, "halo_by_region": by_region}
    update_metadata(model.folder, entries)
    model.metadata.update(entries)
    return found


def halo_for(metadata: Mapping[str, Any], region: str) -> int | None:
    """Halo of a model for a region: what was measured there, else the model's own; None where none was measured."""
    found = metadata.get("halo_by_region", {}).get(region, metadata.get("halo"))
    return None if found is None else int(found)


def update_metadata(folder: Path, entries: dict[str, Any]) -> None:
    """Put entries into a model's model.json; its weights stay as they are.

    Raises
    ------
    ModelError
        When there is no readable model.json.
    """
    path = folder / "model.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path} ({error}); expected an exported model") from error
    with written_beside(path) as beside:
        beside.write_text(json.dumps({**content, **entries}, indent=1) + "\n", encoding="utf-8")


def _ratio(model: Network, name: str) -> int:
    return next(each.ratio for each in model.config.inputs if each.name == name)


def _middle(model: Network, inputs: dict[str, np.ndarray], around: int, halo: int) -> np.ndarray:
    """Bed of what lies `around` cells inside the window, predicted with a context of `halo` cells."""
    cut = around - halo
    parts = {}
    for name, values in inputs.items():
        step = cut * _ratio(model, name)
        parts[name] = values[:, step : values.shape[1] - step, step : values.shape[2] - step]
    bed = np.asarray(model(parts))[0, ..., 0].astype(np.float64)
    inner = SCALE * halo
    return bed[inner : bed.shape[0] - inner, inner : bed.shape[1] - inner]


def _largest(difference: np.ndarray) -> float:
    known = np.abs(difference[np.isfinite(difference)])
    return float(known.max()) if known.size else 0.0


def _result(changes: dict[int, float], tolerance: float, around: int) -> dict[str, Any]:
    failing = [halo for halo, change in changes.items() if change > tolerance]
    return {
        "halo": max(failing) + 1 if failing else 0,
        "halo_tolerance": tolerance,
        "halo_changes": [[halo, float(f"{changes[halo]:.3g}")] for halo in sorted(changes)],
        "halo_reference": around,
    }


def _windows(region: Region, number: int) -> list[Bounds]:
    """Squares evenly over a region, as large as the comparison wants where the region allows."""
    rows, columns = region.coarse_grid.shape
    side = min(CORE + 2 * REFERENCE_HALO, rows, columns)
    grid = region.coarse_grid
    places = {
        (round((rows - side) * (i + 0.5) / number), round((columns - side) * (j + 0.5) / number))
        for i in range(number)
        for j in range(number)
    }
    left, top, cell = grid.bounds[0], grid.bounds[3], grid.resolution
    return [
        (left + column * cell, top - (row + side) * cell, left + (column + side) * cell, top - row * cell)
        for row, column in sorted(places)
    ]
