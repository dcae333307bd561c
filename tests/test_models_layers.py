"""The small layers: exact answers, independence of the window, and what Keras asks of a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_checks import check_layer
from tensorflow import keras
from tiny_training import tiny_inputs

from deepbedmap_tf.models.discriminator import TileAnomaly
from deepbedmap_tf.models.layers import (
    BicubicUpsampling,
    InputFeatures,
    Scale,
    cubic_kernel,
    fill_invalid,
    he_normal,
    leaky_relu,
    local_mean,
    split_invalid,
)

RATIOS = {"bed_lowres": 1, "surface": 10, "velocity": 2, "accumulation": 1}


def ramp(cells: tuple[int, int], ratio: int, margin: int, slope: tuple[float, float]) -> np.ndarray:
    """A plane over low-resolution cells, sampled at the centres of cells `ratio` times finer."""
    rows, columns = ((np.arange(ratio * (size - 2 * margin)) + 0.5) / ratio + margin for size in cells)
    return (-900 + slope[0] * rows[:, np.newaxis] + slope[1] * columns)[np.newaxis, ..., np.newaxis]


@settings(max_examples=20)
@given(st.integers(3, 9), st.integers(3, 9), st.floats(-300, 300), st.floats(-300, 300))
def test_bicubic_reproduces_planes_up_to_the_border(rows: int, columns: int, down: float, right: float) -> None:
    found = BicubicUpsampling(dtype="float64")(ramp((rows, columns), 1, 0, (down, right)))
    np.testing.assert_allclose(found, ramp((rows, columns), 4, 1, (down, right)), rtol=0, atol=1e-9)


def test_bicubic_is_keys_cubic_convolution() -> None:
    bed = np.random.default_rng(0).normal(size=(1, 8, 9, 1)) * 100 - 1500
    found = np.asarray(BicubicUpsampling(dtype="float64")(bed))
    # Output row 9 and column 14 lie at 1 + (9.5 / 4) - 0.5 and 1 + (14.5 / 4) - 0.5 low-resolution centres.
    row, column = 1 + 9.5 / 4 - 0.5, 1 + 14.5 / 4 - 0.5
    expected = sum(
        bed[0, i, j, 0] * float(cubic_kernel(np.array(row - i)) * cubic_kernel(np.array(column - j)))
        for i in range(8)
        for j in range(9)
    )
    assert found[0, 9, 14, 0] == pytest.approx(expected, abs=1e-9)


def test_bicubic_keeps_centres_in_place() -> None:
    bed = np.zeros((1, 7, 7, 1), np.float32)
    bed[0, 3, 3] = 1
    found = np.asarray(BicubicUpsampling()(bed))[0, ..., 0]
    np.testing.assert_allclose(found, found[::-1], atol=1e-6)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    assert found.sum() == pytest.approx(16, abs=1e-4)


def test_bicubic_of_the_same_cells_does_not_depend_on_the_window() -> None:
    bed = np.random.default_rng(1).normal(size=(1, 12, 13, 1)) * 300 - 1500
    whole = np.asarray(BicubicUpsampling(dtype="float64")(bed))
    part = np.asarray(BicubicUpsampling(dtype="float64")(bed[:, 2:10, 3:12]))
    # One more low-resolution cell inwards, where no value is extrapolated.
    np.testing.assert_allclose(part[:, 4:-4, 4:-4], whole[:, 12:28, 16:36], rtol=0, atol=1e-9)


def test_bicubic_with_gaps_is_finite_and_exact_far_from_them() -> None:
    bed = ramp((14, 14), 1, 0, (10, -5))
    holes = bed.copy()
    holes[0, 3:5, 4] = np.nan
    found = np.asarray(BicubicUpsampling(dtype="float64")(holes))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 28:], ramp((14, 14), 4, 1, (10, -5))[:, 28:], atol=1e-9)


def test_bicubic_in_float32_at_depth() -> None:
    bed = ramp((11, 11), 1, 0, (0.01, 0.02)) - 1000
    found = BicubicUpsampling(dtype="float32")(bed.astype(np.float32))
    assert np.abs(found - ramp((11, 11), 4, 1, (0.01, 0.02)) + 1000).max() < 2.5e-4


def test_local_mean_by_hand() -> None:
    values = np.arange(25.0).reshape(1, 5, 5, 1)
    valid = np.ones_like(values)
    valid[0, 0, 0] = valid[0, 2, 2] = 0
    found = np.asarray(local_mean(tf.constant(values), tf.constant(valid), 3))[0, ..., 0]
    assert found[0, 0] == pytest.approx(np.mean([1, 5, 6]))
    assert found[2, 2] == pytest.approx(np.mean([6, 7, 8, 11, 13, 16, 17, 18]))
    nothing = local_mean(tf.constant(values), tf.zeros_like(values), 3)
    np.testing.assert_array_equal(nothing, np.zeros_like(values))


def test_cells_without_valid_neighbours_take_the_overall_mean() -> None:
    values = np.full((1, 9, 9, 1), np.nan)
    values[0, 0, :2, 0] = 4, 8
    filled = np.asarray(fill_invalid(tf.constant(values), 3))[0, ..., 0]
    assert filled[0, 0] == 4 and filled[0, 1] == 8
    assert filled[8, 8] == pytest.approx(6)
    assert filled[1, 2] == pytest.approx(8)


def test_a_cell_is_valid_where_all_its_bands_are() -> None:
    values = np.array([[[[1.0, np.nan], [2.0, 3.0]]]])
    known, valid = split_invalid(tf.constant(values))
    np.testing.assert_array_equal(known, [[[[0, 0], [2, 3]]]])
    np.testing.assert_array_equal(valid, [[[[0], [1]]]])


def features(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in InputFeatures(RATIOS)(inputs).items()}


def test_features_away_from_the_border_do_not_depend_on_where_the_window_ends() -> None:
    inputs = tiny_inputs(1, (26, 24))
    cut = {
        name: values[:, 4 * RATIOS[name] : 22 * RATIOS[name], 3 * RATIOS[name] : 22 * RATIOS[name]]
        for name, values in inputs.items()
    }
    whole, part = features(inputs), features(cut)
    for name, ratio in RATIOS.items():
        edge = 4 * ratio
        inner = part[name][:, edge:-edge, edge:-edge]
        same = whole[name][:, 8 * ratio : 18 * ratio, 7 * ratio : 18 * ratio]
        np.testing.assert_allclose(inner, same, rtol=1e-4, atol=2e-5, err_msg=name)


def test_a_higher_world_has_the_same_features() -> None:
    inputs = tiny_inputs(1)
    raised = inputs | {name: inputs[name] + np.float32(512) for name in ("bed_lowres", "surface")}
    for name, values in features(raised).items():
        np.testing.assert_allclose(values, features(inputs)[name], atol=2e-4, err_msg=name)


def plane_inputs() -> dict[str, np.ndarray]:
    rows, columns = np.mgrid[:110, :110]
    return {
        "bed_lowres": np.full((1, 11, 11, 1), -1000, np.float32),
        "surface": (1500 + 2 * columns - 3 * rows)[np.newaxis, ..., np.newaxis].astype(np.float32),
        "velocity": np.tile(np.array([300, -400], np.float32), (1, 22, 22, 1)),
        "accumulation": np.full((1, 11, 11, 1), 450, np.float32),
    }


def test_features_of_a_plane_by_hand() -> None:
    found = features(plane_inputs())
    # The middle cell's ice is 1500 + 54.5 (2 - 3) + 1000 m thick.
    np.testing.assert_allclose(found["bed_lowres"][0, 5, 5], [0, 0.9455, 1], atol=1e-4)
    # The surface rises by 2 m a cell eastwards and 3 m northwards; ice flows along (3, -4), fading in by 500 / 505.
    along, across = (2 * 300 - 3 * 400) / 505, (3 * 300 + 2 * 400) / 505
    np.testing.assert_allclose(found["surface"][0, 50, 50], [0, along, across, 1], atol=1e-4)
    direction = [300 / 505, -400 / 505]
    expected = [0, 0, *direction, np.log10(501) - 2, 0, 0, 1]
    np.testing.assert_allclose(found["velocity"][0, 11, 11], expected, atol=1e-4)
    np.testing.assert_allclose(found["accumulation"][0, 5, 5], [0.5, 1], atol=1e-6)


def test_faster_ice_is_a_higher_bed_in_the_first_guess() -> None:
    inputs = plane_inputs()
    inputs["velocity"][0, 11, 11] *= 1.1
    east, north = (features(inputs)["velocity"] - features(plane_inputs())["velocity"])[0, 11, 11, :2] * 60
    assert 40 < east < 50, "50 m/yr faster along the flow, less its own share of the local mean"
    assert abs(north) < 1
    channels = features(inputs)["velocity"][0, 11, 11]
    speed = 10 ** (channels[4] + 2) - 1
    thickness = 2445.5 + 25 * (2 - 3)  # the middle of the south-eastern quarter of the middle cell
    guess = channels[0] * 60 * thickness * speed / (speed**2 + 50**2) / 100
    assert channels[5] == pytest.approx(guess, rel=0.01) and guess > 1.5


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_features_of_gaps_are_finite_and_marked(share: float) -> None:
    generator = np.random.default_rng(2)
    inputs = tiny_inputs(2)
    for values in inputs.values():
        values[generator.random(values.shape[:3]) < share] = np.nan
    for name, values in features(inputs).items():
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(values[..., -1] == 1, ~np.isnan(inputs[name]).any(axis=-1), err_msg=name)


def test_other_inputs_are_standardised() -> None:
    values = np.random.default_rng(4).normal(30, 7, (2, 9, 9, 1)).astype(np.float32)
    values[0, :3] = np.nan
    found = np.asarray(InputFeatures({"bouguer": 1})({"bouguer": values})["bouguer"])
    known = found[0, 3:, :, 0]
    assert known.mean() == pytest.approx(0, abs=1e-5) and known.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(found[0, :3], 0)


def test_leaky_relu_and_scale_are_exact_in_float64() -> None:
    values = tf.constant([-1.0, 0.0, 3.0], tf.float64)
    np.testing.assert_array_equal(leaky_relu(values), np.array([-0.2, 0, 3]))
    np.testing.assert_array_equal(Scale(0.2, dtype="float64")(values), np.array([-1.0, 0, 3]) * 0.2)
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = tf.reduce_sum(leaky_relu(values))
    np.testing.assert_array_equal(tape.gradient(total, values)[::2], [0.2, 1.0])


def test_initial_weights_have_the_published_spread() -> None:
    kernel = np.asarray(he_normal(0.1, seed=1)((3, 3, 64, 64)))
    spread = 0.1 * np.sqrt(2 / 576)
    assert kernel.std() == pytest.approx(spread, rel=0.02)
    assert np.abs(kernel).max() > 3.5 * spread, "untruncated"


def test_tile_anomaly_by_hand() -> None:
    bed = np.full((2, 4, 4, 1), -1500, np.float32)
    bed[1, :2] += 200
    found = np.asarray(TileAnomaly()(bed))
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_array_equal(found[1, :2], 1)
    np.testing.assert_array_equal(found[1, 2:], -1)


def small(mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(6).normal(mean, 1, (2, 6, 5, 1)).astype(np.float32)


def test_scale_layer(tmp_path: Path) -> None:
    check_layer(lambda **o: Scale(0.2, **o), small(), tmp_path, {"mixed_bfloat16": 1e-2, "mixed_float16": 1e-3})


def test_bicubic_layer(tmp_path: Path) -> None:
    check_layer(BicubicUpsampling, small(), tmp_path, {"mixed_bfloat16": 2e-2, "mixed_float16": 2e-3})


def test_tile_anomaly_layer(tmp_path: Path) -> None:
    error = {"mixed_bfloat16": 2e-2, "mixed_float16": 2e-3}
    check_layer(lambda **o: TileAnomaly(scale=50.0, **o), small(3), tmp_path, error, fixed_size=True)


def test_input_features_layer(tmp_path: Path) -> None:
    def make(**options: Any) -> keras.layers.Layer:
        return InputFeatures(RATIOS, **options)

    # Heights have no room in half precision: the generator always runs this layer in float32.
    check_layer(make, tiny_inputs(1), tmp_path, {})
