"""Deformable convolution: the published network's numbers, and a plain NumPy formula that travels with the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_checks import check_layer

from deepbedmap_tf.models import DeformableConv2D
from deepbedmap_tf.models.deformable import sample_taps, sum_projected_taps

Shared = Callable[[str], Path]

CASES = (
    "a_deform_0_n1_ci1_co1_7x7",
    "a_deform_1_n2_ci1_co5_9x12",
    "a_deform_2_n2_ci3_co5_11x8",
    "a_deform_4_n1_ci64_co64_12x9",
    "a_deform_7_n1_ci64_co1_36x36",
)
WEIGHTS = ("offset_W", "offset_b", "deform_W", "deform_b")


def channels_last(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1)


def keras_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def make_layer(arrays: dict[str, np.ndarray], dtype: str) -> DeformableConv2D:
    layer = DeformableConv2D(arrays["deform_W"].shape[0], dtype=dtype)
    layer.build((None, None, None, arrays["x"].shape[1]))
    layer.set_weights([keras_layout(arrays[name]).astype(dtype) for name in WEIGHTS])
    return layer


def deformable_by_hand(image: np.ndarray, offsets: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One image (rows, columns, channels), float64, one cell, tap and neighbour at a time."""
    rows, columns, _ = image.shape
    size = kernel.shape[0]
    result = np.tile(bias.astype(np.float64), (rows, columns, 1))
    for i in range(rows):
        for j in range(columns):
            for tap in range(size * size):
                y = i + tap // size - size // 2 + offsets[i, j, size * size + tap]
                x = j + tap % size - size // 2 + offsets[i, j, tap]
                for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                    for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                        if 0 <= row < rows and 0 <= column < columns:
                            weight = (1 - abs(y - row)) * (1 - abs(x - column))
                            result[i, j] += weight * (image[row, column] @ kernel[tap // size, tap % size])
    return result


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_forward_and_all_gradients_of_the_published_network(shared: Shared, case: str, dtype: str) -> None:
    arrays = dict(np.load(shared(f"reference/{case}.npz")))
    layer = make_layer(arrays, dtype)
    image, cotangent = (tf.constant(channels_last(arrays[name]), dtype) for name in ("x", "r"))
    with tf.GradientTape() as tape:
        tape.watch(image)
        output = layer(image)
        total = tf.reduce_sum(output * cotangent)
    sources = [image, *(getattr(layer, name) for name in ("offset_kernel", "offset_bias", "kernel", "bias"))]
    found = [output, *tape.gradient(total, sources)]
    for name, value in zip(("y", "gx", *(f"g_{name}" for name in WEIGHTS)), found, strict=True):
        layout = channels_last if name in ("y", "gx") else keras_layout
        expected = layout(arrays[f"{name}64"])
        scale = np.abs(expected).max()
        if dtype == "float64":
            limit = 1e-10 * scale
        else:
            # Twice the published implementation's own float32 error, or a few roundings where it had luck.
            limit = max(2 * np.abs(layout(arrays[f"{name}32"]) - expected).max(), 4e-6 * scale)
        assert np.abs(value - expected).max() <= limit, name


def test_float32_error_is_recorded(shared: Shared) -> None:
    recorded = json.loads(shared("reference/meta.json").read_text())["vectors"]
    for case in CASES:
        arrays = dict(np.load(shared(f"reference/{case}.npz")))
        output = make_layer(arrays, "float32")(channels_last(arrays["x"]))
        error = np.abs(output - channels_last(arrays["y64"])).max()
        assert error <= 2 * recorded[case]["max_abs_diff_32_64"] + 1e-6


@pytest.mark.parametrize("channel", range(18))
def test_each_offset_channel_moves_its_own_tap(shared: Shared, channel: int) -> None:
    probe = dict(np.load(shared("reference/a_deform_probe.npz")))
    offsets = np.zeros((1, 8, 10, 18))
    offsets[..., channel] = 0.75
    expected = channels_last(probe[f"y_offset_only_channel_{channel}"])
    np.testing.assert_allclose(probe_output(probe, offsets), expected, rtol=0, atol=1e-12)
    still = probe_output(probe, np.zeros_like(offsets))
    np.testing.assert_allclose(still, channels_last(probe["y_plain_conv"]), rtol=0, atol=1e-12)


def probe_output(probe: dict[str, np.ndarray], offsets: np.ndarray) -> np.ndarray:
    sampled = sample_taps(tf.constant(channels_last(probe["x"])), tf.constant(offsets))
    return np.asarray(sampled @ keras_layout(probe["W"]).reshape(9, 1) + probe["b"])


def test_border_counts_neighbours_outside_as_zero(shared: Shared) -> None:
    probe = dict(np.load(shared("reference/a_deform_probe.npz")))
    image = tf.ones((1, 5, 6, 1), tf.float64)
    for dx, expected in zip(probe["border_probe_dx"], probe["border_probe_y_at_row2_col0"], strict=True):
        offsets = np.zeros((1, 5, 6, 18))
        offsets[..., 4] = dx
        centre = sample_taps(image, tf.constant(offsets))[0, 2, 0, 4]
        assert float(centre) == pytest.approx(expected, abs=1e-15)
        assert float(centre) == pytest.approx(np.clip(min(1 + dx, 6 - dx), 0, 1), abs=1e-15)


@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (2, 5), (5, 2)])
def test_numpy_formula(channels: int, filters: int) -> None:
    generator = np.random.default_rng(channels)
    image = generator.normal(size=(2, 6, 5, channels))
    layer = DeformableConv2D(filters, dtype="float64")
    layer.build(image.shape)
    values = [generator.normal(size=weight.shape) for weight in layer.weights]
    layer.set_weights(values)
    offset_kernel, offset_bias, kernel, bias = values
    offsets = np.asarray(tf.nn.conv2d(image, offset_kernel, 1, "SAME")) + offset_bias
    assert np.abs(offsets).max() > 6, "some taps must leave the image altogether"
    expected = [deformable_by_hand(image[n], offsets[n], kernel, bias) for n in range(2)]
    np.testing.assert_allclose(layer(image), expected, rtol=1e-11, atol=1e-11)


