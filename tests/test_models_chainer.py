"""Reading weights in the published network's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chainer_layout import discriminator_arrays, generator_arrays, save
from tensorflow import keras
from tiny_training import tiny_inputs

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.errors import ModelError
from deepbedmap_tf.models import build_discriminator, build_generator, load_chainer_weights
from deepbedmap_tf.models.chainer import chainer_generator_config, read_chainer

CONFIG = GeneratorConfig(num_residual_blocks=1, input_filters=4, initial_scale=0.7, trunk_initial_scale=0.7)


@pytest.fixture(scope="module")
def generator() -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_generator(CONFIG, "float32")


@pytest.fixture(scope="module")
def arrays(generator: keras.Model) -> dict[str, np.ndarray]:
    return generator_arrays(generator, 1)


@pytest.mark.parametrize("prefix", ["", "/"])
def test_generator_round_trip(
    generator: keras.Model, arrays: dict[str, np.ndarray], tmp_path: Path, prefix: str
) -> None:
    path = save(tmp_path / "weights.npz", arrays, prefix)
    config = chainer_generator_config(read_chainer(path))
    assert (config.num_residual_blocks, config.input_filters, config.residual_scaling) == (1, 4, 0.2)
    assert (config.output, config.normalise) == ("absolute", False)
    twin = load_chainer_weights(build_generator(config, "float32"), path)
    inputs = tiny_inputs(1, (5, 6))
    np.testing.assert_array_equal(twin(inputs), generator(inputs))


def test_other_architectures_are_refused_and_nothing_is_loaded(
    generator: keras.Model, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    before = generator.get_weights()
    name = "residual_network/0/residual_dense_block2/conv_layer3/b"
    lacking = {key: value for key, value in arrays.items() if key != name}
    with pytest.raises(ModelError, match=f"lacks {name}"):
        load_chainer_weights(generator, save(tmp_path / "a.npz", lacking))
    with pytest.raises(ModelError, match="no place for, such as somewhere/W"):
        load_chainer_weights(generator, save(tmp_path / "b.npz", arrays | {"somewhere/W": np.zeros(3)}))
    with pytest.raises(ModelError, match=r"\(7,\).*input_filters"):
        load_chainer_weights(generator, save(tmp_path / "c.npz", arrays | {name: np.zeros(7)}))
    for old, new in zip(before, generator.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_chainer(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("weights")
    with pytest.raises(ModelError, match="not a readable"):
        read_chainer(tmp_path / "text.npz")
    np.savez(tmp_path / "whole.npz", a=np.zeros(1000))
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:3000])
    with pytest.raises(ModelError, match="not a readable"):
        read_chainer(tmp_path / "half.npz")
    with pytest.raises(ModelError, match="holds no generator"):
        chainer_generator_config(read_chainer(tmp_path / "whole.npz"))


def test_missing_blocks_are_noticed(arrays: dict[str, np.ndarray]) -> None:
    gap = {name.replace("residual_network/0", "residual_network/1"): value for name, value in arrays.items()}
    with pytest.raises(ModelError, match="residual_network/0"):
        chainer_generator_config(gap)


def test_discriminator(tmp_path: Path) -> None:
    arrays = discriminator_arrays(1)
    model = build_discriminator(dtype="float32")
    load_chainer_weights(model, save(tmp_path / "discriminator.npz", arrays))
    np.testing.assert_array_equal(
        model.get_layer("conv_3").get_weights()[0], arrays["conv_layer3/W"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(model.get_layer("dense_1").get_weights()[0], arrays["linear_1/W"].T)
    for found, name in zip(
        model.get_layer("batch_norm_4").get_weights(), ("gamma", "beta", "avg_mean", "avg_var"), strict=True
    ):
        np.testing.assert_array_equal(found, arrays[f"batch_norm4/{name}"])
    del arrays["batch_norm9/avg_var"]
    with pytest.raises(ModelError, match="lacks batch_norm9/avg_var"):
        load_chainer_weights(model, save(tmp_path / "lacking.npz", arrays))
