"""Adam with the paper's and its code's settings, and the learning-rate schedules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from deepbedmap_tf.config import OptimizerConfig
from deepbedmap_tf.training.gan import build_optimizer


@pytest.mark.parametrize("settings", ["paper_tableB1", "code"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_adam_of_the_published_network(shared: Callable[[str], Path], settings: str, dtype: str) -> None:
    arrays = np.load(shared("reference/f_adam.npz"))
    given = json.loads(str(arrays[f"{settings}_kw"]))
    names = {"alpha": "learning_rate", "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
    optimizer = build_optimizer(OptimizerConfig(**{names[key]: value for key, value in given.items()}), 6)
    start = arrays[f"{settings}_p0"]
    variable = tf.Variable(start, dtype=dtype)
    for gradient, expected in zip(arrays[f"{settings}_grads"], arrays[f"{settings}_p"], strict=True):
        optimizer.apply_gradients([(tf.constant(gradient, dtype), variable)])
        # Keras rounds its settings to float32 even for float64 weights: 1 - 0.999 is then off by 1e-5 of itself.
        way = np.abs(expected - start).max()
        np.testing.assert_allclose(variable, expected, rtol=2e-7 if dtype == "float32" else 0, atol=2e-5 * way)


def test_defaults_are_the_papers_table() -> None:
    settings = OptimizerConfig()
    assert (settings.learning_rate, settings.beta_1, settings.beta_2, settings.epsilon) == (1.7e-4, 0.9, 0.99, 0.1)


def rates(total: int, steps: list[int], **settings: object) -> list[float]:
    schedule = build_optimizer(
        OptimizerConfig.model_validate({"learning_rate": 1e-3, **settings}), total
    )._learning_rate
    return [float(schedule(step)) for step in steps]


def test_cosine_with_warm_up() -> None:
    found = rates(110, [0, 5, 10, 60, 110, 500], schedule="cosine", warmup_steps=10)
    np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 1e-3 * (0.01 + 0.99 / 2), 1e-5, 1e-5], rtol=1e-5, atol=1e-10)


def test_constant_after_warm_up() -> None:
    np.testing.assert_allclose(rates(100, [0, 2, 4, 50, 100], warmup_steps=4), [0, 5e-4, 1e-3, 1e-3, 1e-3], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rectified_adam", "lookahead"])
def test_every_optimiser_descends(name: str) -> None:
    optimizer = build_optimizer(OptimizerConfig(name=name, learning_rate=0.3, epsilon=1e-8), 100)
    variable = tf.Variable([3.0, -2.0])
    for _ in range(100):
        optimizer.apply_gradients([(2 * variable, variable)])
    assert np.abs(variable).max() < 0.5


def test_clipping_limits_the_global_norm() -> None:
    config = OptimizerConfig(learning_rate=1.0, epsilon=1e3, clip_norm=5.0)
    optimizer = build_optimizer(config, 1)
    variable = tf.Variable([0.0, 0.0])
    optimizer.apply_gradients([(tf.constant([300.0, -400.0]), variable)])
    # With so large an epsilon the step is the clipped gradient, (3, -4), times sqrt(1 - beta_2) / epsilon.
    np.testing.assert_allclose(variable, [-3e-4, 4e-4], rtol=1e-2)
