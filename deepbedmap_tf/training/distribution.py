"""One, several or many processes that train as one: who they are, what each computes and what they add up."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from deepbedmap_tf.errors import ConfigError, TrainingError

LOGGER = logging.getLogger(__name__)

STRATEGIES = ("one", "mirrored", "multiworker")

COUNTED = "counted"
"""Name of the input that says whether a replica's validation batch counts (1) or fills a gap (0)."""

CLEAN_UP_SECONDS = 20
"""Time that TensorFlow gets to end its network after a worker was lost; then the system ends the process."""

_ALONE = contextvars.ContextVar("alone", default=False)


@dataclass(frozen=True)
class Distribution:
    """The replicas that share every batch.

    Attributes
    ----------
    strategy
        TensorFlow's own; its default one for a single replica.
    workers
        Addresses of the processes, in their order; empty for a single process.
    index
        Which of them this process is. The first is the chief: it writes checkpoints, logs and the model.
    """

    strategy: tf.distribute.Strategy
    workers: tuple[str, ...] = ()
    index: int = 0

    @property
    def replicas(self) -> int:
        """Number of devices that compute, in all processes."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def chief(self) -> bool:
        """Whether this process writes."""
        return self.index == 0

    @property
    def processes(self) -> int:
        """Number of processes."""
        return max(1, len(self.workers))

    def training(self, batches: tf.data.Dataset, batch_size: int) -> Any:
        """Give each replica its slice of every global batch.

        Parameters
        ----------
        batches
            The same stream of global batches in every process.
        batch_size
            Tiles in a global batch.

        Raises
        ------
        ConfigError
            When the replicas can't share a batch evenly.
        """
        if self.replicas == 1:
            return batches
        size, remainder = divmod(batch_size, self.replicas)
        if remainder or not size:
            raise ConfigError(
                f"training.batch_size is {batch_size}, which {self.replicas} replicas can't share evenly; set it to a "
                "multiple of their number (it counts the tiles of all replicas together)"
            )
        here = self.replicas // self.processes
        first = self.index * here * size

        def own(*batch: Any) -> Any:
            # One more axis, for the replicas of this process, which take one element after the other.
            return tf.nest.map_structure(
                lambda values: tf.reshape(values[first : first + here * size], (here, size, *values.shape[1:])), batch
            )

        return self._of_each_process(batches.map(own).unbatch().prefetch(2 * here))

    def validation(self, batches: tf.data.Dataset) -> tuple[Any, int | None]:
        """Give each replica whole batches of its own, so that a batch's means are those of a single process.

        Returns
        -------
        tuple
            The batches, with the input `COUNTED` where several replicas share them, and the steps to take.
        """
        if self.replicas == 1:
            return batches, None
        number = int(batches.cardinality())
        steps = -(-number // self.replicas)

        def flagged(counts: float) -> Callable[..., Any]:
            return lambda inputs, *measured: ({**inputs, COUNTED: tf.constant(counts)}, *measured)

        filler = batches.take(1).repeat(steps * self.replicas - number).map(flagged(0.0))
        here = self.replicas // self.processes
        own = batches.map(flagged(1.0)).concatenate(filler).enumerate()
        own = own.filter(lambda place, _: tf.equal(place % self.replicas // here, self.index))
        return self._of_each_process(own.map(lambda _, batch: batch)), steps

    def _of_each_process(self, batches: tf.data.Dataset) -> Any:
        # Sliced already: sharding it once more would lose tiles.
        return self.strategy.distribute_datasets_from_function(lambda _: batches)

    def total(self, value: float) -> float:
        """Return the sum of one number a process; all processes must ask for it."""
        if self.processes == 1:
            return value
        # Every replica of a process adds its number.
        return float(self._summed(tf.constant(value, tf.float64))) * self.processes / self.replicas

    @functools.cached_property
    def _summed(self) -> Any:
        @tf.function
        def summed(value: tf.Tensor) -> tf.Tensor:
            ours = self.strategy.run(tf.identity, args=(value,))
            return self.strategy.reduce(tf.distribute.ReduceOp.SUM, ours, axis=None)

        return summed

    def require_agreement(self, fingerprint: str, what: str) -> None:
        """Refuse processes that don't train the same thing.

        Parameters
        ----------
        fingerprint
            Hexadecimal digest of what has to be the same in all of them.
        what
            That, in words.

        Raises
        ------
        TrainingError
            In every process, if the digests differ.
        """
        # 16 bits a number: squares of them are summed exactly.
        for start in range(0, min(32, len(fingerprint)), 4):
            number = int(fingerprint[start : start + 4], 16)
            mean, square = self.total(number) / self.processes, self.total(number**2) / self.processes
            if mean != number or square != number**2:
                raise TrainingError(
                    f"the {self.processes} workers differ in {what}; start all of them with the same command, the same "
                    "data and a shared --out"
                )

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Let the chief do something alone, such as filling a shared cache, before the others do it as well."""
        if not self.chief:
            self.total(0)
        yield
        if self.chief:
            self.total(0)

    @contextlib.contextmanager
    def watched(self, folder: Path) -> Iterator[None]:
        """Turn what TensorFlow raises when another worker is gone into one line.

        Parameters
        ----------
        folder
            Where checkpoints lie.

        Raises
        ------
        TrainingError
            Naming the checkpoint to go on from.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.processes == 1 or not isinstance(error, LOST):
                raise
            # The end of the process must not wait for answers that never come.
            atexit.register(signal.alarm, CLEAN_UP_SECONDS)
            task = re.search(r"/task:(\d+)", str(error))
            gone = f"worker {task[1]} ({self.workers[int(task[1])]})" if task else "another worker"
            raise TrainingError(
                f"{gone} of {self.processes} is gone or can't be reached; the last good checkpoint is "
                f"{tf.train.latest_checkpoint(str(folder)) or 'none yet'}. Start all workers again with the same "
                "command and --resume"
            ) from error


LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)
"""What a collective operation ends with when a peer dies, depending on where it stood."""


def distribute(name: str) -> Distribution:
    """Set up one of `STRATEGIES`; several workers wait here for each other.

    To be called before TensorFlow computes anything, as its network is set up with its devices.

    Raises
    ------
    ConfigError
        For another name, or when ``TF_CONFIG`` doesn't say who the workers are.
    """
    if name == "one":
        return Distribution(tf.distribute.get_strategy())
    if name == "mirrored":
        mirrored = tf.distribute.MirroredStrategy()
        LOGGER.info("mirrored: %d device(s) of this machine", mirrored.num_replicas_in_sync)
        return Distribution(mirrored)
    if name != "multiworker":
        raise ConfigError(f"strategy {name!r} is unknown; expected one of {', '.join(STRATEGIES)}")
    workers, index = read_cluster(os.environ.get("TF_CONFIG"))
    LOGGER.info("worker %d of %d at %s", index, len(workers), workers[index])
    return Distribution(tf.distribute.MultiWorkerMirroredStrategy(), workers, index)


def read_cluster(content: str | None) -> tuple[tuple[str, ...], int]:
    """Read ``TF_CONFIG``.

    Returns
    -------
    tuple
        Addresses of all workers, the chief first, and the place of this process among them.

    Raises
    ------
    ConfigError
        When it is missing or doesn't describe workers and this process as one of them.
    """
    wanted = 'expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    if not content:
        raise ConfigError(f"--strategy multiworker needs the environment variable TF_CONFIG; {wanted}")
    try:
        parsed = json.loads(content)
        cluster, task = parsed["cluster"], parsed["task"]
        jobs = {job: tuple(cluster.get(job, ())) for job in ("chief", "worker")}
        kind, index = str(task["type"]), int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"TF_CONFIG can't be read ({type(error).__name__}: {error}); {wanted}") from error
    workers = jobs["chief"] + jobs["worker"]
    if len(set(workers)) < len(workers) or not all(re.fullmatch(r".+:\d+", str(each)) for each in workers):
        raise ConfigError(f"TF_CONFIG names the workers {', '.join(map(str, workers))}; expected distinct host:port")
    if kind not in jobs or not 0 <= index < len(jobs[kind]):
        raise ConfigError(f"TF_CONFIG says that this is {kind} {index}, which its cluster doesn't list; {wanted}")
    return workers, index if kind == "chief" else index + len(jobs["chief"])


@contextlib.contextmanager
def each_replica_alone() -> Iterator[None]:
    """Make the functions below work on the replica's own batch, as if there were no others."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def replicas() -> int:
    """Return how many replicas share the batch that is being computed."""
    if _ALONE.get() or not tf.distribute.has_strategy() or tf.distribute.get_replica_context() is None:
        return 1
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def part_of_mean(mean: Any) -> Any:
    """Return what a replica's mean adds to that of the global batch, of which all hold equally much."""
    count = replicas()
    return mean if count == 1 else mean / count


