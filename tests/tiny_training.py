"""Networks and tiles small enough to train in a test, and a program that trains them in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from deepbedmap_tf.config import Config, GeneratorConfig, LossConfig
from deepbedmap_tf.data.tiles import Tiles

TINY = GeneratorConfig(num_residual_blocks=1, input_filters=2, filters=4, growth_filters=2)


def tiny_config(**training: Any) -> Config:
    """Four steps of four tiles an epoch."""
    return Config.model_validate(
        {
            "name": "tiny",
            "generator": TINY.model_dump() | {"normalise": True, "output": "residual"},
            "discriminator": {"normalise": True},
            "generator_optimizer": {"epsilon": 1e-8, "schedule": "cosine", "warmup_steps": 3, "clip_norm": 5.0},
            "training": {"batch_size": 4, "epochs": 2, "precision": "float32", "ema_momentum": 0.9, **training},
        }
    )


def only(*names: str) -> tuple[LossConfig, ...]:
    """Loss terms of weight 1."""
    return tuple(LossConfig(name=name, weight=1.0) for name in names)


def tiny_inputs(number: int, cells: tuple[int, int] = (11, 11), seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of plausible size, float32."""
    generator = np.random.default_rng(seed)
    height, width = cells

    def field(ratio: int, channels: int, mean: float, spread: float) -> np.ndarray:
        shape = (number, height * ratio, width * ratio, channels)
        return (mean + spread * generator.normal(size=shape)).astype(np.float32)

    return {
        "bed_lowres": field(1, 1, -900, 200),
        "surface": field(10, 1, 900, 20),
        "velocity": field(2, 2, 150, 40),
        "accumulation": field(1, 1, 400, 50),
    }


def tiny_bed(number: int, seed: int = 1) -> np.ndarray:
    """Beds of 36 x 36 cells, metres."""
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(number, 36, 36, 1)) * 80 - 900).astype(np.float32)


def tiny_tiles(number: int, seed: int = 0) -> Tiles:
    """Tiles in memory."""
    place = np.arange(number, dtype=np.float64)
    return Tiles(
        tiny_inputs(number, seed=seed), tiny_bed(number, seed + 1), np.zeros(number, np.uint8), place, place, {}
    )


def tiny_data() -> Any:
    """Eighteen tiles to train on, five to validate on."""
    from deepbedmap_tf.training.loop import TrainingData

    return TrainingData(tiny_tiles(18), tiny_tiles(5, seed=7), "0123456789abcdef", [])


def build_loud(config: GeneratorConfig) -> Any:
    """Build a random network with offsets of a cell that adds 50 m to the bicubic bed, as a trained one does."""
    import tensorflow as tf
    from tensorflow import keras

    from deepbedmap_tf.models import build_generator

    keras.utils.set_random_seed(3)
    model = build_generator(config, "float32")
    inputs = tiny_inputs(2)
    for number in (1, 2):
        layer = model.get_layer(f"final_deformable_{number}")
        image = keras.Model(model.input, layer.input)(inputs)
        layer.offset_kernel.assign(layer.offset_kernel / np.std(tf.nn.conv2d(image, layer.offset_kernel, 1, "SAME")))
    layer.kernel.assign(layer.kernel * 50 / np.std(added(model, inputs)))
    return model


def added(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What a network adds to the bicubic bed, metres."""
    return np.asarray(model(inputs) - model.get_layer("bicubic")(inputs["bed_lowres"]))


def main(folder: Path, resume: bool, signal_name: str, at_step: int) -> None:
    """Train, get a signal after a step if one is named, and write the final weights to ``weights.npz``."""
    from deepbedmap_tf.training.callbacks import Bookkeeper
    from deepbedmap_tf.training.loop import train

    after_batch = Bookkeeper.on_train_batch_end

    def interrupted(self: Bookkeeper, batch: int, logs: dict[str, Any] | None = None) -> None:
        after_batch(self, batch, logs)
        if signal_name != "none" and int(self.state.gan.step) == at_step:
            os.kill(os.getpid(), signal.Signals[signal_name])

    Bookkeeper.on_train_batch_end = interrupted  # type: ignore[method-assign]
    config = tiny_config(deterministic=True, checkpoint_steps=3)
    run = train(config, tiny_data(), folder, resume=resume, progress=False)
    gan = run.gan
    variables = [*gan.generator.weights, *gan.averaged_generator.weights, *gan.discriminator.weights]
    variables += [*gan.generator_optimizer.variables, *gan.discriminator_optimizer.variables]
    history = [[entry[key] for key in sorted(entry) if key != "minutes"] for entry in run.history]
    np.savez(folder / "weights.npz", np.array(history), *(np.asarray(variable) for variable in variables))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "resume", sys.argv[3], int(sys.argv[4]))
