"""What is done with models: ``cross-validate``, ``import-chainer``, ``export``, ``halo``, ``calibrate``, ``bench``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deepbedmap_tf.cli.base import (
    command,
    data_dir_option,
    json_option,
    main,
    model_option,
    overrides_option,
    region_option,
    write_numbers,
)


@command(main, "cross-validate")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), default=Path("configs/byrd.yml"), show_default=True
)
@region_option
@data_dir_option
@click.option("--initial", type=click.Path(path_type=Path), help="Exported model that every fold starts from.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the folds; goes on where it ended."
)
@click.option("--fold", "only", multiple=True, type=int, help="Train only this fold, counted from 0; may be repeated.")
@overrides_option
def cross_validate(
    config_file: Path,
    region: Path,
    data_dir: Path | None,
    initial: Path | None,
    out: Path,
    only: tuple[int, ...],
    overrides: tuple[str, ...],
) -> None:
    """Train a network a fold and score it, beside baselines, at radar cells that its training never saw."""
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.evaluation.crossvalidation import cross_validate as run
    from deepbedmap_tf.evaluation.crossvalidation import table

    result = run(load_config(config_file, overrides), region, out, data_dir, initial, only or None, sys.stderr.isatty())
    for number, scores in result["folds"].items():
        click.echo(f"\nfold {number}: {scores['bicubic']['count']:.0f} radar cells\n{table(scores)}")
    click.echo(f"\nmean and standard deviation over the folds\n{table(result['mean'], result['spread'])}")
    click.echo(f"\n{out / 'metrics.json'}")


@command(main, "import-chainer")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
@click.option("--residual-scaling", default=0.2, show_default=True, help="The weight file does not hold it.")
def import_chainer_command(weights: Path, out: Path, residual_scaling: float) -> None:
    """Turn the published network's WEIGHTS.npz into a SavedModel."""
    from deepbedmap_tf.inference.export import import_chainer, load_model

    model = load_model(import_chainer(weights, out, residual_scaling))
    click.echo(f"{out}: {model.config.num_residual_blocks} blocks, {model.config.input_filters} filters an input")


@command(main)
@model_option
@click.option("--keras", "keras_file", type=click.Path(path_type=Path), help="generator.keras to write.")
@click.option("--saved-model", "folder", type=click.Path(path_type=Path), help="saved_models/ANOTHER_NAME to write.")
def export(model: Path, keras_file: Path | None, folder: Path | None) -> None:
    """Make a Keras file, for further training or study, or a SavedModel with every signature from an exported model."""
    from deepbedmap_tf.inference.export import export_again, load_model
    from deepbedmap_tf.inference.keras_files import save_keras

    if keras_file is None and folder is None:
        raise click.UsageError("say what to make: --keras FILE, --saved-model FOLDER, or both")
    if folder is not None:
        click.echo(f"{export_again(model, folder)}: signatures {', '.join(load_model(folder).signatures)}")
    if keras_file is not None:
        generator = load_model(model).generator()
        save_keras(generator, keras_file)
        click.echo(f"{keras_file}: {generator.count_params():,} parameters")


@command(main, "import-keras")
@click.argument("keras_file", type=click.Path(path_type=Path), metavar="GENERATOR.keras")
@click.option("--like", required=True, type=click.Path(path_type=Path), help="Exported model of the same architecture.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
def import_keras_command(keras_file: Path, like: Path, out: Path) -> None:
    """Turn a Keras file, as `export --keras` makes it, into a SavedModel; one with a Lambda layer is refused."""
    from deepbedmap_tf.inference.keras_files import import_keras

    click.echo(import_keras(keras_file, like, out))


@command(main)
@model_option
@region_option
@data_dir_option
@click.option("--tolerance", default=0.1, show_default=True, help="Change of the bed that counts as none, metres.")
def halo(model: Path, region: Path, data_dir: Path | None, tolerance: float) -> None:
    """Measure how much context a model needs around a block of the map, and keep it in its model.json."""
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.inference.export import load_model
    from deepbedmap_tf.inference.halo import store_halo

    found = store_halo(load_model(model), load_region(region, data_dir), tolerance)
    click.echo("halo  largest change of the bed (m)")
    for cells, change in found["halo_changes"]:
        click.echo(f"{cells:4d}  {change:.3g}")
    click.echo(f"{model}: a halo of {found['halo']} low-resolution cells for {tolerance:g} m on {found['halo_region']}")


@command(main)
@model_option
@region_option
@data_dir_option
def calibrate(model: Path, region: Path, data_dir: Path | None) -> None:
    """Measure how far off a model is at radar that it never saw, and keep that in its model.json for realisations."""
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.inference.calibration import calibrate as measure
    from deepbedmap_tf.inference.export import load_model

    found, covered = measure(load_model(model), load_region(region, data_dir), progress=sys.stderr.isatty())
    click.echo(
        f"{model}: error of {found.floor:.1f} m, {found.spread:.2f} x spread and {found.relief:.2f} x relief, "
        f"correlated over {found.range:.0f} m, from {found.cells} cells with picks"
    )
    click.echo(
        f"on squares that were not fitted, the intervals of 50 and 90 % hold {100 * covered['coverage_50']:.1f} and "
        f"{100 * covered['coverage_90']:.1f} %"
    )


@command(main)
@json_option
@click.option("--repeats", default=5, show_default=True, help="Timings of each case; the best counts.")
def bench(json_file: Path | None, repeats: int) -> None:
    """Measure this machine's arithmetic, inference, training and the deformable layers."""
    from deepbedmap_tf.inference.bench import measure, table

    results = measure(repeats, lambda line: click.echo(line, err=True))
    click.echo(table(results))
    write_numbers(results, json_file)
