"""Measure how close the networks come to what this machine's arithmetic allows."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow import keras

from deepbedmap_tf.config import Config, GeneratorConfig, InputConfig, TrainingConfig
from deepbedmap_tf.models.deformable import DeformableConv2D
from deepbedmap_tf.models.generator import build_generator
from deepbedmap_tf.models.layers import he_normal

PRECISIONS = ("float32", "mixed_bfloat16")
MATRIX = 3072
TILE_BATCH = 64
TRAINING_BATCH = 16
WINDOWS = ((11, 11), (82, 82), (150, 200))
"""Low-resolution cells of the measured windows, with their margin; the first is a training tile."""
SHORTEST = 0.2
"""Seconds that one timing lasts at least: shorter calls are repeated within it."""
LAYER_SHAPE = (16, 36, 36, 64)
# He's standard deviation spreads the offsets over a cell or two, as in a trained network.
NETWORK = GeneratorConfig(initial_scale=1.0, trunk_initial_scale=1.0)

Numbers = dict[str, float]


def measure(
    repeats: int = 5, report: Callable[[str], None] | None = None, config: GeneratorConfig = NETWORK
) -> dict[str, Any]:
    """Run the benchmark, each part in a process of its own so that its peak memory is its own.

    Parameters
    ----------
    repeats
        Timings of each case, of which the best counts.
    report
        Called with a line before each part.
    config
        Generator to measure: by default the paper's 12 blocks with 16 filters per input.

    Returns
    -------
    dict
        ``machine``, ``network``, and for each of `PRECISIONS` its numbers; see `table` for their units.
    """
    tell = report or (lambda line: None)
    parts: list[tuple[str, Callable[[str, int, GeneratorConfig], Numbers]]] = [
        ("matrix product", _arithmetic),
        ("inference", _inference),
        ("deformable against plain convolution", _deformable),
        ("training", _training),
    ]
    results: dict[str, Any] = {"machine": _machine(), "network": {"config": config.model_dump(mode="json")}}
    for precision in PRECISIONS:
        numbers: Numbers = {"matrix_flops": 0.0}
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            # The matrix product twice, before and after: what else runs on the machine should not set the limit.
            for title, part in [*parts, parts[0]]:
                tell(f"{precision}: {title}")
                future: Future[Numbers] = pool.submit(part, precision, repeats, config)
                found = future.result()
                numbers |= found | {"matrix_flops": max(numbers["matrix_flops"], found.get("matrix_flops", 0.0))}
        flops = numbers.pop("flop_per_pixel")
        results["network"]["flop_per_pixel"] = flops
        numbers["limit_pixels_per_second"] = numbers["matrix_flops"] / flops
        for window in WINDOWS:
            rate = numbers[f"pixels_per_second_{_name(window)}"]
            numbers[f"fraction_of_limit_{_name(window)}"] = rate / numbers["limit_pixels_per_second"]
        results[precision] = numbers
    return results


def table(results: dict[str, Any]) -> str:
    """Lay the numbers of `measure` out as text, one column a precision."""
    machine = results["machine"]
    rows = [("matrix product, GFLOP/s", "matrix_flops", 1e-9, ".0f")]
    rows += [("limit of inference, 1000 pixel/s", "limit_pixels_per_second", 1e-3, ".1f")]
    for window in WINDOWS:
        what = f"{TILE_BATCH} tiles of" if window == WINDOWS[0] else "one window of"
        rows += [
            (f"inference, {what} {_name(window)}, 1000 pixel/s", f"pixels_per_second_{_name(window)}", 1e-3, ".1f"),
            ("    of the limit, %", f"fraction_of_limit_{_name(window)}", 100, ".0f"),
        ]
    rows += [
        ("deformable layers' share of inference, %", "deformable_share", 100, ".0f"),
        ("deformable / plain convolution, forward", "deformable_ratio_forward", 1, ".1f"),
        ("deformable / plain convolution, forward + backward", "deformable_ratio_backward", 1, ".1f"),
        (f"training, batch {TRAINING_BATCH}, tiles/s", "training_tiles_per_second", 1, ".1f"),
        ("peak memory of inference, GB", "inference_peak_bytes", 1e-9, ".2f"),
        ("peak memory of training, GB", "training_peak_bytes", 1e-9, ".2f"),
    ]
    width = max(len(row[0]) for row in rows)
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, TensorFlow {machine['tensorflow']}",
        f"network: {results['network']['flop_per_pixel'] / 1e6:.3f} MFLOP an output pixel",
        " " * width + "".join(f"{precision:>16}" for precision in PRECISIONS),
    ]
    lines += [
        f"{title:<{width}}" + "".join(f"{results[precision][key] * factor:>16{style}}" for precision in PRECISIONS)
        for title, key, factor, style in rows
    ]
    return "\n".join(lines)


def flop_per_pixel(model: keras.Model, inputs: tuple[InputConfig, ...]) -> float:
    """Arithmetic of a generator per output pixel: two operations for every multiply-add of every convolution."""
    layers = [layer for layer in model.layers if isinstance(layer, (keras.layers.Conv2D, DeformableConv2D))]
    probe = keras.Model(model.inputs, [*(layer.output for layer in layers), model.output])
    *maps, bed = probe(_inputs(inputs, 1, WINDOWS[0]))
    total = 0
    for layer, output in zip(layers, maps, strict=True):
        kernels = [weight for weight in layer.weights if weight.shape.rank == 4]
        total += 2 * sum(kernel.shape.num_elements() for kernel in kernels) * output.shape[1] * output.shape[2]
    return float(total / (bed.shape[1] * bed.shape[2]))


def best_time(function: Callable[[], Any], repeats: int) -> float:
    """Seconds of a call in the best of `repeats` timings, after one call to warm up that is not counted."""
    function()
    calls, best = 1, float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(calls):
            function()
        elapsed = time.perf_counter() - started
        best = min(best, elapsed / calls)
        calls = max(calls, round(SHORTEST / best))
    return best


def _arithmetic(precision: str, repeats: int, config: GeneratorConfig) -> Numbers:
    """Operations a second of a large matrix product, and those that a pixel of the network takes."""
    dtype = "bfloat16" if precision == "mixed_bfloat16" else precision
    left, right = (tf.cast(tf.random.normal((MATRIX, MATRIX)), dtype) for _ in range(2))
    seconds = best_time(partial(tf.matmul, left, right), repeats)
    model = build_generator(config, "float32")
    return {"matrix_flops": 2 * MATRIX**3 / seconds, "flop_per_pixel": flop_per_pixel(model, config.inputs)}


def _inference(precision: str, repeats: int, config: GeneratorConfig) -> Numbers:
    """Pixels a second, and the share that the two deformable layers take for a batch of tiles."""
    model = build_generator(config, precision)
    predict = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    numbers: Numbers = {}
    for window in WINDOWS:
        batch = TILE_BATCH if window == WINDOWS[0] else 1
        inputs = _inputs(config.inputs, batch, window)
        seconds = best_time(partial(predict, inputs), repeats)
        pixels = batch * 16 * (window[0] - 2) * (window[1] - 2)
        numbers[f"pixels_per_second_{_name(window)}"] = pixels / seconds
        if window == WINDOWS[0]:
            numbers["deformable_share"] = _deformable_seconds(model, window, repeats) / seconds
    return {**numbers, "inference_peak_bytes": _peak_memory()}


def _deformable_seconds(model: keras.Model, window: tuple[int, int], repeats: int) -> float:
    total = 0.0
    for name in ("final_deformable_1", "final_deformable_2"):
        layer = model.get_layer(name)
        shape = (TILE_BATCH, 4 * (window[0] - 2), 4 * (window[1] - 2), layer.input_shape[-1])
        image = tf.cast(tf.random.normal(shape), layer.compute_dtype)
        call = tf.function(layer)
        total += best_time(partial(call, image), repeats)
    return total


def _deformable(precision: str, repeats: int, config: GeneratorConfig) -> Numbers:
    """Time of a deformable layer over that of a plain convolution of the same size."""
    filters = LAYER_SHAPE[-1]
    pair = [
        DeformableConv2D(filters, offset_initializer=he_normal(1.0), dtype=precision),
        keras.layers.Conv2D(filters, 3, padding="same", dtype=precision),
    ]
    forward, both = [], []
    for layer in pair:
        image = tf.cast(tf.random.normal(LAYER_SHAPE), layer.compute_dtype)
        layer(image)
        call = tf.function(layer)

        @tf.function
        def gradients(image: tf.Tensor, layer: Any = layer) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(image)
                total = tf.reduce_sum(layer(image) ** 2)
            return tape.gradient(total, [image, *layer.trainable_weights])

        forward.append(best_time(partial(call, image), repeats))
        both.append(best_time(partial(gradients, image), repeats))
    return {
        "deformable_ratio_forward": forward[0] / forward[1],
        "deformable_ratio_backward": both[0] / both[1],
        "deformable_seconds_forward": forward[0],
        "deformable_seconds_backward": both[0],
    }


def _training(precision: str, repeats: int, config: GeneratorConfig) -> Numbers:
    """Tiles a second of whole steps: discriminator, generator, all losses and averaged weights."""
    from deepbedmap_tf.training.gan import DeepBedMapGAN, build_optimizer

    settings = Config(
        name="bench", generator=config, training=TrainingConfig(batch_size=TRAINING_BATCH, ema_momentum=0.999)
    )
    gan = DeepBedMapGAN(settings, precision)
    gan.compile(build_optimizer(settings.generator_optimizer, 1), build_optimizer(settings.discriminator_optimizer, 1))
    gan.generator_optimizer.build(gan.generator.trainable_variables)
    gan.discriminator_optimizer.build(gan.discriminator.trainable_variables)
    size = settings.discriminator.tile_size
    batch = _inputs(config.inputs, TRAINING_BATCH, WINDOWS[0]), tf.random.normal((TRAINING_BATCH, size, size, 1))
    step = tf.function(gan.train_step)
    seconds = best_time(partial(step, batch), repeats)
    return {"training_tiles_per_second": TRAINING_BATCH / seconds, "training_peak_bytes": _peak_memory()}


def _inputs(inputs: tuple[InputConfig, ...], batch: int, window: tuple[int, int]) -> dict[str, tf.Tensor]:
    height, width = window
    return {
        each.name: tf.random.normal((batch, height * each.ratio, width * each.ratio, each.channels)) for each in inputs
    }


def _name(window: tuple[int, int]) -> str:
    return f"{window[0]}x{window[1]}"


def _peak_memory() -> float:
    """Largest memory that this process has ever held, bytes; macOS counts in bytes, Linux in kilobytes."""
    gc.collect()
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _machine() -> dict[str, Any]:
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8", errors="replace").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else "unknown processor",
        "cores": os.cpu_count() or 0,
        "tensorflow": tf.__version__,
    }
