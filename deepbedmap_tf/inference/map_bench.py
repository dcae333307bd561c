"""How much of the bare network's speed a whole map reaches: reading, network and writing, by one worker and by more."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deepbedmap_tf.data.cache import digest
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.inference.cluster import AT_ONCE, Crew, pool_of
from deepbedmap_tf.inference.kit import Job, Outcome, set_threads
from deepbedmap_tf.inference.layers import variables
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.tasks import run_task
from deepbedmap_tf.inference.tiling import HALO, SCALE, Plan, Task, default_block, snap_outward
from deepbedmap_tf.inference.work import create_store

CREWS = {
    "this process": Crew(0, None),
    "1 worker x 1 thread": Crew(1, 1),
    "1 worker x 2 threads": Crew(1, 2),
    "2 workers x 1 thread": Crew(2, 1),
}


def measure(
    model: Path,
    region_file: Path,
    data_dir: Path | None,
    bounds: Bounds | None = None,
    block: int | None = None,
    blocks: int = 8,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a plan, the bare network on one of its blocks, and the whole pipeline on some of them.

    Parameters
    ----------
    model, region_file, data_dir
        As for `predict.predict_to_files`.
    bounds
        Part of the region that has data and is representative; the whole by default.
    block
        Side of a block, low-resolution cells; by default what suits the model's halo.
    blocks
        Blocks timed for each crew, beyond those that warm it up; they are repeated where the part has fewer.
    report
        Called with a line before each part.

    Returns
    -------
    dict
        ``plan`` of the whole region: blocks, seconds, bytes, cells, share of the halo. ``network``: computed pixel/s.
        ``crews``: for each of `CREWS` its computed pixel/s and that over the bare network's. ``coordination``: loss
        of two workers against twice one, of one thread each. ``machine``: the same of two bare networks, each in a
        process that does nothing else. ``whole``: seconds for all blocks of the region by the fastest crew.

    Raises
    ------
    DataError
        When the part holds too few blocks.
    """
    from deepbedmap_tf.inference.export import load_model

    tell = report or (lambda line: None)
    region = load_region(region_file, data_dir)
    loaded = load_model(model)
    coarse = region.grid.coarsen(SCALE)
    halo = int(loaded.metadata.get("halo", HALO))
    size = block or default_block(halo)
    tell("plan")
    whole, planning = _plan(coarse, size, halo)
    part = coarse if bounds is None else coarse.window(snap_outward(coarse, bounds))
    plan = replace(whole, window=part)
    # Only blocks of full size, so that all tasks cost the same.
    cell = region.resolution
    side = (SCALE * (size + 2 * halo)) ** 2
    tasks = [task for task in plan.tasks() if _pixels(task, cell) == side and _inside(task, part.bounds)]
    if not tasks:
        raise DataError(f"no whole block of {size} cells with its halo of {halo} lies within; choose a smaller --block")
    tell("bare network")
    fields = region.inputs(tasks[0].blocks[0].context, loaded.config.inputs)
    batch = batch_of_one(fields)
    bare = side / _best(partial(loaded, batch))
    tell("bare network in processes of one thread")
    single, pair = (side * _at_once(number, model, batch) for number in (1, 2))
    crews = {}
    for name, crew in CREWS.items():
        tell(f"pipeline: {name}")
        rate = _pipeline(model, region, plan, tasks, crew, blocks)
        crews[name] = {"computed_pixels_per_second": rate, "of_the_bare_network": rate / bare}
    alone, both = (crews[name]["computed_pixels_per_second"] for name in list(CREWS)[1::2])
    fastest = max(each["computed_pixels_per_second"] for each in crews.values())
    return {
        "region": {"name": region.name, "title": region.title, "part": list(part.bounds)},
        "plan": planning,
        "network": {"computed_pixels_per_second": bare, "window": [math.isqrt(side)] * 2},
        "crews": crews,
        "coordination": 1 - both / (2 * alone),
        "machine": 1 - pair / (2 * single),
        "whole": {"seconds": whole.computed() / fastest, "output_pixels": planning["output_pixels"]},
    }


