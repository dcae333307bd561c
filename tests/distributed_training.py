"""A program that trains the tiny networks as one of several workers, on two devices of one process, or alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tiny_training import tiny_config, tiny_data

from deepbedmap_tf.config import Config


def loud_config(**training: Any) -> Config:
    """Weights large enough for the networks to answer each other, and steps small enough not to be chaotic.

    Adam divides by the size of a gradient: the large epsilon keeps it from turning rounding into steps where the true
    gradient is zero, as for the last bias of a relativistic judge.
    """
    config = tiny_config(**training)
    optimizer = {"learning_rate": 1e-4, "epsilon": 1e-3}
    return config.model_copy(
        update={
            "generator": config.generator.model_copy(update={"initial_scale": 1.0, "trunk_initial_scale": 1.0}),
            "discriminator": config.discriminator.model_copy(update={"initial_scale": 1.0}),
            "generator_optimizer": config.generator_optimizer.model_copy(update=optimizer),
            "discriminator_optimizer": config.discriminator_optimizer.model_copy(update=optimizer),
        }
    )


def distribution(kind: str) -> Any:
    """The strategy by its name; two logical CPU devices for `mirrored`."""
    import tensorflow as tf

    from deepbedmap_tf.training.distribution import Distribution, distribute

    if kind != "mirrored":
        return distribute(kind)
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    return Distribution(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))


def main(folder: Path, kind: str, resume: bool, precision: str, kill_at: int) -> None:
    """Train, and write the final weights and the history to ``weights-INDEX.npz``."""
    made = distribution(kind)
    from deepbedmap_tf.training.callbacks import Bookkeeper
    from deepbedmap_tf.training.loop import train

    after_batch = Bookkeeper.on_train_batch_end

    def killed(self: Bookkeeper, batch: int, logs: dict[str, Any] | None = None) -> None:
        after_batch(self, batch, logs)
        if int(self.state.gan.step.numpy()) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        Bookkeeper.on_train_batch_end = killed  # type: ignore[method-assign]
    run = train(
        loud_config(precision=precision, steps_per_epoch=2, checkpoint_steps=1),
        tiny_data(),
        folder,
        resume=resume,
        progress=False,
        distribution=made,
    )
    gan = run.gan
    weights = {
        f"{part}: {index} {variable.name}": variable.numpy()
        for part, variables in (
            ("generator", gan.generator.weights),
            ("average", gan.averaged_generator.weights),
            ("discriminator", gan.discriminator.weights),
            ("generator_optimizer", gan.generator_optimizer.variables),
            ("discriminator_optimizer", gan.discriminator_optimizer.variables),
        )
        for index, variable in enumerate(variables)
    }
    for entry in run.history:
        del entry["minutes"]
    np.savez(folder / f"weights-{made.index}.npz", **weights)
    (folder / f"history-{made.index}.json").write_text(json.dumps(run.history), encoding="utf-8")


if __name__ == "__main__":
    from deepbedmap_tf.errors import DeepBedMapError

    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "resume", sys.argv[4], int(sys.argv[5]))
    except DeepBedMapError as error:
        sys.exit(f"error: {error}")
