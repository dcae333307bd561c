"""The generator: its size, the published network's outputs, any window, files, precisions, gaps and translation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras
from tiny_training import TINY, added, build_loud, tiny_inputs

from deepbedmap_tf.config import GeneratorConfig, InputConfig
from deepbedmap_tf.models import build_generator, load_chainer_weights
from deepbedmap_tf.models.generator import _Trunk

Shared = Callable[[str], Path]

PUBLISHED = GeneratorConfig(num_residual_blocks=2, input_filters=32)
LETTERS = {"bed_lowres": "X", "surface": "W1", "velocity": "W2", "accumulation": "W3"}
OURS = TINY.model_copy(
    update={"normalise": True, "output": "residual", "initial_scale": 1.0, "trunk_initial_scale": 1.0}
)


@pytest.mark.parametrize(("input_filters", "parameters"), [(16, 8_854_981), (32, 8_907_749)])
def test_parameters(input_filters: int, parameters: int) -> None:
    # Two sizes pin the line; building all 12 blocks twice would only take longer.
    counts = [
        build_generator(
            GeneratorConfig(num_residual_blocks=blocks, input_filters=input_filters), "float32"
        ).count_params()
        for blocks in (0, 1)
    ]
    assert counts[0] + 12 * (counts[1] - counts[0]) == parameters


def test_parameters_of_the_default_network() -> None:
    assert build_generator(dtype="float32").count_params() == 8_854_981


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("tile", ["tile12x17_b1", "tile31x41_b1"])
def test_published_network(shared: Shared, dtype: str, tile: str) -> None:
    model = build_generator(PUBLISHED, dtype)
    load_chainer_weights(model, shared("reference/c_generator_2rrdb_chainer_save_npz.npz"))
    arrays = np.load(shared(f"reference/c_generator_2rrdb_{tile}.npz"))
    recorded = json.loads(shared("reference/meta.json").read_text())["vectors"][f"c_generator_2rrdb_{tile}"]
    inputs = {name: arrays[letter].transpose(0, 2, 3, 1).astype(dtype) for name, letter in LETTERS.items()}
    expected = arrays["y64"].transpose(0, 2, 3, 1)
    error = np.abs(np.asarray(model(inputs)) - expected).max()
    limit = 1e-10 * np.abs(expected).max() if dtype == "float64" else 2 * recorded["max_abs_diff_32_64"]
    assert error <= limit


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_residual_in_residual_dense_block(shared: Shared, dtype: str) -> None:
    arrays = dict(np.load(shared("reference/b_rrdb.npz")))
    trunk = _Trunk(GeneratorConfig(), keras.mixed_precision.Policy(dtype))
    image = keras.Input((None, None, 64), dtype=dtype)
    model = keras.Model(image, trunk.residual_block(image, "block"))
    kernels, names = [], []
    for dense in (1, 2, 3):
        for conv in range(1, 6):
            path = f"residual_dense_block{dense}/conv_layer{conv}"
            layer = model.get_layer(f"block_dense_{dense}_conv_{conv}")
            layer.set_weights([arrays[f"p/{path}/W"].transpose(2, 3, 1, 0), arrays[f"p/{path}/b"]])
            kernels += [layer.kernel, layer.bias]
            names += [f"{path}/W", f"{path}/b"]
    values, cotangent = (tf.constant(arrays[name].transpose(0, 2, 3, 1), dtype) for name in ("x", "r"))
    with tf.GradientTape() as tape:
        tape.watch(values)
        output = model(values)
        total = tf.reduce_sum(output * cotangent)
    gradient, *to_kernels = tape.gradient(total, [values, *kernels])
    for name, found in (("y", output), ("gx", gradient)):
        expected = arrays[f"{name}64"].transpose(0, 2, 3, 1)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert error <= (1e-10 if dtype == "float64" else 1e-6), name
    for name, found in zip(names, to_kernels, strict=True):
        # The file keeps these gradients in float32, whatever they were computed in.
        expected = arrays[f"64g/{name}"]
        expected = expected.transpose(2, 3, 1, 0) if expected.ndim == 4 else expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * np.abs(expected).max(), err_msg=name)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_loud(OURS)


@pytest.mark.parametrize("cells", [(3, 3), (3, 12), (11, 11), (17, 12)])
def test_any_window(network: keras.Model, cells: tuple[int, int]) -> None:
    bed = network(tiny_inputs(2, cells))
    assert bed.shape == (2, 4 * (cells[0] - 2), 4 * (cells[1] - 2), 1)
    assert np.isfinite(bed).all()


def test_a_batch_is_its_tiles_one_by_one(network: keras.Model) -> None:
    inputs = tiny_inputs(3)
    one_by_one = [network({name: values[n : n + 1] for name, values in inputs.items()}) for n in range(3)]
    np.testing.assert_allclose(network(inputs), np.concatenate(one_by_one), rtol=1e-6, atol=1e-3)


def test_bed_away_from_the_border_does_not_depend_on_where_the_window_ends(network: keras.Model) -> None:
    ratios = {each.name: each.ratio for each in OURS.inputs}
    inputs = tiny_inputs(1, (60, 22))
    part = {name: values[:, : 50 * ratios[name]] for name, values in inputs.items()}
    # One block reaches 15 cells, features, upsampling and deformed taps a few more.
    whole, cut = np.asarray(network(inputs)), np.asarray(network(part))
    inner = slice(0, 4 * 24)
    np.testing.assert_allclose(cut[:, inner], whole[:, inner], rtol=0, atol=5e-3)
    assert added(network, inputs).std() > 20


def test_gaps_give_a_finite_bed(network: keras.Model) -> None:
    inputs = tiny_inputs(2)
    inputs["surface"][0] = np.nan
    inputs["velocity"][:, :10, :, 0] = np.nan
    inputs["accumulation"][:] = np.nan
    inputs["bed_lowres"][0, 3:6, 4:] = np.nan
    inputs["bed_lowres"][1] = np.nan
    assert np.isfinite(network(inputs)).all()


def test_other_inputs_need_only_be_configured() -> None:
    bouguer = InputConfig(name="bouguer", ratio=1, units="mGal")
    config = OURS.model_copy(update={"inputs": (*OURS.inputs[:2], bouguer)})
    inputs = tiny_inputs(1)
    values = {"bed_lowres": inputs["bed_lowres"], "surface": inputs["surface"], "bouguer": inputs["accumulation"]}
    assert build_generator(config, "float32")(values).shape == (1, 36, 36, 1)


def test_input_and_output_names(network: keras.Model) -> None:
    assert set(network.input) == {"bed_lowres", "surface", "velocity", "accumulation"}
    assert network.output_names == ["bed"]
    assert network.output_shape == (None, None, None, 1)


def test_keras_file(network: keras.Model, tmp_path: Path) -> None:
    network.save(tmp_path / "generator.keras")
    loaded = keras.models.load_model(tmp_path / "generator.keras")
    for cells in ((11, 11), (5, 9)):
        inputs = tiny_inputs(2, cells)
        np.testing.assert_allclose(loaded(inputs), network(inputs), rtol=1e-6)


def test_mixed_bfloat16_stays_near_float32() -> None:
    # Wide enough that the errors average as in the whole network.
    config = GeneratorConfig(
        num_residual_blocks=2, normalise=True, output="residual", initial_scale=1.0, trunk_initial_scale=1.0
    )
    check_precision(config, "mixed_bfloat16", 0.03)


def test_mixed_float16_stays_near_float32() -> None:
    check_precision(OURS, "mixed_float16", 0.01)


def test_the_published_network_in_bfloat16(shared: Shared) -> None:
    weights = shared("reference/c_generator_2rrdb_chainer_save_npz.npz")
    arrays = np.load(shared("reference/c_generator_2rrdb_tile12x17_b1.npz"))
    inputs = {name: arrays[letter].transpose(0, 2, 3, 1) for name, letter in LETTERS.items()}
    bed = load_chainer_weights(build_generator(PUBLISHED, "mixed_bfloat16"), weights)(inputs)
    error = np.asarray(bed) - arrays["y64"].transpose(0, 2, 3, 1)
    # Raw metres at the input: 8 bits of mantissa are 4 m of 1000 m before the network has done anything.
    assert np.sqrt((error**2).mean()) < 0.1 * arrays["y64"].std()


def check_precision(config: GeneratorConfig, policy: str, limit: float) -> None:
    """Compare what the network adds to bicubic interpolation, relative to its standard deviation."""
    exact = build_loud(config)
    half = build_generator(config, policy)
    half.set_weights(exact.get_weights())
    inputs = tiny_inputs(2)
    bed = half(inputs)
    assert bed.dtype == tf.float32
    assert all(weight.dtype == tf.float32 for weight in half.weights)
    error = np.sqrt(np.mean((bed - exact(inputs)) ** 2)) / np.std(added(exact, inputs))
    assert error < limit, f"{policy} is {error:.1%} of the network's own signal from float32"
