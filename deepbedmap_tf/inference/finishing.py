"""From predictions to a map: neighbours joined, picks honoured, every variable of a block written once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr

from deepbedmap_tf.data.cover import GROUNDED_ICE
from deepbedmap_tf.errors import NoDataError
from deepbedmap_tf.grid import Bounds
from deepbedmap_tf.inference.honouring import honour, remaining_share
from deepbedmap_tf.inference.kit import PREDICTION, Kit, bands
from deepbedmap_tf.inference.layers import block_layers
from deepbedmap_tf.inference.map_inputs import map_inputs
from deepbedmap_tf.inference.realisations import realise, uncertainty
from deepbedmap_tf.inference.tiling import SCALE, Block, place_in


def keep(kit: Kit, block: Block, predicted: np.ndarray) -> None:
    """Put a prediction, to `reach` cells beyond the block, where the join finds it."""
    (rows, columns), area = _slot(kit, block)
    inside = _overlap(area, block.context)
    target, source = place_in(inside, area, kit.area.resolution), place_in(inside, block.context, kit.area.resolution)
    shape = (len(predicted), rows.stop - rows.start, columns.stop - columns.start)
    values = np.full(shape, np.nan, np.float32)
    values[:, *target] = predicted[:, *source]
    kit.arrays[PREDICTION][:, rows, columns] = values


def _slot(kit: Kit, block: Block) -> tuple[tuple[slice, slice], Bounds]:
    """Chunk of the array of predictions that is a block's, and the edges of what it holds."""
    side = SCALE * kit.plan.size + 2 * kit.plan.reach
    row, column = (own - first for own, first in zip(block.place, kit.first_place, strict=True))
    margin = kit.plan.reach * kit.area.resolution
    left, top = block.whole[0] - margin, block.whole[3] + margin
    length = side * kit.area.resolution
    place = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
    return place, (left, top - length, left + length, top)


def joined(kit: Kit, block: Block, bounds: Bounds) -> np.ndarray:
    """Prediction in and near a block: the mean of those that reach there, weighted by the blend."""
    cell = kit.area.resolution
    shape = (bands(kit.options), *kit.grid(bounds).shape)
    total, weight = np.zeros(shape), np.zeros(shape)
    rows, columns = (
        range(max(place - 1, first), place + 2) for place, first in zip(block.place, kit.first_place, strict=True)
    )
    last = kit.arrays[PREDICTION].shape[1:]
    for row in rows:
        for column in columns:
            neighbour = kit.plan.block((row, column))
            chunk, area = _slot(kit, neighbour)
            if chunk[0].start >= last[0] or chunk[1].start >= last[1]:
                continue
            part = _overlap(area, bounds)
            if part[0] >= part[2] or part[1] >= part[3]:
                continue
            here, there = place_in(part, bounds, cell), place_in(part, area, cell)
            down, along = kit.plan.weights(neighbour)
            share = np.outer(*(values[place] for values, place in zip((down, along), there, strict=True)))
            offset = tuple(slice(o.start + t.start, o.start + t.stop) for o, t in zip(chunk, there, strict=True))
            values = np.asarray(kit.arrays[PREDICTION][:, *offset], np.float64)
            share = np.where(np.isfinite(values), share, 0.0)
            total[:, *here] += share * np.nan_to_num(values)
            weight[:, *here] += share
    # The block itself weighs a quarter at least, so that only cells without any bed have no weight.
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, total / weight, np.nan).astype(np.float32)


def finish(
    kit: Kit, core: Bounds, window: Bounds, predicted: np.ndarray, inputs: Mapping[str, xr.DataArray] | None = None
) -> None:
    """Write what is wanted of a block, whole chunks of it, to the store.

    Parameters
    ----------
    kit
        What is open.
    core
        Edges of what is wanted.
    window
        Edges of what was predicted, which hold the core.
    predicted
        Bed and, for realisations, spread: (bands, rows, columns) of the window.
    inputs
        Inputs of a window that holds the core, where they have been read already.
    """
    cut = place_in(core, window, kit.area.resolution)
    if not kit.layers:
        _write(kit, core, {"bed": predicted[0][cut]})
        return
    bed, further = predicted[0], {}
    if kit.options.consistent:
        bed = _consistent(kit, window, bed, inputs)
    remaining: np.ndarray | float = 1.0
    reach = kit.options.honour_picks
    if reach is not None and kit.picks is not None:
        allowed = None
        if kit.region.settings.mask:
            with kit.reading:
                allowed = kit.region.mask(window).to_numpy() == GROUNDED_ICE
        grid, picks = kit.grid(window), kit.picks.near(window)
        if kit.calibration is not None:
            remaining = remaining_share(bed, grid, picks, reach, allowed)
        bed, honoured = honour(bed, grid, picks, reach, allowed)
        further["honoured"] = honoured[cut]
    if kit.calibration is not None:
        sigma = uncertainty(bed, predicted[1], kit.calibration, remaining)[cut]
        place, spread = kit.grid(core), kit.calibration.range
        draws = [
            realise(bed[cut], sigma, place, kit.region.grid, number, kit.options.seed, spread)
            for number in range(kit.options.realisations)
        ]
        further |= {"realisations": np.stack(draws), "uncertainty": sigma}
    with kit.reading:
        inputs = _with_heights(kit, core, inputs)
        layers = block_layers(kit.region, kit.grid(core), bed[cut], kit.options, kit.picks, inputs=inputs, **further)
    _write(kit, core, layers)


def finish_without_bed(kit: Kit, core: Bounds) -> None:
    """Write what is known beside the bed, where nothing was predicted."""
    if kit.layers:
        # What lies beyond every file keeps the fill values.
        with suppress(NoDataError):
            finish(kit, core, core, np.full((bands(kit.options), *kit.grid(core).shape), np.nan, np.float32))


def _with_heights(kit: Kit, core: Bounds, inputs: Mapping[str, xr.DataArray] | None) -> dict[str, xr.DataArray]:
    """Inputs of a window that holds the core, with those that the network does without and the map shows."""
    made = dict(kit.region.inputs(core, kit.model.config.inputs) if inputs is None else inputs)
    missing = [each for each in map_inputs(kit.model.config) if each.name not in made]
    return made | kit.region.inputs(core, missing)


def _consistent(kit: Kit, window: Bounds, bed: np.ndarray, inputs: Mapping[str, xr.DataArray] | None) -> np.ndarray:
    from deepbedmap_tf.models.consistency import make_consistent

    # The inputs that were read belong to the whole context, which is the window where nothing was joined.
    if inputs is None:
        names = [each for each in kit.model.config.inputs if each.name == "bed_lowres"]
        with kit.reading:
            inputs = kit.region.inputs(window, names)
    return make_consistent(bed, inputs["bed_lowres"].to_numpy())


def _write(kit: Kit, core: Bounds, layers: Mapping[str, Any]) -> None:
    place = place_in(core, kit.area.bounds, kit.area.resolution)
    for name, values in layers.items():
        # Realisations come first in what is computed and last in the store.
        kit.arrays[name][place] = values if values.ndim == 2 else np.moveaxis(values, 0, -1)


def _overlap(first: Bounds, second: Bounds) -> Bounds:
    return (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
