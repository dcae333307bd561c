"""Where the tasks of a map run: in this process, in a cluster of this machine, or in one that is there already."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.inference.kit import Outcome
from deepbedmap_tf.inference.tiling import BLOCK, SCALE, Task, default_block

if TYPE_CHECKING:
    from distributed import Client

_LOGGER = logging.getLogger(__name__)

FEW = 4
"""Tasks up to which a cluster takes longer to start than it saves."""

AT_ONCE = 2
"""Tasks of a process at once: one is read or written while the network works on the other."""

_PROCESS = 1.0e9
_PIXEL, _PIXEL_FILTER = 1300.0, 50.0
# Seconds until an address is taken for one where no scheduler is, and a scheduler for one without workers.
_PATIENCE = 15
# A worker that the terminal's Ctrl-C reaches as well would end before it is told to.
_DEAF_TO_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"

Work = Callable[[Task], Outcome]


@dataclass(frozen=True)
class Resources:
    """What the user allows.

    Attributes
    ----------
    workers
        Processes; 0 for this one alone, None for what suits the machine and the map.
    scheduler
        Address of a dask scheduler to use instead, ``tcp://HOST:PORT``.
    memory_limit
        Memory of all processes together, GB (1e9 bytes).

    Raises
    ------
    ConfigError
        For a number that means nothing.
    """

    workers: int | None = None
    scheduler: str | None = None
    memory_limit: float | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"--workers {self.workers}; expected 0, for this process alone, or more")
        if self.scheduler is not None and self.workers is not None:
            raise ConfigError("--workers and --scheduler exclude each other: a scheduler has workers of its own")
        if self.memory_limit is not None and not self.memory_limit > 0:
            raise ConfigError(f"--memory-limit {self.memory_limit:g}; expected a number of GB above 0")


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes
    ----------
    processes
        Workers of a local cluster; 0 for this process.
    threads
        Of TensorFlow in each; None leaves it to TensorFlow, which takes all cores.
    scheduler, memory_limit
        As in `Resources`.
    """

    processes: int
    threads: int | None
    scheduler: str | None = None
    memory_limit: float | None = None

    def __str__(self) -> str:
        if self.scheduler is not None:
            return f"workers of the scheduler at {self.scheduler}"
        if not self.processes:
            return "this process, TensorFlow with all cores"
        threads = f"{self.threads} TensorFlow thread{'' if self.threads == 1 else 's'}"
        plural = "" if self.processes == 1 else "s"
        return f"local cluster of {self.processes} worker{plural}, {threads} each"


class Pool(Protocol):
    """Runs tasks."""

    def run(self, work: Work, tasks: Iterable[Task], done: Callable[[Outcome], None]) -> None:
        """Do all tasks in any order and say so of each; the first that fails ends it with its error."""


def memory_need(config: GeneratorConfig, block: int, halo: int, batch: int = 1) -> float:
    """Memory that a process takes for blocks of this size, bytes: an estimate on the safe side.

    Fitted to the peaks of the network with 4 to 64 filters; most of it is the maps of the last layers at the output's
    resolution.
    """
    cells = batch * (SCALE * (block + 2 * halo)) ** 2
    return _PROCESS + (_PIXEL + _PIXEL_FILTER * config.filters) * cells


def fitting_block(
    config: GeneratorConfig, halo: int, memory_limit: float | None, processes: int, batch: int = 1
) -> int:
    """Side of a block, low-resolution cells: `tiling.default_block`, or less where that takes too much memory.

    Raises
    ------
    ConfigError
        When not even the smallest useful block fits.
    """
    wanted = default_block(halo)
    if memory_limit is None:
        return wanted
    share = memory_limit * 1e9 / max(1, processes)
    smallest = max(1, min(halo, BLOCK))
    for block in range(wanted, smallest - 1, -1):
        if memory_need(config, block, halo, batch) <= share:
            return block
    least = max(1, processes) * memory_need(config, smallest, halo, batch) / 1e9
    raise ConfigError(
        f"--memory-limit {memory_limit:g} GB is too little for {max(1, processes)} process(es) with a halo of {halo} "
        f"cells; expected at least {least:.1f}, fewer --workers or a smaller --halo"
    )


