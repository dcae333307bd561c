"""The command line: ``deepbedmap`` with its commands, and what ``train.py`` and ``evaluate.py`` are made of."""

from deepbedmap_tf.cli import data, draw, models, predict, serving, tune
from deepbedmap_tf.cli.base import command, main
from deepbedmap_tf.cli.train import train_and_export

__all__ = ["command", "data", "draw", "main", "models", "predict", "serving", "train_and_export", "tune"]
