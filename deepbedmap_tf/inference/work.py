"""The folder beside a map in which it grows: store, record and lock."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.inference.kit import PREDICTION
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.tiling import SCALE, Plan, place_in

MANIFEST = "manifest.jsonl"
LOCK = "lock"


def work_folder(out: Path) -> Path:
    """Folder in which a map grows: ``<file>.partial`` beside the first of its products."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make a folder and keep every other run out of it, by a lock that the operating system takes off a killed one.

    Raises
    ------
    DataError
        When another run holds it, or the folder can't be made.
    """
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise DataError(
                f"cannot write into {folder}: {error.strerror or error}; choose another folder for --out"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_open_file(path, descriptor):
                break
        except BlockingIOError as error:
            holder = os.pread(descriptor, 80, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise DataError(
                f"another run{f' ({holder})' if holder else ''} is making this map in {folder}; wait for it, stop it, "
                "or choose another --out"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise DataError(
                f"{folder} is on a file system without locks ({error.strerror}); choose another --out"
            ) from error
        # The run that held it before has finished and removed the folder in the meantime.
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
        yield folder
    finally:
        os.close(descriptor)


def clear(folder: Path) -> None:
    """Remove what an earlier run left, but the lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def create_store(path: Path, plan: Plan, variables: Sequence[Variable], realisations: int = 0, bands: int = 1) -> Path:
    """Make the Zarr group (format 3) that a map grows in.

    Its arrays cover `Plan.area`, which is the window wherever that begins with a block, and a chunk is a block: so
    that whichever worker finishes a block writes whole chunks that nobody else writes to.

    Parameters
    ----------
    path
        Folder to make.
    plan
        How the region is cut.
    variables
        One array each, dims (y, x) or (y, x, realization).
    realisations
        Size of the last dimension.
    bands
        Fields of a prediction that waits to be joined.

    Raises
    ------
    DataError
        When the disk refuses.
    """
    import zarr

    shape = plan.area.refine(SCALE).shape
    side = SCALE * plan.size
    with written_beside(path) as beside:
        group = zarr.create_group(store=str(beside), zarr_format=3)
        for each in variables:
            further = (realisations,) if each.per_realisation else ()
            names = ("y", "x", *(("realization",) if further else ()))
            chunk = (min(side, shape[0]), min(side, shape[1]), *((1,) if further else ()))
            _create(group, each.name, (*shape, *further), chunk, each.dtype, each.fill, names)
        if plan.joins:
            slot = side + 2 * plan.reach
            whole = (bands, *prediction_shape(plan))
            _create(group, PREDICTION, whole, (bands, slot, slot), "float32", math.nan, ("band", "row", "column"))
    return path


def prediction_shape(plan: Plan) -> tuple[int, int]:
    """Shape of the array that holds the predictions of all blocks, side by side, until they are joined."""
    slot = SCALE * plan.size + 2 * plan.reach
    places = [block.place for block in plan.blocks()]
    return (1 + places[-1][0] - places[0][0]) * slot, (1 + places[-1][1] - places[0][1]) * slot


def cut_out(store: Path, plan: Plan, variables: Sequence[Variable]) -> Path:
    """Return a store whose arrays cover the window of a plan and no more, copied chunk by chunk where need be."""
    import zarr

    area, window = plan.area.refine(SCALE), plan.window.refine(SCALE)
    if area.shape == window.shape:
        return store
    path = store.with_name("window.zarr")
    rows, columns = place_in(window.bounds, area.bounds, area.resolution)
    source = zarr.open_group(str(store), mode="r")
    remove(path)
    with written_beside(path) as beside:
        group = zarr.create_group(store=str(beside), zarr_format=3)
        for each in variables:
            array: Any = source[each.name]
            chunk = (min(array.chunks[0], window.shape[0]), min(array.chunks[1], window.shape[1]), *array.chunks[2:])
            shape = (*window.shape, *array.shape[2:])
            names = tuple(array.metadata.dimension_names)
            made = _create(group, each.name, shape, chunk, each.dtype, each.fill, names)
            for top in range(0, shape[0], chunk[0]):
                for left in range(0, shape[1], chunk[1]):
                    bottom, right = min(top + chunk[0], shape[0]), min(left + chunk[1], shape[1])
                    part = array[rows.start + top : rows.start + bottom, columns.start + left : columns.start + right]
                    made[top:bottom, left:right] = part
    return path


def _create(
    group: Any,
    name: str,
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    fill: float,
    names: tuple[str, ...],
) -> Any:
    return group.create_array(
        name, shape=shape, chunks=chunk, dtype=dtype, fill_value=fill, dimension_names=names, overwrite=True
    )


def _is_open_file(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        ours, theirs = os.fstat(descriptor), path.stat()
        return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
    return False
