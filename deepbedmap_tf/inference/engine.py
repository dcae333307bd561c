"""Make a map task by task in a work folder from which a killed run goes on."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from deepbedmap_tf import __version__
from deepbedmap_tf.data.cache import digest
from deepbedmap_tf.errors import DataError, NoDataError
from deepbedmap_tf.inference.cluster import Crew, InProcess, Pool, pool_of
from deepbedmap_tf.inference.kit import Job, Kit, Outcome, bands
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.manifest import Manifest
from deepbedmap_tf.inference.tasks import perform, run_task
from deepbedmap_tf.inference.tiling import Task
from deepbedmap_tf.inference.work import MANIFEST, clear, create_store, cut_out, locked, remove

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finished:
    """A map of which every block is done.

    Attributes
    ----------
    store
        Zarr group whose arrays cover the window.
    tasks
        Number of tasks.
    resumed
        Tasks that an earlier run had done.
    empty, skipped
        Blocks without data and without grounded ice.
    """

    store: Path
    tasks: int
    resumed: int
    empty: int
    skipped: int


@contextmanager
def finished_map(
    folder: Path,
    job: Job,
    content: dict[str, Any],
    variables: Sequence[Variable],
    crew: Callable[[int], Crew],
    *,
    restart: bool = False,
    progress: bool | None = None,
) -> Iterator[Finished]:
    """Make a map in a folder, or go on with it, and give it to be written out; the folder is removed afterwards.

    After an error, an interruption or a kill the folder stays with all that is done, unless that is nothing.

    Parameters
    ----------
    folder
        Work folder, see `work.work_folder`.
    job
        What is to be done; its store is chosen here.
    content
        What the map is made of, for the manifest: whatever would change a cell of it.
    variables
        Arrays of the store.
    crew
        Chooses who works, by the number of tasks that are left.
    restart
        Throw away what an earlier run left.
    progress
        Show a bar; by default where standard error is a terminal.

    Raises
    ------
    DataError
        When another run is at work in the folder, or an earlier one made another map there.
    NoDataError
        When no block has data.
    """
    content = {**content, "plan": job.plan.as_dict(), "software": _software()}
    with locked(folder):
        if restart:
            clear(folder)
        manifest: Manifest | None = None
        try:
            manifest, store = _begin(folder, job, content, variables)
            job = replace(job, key=digest([str(folder), manifest.content, store.name]), store=str(store))
            yield _complete(folder, job, manifest, variables, crew, progress)
        except BaseException as error:
            begun = (folder / MANIFEST).exists()
            if not begun or (manifest is not None and (not manifest.done or isinstance(error, NoDataError))):
                remove(folder)
            elif manifest is not None:
                _LOGGER.info(
                    "%d of %d steps are kept in %s; the same command goes on from there",
                    len(manifest.done), len(job.plan.tasks()), folder,
                )  # fmt: skip
            raise
        remove(folder)


def run_in_memory(kit: Kit, progress: bool | None = None) -> Outcome:
    """Do all tasks of a kit in this process, its arrays being in memory; returns the sum of what came."""
    outcomes: list[Outcome] = []
    tasks = kit.plan.tasks()
    with _bar(len(tasks), 0, progress) as advance:

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            advance()

        _run(InProcess(), partial(perform, kit), tasks, done)
    # In the order of the blocks, whichever thread was first.
    empty = [message for outcome in sorted(outcomes, key=lambda each: each.number) for message in outcome.empty]
    skipped = sum(outcome.skipped for outcome in outcomes)
    _report(empty, skipped, len(kit.plan.blocks()))
    return Outcome(len(tasks), tuple(empty), skipped)


def _begin(folder: Path, job: Job, content: dict[str, Any], variables: Sequence[Variable]) -> tuple[Manifest, Path]:
    path = folder / MANIFEST
    # Named after what is in it: a straggler of an earlier run on another host writes into its own.
    store = folder / f"map-{digest(content)[:12]}.zarr"
    if path.exists():
        manifest = Manifest.read(path)
        different = manifest.differences(content)
        if different:
            raise DataError(
                f"{folder} holds part of another map: {'; '.join(different[:6])}"
                f"{' ...' if len(different) > 6 else ''}; repeat the command that began it, or start "
                "anew with --restart"
            )
        if not store.exists():
            raise DataError(f"{store} has gone from beside its record; start anew with --restart")
        return manifest, store
    clear(folder)
    create_store(store, job.plan, variables, job.options.realisations, bands(job.options))
    return Manifest.begin(path, content), store


def _complete(
    folder: Path,
    job: Job,
    manifest: Manifest,
    variables: Sequence[Variable],
    crew: Callable[[int], Crew],
    progress: bool | None,
) -> Finished:
    tasks = job.plan.tasks()
    resumed = len(manifest.done)
    left = [task for task in tasks if task.number not in manifest.done]
    if resumed:
        _LOGGER.info("going on in %s: %d of %d steps are done", folder, resumed, len(tasks))
    if left:
        chosen = crew(len(left))
        blocks = len(job.plan.blocks())
        _LOGGER.info(
            "%d block%s of %d x %d low-resolution cells with a halo of %d: %s",
            blocks, "s"[: blocks > 1], job.plan.size, job.plan.size, job.plan.halo, chosen,
        )  # fmt: skip
        job = replace(job, threads=chosen.threads)
        with pool_of(chosen) as pool, _bar(len(tasks), resumed, progress) as advance:

            def done(outcome: Outcome) -> None:
                manifest.record(outcome.number, outcome.empty, outcome.skipped)
                advance()

            _run(pool, partial(run_task, job), left, done)
    _report(manifest.empty, manifest.skipped, len(job.plan.blocks()))
    store = cut_out(Path(job.store), job.plan, variables)
    return Finished(store, len(tasks), resumed, len(manifest.empty), manifest.skipped)


def _run(pool: Pool, work: Callable[[Task], Outcome], tasks: Sequence[Task], done: Callable[[Outcome], Any]) -> None:
    for _, stage in groupby(tasks, key=lambda task: task.stage):
        pool.run(work, stage, done)


def _report(empty: Sequence[str], skipped: int, blocks: int) -> None:
    if len(empty) == blocks:
        raise NoDataError(empty[0])
    if empty:
        _LOGGER.warning("%d of %d blocks have no data and stay NaN; the first: %s", len(empty), blocks, empty[0])
    if skipped:
        _LOGGER.info("%d of %d blocks without grounded ice were skipped", skipped, blocks)


@contextmanager
def _bar(total: int, initial: int, progress: bool | None) -> Iterator[Callable[[], None]]:
    from tqdm import tqdm

    disable = None if progress is None else not progress
    with tqdm(total=total, initial=initial, desc="predicting", unit="block", disable=disable) as bar:

        def advance() -> None:
            bar.update()

        yield advance


def _software() -> dict[str, str]:
    """Versions that a cell of the map may depend on."""
    from importlib.metadata import version

    names = ("tensorflow", "numpy", "scipy")
    return {"deepbedmap_tf": __version__, "machine": platform.machine(), **{name: version(name) for name in names}}
