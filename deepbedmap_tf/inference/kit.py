"""What workers are told and what they work with."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.region import Region
from deepbedmap_tf.data.schema import RegionSettings
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.inference.honouring import reach_cells
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.pick_index import PickIndex, mapped_picks
from deepbedmap_tf.inference.realisations import REACH, Calibration
from deepbedmap_tf.inference.tiling import SCALE, Plan

PREDICTION = "prediction"
"""Array of the store that holds what the network made of every block, until neighbours are joined."""

_RASTER_CACHE = "64"


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
        return PickIndex.of_region(self.region) if self.layers and mapped_picks(self.region) else None

    @cached_property
    def calibration(self) -> Calibration | None:
        """What the model's error is like, where realisations are wanted."""
        if not self.options.realisations:
            return None
        return Calibration.of_model(getattr(self.model, "metadata", {}), self.region.name)

    @property
    def symmetries(self) -> int:
        """Members that a prediction is the mean of; 0 for the network as it is."""
        return 0 if self.calibration is None else self.calibration.symmetries

    def grid(self, bounds: Bounds) -> Grid:
        """Output cells within bounds."""
        return Grid.from_bounds(bounds, self.area.resolution, self.area.crs, self.area.vertical_datum)

    @cached_property
    def first_place(self) -> tuple[int, int]:
        """Row and column of the plan's first block."""
        return self.plan.blocks()[0].place


def bands(options: MapOptions) -> int:
    """Fields that a prediction has: the bed and, for realisations, its spread over the members."""
    return 2 if options.realisations else 1


def margin(options: MapOptions, resolution: float) -> int:
    """Low-resolution cells around a block whose joined bed decides about it, beyond what halos agree on."""
    if options.honour_picks is None:
        return 0
    cells = reach_cells(options.honour_picks, resolution) + (REACH if options.realisations else 0)
    return -(-cells // SCALE)


def open_kit(job: Job) -> Kit:
    """Open what a job names."""
    import zarr

    # GDAL keeps what it has read, by default up to a twentieth of the machine's memory, whatever a map may take.
    os.environ.setdefault("GDAL_CACHEMAX", _RASTER_CACHE)
    set_threads(job.threads)
    from deepbedmap_tf.inference.export import load_model

    region = Region(RegionSettings.model_validate(job.region), Path(job.data_dir))
    arrays = zarr.open_group(job.store, mode="r+")
    opened = {name: arrays[name] for name in arrays.array_keys()}
    return Kit(load_model(job.model), region, job.plan, job.options, opened, job.layers)


def set_threads(threads: int | None) -> None:
    """Give TensorFlow so many threads in this process, before it computes anything; None for as many as it likes."""
    if threads is None:
        return
    import tensorflow as tf

    # Refused once TensorFlow has begun to compute, as in a process that has made a map before.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
