"""Evaluate a saved model along a transect: a table, metrics.json, profile.csv and figures."""

from __future__ import annotations

from pathlib import Path

import click

from deepbedmap_tf.cli import command
from deepbedmap_tf.cli.base import data_dir_option


@command(name="evaluate.py")
@click.option("--transect", required=True, help="Name of a transect of the region, for example thwaites or byrd.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    default=Path("saved_models/default"),
    show_default=True,
    help="Folder of an exported model.",
)
@click.option(
    "--region",
    type=click.Path(path_type=Path),
    help="Region file; by default the first that the model was trained on.",
)
@data_dir_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results; by default outputs/<transect>-<model>.",
)
@click.option(
    "--baseline-tiles",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Tile store that a boosted regression learns from, as one more product (some minutes); may be repeated.",
)
@click.option("--figures/--no-figures", default=True, show_default=True, help="Draw figures with PyGMT.")
def main(
    transect: str,
    model: Path,
    region: Path | None,
    data_dir: Path | None,
    out: Path | None,
    baseline_tiles: tuple[Path, ...],
    figures: bool,
) -> None:
    """Compare a model with radar, the bicubic bed and the region's other products along a transect."""
    from deepbedmap_tf.evaluation.report import evaluate
    from deepbedmap_tf.inference.export import read_metadata
    from deepbedmap_tf.training.tracking import record_evaluation

    out = out or Path("outputs") / f"{transect}-{model.name}"
    result = evaluate(model, transect, region, data_dir, out, baseline_tiles)
    click.echo(result.table())
    files = [out / "metrics.json", out / "profile.csv"]
    if figures:
        from deepbedmap_tf.figures.evaluation import draw_evaluation

        files += draw_evaluation(result, out)
    run = record_evaluation(read_metadata(model), transect, result.metrics(), files)
    click.echo("\nwritten:\n" + "\n".join(f"  {file}" for file in files))
    if run is not None:
        click.echo(f"added to the model's run {run} in MLflow")


if __name__ == "__main__":
    main()
