"""``deepbedmap draw``: a map as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from deepbedmap_tf.cli.base import command, main


@command(main)
@click.argument("product", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Figure without its ending; by default beside the map.")
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(["png", "pdf", "jpg"]), default=("png",), show_default=True
)
def draw(product: Path, out: Path | None, formats: tuple[str, ...]) -> None:
    """Draw a map that ``deepbedmap predict`` wrote (*.nc or *.zarr): beds, roughness, spread or distance to radar."""
    from deepbedmap_tf.figures.product import draw_product

    for path in draw_product(product, out or product.with_suffix(""), formats):
        click.echo(path)
