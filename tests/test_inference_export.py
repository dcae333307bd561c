"""Exported models: exact, pure TensorFlow, and refused in one line when something is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from chainer_layout import generator_arrays, save
from tensorflow import keras
from tensorflow.core.protobuf import saved_model_pb2
from tiny_training import TINY, build_loud, tiny_inputs

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.errors import ModelError
from deepbedmap_tf.inference.export import SuperResolution, export_again, export_model, import_chainer, load_model
from deepbedmap_tf.models import build_generator

OURS = TINY.model_copy(
    update={"normalise": True, "output": "residual", "initial_scale": 1.0, "trunk_initial_scale": 1.0}
)
LETTERS = {"bed_lowres": "X", "surface": "W1", "velocity": "W2", "accumulation": "W3"}
# What a user without this package runs: TensorFlow and NumPy alone.
PROGRAM = """
import sys
for name in ("deepbedmap_tf", "tensorflow_addons", "keras_hub"):
    sys.modules[name] = None
import numpy as np
import tensorflow as tf
folder, arrays, result = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
bed = serve(**{name: tf.constant(values) for name, values in np.load(arrays).items()})["bed"]
np.save(result, bed)
"""


RESIDUAL_PROGRAM = PROGRAM.replace("serving_default", "predict_with_residual").replace(
    '["bed"]\n', '["coarse_residual"]\n'
)


def by_tensorflow_alone(
    folder: Path, inputs: dict[str, np.ndarray], scratch: Path, program: str = PROGRAM
) -> np.ndarray:
    np.savez(scratch / "inputs.npz", **inputs)
    command = [
        sys.executable,
        "-I",
        "-c",
        program,
        str(folder / "1"),
        str(scratch / "inputs.npz"),
        str(scratch / "bed.npy"),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    return np.load(scratch / "bed.npy")


def operations(folder: Path) -> set[str]:
    content = saved_model_pb2.SavedModel.FromString((folder / "1" / "saved_model.pb").read_bytes())
    graph = content.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {node.op for node in nodes}


@pytest.fixture(scope="module")
def generator() -> keras.Model:
    model = build_generator(OURS, "mixed_bfloat16")
    model.set_weights(build_loud(OURS).get_weights())
    return model


@pytest.fixture(scope="module")
def exported(generator: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return export_model(generator, OURS, folder, {"name": "tiny", "synthetic": True, "metrics": {"val_rmse": 3.0}})


@pytest.fixture(scope="module")
def model(exported: Path) -> SuperResolution:
    return load_model(exported)


def exact(generator: keras.Model) -> keras.Model:
    twin = build_generator(OURS, "float32")
    twin.set_weights(generator.get_weights())
    return twin


@pytest.mark.parametrize("cells", [(3, 3), (11, 11), (7, 14)])
def test_round_trip(generator: keras.Model, model: SuperResolution, cells: tuple[int, int]) -> None:
    inputs = tiny_inputs(2, cells)
    bed = model(inputs)
    assert bed.dtype == np.float32 and bed.shape == (2, 4 * (cells[0] - 2), 4 * (cells[1] - 2), 1)
    assert np.abs(bed - exact(generator)(inputs)).max() <= 1e-6 * np.abs(bed).max()


def test_a_process_with_tensorflow_alone(exported: Path, model: SuperResolution, tmp_path: Path) -> None:
    inputs = tiny_inputs(1, (5, 6))
    np.testing.assert_allclose(by_tensorflow_alone(exported, inputs, tmp_path), model(inputs), rtol=1e-6)
    residual = by_tensorflow_alone(exported, inputs, tmp_path, RESIDUAL_PROGRAM)
    np.testing.assert_allclose(residual, model.with_residual(inputs)[1], atol=1e-3)


def test_graph_holds_operations_of_tensorflow_only(exported: Path) -> None:
    found = operations(exported)
    assert not [name for name in found if name.startswith("Addons>")]
    assert not [name for name in found if "PyFunc" in name]
    assert {"Conv2D", "SparseTensorDenseMatMul"} & found


def test_residual_of_the_means(exported: Path, model: SuperResolution) -> None:
    inputs = tiny_inputs(2, (5, 6))
    inputs["bed_lowres"][0, 2, 3] = np.nan
    bed, residual = model.with_residual(inputs)
    np.testing.assert_array_equal(bed, model(inputs))
    means = bed[..., 0].astype(np.float64).reshape(2, 3, 4, 4, 4).mean(axis=(2, 4))
    expected = means - inputs["bed_lowres"][:, 1:-1, 1:-1, 0]
    assert residual.shape == (2, 3, 4, 1) and np.isnan(residual[0, 1, 2, 0]) and np.isnan(residual).sum() == 1
    np.testing.assert_allclose(residual[..., 0], expected, atol=2e-3)
    assert np.nanmax(np.abs(residual)) > 1


def test_an_export_from_before_the_second_signature(exported: Path, model: SuperResolution, tmp_path: Path) -> None:
    old = tmp_path / "old"
    loaded = tf.saved_model.load(str(exported / "1"))
    module = tf.Module()
    module.generator_weights = loaded.generator_weights
    module.inner = loaded
    module.predict = loaded.predict
    tf.saved_model.save(module, str(old / "1"), signatures={"serving_default": loaded.signatures["serving_default"]})
    (old / "model.json").write_bytes((exported / "model.json").read_bytes())
    inputs = tiny_inputs(1, (5, 6))
    before = load_model(old)
    assert before.signatures == ("serving_default",)
    np.testing.assert_array_equal(before(inputs), model(inputs))
    with pytest.raises(ModelError, match=r"no signature predict_with_residual.*--saved-model") as error:
        before.with_residual(inputs)
    assert "\n" not in str(error.value)
    again = load_model(export_again(old, tmp_path / "new"))
    assert again.signatures == ("predict_with_residual", "serving_default")
    np.testing.assert_array_equal(again(inputs), model(inputs))
    assert again.metadata["exported_from"]["name"] == "old" and again.metadata["metrics"] == {"val_rmse": 3.0}
    with pytest.raises(ModelError, match="choose another folder"):
        export_again(old, tmp_path / "new" / ".." / "old")


def test_shipped_model_as_it_is_and_exported_again(root: Path, tmp_path: Path) -> None:
    shipped = load_model(root / "saved_models/default")
    again = load_model(export_again(root / "saved_models/default", tmp_path / "again"))
    inputs = tiny_inputs(1, (5, 6))
    bed, residual = again.with_residual(inputs)
    np.testing.assert_allclose(bed, shipped(inputs), rtol=1e-6)
    assert residual.shape == (1, 3, 4, 1)
    # A setting that is newer than the model stands in the new file, with its default.
    assert again.config == shipped.config
    kept = set(shipped.metadata) - {"created", "software", "generator"}
    assert all(again.metadata[key] == shipped.metadata[key] for key in kept)


def test_signature(model: SuperResolution) -> None:
    signature = model._serve.structured_input_signature[1]
    assert {name: spec.shape.as_list() for name, spec in signature.items()} == {
        each.name: [None, None, None, each.channels] for each in OURS.inputs
    }
    assert list(model._serve.structured_outputs) == ["bed"]
    with_residual = model._loaded.signatures["predict_with_residual"]
    assert with_residual.structured_input_signature[1] == signature
    assert sorted(with_residual.structured_outputs) == ["bed", "coarse_residual"]
    assert model.signatures == ("predict_with_residual", "serving_default")


def test_metadata(exported: Path, model: SuperResolution) -> None:
    assert model.config == OURS
    assert model.name == "tiny" and model.synthetic
    assert model.metadata["metrics"] == {"val_rmse": 3.0}
    assert model.metadata["software"]["tensorflow"] == tf.__version__
    assert set(model.metadata["normalisation"]) == {each.name for each in OURS.inputs}
    assert json.loads((exported / "model.json").read_text()) == model.metadata
    assert {path.name for path in exported.iterdir()} == {"1", "model.json"}, "nothing half-written stays"


def test_a_generator_is_made_from_it_again(generator: keras.Model, model: SuperResolution) -> None:
    inputs = tiny_inputs(1, (5, 5))
    np.testing.assert_array_equal(model.generator()(inputs), exact(generator)(inputs))


def test_a_second_export_replaces_the_first(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    keras.utils.set_random_seed(9)
    config = GeneratorConfig(num_residual_blocks=0, input_filters=1, filters=2)
    for block_config in (OURS, config):
        export_model(build_generator(block_config, "float32"), block_config, folder, {})
    assert load_model(folder).config == config


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs: {name: values[:, :2] for name, values in inputs.items()},
        lambda inputs: inputs | {"surface": inputs["surface"][:, :-10]},
        lambda inputs: inputs | {"velocity": inputs["velocity"][..., :1]},
        lambda inputs: {name: values for name, values in inputs.items() if name != "accumulation"},
        lambda inputs: inputs | {"bed_lowres": inputs["bed_lowres"][..., 0]},
    ],
    ids=["window too small", "other ratio", "one band", "missing", "no band axis"],
)
def test_inputs_that_do_not_fit(
    model: SuperResolution, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    with pytest.raises(ModelError, match=r"can't take inputs of shapes .* at least 3 x 3") as error:
        model(change(tiny_inputs(1)))
    assert "\n" not in str(error.value)


def copied(exported: Path, folder: Path) -> Path:
    (folder / "1").mkdir(parents=True)
    (folder / "model.json").write_bytes((exported / "model.json").read_bytes())
    return folder


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model \(no model\.json\)"):
        load_model(tmp_path / "none")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"generator": {"blocks": 3}}', '{"generator": 3}'])
def test_corrupt_metadata(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(ModelError, match=r"model\.json is corrupt .*; export the model again") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_missing_or_cut_saved_model(exported: Path, tmp_path: Path) -> None:
    folder = copied(exported, tmp_path / "a")
    with pytest.raises(ModelError, match="no readable SavedModel") as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    whole = (exported / "1" / "saved_model.pb").read_bytes()
    (folder / "1" / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="no readable SavedModel"):
        load_model(folder)
    (folder / "1" / "saved_model.pb").write_bytes(whole)
    with pytest.raises(ModelError, match="no readable SavedModel"):
        load_model(folder)


def test_a_saved_model_of_another_shape(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    module = tf.Module()
    spec = tf.TensorSpec((None, None, None, 3), tf.float32, name="image")
    module.predict = tf.function(lambda image: {"bed": image}, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": module.predict})
    (folder / "model.json").write_bytes((exported / "model.json").read_bytes())
    with pytest.raises(
        ModelError, match=r"takes \{'image': \('float32', 4, 3\)\}, but its model\.json says .*bed_lowres"
    ):
        load_model(folder)


def test_published_weights_become_a_saved_model(shared: Callable[[str], Path], tmp_path: Path) -> None:
    weights = shared("reference/c_generator_2rrdb_chainer_save_npz.npz")
    folder = import_chainer(weights, tmp_path / "published")
    assert load_model(folder).config.num_residual_blocks == 2
    arrays = np.load(shared("reference/c_generator_2rrdb_tile12x17_b1.npz"))
    recorded = json.loads(shared("reference/meta.json").read_text())["vectors"]["c_generator_2rrdb_tile12x17_b1"]
    inputs = {name: arrays[letter].transpose(0, 2, 3, 1) for name, letter in LETTERS.items()}
    bed = by_tensorflow_alone(folder, inputs, tmp_path)
    assert np.abs(bed - arrays["y64"].transpose(0, 2, 3, 1)).max() <= 2 * recorded["max_abs_diff_32_64"]
    assert not [name for name in operations(folder) if name.startswith("Addons>")]


def test_weights_in_the_published_layout_become_a_saved_model(tmp_path: Path) -> None:
    keras.utils.set_random_seed(4)
    config = GeneratorConfig(num_residual_blocks=0, input_filters=3, residual_scaling=0.3)
    generator = build_generator(config, "float32")
    weights = save(tmp_path / "weights.npz", generator_arrays(generator, 0))
    model = load_model(import_chainer(weights, tmp_path / "model", residual_scaling=0.3))
    inputs = tiny_inputs(1, (5, 6))
    np.testing.assert_allclose(model(inputs), generator(inputs), rtol=1e-6, atol=1e-7)
    assert model.config.residual_scaling == 0.3 and not model.synthetic
    assert "10.5194/tc-14-3687-2020" in model.metadata["citations"][0]
