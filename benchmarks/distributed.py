"""What training on several workers costs: bytes a step, the efficiency to expect, and steps timed on this machine.

python benchmarks/distributed.py                       # arithmetic alone
python benchmarks/distributed.py --measure --batch 16  # and one process on a core against two on a core each
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
FLOAT = 4


def volume(config: Any) -> dict[str, float]:
    """Bytes and messages that a replica takes part in, a step."""
    from deepbedmap_tf.models import build_discriminator, build_generator
    from deepbedmap_tf.models.discriminator import FILTERS

    def parameters(model: Any) -> int:
        return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)

    generator = parameters(build_generator(config.generator, "float32"))
    discriminator = parameters(build_discriminator(config.discriminator, "float32"))
    layers, channels = len(FILTERS) - 1, sum(FILTERS[1:])
    # Real and generated beds go through the judge in both steps. Backwards, the generator's step needs no gradient of
    # the real ones.
    calls = 4 + 3
    return {
        "generator gradients, MB": generator * FLOAT / 1e6,
        "discriminator gradients, MB": discriminator * FLOAT / 1e6,
        "batch normalisation, MB": calls * 2 * channels * FLOAT / 1e6,
        "relativistic means, bytes": (2 + 2) * 2 * FLOAT,
        # Two batches of gradients; normalisation; relativistic means; mean metrics, squares and range.
        "small messages in turn": calls * layers + 4 + 3,
    }


def efficiency(volumes: dict[str, float], gpus: int, tiles: float, options: argparse.Namespace) -> float:
    """Share of a step that computes, with nothing sent while computing."""
    if gpus == 1:
        return 1.0
    computing = tiles / options.tiles_per_second
    # A ring sends nearly twice the bytes whatever the number of GPUs; a small message takes a hop for each doubling.
    sent = 2 * (gpus - 1) / gpus * sum(volumes[key] for key in volumes if key.endswith("MB")) * 1e6
    bandwidth = options.gigabytes_per_second if gpus <= options.gpus_per_node else options.network_gigabytes_per_second
    waiting = volumes["small messages in turn"] * np.log2(gpus) * options.microseconds_per_hop * 1e-6
    return computing / (computing + sent / (bandwidth * 1e9) + waiting)


def table(volumes: dict[str, float], options: argparse.Namespace) -> None:
    """Print the efficiency of 1 to 64 GPUs: as much work for each, or one batch for all."""
    for key, value in volumes.items():
        print(f"{key:32s} {value:10.3f}" if "MB" in key else f"{key:32s} {value:6.0f}")
    print(
        f"\n{options.tiles_per_second:.0f} tiles/s a GPU, {options.gpus_per_node} GPUs a node at "
        f"{options.gigabytes_per_second:g} GB/s, nodes at {options.network_gigabytes_per_second:g} GB/s, "
        f"{options.microseconds_per_hop:g} us a hop"
    )
    print(f"{'GPUs':>5s} {f'{options.tiles} tiles each, %':>20s} {f'{options.total_tiles} tiles in all, %':>22s}")
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        each = efficiency(volumes, gpus, options.tiles, options)
        shared = efficiency(volumes, gpus, options.total_tiles / gpus, options)
        print(f"{gpus:5d} {100 * each:20.0f} {100 * shared:22.0f}")


def run_worker(config: Any, options: argparse.Namespace) -> None:
    """Time steps on one core as the worker that TF_CONFIG says, or alone."""
    os.sched_setaffinity(0, set(options.cores))
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(len(options.cores))
    from tensorflow import keras

    from deepbedmap_tf.data.pipeline import training_dataset
    from deepbedmap_tf.data.tiles import Tiles
    from deepbedmap_tf.training.distribution import distribute
    from deepbedmap_tf.training.gan import DeepBedMapGAN, build_optimizer

    workers = distribute("multiworker" if "TF_CONFIG" in os.environ else "one")
    keras.utils.set_random_seed(1)
    random = np.random.default_rng(1)
    side, number = config.data.tile_size, 2 * options.batch
    inputs = {
        each.name: random.normal(
            500, 50, (number, (side + 2) * each.ratio, (side + 2) * each.ratio, each.channels)
        ).astype(np.float32)
        for each in config.generator.inputs
    }
    bed = random.normal(-500, 50, (number, 4 * side, 4 * side, 1)).astype(np.float32)
    place = np.zeros(number)
    batches = training_dataset(Tiles(inputs, bed, place.astype(np.uint8), place, place, {}), options.batch, seed=1)
    with workers.strategy.scope():
        gan = DeepBedMapGAN(config, options.precision)
        gan.compile(
            *(build_optimizer(each, 100) for each in (config.generator_optimizer, config.discriminator_optimizer))
        )
    step = gan.make_train_function()
    stream = iter(workers.training(batches, options.batch))
    seconds = []
    for _ in range(options.steps + 2):
        start = time.perf_counter()
        with workers.strategy.scope():
            {name: float(value) for name, value in step(stream).items()}
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": statistics.median(seconds[2:]), "index": workers.index}), flush=True)


def measure(options: argparse.Namespace) -> None:
    """Print the time of a step of one process on one core and on all, and of two processes on a core each."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        sys.exit("two cores are needed")

    def start(processes: int, mine: list[int], index: int, ports: list[int]) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
        if processes > 1:
            addresses = [f"127.0.0.1:{port}" for port in ports]
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(task)
        command = [sys.executable, __file__, "--worker", "--config", options.config, "--batch", str(options.batch)]
        command += ["--steps", str(options.steps), "--precision", options.precision, "--cores", *map(str, mine)]
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def finish(started: list[subprocess.Popen[str]]) -> float:
        lines = [process.communicate()[0].strip().splitlines() for process in started]
        if any(process.returncode for process in started):
            sys.exit("a process failed; its message is above")
        return max(json.loads(each[-1])["seconds"] for each in lines)

    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    one = finish([start(1, cores[:1], 0, ports)])
    both = finish([start(1, cores, 0, ports)])
    two = finish([start(2, [core], index, ports) for index, core in enumerate(cores)])
    print(f"\n{options.batch} tiles a step, {options.precision}, {options.config}, median of {options.steps} steps")
    print(f"one process, one core    {one:8.3f} s")
    print(f"one process, two cores   {both:8.3f} s  {100 * one / both / 2:.0f} % of twice as fast")
    print(f"two processes, a core each{two:7.3f} s  {100 * one / two / 2:.0f} % of twice as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "configs/default.yml"))
    parser.add_argument("--measure", action="store_true", help="also time steps on this machine")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--tiles", type=int, default=128, help="tiles a GPU")
    parser.add_argument("--total-tiles", type=int, default=128, help="tiles of all GPUs together")
    parser.add_argument("--tiles-per-second", type=float, default=500)
    parser.add_argument("--gpus-per-node", type=int, default=4)
    parser.add_argument("--gigabytes-per-second", type=float, default=50)
    parser.add_argument("--network-gigabytes-per-second", type=float, default=10)
    parser.add_argument("--microseconds-per-hop", type=float, default=20)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, nargs="+", default=[0], help=argparse.SUPPRESS)
    options = parser.parse_args()
    from deepbedmap_tf.config import load_config

    config = load_config(options.config)
    if options.worker:
        run_worker(config, options)
        return
    table(volume(config), options)
    if options.measure:
        measure(options)


if __name__ == "__main__":
    main()
