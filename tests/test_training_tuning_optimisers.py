"""TensorFlow Addons' optimisers as a tuning choice: they clip, our step averages for them, a run resumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import only, tiny_config, tiny_data

from deepbedmap_tf.config import Config, OptimizerConfig
from deepbedmap_tf.training.gan import build_optimizer
from deepbedmap_tf.training.loop import TrainedRun, train

ADDED = ("rectified_adam", "lookahead")


def steps(name: str, gradients: list[float], clip_norm: float | None) -> np.ndarray:
    """What a few gradients, the same for two weights at right angles, make of them."""
    optimizer = build_optimizer(OptimizerConfig(name=name, learning_rate=0.1, epsilon=1.0, clip_norm=clip_norm), 1)
    variable = tf.Variable([0.0, 0.0])
    for size in gradients:
        optimizer.apply_gradients([(tf.constant([0.6 * size, -0.8 * size]), variable)])
    return variable.numpy()


@pytest.mark.parametrize("name", ADDED)
def test_gradients_are_clipped_to_the_global_norm(name: str) -> None:
    clipped = steps(name, [200.0, 300.0, 1.0], clip_norm=2.0)
    np.testing.assert_allclose(clipped, steps(name, [2.0, 2.0, 1.0], clip_norm=None), rtol=1e-5)
    assert np.abs(steps(name, [200.0, 300.0, 1.0], clip_norm=None)).max() > 3 * np.abs(clipped).max()


def configuration(name: str) -> Config:
    config = tiny_config()
    changed = config.generator_optimizer.model_copy(update={"name": name, "learning_rate": 1e-2})
    return config.model_copy(update={"generator_optimizer": changed, "losses": only("content")})


def weights(run: TrainedRun) -> np.ndarray:
    return np.concatenate([np.ravel(each) for each in run.gan.averaged_generator.get_weights()])


@pytest.mark.slow
def test_a_run_is_averaged_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    # Lookahead is around the other: both have variables that must come back.
    name = "lookahead"
    data = tiny_data()
    whole = train(configuration(name), data, tmp_path / "whole", progress=False)
    ended = np.concatenate([np.ravel(each) for each in whole.gan.generator.get_weights()])
    # An average of moving weights lags behind them.
    assert np.abs(weights(whole) - ended).max() > 1e-3

    def stop(step: int, metrics: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configuration(name), data, tmp_path / "parts", progress=False, on_epoch=stop)
    resumed = train(configuration(name), data, tmp_path / "parts", resume=True, progress=False)
    assert resumed.steps == whole.steps
    np.testing.assert_allclose(weights(resumed), weights(whole), atol=2e-4)
    assert resumed.history[-1]["val_rmse"] == pytest.approx(whole.history[-1]["val_rmse"], rel=1e-4)
