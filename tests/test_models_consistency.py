"""Every 4 x 4 mean is its low-resolution cell, whatever the bed was; unknown cells leave the bed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from deepbedmap_tf.config import GeneratorConfig, InputConfig
from deepbedmap_tf.inference.export import export_model, load_model
from deepbedmap_tf.models.consistency import CoarseConsistency, make_consistent
from deepbedmap_tf.models.generator import build_generator


def means(bed: np.ndarray) -> np.ndarray:
    return bed.reshape(bed.shape[0] // 4, 4, bed.shape[1] // 4, 4).mean(axis=(1, 3))


def case(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    coarse = generator.normal(-1500, 400, (shape[0] + 2, shape[1] + 2))
    bed = generator.normal(-1400, 200, (4 * shape[0], 4 * shape[1]))
    return bed, coarse


@settings(max_examples=20)
@given(shape=st.tuples(st.integers(1, 12), st.integers(1, 12)), seed=st.integers(0, 99), steps=st.integers(0, 5))
def test_means_are_the_low_resolution_bed(shape: tuple[int, int], seed: int, steps: int) -> None:
    bed, coarse = case(shape, seed)
    np.testing.assert_allclose(means(make_consistent(bed, coarse, steps)), coarse[1:-1, 1:-1], atol=1e-9)


def test_float32_keeps_a_millimetre() -> None:
    bed, coarse = case((40, 30), 1)
    made = make_consistent(bed.astype(np.float32), coarse.astype(np.float32))
    assert made.dtype == np.float32
    np.testing.assert_allclose(means(made.astype(np.float64)), coarse[1:-1, 1:-1], atol=1e-3)


@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_unknown_cells_leave_the_bed_alone(seed: int) -> None:
    bed, coarse = case((9, 11), seed)
    generator = np.random.default_rng(seed)
    coarse[generator.random(coarse.shape) < 0.3] = np.nan
    bed[generator.integers(36), generator.integers(44)] = np.nan
    made = make_consistent(bed, coarse)
    untouched = (np.isnan(coarse[1:-1, 1:-1]) | np.isnan(means(bed))).repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(made[untouched], bed[untouched])
    known = ~untouched[::4, ::4]
    np.testing.assert_allclose(means(made)[known], coarse[1:-1, 1:-1][known], atol=1e-9)


def test_a_consistent_bed_is_not_changed() -> None:
    bed, coarse = case((8, 8), 3)
    coarse[1:-1, 1:-1] = means(bed)
    np.testing.assert_allclose(make_consistent(bed, coarse), bed, atol=1e-9)


def test_no_steps_along_the_edges_of_low_resolution_cells() -> None:
    # A smooth misfit: what is added must not change more from cell to cell where two low-resolution cells meet.
    misfit = gaussian_filter(np.random.default_rng(4).normal(size=(42, 42)), 2.0)
    misfit *= 100 / misfit.std()
    added = make_consistent(np.zeros((160, 160)), misfit)
    stepwise = make_consistent(np.zeros((160, 160)), misfit, smooth_steps=0)

    def excess(bed: np.ndarray) -> float:
        steps = np.abs(np.diff(bed, axis=1)).mean(axis=0)
        return float(steps[3::4].mean() / steps.mean())

    assert excess(added) < 1.1
    assert excess(stepwise) == pytest.approx(159 / 39)


def test_what_is_far_has_no_influence() -> None:
    # Blocks are cut from larger windows: a change 2 cells of reach a step away can't be felt.
    bed, coarse = case((30, 30), 5)
    other = coarse.copy()
    other[:, 21:] += 100
    difference = np.abs(make_consistent(bed, other) - make_consistent(bed, coarse)).max(axis=0)
    assert difference[: 4 * (20 - 2 * 4)].max() == 0
    assert difference[4 * 19] > 0


def test_in_the_graph_and_in_the_saved_model(tmp_path: Path) -> None:
    inputs = (InputConfig(name="bed_lowres", ratio=1), InputConfig(name="surface", ratio=10))
    config = GeneratorConfig(
        num_residual_blocks=1, filters=8, growth_filters=4, input_filters=4, inputs=inputs, normalise=True,
        output="residual", initial_scale=1.0, trunk_initial_scale=1.0, consistent=True,
    )  # fmt: skip
    tf.keras.utils.set_random_seed(5)
    generator = build_generator(config, "float32")
    coarse = np.random.default_rng(6).normal(-1500, 300, (1, 14, 12, 1)).astype(np.float32)
    surface = np.random.default_rng(7).normal(900, 20, (1, 140, 120, 1)).astype(np.float32)
    coarse[0, 5, 6] = np.nan
    given_inputs = {"bed_lowres": coarse, "surface": surface}
    plain = build_generator(config.model_copy(update={"consistent": False}), "float32")
    plain.set_weights(generator.get_weights())
    free = plain(given_inputs).numpy()[0, ..., 0]
    model = load_model(export_model(generator, config, tmp_path / "model", {}))
    assert model.config.consistent
    for bed in (generator(given_inputs).numpy()[0, ..., 0], model(given_inputs)[0, ..., 0]):
        residual = means(bed.astype(np.float64)) - coarse[0, 1:-1, 1:-1, 0]
        assert np.nanmax(np.abs(residual)) < 1e-3
        np.testing.assert_allclose(bed[16:20, 20:24], free[16:20, 20:24], rtol=1e-5)
        assert np.abs(means(free) - coarse[0, 1:-1, 1:-1, 0])[np.isfinite(residual)].max() > 1
        np.testing.assert_allclose(make_consistent(free, coarse[0, ..., 0]), bed, atol=2e-2)
    again = model.generator()
    np.testing.assert_allclose(again(given_inputs), generator(given_inputs), atol=1e-3)


def test_off_by_default() -> None:
    assert not GeneratorConfig().consistent
    assert CoarseConsistency().get_config()["smooth_steps"] > 0


def test_layer_is_made_again_from_its_configuration() -> None:
    layer = CoarseConsistency(2, name="exact")
    assert CoarseConsistency.from_config(layer.get_config()).smooth_steps == 2


def test_gradient_reaches_the_network() -> None:
    # Only what the means leave free moves: a shift of a whole low-resolution cell has no effect.
    bed, coarse = case((3, 3), 8)
    layer = CoarseConsistency(dtype="float64")
    variable = tf.Variable(bed[np.newaxis, ..., np.newaxis])
    with tf.GradientTape() as tape:
        made = layer([variable, coarse[np.newaxis, ..., np.newaxis]])
        total = tf.reduce_sum(made**2)
    gradient = tape.gradient(total, variable).numpy()[0, ..., 0]
    assert np.abs(gradient).max() > 1
    assert means(gradient).sum() == pytest.approx(0, abs=1e-6 * np.abs(gradient).sum())
