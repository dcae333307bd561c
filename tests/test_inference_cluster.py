"""Who works on a map, and blocks that fit into memory."""

from __future__ import annotations

import os
import threading

import pytest

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.cluster import FEW, Crew, InProcess, Resources, choose, fitting_block, memory_need
from deepbedmap_tf.inference.kit import Outcome
from deepbedmap_tf.inference.tiling import Plan, Task, default_block

DEFAULT = GeneratorConfig()
TASKS = Plan(Grid.from_bounds((0, 0, 40_000, 40_000), 1000), Grid.from_bounds((0, 0, 40_000, 40_000), 1000), 5).tasks()


@pytest.mark.parametrize("limit", [2.0, 3.0, 5.0, 1000.0])
@pytest.mark.parametrize("processes", [1, 2])
def test_blocks_fit_into_the_limit_and_are_no_smaller_than_they_must(limit: float, processes: int) -> None:
    if limit / processes < 1.3:
        with pytest.raises(ConfigError, match="too little for 2 process"):
            fitting_block(DEFAULT, 20, limit, processes)
        return
    block = fitting_block(DEFAULT, 20, limit, processes)
    assert processes * memory_need(DEFAULT, block, 20) <= limit * 1e9
    assert block == default_block(20) or processes * memory_need(DEFAULT, block + 1, 20) > limit * 1e9


def test_without_a_limit_blocks_are_the_same_on_every_machine() -> None:
    assert fitting_block(DEFAULT, 20, None, 1) == fitting_block(DEFAULT, 20, None, 64) == default_block(20)


def test_small_maps_start_no_cluster_and_large_ones_stay_within_memory() -> None:
    cores = len(os.sched_getaffinity(0))
    assert choose(Resources(), FEW, 4e9) == Crew(0, None)
    assert choose(Resources(workers=0), 1000, 4e9) == Crew(0, None)
    assert choose(Resources(workers=3), 1000, 4e9) == Crew(3, max(1, cores // 3))
    assert choose(Resources(memory_limit=9.0), 1000, 4e9).processes <= 2
    assert choose(Resources(scheduler="tcp://host:1"), 1, 4e9) == Crew(0, None, "tcp://host:1")
    if cores > 1:
        crew = choose(Resources(), 1000, 1.0)
        assert crew.processes == cores and crew.threads == 1
        assert str(crew) == f"local cluster of {cores} workers, 1 TensorFlow thread each"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "--workers -1"),
        ({"workers": 2, "scheduler": "tcp://host:1"}, "exclude each other"),
        ({"memory_limit": 0.0}, "--memory-limit 0; expected"),
        ({"memory_limit": float("nan")}, "--memory-limit nan; expected"),
    ],
)
def test_impossible_resources_are_one_line(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Resources(**arguments)  # type: ignore[arg-type]


def test_this_process_does_every_task_once_with_two_at_a_time() -> None:
    meeting = threading.Barrier(2, timeout=60)

    def work(task: Task) -> Outcome:
        # Would never pass with one at a time; the number of tasks is even.
        meeting.wait()
        return Outcome(task.number)

    numbers: list[int] = []
    InProcess().run(work, TASKS, lambda outcome: numbers.append(outcome.number))
    assert sorted(numbers) == [task.number for task in TASKS] and len(TASKS) == 64


def test_the_first_error_ends_the_work() -> None:
    numbers: list[int] = []

    def work(task: Task) -> Outcome:
        if task.number == 20:
            raise DataError("block 20")
        return Outcome(task.number)

    with pytest.raises(DataError, match="block 20"):
        InProcess().run(work, TASKS, lambda outcome: numbers.append(outcome.number))
    assert set(range(18)) <= set(numbers) and max(numbers) < 23
