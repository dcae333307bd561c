"""``deepbedmap fetch`` and ``deepbedmap prepare``: products and tiles."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deepbedmap_tf.cli.base import command, data_dir_option, main, overrides_option, region_option


@command(main)
@region_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Tile store to write, *.zarr.")
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/default.yml"), show_default=True)
@data_dir_option
@overrides_option
def prepare(region: Path, out: Path, config: Path, data_dir: Path | None, overrides: tuple[str, ...]) -> None:
    """Cut a region into training, validation and test tiles."""
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.data.tiles import open_tiles, prepare_tiles
    from deepbedmap_tf.training.teaching import teacher

    settings = load_config(config, overrides)
    source = load_region(region, data_dir)
    teach = teacher(source, settings.data, settings.seed)
    store = prepare_tiles(source, settings.data, out, settings.seed, inputs=settings.generator.inputs, teach=teach)
    tiles = open_tiles(store)
    counts = ", ".join(f"{len(tiles.select(split))} {split}" for split in ("train", "validation", "test"))
    click.echo(f"{store}: {counts} tiles, leak fraction {tiles.attrs['leak_fraction']}")


@command(main)
@click.argument("products", nargs=-1, metavar="[PRODUCT]...")
@click.option("--list", "listing", is_flag=True, help="Show products with state, size, licence and citation.")
@click.option("--verify", is_flag=True, help="With --list: compare the checksums of what is there.")
@click.option("--sizes", is_flag=True, help="With --list: ask the servers for sizes that are not on record.")
def fetch(products: tuple[str, ...], listing: bool, verify: bool, sizes: bool) -> None:
    """Download public products, or single files of them (PRODUCT/FILE), into $DEEPBEDMAP_DATA_DIR.

    A download that was cut off goes on where it ended.
    """
    from deepbedmap_tf.data.fetching import fetch as fetch_products
    from deepbedmap_tf.data.product_states import product_states, product_table
    from deepbedmap_tf.data.sizes import Sizes

    if listing or verify or sizes or not products:
        asked = Sizes() if sizes else None
        states = product_states(products, verify, asked.of if asked else None)
        click.echo(product_table(states, files=bool(products)))
        if asked:
            asked.close()
        if not products:
            click.echo("fetch some with: deepbedmap fetch PRODUCT...", err=True)
        return
    ask = _ask_for_login if sys.stdin.isatty() else None
    for each in fetch_products(products, sys.stderr.isatty(), ask):
        done = "downloaded" if each.downloaded else "was there"
        click.echo(f"{each.path}: {done}, {each.checksum or 'not compared with a checksum'}")


def _ask_for_login(host: str) -> tuple[str, str]:
    click.echo(f"{host} wants a login (it is not stored)", err=True)
    return click.prompt("user name", err=True), click.prompt("password", hide_input=True, err=True)
