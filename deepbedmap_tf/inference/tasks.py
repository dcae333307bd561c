"""What a worker does with a task: read the inputs of blocks, run the network, join and finish."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import Region
from deepbedmap_tf.errors import DataError, ModelError, NoDataError
from deepbedmap_tf.grid import Bounds
from deepbedmap_tf.inference.finishing import finish, finish_without_bed, joined, keep
from deepbedmap_tf.inference.kit import Job, Kit, Outcome, Predictor, open_kit
from deepbedmap_tf.inference.realisations import predict_members
from deepbedmap_tf.inference.tiling import PREDICT, SCALE, Block, Task

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
            _kits[job.key] = open_kit(job)
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
            window = _around(kit, block.core)
            predicted = joined(kit, block, window)
            if np.isfinite(predicted[0]).any():
                finish(kit, block.core, window, predicted)
            else:
                finish_without_bed(kit, block.core)
    return Outcome(task.number)


def predict_inputs(
    model: Predictor, fields: Iterable[dict[str, Any]], region: Region, symmetries: int = 0
) -> np.ndarray:
    """Predict the bed over windows of one shape.

    Parameters
    ----------
    model
        The network.
    fields
        Inputs of each window, as `Region.inputs` gives them.
    region
        Named in messages.
    symmetries
        Predict the mean over so many symmetries of the square; 0 for the network as it is.

    Returns
    -------
    numpy.ndarray
        Shape (windows, bands, rows, columns), float32, metres; NaN where the low-resolution bed is unknown. The bands
        are the bed and, with symmetries, its standard deviation over them.

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
    fields_made = _within_memory(model, inputs, symmetries)
    if fields_made[0].shape != known.shape:
        (_, rows, columns), made = known.shape, fields_made[0].shape[1:]
        raise ModelError(
            f"the model makes {made} cells of {rows // SCALE} x {columns // SCALE} low-resolution ones, expected "
            f"{(rows, columns)}: {SCALE} x {SCALE} of each; use a model whose resolution ratio is the region's"
        )
    return np.stack([np.where(known, each, np.float32(np.nan)) for each in fields_made], axis=1)


def _within_memory(model: Predictor, inputs: dict[str, np.ndarray], symmetries: int) -> tuple[np.ndarray, ...]:
    try:
        if symmetries:
            return predict_members(model, inputs, symmetries)
        return (np.asarray(model(inputs))[..., 0],)
    except Exception as error:
        # TensorFlow has a class of its own for this, which must not be imported for a stand-in's sake.
        if type(error).__name__ == "ResourceExhaustedError":
            raise MemoryError(str(error).splitlines()[0][:160]) from error
        raise


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
            finish_without_bed(kit, block.core)
    if fields:
        with kit.computing:
            made = predict_inputs(kit.model, fields, kit.region, kit.symmetries)
        for block, inputs, predicted in zip(blocks, fields, made, strict=True):
            if kit.plan.joins:
                keep(kit, block, predicted)
            elif block.core is not None:
                finish(kit, block.core, block.context, predicted, inputs)
    return Outcome(task.number, tuple(empty), skipped)


def _has_grounded_ice(kit: Kit, block: Block) -> bool:
    if not getattr(kit.region.settings, "mask", None):
        return True
    from deepbedmap_tf.data.cover import GROUNDED_ICE, UNKNOWN

    cover = kit.region.mask(block.whole).to_numpy()
    return bool(((cover == GROUNDED_ICE) | (cover == UNKNOWN)).any())


def _around(kit: Kit, core: Bounds) -> Bounds:
    """Edges of what finishing a core looks at."""
    margin = kit.plan.margin * SCALE * kit.area.resolution
    xmin, ymin, xmax, ymax = kit.plan.region.bounds
    left, bottom, right, top = core
    return (max(left - margin, xmin), max(bottom - margin, ymin), min(right + margin, xmax), min(top + margin, ymax))
