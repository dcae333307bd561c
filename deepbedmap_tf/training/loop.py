"""One training run, from tiles to averaged weights, that can be stopped and resumed at any step."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from deepbedmap_tf.addons import progress_bar
from deepbedmap_tf.config import Config
from deepbedmap_tf.data.cache import cache_directory, digest
from deepbedmap_tf.data.pipeline import evaluation_dataset, training_dataset
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.data.tiles import Tiles, open_tiles, prepare_tiles, store_hash
from deepbedmap_tf.errors import DataError, TrainingError
from deepbedmap_tf.training.callbacks import Bookkeeper, EpochGoesOn
from deepbedmap_tf.training.checkpoints import RunState
from deepbedmap_tf.training.distribution import Distribution, distribute
from deepbedmap_tf.training.gan import DeepBedMapGAN, build_optimizer
from deepbedmap_tf.training.precision import choose_precision
from deepbedmap_tf.training.teaching import teacher

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Tiles of one or several regions.

    Attributes
    ----------
    train, validation
        Tiles of the two splits.
    data_hash
        Fingerprint of all tile stores.
    provenance
        The stores' attributes: regions, sources and their hashes, leak fraction, software versions.
    """

    train: Tiles
    validation: Tiles
    data_hash: str
    provenance: list[dict[str, Any]]


def load_training_data(
    config: Config, regions: Sequence[Path | str], data_dir: Path | str | None = None, progress: bool = True
) -> TrainingData:
    """Prepare the tiles of regions, or reuse those in the cache, and load them.

    Parameters
    ----------
    config
        Its `data`, `generator.inputs` and `seed` decide the tiles.
    regions
        Region files.
    data_dir
        Folder that the region files' relative paths start from.
    progress
        Show progress bars.
    """
    stores = []
    for file in regions:
        region = load_region(file, data_dir)
        key = digest([str(Path(file).resolve()), config.data.model_dump(mode="json"), config.seed])[:12]
        path = cache_directory() / "tiles" / f"{region.name}-{key}.zarr"
        teach = teacher(region, config.data, config.seed)
        stores.append(prepare_tiles(region, config.data, path, config.seed, progress, config.generator.inputs, teach))
    parts = [open_tiles(store) for store in stores]
    train = Tiles.concatenate([part.select("train") for part in parts])
    # Regions after the first only add to what is learned; what is chosen on is the first region's.
    validation = parts[0].select("validation")
    if config.data.max_tiles is not None and len(train) > config.data.max_tiles:
        order = tf.random.experimental.index_shuffle(
            tf.range(config.data.max_tiles, dtype=tf.int64), [config.seed, 0, 0], len(train) - 1
        )
        train = train.take(order.numpy())
    LOGGER.info("%d training and %d validation tiles of %d region(s)", len(train), len(validation), len(stores))
    return TrainingData(train, validation, digest([store_hash(store) for store in stores]), [p.attrs for p in parts])


@dataclass(frozen=True)
class TrainedRun:
    """A finished, or orderly stopped, run.

    Attributes
    ----------
    gan
        With the averaged generator.
    history
        Metrics of every epoch, with ``epoch``, ``step`` and ``minutes``.
    precision
        Policy it was trained in.
    """

    gan: DeepBedMapGAN
    history: list[dict[str, float]]
    precision: str
    steps: int
    minutes: float


def train(
    config: Config,
    data: TrainingData,
    folder: Path,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_start: Callable[[RunState], None] | None = None,
    initial_weights: Sequence[Any] | None = None,
    distribution: Distribution | None = None,
) -> TrainedRun:
    """Train a generator and its discriminator.

    Parameters
    ----------
    config
        Networks, losses, optimisers and length of the run.
    data
        From `load_training_data`.
    folder
        Where checkpoints lie.
    resume
        Go on with the run in `folder`.
    progress
        Show progress bars.
    on_epoch
        Called with the step and the metrics of each epoch.
    on_start
        Called once with the run before its first step, after its checkpoint was restored.
    initial_weights
        Weights to start the generator from, in Keras' order.
    distribution
        Replicas that share every batch of `training.batch_size` tiles; one by default. Their number is not part of
        the run: it may be resumed on more or fewer.

    Raises
    ------
    TrainingError
        When a loss is not finite, the disk is full, the run to resume is another one, or another worker is gone. The
        last good checkpoint is kept and named.
    """
    distribution = distribution or distribute("one")
    with distribution.watched(folder):
        return _train(config, data, folder, resume, progress, on_epoch, on_start, initial_weights, distribution)


