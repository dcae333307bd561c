"""When a trial ends early: after which epoch, and why."""

from __future__ import annotations

import gc
import math
import weakref
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import tensorflow as tf

from deepbedmap_tf.models.deformable import DeformableConv2D
from deepbedmap_tf.training.loop import forget_networks
from deepbedmap_tf.training.study import Hyperband, quieten_optuna
from deepbedmap_tf.training.tuning import _Judge

EPOCHS = 4


def judged(study: optuna.Study, errors: list[float], psnr: float = 20.0) -> tuple[optuna.trial.FrozenTrial, list[Any]]:
    """Run a trial whose validation RMSE is given for each epoch; also return what tracking got."""
    tracked: list[Any] = []

    def objective(trial: optuna.Trial) -> float:
        tracker: Any = SimpleNamespace(epoch=lambda step, metrics: tracked.append((step, metrics["val_rmse"])))
        judge = _Judge(trial, tracker, [], EPOCHS)
        for epoch, error in enumerate(errors, start=1):
            judge(10 * epoch, {"epoch": epoch, "val_rmse": error, "val_psnr": psnr})
        return errors[-1]

    study.optimize(objective, n_trials=1)
    return study.trials[-1], tracked


@pytest.fixture
def study() -> optuna.Study:
    quieten_optuna()
    return optuna.create_study(study_name="judged", pruner=Hyperband(1, EPOCHS, 4))


def test_a_good_trial_reports_every_epoch_and_is_complete(study: optuna.Study) -> None:
    trial, tracked = judged(study, [40.0, 30.0, 20.0, 10.0])
    assert trial.state.name == "COMPLETE" and trial.intermediate_values == {1: 40, 2: 30, 3: 20, 4: 10}
    assert tracked == [(10, 40), (20, 30), (30, 20), (40, 10)]


def test_an_error_larger_than_the_range_of_the_bed_is_the_end(study: optuna.Study) -> None:
    assert judged(study, [40.0, 30.0], psnr=0.0)[0].state.name == "COMPLETE"
    trial, tracked = judged(study, [40.0, 30.0], psnr=-0.01)
    assert trial.state.name == "PRUNED" and tracked == [(10, 40)]
    assert judged(study, [40.0, 30.0], psnr=math.nan)[0].state.name == "PRUNED"


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_an_error_that_is_no_number_is_tracked_but_not_learned_from(study: optuna.Study, error: float) -> None:
    trial, tracked = judged(study, [40.0, error, 30.0, 20.0])
    assert trial.state.name == "PRUNED" and trial.intermediate_values == {1: 40} and len(tracked) == 2


def test_trials_that_fall_behind_are_pruned_but_not_at_the_end(study: optuna.Study) -> None:
    for error in range(10, 20):
        judged(study, [float(error)] * EPOCHS)
    lengths = [len(judged(study, [100.0] * EPOCHS)[0].intermediate_values) for _ in range(12)]
    assert set(lengths) <= {1, EPOCHS} and 1 in lengths
    for trial in study.trials:
        assert (trial.state.name == "COMPLETE") == (len(trial.intermediate_values) == EPOCHS)


def test_networks_of_a_trial_are_forgotten() -> None:
    """TensorFlow's table of gradients would keep graph, weights and optimiser of every trial."""
    layers = [DeformableConv2D(1, 3)]
    image = tf.ones((1, 4, 4, 1))

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layers[0](image))
        return tape.gradient(loss, layers[0].trainable_variables)[0]

    step()
    graph = weakref.ref(step.get_concrete_function().graph)
    del step
    layers.clear()
    gc.collect()
    assert graph() is not None, "TensorFlow lets go by itself: forget_networks has become simpler"
    forget_networks()
    assert graph() is None
