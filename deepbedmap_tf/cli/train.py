"""What ``train.py`` offers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deepbedmap_tf.errors import DeepBedMapError


def train_and_export(
    config_file: Path,
    regions: tuple[Path, ...],
    data_dir: Path | None,
    out: Path,
    resume: bool,
    overrides: tuple[str, ...],
    initial: Path | None = None,
    strategy: str = "one",
) -> Path:
    """Run what ``train.py`` offers: tiles, training, export, figures and tracking.

    Parameters
    ----------
    config_file, overrides
        As for `config.load_config`.
    regions
        Region files; those of the configuration when empty.
    data_dir
        Folder that the region files' paths start from.
    out
        Folder of the model; checkpoints lie in its ``training``.
    resume
        Go on with the run that lies there.
    initial
        Exported model whose weights to start from.
    strategy
        One of `training.distribution.STRATEGIES`. Of several workers only the first tracks, exports and draws.
    """
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.errors import DataError
    from deepbedmap_tf.figures.training import training_curves
    from deepbedmap_tf.inference.export import export_model, load_model
    from deepbedmap_tf.inference.halo import store_halo
    from deepbedmap_tf.inference.serving import log_model
    from deepbedmap_tf.training.description import describe
    from deepbedmap_tf.training.distribution import distribute
    from deepbedmap_tf.training.loop import load_training_data, train
    from deepbedmap_tf.training.tracking import forgiven, tracked

    config = load_config(config_file, overrides)
    distribution = distribute(strategy)
    if regions:
        data_config = config.data.model_copy(update={"regions": tuple(str(each) for each in regions)})
        config = config.model_copy(update={"data": data_config})
    files = tuple(Path(each) for each in config.data.regions)
    weights, ancestry = None, None
    if initial is not None:
        model = load_model(initial)
        if model.config != config.generator:
            raise DeepBedMapError(
                f"{initial} has another architecture than {config_file}; start from a model of the same settings"
            )
        weights = model.weights()
        ancestry = model.ancestry
    with distribution.watched(out / "training"), distribution.chief_first():
        data = load_training_data(config, files, data_dir, sys.stderr.isatty())
    if not distribution.chief:
        train(config, data, out / "training", resume, False, initial_weights=weights, distribution=distribution)
        return out
    synthetic = all(part["synthetic"] for part in data.provenance)
    leaks = [part["leak_fraction"] for part in data.provenance]
    click.echo(
        f"{len(data.train)} training and {len(data.validation)} validation tiles, leak fraction {max(leaks)}"
        f"{', SYNTHETIC' if synthetic else ''}"
    )
    tags = {"tile_store_hash": data.data_hash, "synthetic": str(synthetic), "out": str(out)}
    with tracked(config, tags, data.provenance) as tracker:
        run = train(
            config,
            data,
            out / "training",
            resume,
            # A bar that redraws itself is noise in a log file, where one line an epoch says all.
            progress=sys.stderr.isatty(),
            on_epoch=tracker.epoch,
            on_start=tracker.start,
            initial_weights=weights,
            distribution=distribution,
        )
        metadata = describe(config, data, run, out.name, tracker.run_id, ancestry)
        export_model(run.gan.averaged_generator, config.generator, out, metadata, config.training.symmetric)
        try:
            halo = store_halo(load_model(out), load_region(files[0], data_dir))["halo"]
            click.echo(f"halo: {halo} low-resolution cells")
        except DataError as error:
            # A region too small to measure on is no reason to lose the model: maps take the usual halo then.
            click.echo(f"halo not measured: {error}")
        if run.history:
            tracker.figures([training_curves(run.history, out / "training" / "curves.png", metadata["title"])])
        with forgiven("the model"):
            log_model(tracker.mlflow, out, config.generator, tags=tags)
    final = metadata["metrics"]
    if final:
        click.echo(
            f"validation RMSE {final['val_rmse']:.1f} m, bicubic {final['val_bicubic_rmse']:.1f} m, "
            f"skill {100 * final['val_skill']:.1f} %, SSIM {final['val_ssim']:.3f}"
        )
    click.echo(f"model: {out}")
    return out
