"""``deepbedmap register``: a model into MLflow's registry, from where ``mlflow models serve`` takes it."""

from __future__ import annotations

from pathlib import Path

import click

from deepbedmap_tf.cli.base import command, main, model_option


@command(main)
@model_option
def register(model: Path) -> None:
    """Make an exported model the latest version of `deepbedmap` in MLflow's registry."""
    from deepbedmap_tf.inference.serving import register as register_model

    click.echo(register_model(model))