def choose(resources: Resources, tasks: int, need: float) -> Crew:
    """Choose processes and threads.

    Parameters
    ----------
    resources
        What the user allows.
    tasks
        How many there are to do.
    need
        Memory of one process, bytes.
    """
    limit, cores = resources.memory_limit, _cores()
    if resources.scheduler is not None:
        return Crew(0, None, resources.scheduler, limit)
    if resources.workers == 0 or (resources.workers is None and (tasks <= FEW or cores == 1)):
        return Crew(0, None, None, limit)
    workers = resources.workers
    if workers is None:
        from distributed.system import MEMORY_LIMIT

        memory = 0.8 * MEMORY_LIMIT if limit is None else limit * 1e9
        workers = max(1, min(cores, tasks, int(memory // need)))
    return Crew(workers, max(1, cores // workers), None, limit)


@contextmanager
def pool_of(crew: Crew) -> Iterator[Pool]:
    """Start workers, or find those that are there.

    Raises
    ------
    DataError
        When a scheduler can't be reached or has no workers.
    """
    if crew.scheduler is None and not crew.processes:
        yield InProcess()
        return
    with _client(crew) as client:
        yield Distributed(client, crew)


class InProcess:
    """Threads of this process."""

    def run(self, work: Work, tasks: Iterable[Task], done: Callable[[Outcome], None]) -> None:
        """As in `Pool`; after Ctrl-C what is in hand is finished."""
        with futures.ThreadPoolExecutor(AT_ONCE) as executor:
            pending: set[futures.Future[Outcome]] = set()
            try:
                rest = iter(tasks)
                while pending := pending | {
                    executor.submit(work, each) for each in islice(rest, AT_ONCE - len(pending))
                }:
                    finished, pending = futures.wait(pending, return_when=futures.FIRST_COMPLETED)
                    for future in finished:
                        done(future.result())
            except KeyboardInterrupt:
                _LOGGER.info("interrupted: finishing the blocks in hand")
                started = [future for future in pending if not future.cancel()]
                for future in futures.as_completed(started):
                    if future.exception() is None:
                        done(future.result())
                raise


class Distributed:
    """Workers of a dask scheduler."""

    def __init__(self, client: Client, crew: Crew) -> None:
        self._client = client
        self._crew = crew
        self._seen: set[str] = set()

    def run(self, work: Work, tasks: Iterable[Task], done: Callable[[Outcome], None]) -> None:
        """As in `Pool`; a worker that dies is replaced by its cluster, and its tasks are done again."""
        from distributed import wait
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        pending: dict[Any, Task] = {}
        rest = iter(tasks)
        try:
            while True:
                for task in islice(rest, max(0, self._room() - len(pending))):
                    # Not named after its content: a task that an earlier run did is no reason to leave it out.
                    pending[self._client.submit(work, task, pure=False, retries=0)] = task
                if not pending:
                    return
                for future in wait(list(pending), return_when="FIRST_COMPLETED").done:
                    del pending[future]
                    done(future.result())
        except KilledWorker as error:
            raise DataError(
                "workers died again and again on the same block, for lack of memory most likely; "
                "choose fewer --workers, a smaller --block or a higher --memory-limit"
            ) from error
        except (futures.CancelledError, CommClosedError, TimeoutError) as error:
            raise DataError(
                f"the scheduler{f' at {self._crew.scheduler}' if self._crew.scheduler else ''} was lost in the middle"
            ) from error
        finally:
            if pending and self._client.status == "running":
                self._client.cancel(list(pending), force=True)

    def _room(self) -> int:
        """Tasks that may be under way; says when workers have been lost or won."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        lost = self._seen - set(workers)
        if lost:
            _LOGGER.warning("%d worker%s lost; what was under way there is done again", len(lost), "s"[: len(lost) > 1])
        self._seen = set(workers)
        return max(2 * AT_ONCE, 2 * sum(each["nthreads"] for each in workers.values()))


def _cores() -> int:
    # A container or a batch system may give a process fewer than the machine has.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


@contextmanager
def _client(crew: Crew) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    for name in [each for each in logging.Logger.manager.loggerDict if each.split(".")[0] == "distributed"]:
        # Its modules have levels of their own; what goes wrong is told in a line of ours.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {
        "distributed.worker.preload": [_DEAF_TO_INTERRUPTS],
        # Results are numbers and messages: a worker near its limit should work on, not wait for memory to come free.
        **{f"distributed.worker.memory.{step}": False for step in ("target", "spill", "pause")},
        # On a machine that is busy otherwise a worker may not answer for minutes; one that died is noticed at once.
        "distributed.comm.timeouts.connect": "120s",
        "distributed.comm.timeouts.tcp": "600s",
        "distributed.scheduler.worker-ttl": "1 hour",
    }
    with dask.config.set(settings):
        if crew.scheduler is not None:
            try:
                client = Client(crew.scheduler, timeout=_PATIENCE)
                client.wait_for_workers(1, timeout=_PATIENCE)
            except (OSError, TimeoutError, ValueError) as error:
                raise DataError(
                    f"no scheduler with workers can be reached at {crew.scheduler} within {_PATIENCE} s; start one "
                    "with dask scheduler and dask worker, or leave out --scheduler"
                ) from error
            with client:
                yield client
            return
        memory: str | float = "auto" if crew.memory_limit is None else crew.memory_limit * 1e9 / crew.processes
        with ExitStack() as stack:
            try:
                cluster = LocalCluster(
                    n_workers=crew.processes,
                    threads_per_worker=AT_ONCE,
                    memory_limit=memory,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
                client = stack.enter_context(Client(stack.enter_context(cluster)))
            except (RuntimeError, OSError, TimeoutError) as error:
                raise DataError(
                    f"{crew.processes} workers could not be started ({error}); make the map in this process with "
                    "--workers 0"
                ) from error
            yield client