def _train(
    config: Config,
    data: TrainingData,
    folder: Path,
    resume: bool,
    progress: bool,
    on_epoch: Callable[[int, dict[str, float]], None] | None,
    on_start: Callable[[RunState], None] | None,
    initial_weights: Sequence[Any] | None,
    distribution: Distribution,
) -> TrainedRun:
    if config.training.deterministic:
        tf.config.experimental.enable_op_determinism()
        # Which of several sums it fuses with a convolution differs from process to process, and with it the rounding.
        tf.config.optimizer.set_experimental_options({"remapping": False})
    keras.utils.set_random_seed(config.seed)
    precision = choose_precision(config.training.precision)
    _refuse_gaps(config, data.train)
    steps_per_epoch = config.training.steps_per_epoch or len(data.train) // config.training.batch_size
    total = steps_per_epoch * config.training.epochs
    with distribution.strategy.scope():
        gan = DeepBedMapGAN(config, precision)
        if initial_weights is not None:
            gan.generator.set_weights(initial_weights)
            gan.averaged_generator.set_weights(initial_weights)
        gan.compile(
            build_optimizer(config.generator_optimizer, total), build_optimizer(config.discriminator_optimizer, total)
        )
        gan.generator_optimizer.build(gan.generator.trainable_variables)
        gan.discriminator_optimizer.build(gan.discriminator.trainable_variables)
    state = RunState(folder, gan, config, data.data_hash, distribution.chief)
    start = state.restore() if resume else _fresh(folder)
    settings = config.model_dump(mode="json", exclude={"name"})
    distribution.require_agreement(digest([settings, precision, data.data_hash, start]), "configuration, tiles or step")
    if on_start is not None:
        on_start(state)
    if start >= total:
        LOGGER.info("the run is complete: step %d of %d", start, total)
        return TrainedRun(gan, state.history, precision, start, state.minutes)

    size = config.training.batch_size

    def batches(step: int) -> Any:
        return distribution.training(training_dataset(data.train, size, config.seed, step, config.data.augment), size)

    validation, validation_steps = distribution.validation(evaluation_dataset(data.validation, min(64, 4 * size)))
    bookkeeper = Bookkeeper(state, on_epoch)
    callbacks = [bookkeeper, *([progress_bar()] if progress else [])]
    if distribution.processes > 1 and bookkeeper.limit is not None:
        callbacks.append(_StopTogether(bookkeeper, distribution))
    epoch, done = divmod(start, steps_per_epoch)
    try:
        if done:
            running = [variable.numpy() for metric in gan.metrics for variable in metric.variables]
            gan.fit(
                batches(start),
                steps_per_epoch=steps_per_epoch - done,
                initial_epoch=epoch,
                epochs=epoch + 1,
                validation_data=validation,
                validation_steps=validation_steps,
                callbacks=[*callbacks, EpochGoesOn(running)],
                verbose=0,
            )
            epoch += 1
        if epoch < config.training.epochs and not bookkeeper.stopped_early:
            gan.fit(
                batches(epoch * steps_per_epoch),
                steps_per_epoch=steps_per_epoch,
                initial_epoch=epoch,
                epochs=config.training.epochs,
                validation_data=validation,
                validation_steps=validation_steps,
                callbacks=callbacks,
                verbose=0,
            )
    except KeyboardInterrupt:
        state.save()
        LOGGER.warning(
            "interrupted at step %d of %d; saved to %s. Go on with the same command and --resume",
            int(gan.step.numpy()),
            total,
            state.last_good,
        )
        raise
    return TrainedRun(gan, state.history, precision, int(gan.step.numpy()), state.minutes)


class _StopTogether(keras.callbacks.Callback):
    """End all workers after the same step, as their clocks differ."""

    def __init__(self, bookkeeper: Bookkeeper, distribution: Distribution) -> None:
        super().__init__()
        self.bookkeeper = bookkeeper
        self.distribution = distribution
        self.limit, bookkeeper.limit = bookkeeper.limit, None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop as soon as one of them has reached the limit."""
        reached = self.limit is not None and self.bookkeeper.state.minutes >= self.limit
        if self.distribution.total(float(reached)) > 0:
            LOGGER.info("stopping all workers in order after %.1f minutes", self.bookkeeper.state.minutes)
            self.bookkeeper.stopped_early = True
            self.model.stop_training = True


def _refuse_gaps(config: Config, tiles: Tiles) -> None:
    """Refuse NaN for a network without validity channels, before it turns a loss into NaN."""
    if config.generator.normalise:
        return
    for name, values in tiles.inputs.items():
        gaps = int(np.isnan(values).any(axis=(1, 2, 3)).sum())
        if gaps:
            raise DataError(
                f"input {name!r} has gaps in {gaps} of {len(tiles)} training tiles and generator.normalise is false; "
                "give it a fill rule in the region file, or set generator.normalise=true"
            )


def _fresh(folder: Path) -> int:
    """Refuse to write over another run's checkpoints."""
    if (folder / "run.json").exists():
        raise TrainingError(
            f"{folder} holds a run already; go on with --resume, choose another --out, or remove that folder"
        )
    return 0


def forget_networks() -> None:
    """Give back the memory of networks that this process trained before, and that nothing else holds.

    TensorFlow keeps the gradient of each `tf.custom_gradient`, as the deformable layer has, in a table for ever, and
    with it graph, weights and optimisers: two hundred megabytes a run of the smallest networks.
    """
    from tensorflow.python.framework import ops

    keras.backend.clear_session()
    table = ops.gradient_registry._registry
    for name in [name for name in table if name.startswith("CustomGradient")]:
        del table[name]
    gc.collect()