def totals(*values: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Return the sums of scalars over all replicas, in one message; gradients flow back to all of them."""
    if replicas() == 1:
        return values
    context = tf.distribute.get_replica_context()
    summed = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(values))
    return tuple(tf.unstack(summed))


def extremes(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the least and the greatest value of all replicas, which can only add."""
    count = replicas()
    if count == 1:
        return low, high
    context = tf.distribute.get_replica_context()
    own = tf.equal(tf.range(count), context.replica_id_in_sync_group)[:, tf.newaxis]
    table = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(own, tf.stack([low, high]), 0))
    return tf.reduce_min(table[:, 0]), tf.reduce_max(table[:, 1])


def update_everywhere(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor], keep: tf.Tensor) -> None:
    """Move variables towards values, by 1 - `keep` of the difference, on all replicas."""

    def move(variable: tf.Variable, value: tf.Tensor, keep: tf.Tensor) -> None:
        variable.assign_sub(tf.cast(1 - keep, variable.dtype) * (variable - value))

    if replicas() == 1:
        for variable, value in zip(variables, values, strict=True):
            move(variable, value, keep)
        return

    def move_all(strategy: tf.distribute.Strategy, keep: tf.Tensor) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable, move, args=(value, keep), group=False)

    # A variable that all replicas hold alike takes updates from outside of them only.
    tf.distribute.get_replica_context().merge_call(move_all, args=(keep,))
