"""What a worker does: read the inputs of blocks, run the network, join and finish, write into the store."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import Region
from deepbedmap_tf.data.schema import RegionSettings
from deepbedmap_tf.errors import DataError, ModelError, NoDataError
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.tiling import PREDICT, SCALE, Block, Plan, Task, place_in

if TYPE_CHECKING:
    from deepbedmap_tf.inference.pick_index import PickIndex

PREDICTION = "prediction"
"""Array of the store that holds what the network made of every block, until neighbours are joined."""


class Predictor(Protocol):
    """Anything that turns inputs into a bed, such as `inference.export.SuperResolution`."""

    config: GeneratorConfig

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return (n, 4(h-2), 4(w-2), 1) for inputs (n, height, width, bands) by name."""


@dataclass(frozen=True)
class Job:
    """All that a worker must know, in values that travel between processes and hosts.

    Attributes
    ----------
    key
        Names the run; a worker keeps the model as long as it stays the same.
    model, data_dir, store
        Absolute paths; workers on other hosts must see the same file system.
    region
        Content of the region file.
    plan
        How the region is cut.
    options
        What the map is made with.
    layers
        Whether to write all variables of a map or the bed alone.
    threads
        Of TensorFlow in a worker; None leaves the choice to it.
    """

    key: str
    model: str
    data_dir: str
    store: str
    region: dict[str, Any]
    plan: Plan
    options: MapOptions
    layers: bool = True
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes
    ----------
    number
        Of the task.
    empty
        For every block of which an input has no value at all, what the reader said.
    skipped
        Blocks without grounded ice.
    worker
        Process that did it.
    """

    number: int
    empty: tuple[str, ...] = ()
    skipped: int = 0
    worker: int = field(default_factory=os.getpid)


@dataclass
class Kit:
    """What tasks are done with, once a process.

    Attributes
    ----------
    model, region, plan, options
        As in `Job`, opened.
    arrays
        Where results go, by name of the variable: anything that takes slices, covering `plan.area` at the output
        resolution; and `PREDICTION`, where the plan joins.
    layers
        Write all variables of a map, or the bed alone.
    """

    model: Predictor
    region: Region
    plan: Plan
    options: MapOptions
    arrays: Mapping[str, Any]
    layers: bool = False
    reading: threading.Lock = field(default_factory=threading.Lock)
    computing: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def area(self) -> Grid:
        """Output cells of the arrays."""
        return self.plan.area.refine(SCALE).with_datum(self.region.vertical_datum)

    @cached_property
    def picks(self) -> PickIndex | None:
        """Picks of the region, where it names some and the map tells of them."""
        if not (self.layers and self.region.settings.picks):
            return None
        from deepbedmap_tf.inference.pick_index import PickIndex

        return PickIndex.of_region(self.region)

    @cached_property
    def first_place(self) -> tuple[int, int]:
        """Row and column of the plan's first block."""
        return self.plan.blocks()[0].place


_kits: dict[str, Kit] = {}
_opening = threading.Lock()


def run_task(job: Job, task: Task) -> Outcome:
    """Do a task of a job; what every worker is sent."""
    return perform(kit_of(job), task)


def kit_of(job: Job) -> Kit:
    """Open what a job names; a process keeps that of the last job."""
    with _opening:
        if job.key not in _kits:
            _kits.clear()
            _kits[job.key] = _open(job)
        return _kits[job.key]


def perform(kit: Kit, task: Task) -> Outcome:
    """Do a task with what is open already.

    Files are read by one thread at a time, for HDF5 bears no more, and the network runs once at a time, for its
    memory; so with two threads a process reads the next block while the network is busy with this one.

    Raises
    ------
    DeepBedMapError
        When an input can't be read or the model doesn't fit.
    OSError
        When the store can't be written.
    MemoryError
        When the network does not fit into memory.
    """
    if task.stage == PREDICT:
        return _predict(kit, task)
    for block in task.blocks:
        if block.core is not None:
            bed = _joined(kit, block, block.core)
            if np.isfinite(bed).any():
                _finish(kit, block.core, bed)
            else:
                _finish_without_bed(kit, block.core)
    return Outcome(task.number)


def predict_inputs(model: Predictor, fields: Iterable[dict[str, Any]], region: Region) -> np.ndarray:
    """Predict the bed over windows of one shape.

    Parameters
    ----------
    model
        The network.
    fields
        Inputs of each window, as `Region.inputs` gives them.
    region
        Named in messages.

    Returns
    -------
    numpy.ndarray
        Shape (windows, rows, columns), float32, metres; NaN where the low-resolution bed is unknown.

    Raises
    ------
    DataError
        When an input has gaps and the model was trained without validity channels.
    ModelError
        When the model makes another number of cells than 4 x 4 of a low-resolution one.
    MemoryError
        When the network does not fit into memory.
    """
    windows = [batch_of_one(each) for each in fields]
    inputs = {name: np.concatenate([window[name] for window in windows]) for name in windows[0]}
    for name, values in inputs.items():
        invalid = ~np.isfinite(values)
        if invalid.any() and not model.config.normalise:
            raise DataError(
                f"input {name!r} of region {region.name} has {invalid.sum()} invalid values and this model takes none "
                "(normalise: false); give the input a fill rule in the region file, or use a model with normalise: true"
            )
    known = np.isfinite(inputs["bed_lowres"][:, 1:-1, 1:-1, 0])
    known = known.repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    bed = np.asarray(_within_memory(model, inputs))
    if bed.shape != (*known.shape, 1):
        raise ModelError(
            f"the model makes a bed of shape {bed.shape} of {known.shape[1] // SCALE} x {known.shape[2] // SCALE} "
            f"low-resolution cells, expected {(*known.shape, 1)}: {SCALE} x {SCALE} cells of each; use a model whose "
            "resolution ratio is the region's"
        )
    return np.where(known, bed[..., 0], np.float32(np.nan))


