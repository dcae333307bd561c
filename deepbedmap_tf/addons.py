"""The few things taken from TensorFlow Addons, which is at its end of life: nothing else may import it."""

from __future__ import annotations

import warnings
from typing import Any

from deepbedmap_tf.errors import ConfigError


def _addons() -> Any:
    with warnings.catch_warnings():
        # Its farewell and its list of supported versions concern us, who pin it, not the user.
        warnings.simplefilter("ignore")
        import tensorflow_addons
    return tensorflow_addons


def progress_bar() -> Any:
    """Return a Keras callback that shows the run and each epoch as a tqdm bar with the metrics behind it."""
    return _addons().callbacks.TQDMProgressBar(leave_epoch_progress=False, show_epoch_progress=True)


def optimizer(name: str, learning_rate: Any, clip_norm: float | None = None, **options: Any) -> Any:
    """Return one of the optimisers that Keras lacks.

    They are of Keras' legacy kind, which keeps no average of the weights: `DeepBedMapGAN` keeps its own.

    Parameters
    ----------
    name
        ``rectified_adam`` (Liu et al. 2019), or ``lookahead`` (Zhang et al. 2019) around it.
    learning_rate
        Number or schedule.
    clip_norm
        Global gradient norm above which gradients are scaled down; None for no limit.
    **options
        beta_1, beta_2, epsilon.

    Raises
    ------
    ConfigError
        For another name.
    """
    optimizers = _addons().optimizers
    if name not in ("rectified_adam", "lookahead"):
        raise ConfigError(f"optimizer {name!r} is unknown; expected adam, rectified_adam or lookahead")
    # The outer one gets the gradients, and clips them.
    clipped = {} if clip_norm is None else {"global_clipnorm": clip_norm}
    rectified = optimizers.RectifiedAdam(
        learning_rate=learning_rate, **options, **(clipped if name == "rectified_adam" else {})
    )
    made = rectified if name == "rectified_adam" else optimizers.Lookahead(rectified, **clipped)
    # What newer optimisers call building: all variables are there before a checkpoint is read.
    made.build = made._create_all_weights
    return made