def table(results: dict[str, Any]) -> str:
    """Lay the numbers of `measure` out as text."""
    plan, network = results["plan"], results["network"]
    lines = [
        f"{results['region']['title']}: {plan['output_pixels'] / 1e6:.1f} Mpixel in {plan['blocks']} blocks of "
        f"{plan['block']} low-resolution cells, halo {plan['halo']}",
        f"planned in {plan['seconds']:.2f} s and {plan['bytes'] / 1e6:.1f} MB; {100 * plan['halo_share']:.1f} % of the "
        "computed pixels are halo",
        f"bare network on a block with its halo: {network['computed_pixels_per_second'] / 1e3:.1f} k computed pixel/s",
    ]
    for name, crew in results["crews"].items():
        lines.append(
            f"whole pipeline, {name}: {crew['computed_pixels_per_second'] / 1e3:.1f} k computed pixel/s, "
            f"{100 * crew['of_the_bare_network']:.0f} % of the bare network"
        )
    lines.append(
        f"two workers of one thread lose {100 * results['coordination']:.0f} % against twice one, two bare networks "
        f"in processes of their own {100 * results['machine']:.0f} %"
    )
    lines.append(f"whole region, extrapolated: {results['whole']['seconds'] / 3600:.2f} h")
    return "\n".join(lines)


def _plan(coarse: Grid, size: int, halo: int) -> tuple[Plan, dict[str, Any]]:
    tracemalloc.start()
    started = time.perf_counter()
    plan = Plan(coarse, coarse, size, halo)
    tasks = plan.tasks()
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pixels = SCALE**2 * coarse.shape[0] * coarse.shape[1]
    return plan, {
        "block": size,
        "halo": halo,
        "blocks": len(tasks),
        "seconds": seconds,
        "bytes": peak,
        "output_pixels": pixels,
        "computed_pixels": plan.computed(),
        "halo_share": 1 - pixels / plan.computed(),
    }


def _pipeline(model: Path, region: Region, plan: Plan, tasks: Sequence[Task], crew: Crew, blocks: int) -> float:
    """Computed pixels a second from when all workers are warm."""
    warm = 2 * AT_ONCE * max(1, crew.processes)
    repeated = [tasks[number % len(tasks)] for number in range(warm + blocks)]
    times: list[float] = []

    def done(outcome: Outcome) -> None:
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options = MapOptions()
        store = create_store(Path(folder) / "map.zarr", plan, variables(region, options))
        job = Job(
            key=digest([folder, str(crew)]),
            model=str(model.resolve()),
            data_dir=str(region.data_dir.resolve()),
            store=str(store),
            region=region.settings.model_dump(mode="json"),
            plan=plan,
            options=options,
            threads=crew.threads,
        )
        with pool_of(crew) as pool:
            pool.run(partial(run_task, job), repeated, done)
    return blocks * _pixels(tasks[0], region.resolution) / (times[-1] - times[warm - 1])


def _at_once(number: int, model: Path, batch: dict[str, np.ndarray]) -> float:
    """Passes a second of so many bare networks together, each in a process of one thread."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(number, context) as pool:
        return sum(pool.map(partial(_alone, model, batch), [manager.Barrier(number)] * number))


def _alone(model: Path, batch: dict[str, np.ndarray], start: Any, repeats: int = 3) -> float:
    """Passes a second in this process, from when the others are ready too."""
    set_threads(1)
    from deepbedmap_tf.inference.export import load_model

    loaded = load_model(model)
    loaded(batch)
    start.wait()
    began = time.perf_counter()
    for _ in range(repeats):
        loaded(batch)
    return repeats / (time.perf_counter() - began)


def _pixels(task: Task, cell: float) -> int:
    """Output cells that the network computes for a task."""
    return sum(round((c[2] - c[0]) / cell) * round((c[3] - c[1]) / cell) for c in (b.context for b in task.blocks))


def _inside(task: Task, bounds: Bounds) -> bool:
    """Whether the context of all blocks lies within the part that has data."""
    contexts = [block.context for block in task.blocks]
    return all(c[0] >= bounds[0] and c[1] >= bounds[1] and c[2] <= bounds[2] and c[3] <= bounds[3] for c in contexts)


def _best(function: Callable[[], Any], repeats: int = 3) -> float:
    function()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