def _within_memory(model: Predictor, inputs: dict[str, np.ndarray]) -> np.ndarray:
    try:
        return model(inputs)
    except Exception as error:
        # TensorFlow has a class of its own for this, which must not be imported for a stand-in's sake.
        if type(error).__name__ == "ResourceExhaustedError":
            raise MemoryError(str(error).splitlines()[0][:160]) from error
        raise


def _open(job: Job) -> Kit:
    import zarr

    _set_threads(job.threads)
    from deepbedmap_tf.inference.export import load_model

    region = Region(RegionSettings.model_validate(job.region), Path(job.data_dir))
    arrays = zarr.open_group(job.store, mode="r+")
    opened = {name: arrays[name] for name in arrays.array_keys()}
    return Kit(load_model(job.model), region, job.plan, job.options, opened, job.layers)


def _set_threads(threads: int | None) -> None:
    if threads is None:
        return
    import tensorflow as tf

    # Refused once TensorFlow has begun to compute, as in a process that has made a map before.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _predict(kit: Kit, task: Task) -> Outcome:
    blocks, fields, empty, skipped = [], [], [], 0
    for block in task.blocks:
        with kit.reading:
            grounded = _has_grounded_ice(kit, block)
            try:
                if grounded:
                    fields.append(kit.region.inputs(block.context, kit.model.config.inputs))
                    blocks.append(block)
            except NoDataError as error:
                empty.append(str(error))
        skipped += not grounded
        if blocks[-1:] != [block] and block.core is not None and not kit.plan.joins:
            _finish_without_bed(kit, block.core)
    if fields:
        with kit.computing:
            beds = predict_inputs(kit.model, fields, kit.region)
        for block, inputs, bed in zip(blocks, fields, beds, strict=True):
            if kit.plan.joins:
                _keep(kit, block, bed)
            elif block.core is not None:
                rows, columns = place_in(block.core, block.context, kit.area.resolution)
                _finish(kit, block.core, bed[rows, columns], inputs)
    return Outcome(task.number, tuple(empty), skipped)


def _has_grounded_ice(kit: Kit, block: Block) -> bool:
    if not getattr(kit.region.settings, "mask", None):
        return True
    from deepbedmap_tf.data.cover import GROUNDED_ICE, UNKNOWN

    cover = kit.region.mask(block.whole).to_numpy()
    return bool(((cover == GROUNDED_ICE) | (cover == UNKNOWN)).any())


def _keep(kit: Kit, block: Block, bed: np.ndarray) -> None:
    """Put a prediction, to `reach` cells beyond the block, where the join finds it."""
    (rows, columns), area = _slot(kit, block)
    inside = _overlap(area, block.context)
    target, source = place_in(inside, area, kit.area.resolution), place_in(inside, block.context, kit.area.resolution)
    values = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
    values[target] = bed[source]
    kit.arrays[PREDICTION][rows, columns] = values


def _slot(kit: Kit, block: Block) -> tuple[tuple[slice, slice], Bounds]:
    """Chunk of the array of predictions that is a block's, and the edges of what it holds."""
    side = SCALE * kit.plan.size + 2 * kit.plan.reach
    row, column = (own - first for own, first in zip(block.place, kit.first_place, strict=True))
    margin = kit.plan.reach * kit.area.resolution
    left, top = block.whole[0] - margin, block.whole[3] + margin
    length = side * kit.area.resolution
    place = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
    return place, (left, top - length, left + length, top)


def _joined(kit: Kit, block: Block, bounds: Bounds) -> np.ndarray:
    """Bed in and near a block: the mean of the predictions that reach there, weighted by the blend."""
    cell = kit.area.resolution
    shape = Grid.from_bounds(bounds, cell).shape
    total, weight = np.zeros(shape), np.zeros(shape)
    rows, columns = (
        range(max(place - 1, first), place + 2) for place, first in zip(block.place, kit.first_place, strict=True)
    )
    last = kit.arrays[PREDICTION].shape
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
            values = np.asarray(kit.arrays[PREDICTION][offset], np.float64)
            share = np.where(np.isfinite(values), share, 0.0)
            total[here] += share * np.nan_to_num(values)
            weight[here] += share
    # The block itself weighs a quarter at least, so that only cells without any bed have no weight.
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, total / weight, np.nan).astype(np.float32)


def _finish(kit: Kit, core: Bounds, bed: np.ndarray, inputs: dict[str, Any] | None = None) -> None:
    """Write what is wanted of a block, whole chunks of it, to the store."""
    layers: dict[str, np.ndarray] = {"bed": bed}
    if kit.layers:
        from deepbedmap_tf.inference.layers import block_layers

        grid = Grid.from_bounds(core, kit.area.resolution, kit.area.crs, kit.area.vertical_datum)
        with kit.reading:
            layers = block_layers(kit.region, grid, bed, kit.options, kit.picks, inputs=inputs)
    place = place_in(core, kit.area.bounds, kit.area.resolution)
    for name, values in layers.items():
        # Realisations come first in what is computed and last in the store.
        kit.arrays[name][place] = values if values.ndim == 2 else np.moveaxis(values, 0, -1)


def _finish_without_bed(kit: Kit, core: Bounds) -> None:
    """Write what is known beside the bed, where nothing was predicted."""
    if kit.layers:
        # What lies beyond every file keeps the fill values.
        with suppress(NoDataError):
            _finish(kit, core, np.full(Grid.from_bounds(core, kit.area.resolution).shape, np.nan, np.float32))


def _overlap(first: Bounds, second: Bounds) -> Bounds:
    return (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
