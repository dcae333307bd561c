"""``deepbedmap predict``: maps."""

from __future__ import annotations

from pathlib import Path

import click

from deepbedmap_tf.cli.base import (
    command,
    data_dir_option,
    json_option,
    main,
    model_option,
    region_option,
    write_numbers,
)


@command(main)
@model_option
@region_option
@data_dir_option
@click.option("--bounds", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="Edges in metres; the whole region.")
@click.option(
    "--out",
    "outs",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="File to write, *.nc, *.tif or *.zarr; may be repeated.",
)
@click.option("--block", type=int, help="Side of a block, low-resolution cells; what suits halo and memory.")
@click.option("--halo", type=int, help="Context around a block, low-resolution cells; the model's own.")
@click.option("--blend", type=int, default=0, show_default=True, help="Cells over which blocks pass into each other.")
@click.option("--batch", type=int, default=1, show_default=True, help="Blocks that go through the network together.")
@click.option("--limit-to-surface", is_flag=True, help="Lower the bed to the ice surface where it came out above.")
@click.option("--consistent", is_flag=True, help="Make 4 x 4 means equal to the low-resolution bed.")
@click.option("--honour-picks", type=float, metavar="METRES", help="Meet the radar; the residual spreads so far.")
@click.option("--realisations", type=int, default=0, show_default=True, help="Equally likely beds, and their spread.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the realisations.")
@click.option("--fill-with-coarse-bed", is_flag=True, help="Interpolate the low-resolution bed where there is none.")
@click.option("--workers", type=int, help="Processes; 0 for this one alone. By default what suits machine and map.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to use instead of a cluster of our own.")
@click.option("--memory-limit", type=float, metavar="GB", help="For all processes together; blocks are made to fit.")
@click.option("--restart", is_flag=True, help="Throw away what an earlier run left in OUT.partial.")
def predict(
    model: Path,
    region: Path,
    data_dir: Path | None,
    bounds: tuple[float, float, float, float] | None,
    outs: tuple[Path, ...],
    block: int | None,
    halo: int | None,
    blend: int,
    batch: int,
    limit_to_surface: bool,
    consistent: bool,
    honour_picks: float | None,
    realisations: int,
    seed: int,
    fill_with_coarse_bed: bool,
    workers: int | None,
    scheduler: str | None,
    memory_limit: float | None,
    restart: bool,
) -> None:
    """Map the bed of a region, or of a part of it.

    A run that was interrupted or killed goes on where it ended when it is started again in the same way.
    """
    from deepbedmap_tf.inference.cluster import Resources
    from deepbedmap_tf.inference.options import MapOptions
    from deepbedmap_tf.inference.predict import Cut, MapSettings, predict_to_files

    settings = MapSettings(
        options=MapOptions(limit_to_surface, honour_picks, realisations, consistent, fill_with_coarse_bed, seed),
        cut=Cut(block, halo, blend, batch),
        resources=Resources(workers, scheduler, memory_limit),
        restart=restart,
    )
    for path in predict_to_files(model, region, data_dir, bounds, outs, settings):
        click.echo(path)


@command(main, "bench-map")
@model_option
@region_option
@data_dir_option
@click.option("--bounds", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="Representative part, in metres.")
@click.option("--block", type=int, help="Side of a block, low-resolution cells; what suits the halo.")
@click.option("--blocks", type=int, default=8, show_default=True, help="Blocks to time for each crew.")
@json_option
def bench_map(
    model: Path,
    region: Path,
    data_dir: Path | None,
    bounds: tuple[float, float, float, float] | None,
    block: int | None,
    blocks: int,
    json_file: Path | None,
) -> None:
    """Measure how much of the bare network's speed a map reaches, and what the whole region would take."""
    from deepbedmap_tf.inference.map_bench import measure, table

    results = measure(model, region, data_dir, bounds, block, blocks, lambda line: click.echo(line, err=True))
    click.echo(table(results))
    write_numbers(results, json_file)