@settings(max_examples=15)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([1, 3, 5]),
    st.integers(),
)
def test_zero_offsets_make_a_plain_convolution(
    rows: int, columns: int, channels: int, filters: int, size: int, seed: int
) -> None:
    generator = np.random.default_rng(abs(seed))
    image = generator.normal(size=(2, rows, columns, channels))
    layer = DeformableConv2D(filters, size, dtype="float64")
    output = layer(image)
    layer.bias.assign(generator.normal(size=filters))
    np.testing.assert_allclose(
        layer(image), tf.nn.conv2d(image, layer.kernel, 1, "SAME") + layer.bias, rtol=1e-10, atol=1e-12
    )
    assert output.shape == (2, rows, columns, filters)


def test_integer_offsets_shift_the_image() -> None:
    image = np.random.default_rng(0).normal(size=(1, 6, 7, 1))
    offsets = np.zeros((1, 6, 7, 18))
    offsets[..., :9], offsets[..., 9:] = 2, 1
    centre = sample_taps(tf.constant(image), tf.constant(offsets))[..., 4]
    np.testing.assert_array_equal(centre[0, :-1, :-2], image[0, 1:, 2:, 0])
    np.testing.assert_array_equal(centre[0, -1], np.zeros(7))
    np.testing.assert_array_equal(centre[0, :, -2:], np.zeros((6, 2)))


def test_projecting_first_gives_the_same() -> None:
    generator = np.random.default_rng(3)
    image, offsets = generator.normal(size=(2, 5, 6, 4)), 2 * generator.normal(size=(2, 5, 6, 18))
    kernel = generator.normal(size=(9, 4, 2))
    sampled = np.asarray(sample_taps(tf.constant(image), tf.constant(offsets))).reshape(2, 5, 6, 9, 4)
    maps = np.einsum("nijc,tcf->nijtf", image, kernel).reshape(2, 5, 6, 18)
    np.testing.assert_allclose(
        sum_projected_taps(tf.constant(maps), tf.constant(offsets)),
        np.einsum("nijtc,tcf->nijf", sampled, kernel),
        rtol=1e-12,
        atol=1e-12,
    )


def test_gradients_against_finite_differences() -> None:
    generator = np.random.default_rng(5)
    image = tf.constant(generator.normal(size=(1, 4, 5, 2)))
    # Away from integers, where bilinear interpolation has kinks.
    offsets = tf.constant(generator.integers(-3, 3, (1, 4, 5, 18)) + generator.uniform(0.1, 0.9, (1, 4, 5, 18)))
    cotangent = tf.constant(generator.normal(size=(1, 4, 5, 18)))

    def total(image: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(sample_taps(image, offsets) * cotangent)

    with tf.GradientTape() as tape:
        tape.watch([image, offsets])
        value = total(image, offsets)
    for which, gradient in enumerate(tape.gradient(value, [image, offsets])):
        direction = generator.normal(size=gradient.shape)
        step = 1e-6 * direction
        moved = [(image + sign * step, offsets) if which == 0 else (image, offsets + sign * step) for sign in (1, -1)]
        slope = (total(*moved[0]) - total(*moved[1])) / 2e-6
        assert float(slope) == pytest.approx(float(tf.reduce_sum(gradient * direction)), rel=1e-6)


def test_gradient_at_integer_positions_is_the_right_sided_one() -> None:
    image = tf.constant(np.arange(5.0).reshape(1, 1, 5, 1) ** 2)
    offsets = tf.zeros((1, 1, 5, 18), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(offsets)
        centre = tf.reduce_sum(sample_taps(image, offsets)[..., 4])
    # From 0, 1, 4, 9, 16 to the next cell, and from the last to the zero outside.
    np.testing.assert_allclose(tape.gradient(centre, offsets)[0, 0, :, 4], [1, 3, 5, 7, -16], atol=1e-12)


@pytest.mark.parametrize("filters", [2, 6])
def test_layer(filters: int, tmp_path: Path) -> None:
    image = np.random.default_rng(1).normal(size=(2, 7, 6, 4)).astype(np.float32)

    def make(**options: object) -> DeformableConv2D:
        return DeformableConv2D(filters, offset_initializer="glorot_uniform", **options)

    check_layer(make, image, tmp_path, {"mixed_bfloat16": 2e-2, "mixed_float16": 3e-3})


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        DeformableConv2D(4, kernel_size=2)
