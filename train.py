"""Train a model and export it to saved_models/NAME; see ``python train.py --help``."""

from __future__ import annotations

from pathlib import Path

import click

from deepbedmap_tf.cli import command, train_and_export
from deepbedmap_tf.cli.base import data_dir_option, overrides_option


@command()
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/default.yml"), show_default=True)
@click.option(
    "--region",
    "regions",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Region file; may be repeated: the first one is validated on. By default those of the configuration.",
)
@data_dir_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="saved_models/NAME; by default saved_models/trained-CONFIG."
)
@click.option("--initial", type=click.Path(path_type=Path), help="Exported model to start from.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--strategy",
    type=click.Choice(["one", "mirrored", "multiworker"]),
    default="one",
    show_default=True,
    help="One device, all GPUs of this machine, or all workers of TF_CONFIG.",
)
@overrides_option
def train(
    config: Path,
    regions: tuple[Path, ...],
    data_dir: Path | None,
    out: Path | None,
    initial: Path | None,
    resume: bool,
    strategy: str,
    overrides: tuple[str, ...],
) -> None:
    """Train a DeepBedMap generator; stop it with Ctrl-C, go on with --resume, watch it in `mlflow ui`."""
    out = out or Path("saved_models") / f"trained-{config.stem}"
    train_and_export(config, regions, data_dir, out, resume, overrides, initial, strategy)


if __name__ == "__main__":
    train()
