"""``deepbedmap predict``: maps."""

from __future__ import annotations

from pathlib import Path

import click

from deepbedmap_tf.cli.base import command, main


@command(main)
@click.option("--model", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
@click.option("--region", required=True, type=click.Path(path_type=Path), help="Region file, configs/regions/*.yml.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that the region's paths start from.")
@click.option("--bounds", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="Edges in metres; the whole region.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write, *.nc.")
def predict(
    model: Path, region: Path, data_dir: Path | None, bounds: tuple[float, float, float, float] | None, out: Path
) -> None:
    """Map the bed of a region, or of a part of it, to a NetCDF file."""
    from deepbedmap_tf.inference.predict import predict_to_file

    click.echo(predict_to_file(model, region, data_dir, bounds, out))
