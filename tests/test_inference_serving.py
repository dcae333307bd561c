"""An exported model in MLflow's registry: it predicts what it predicts outside, and says why it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import invoke
from tiny_training import TINY, tiny_inputs

from deepbedmap_tf.cli import main
from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.inference.export import export_model, load_model
from deepbedmap_tf.inference.serving import log_model
from deepbedmap_tf.models import build_generator
from deepbedmap_tf.training.tracking import set_up_mlflow

CONFIG = TINY.model_copy(update={"normalise": True, "output": "residual"})
Inputs = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a database of its own, the working folder of these tests."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


def exported(folder: Path, config: GeneratorConfig) -> Path:
    return export_model(build_generator(config, "float32"), config, folder, {"synthetic": True})


@pytest.fixture(scope="module")
def served(store: Path) -> Any:
    """The model as MLflow's server loads it."""
    folder = exported(store / "tiny", CONFIG)
    mlflow = set_up_mlflow()
    with mlflow.start_run() as run:
        assert log_model(mlflow, folder, CONFIG, tags={"synthetic": "True"}) == "models:/deepbedmap/1"
    (logged,) = mlflow.search_logged_models(output_format="list")
    assert logged.source_run_id == run.info.run_id
    return mlflow.pyfunc.load_model("models:/deepbedmap/latest")


def test_the_latest_version_predicts_what_the_export_does(served: Any, store: Path) -> None:
    assert served.metadata.signature.inputs.input_names() == [each.name for each in CONFIG.inputs]
    inputs = tiny_inputs(2, (5, 6))
    inputs["surface"][0, :10] = np.nan
    np.testing.assert_array_equal(served.predict(inputs)["bed"], load_model(store / "tiny")(inputs))
    (version,) = set_up_mlflow().MlflowClient().search_model_versions("name = 'deepbedmap'")
    assert version.tags == {"name": "tiny", "synthetic": "True"}


def test_nothing_is_pickled(served: Any, store: Path) -> None:
    kept = [path for path in (store / "mlruns").rglob("*") if path.is_file()]
    assert {"saved_model.pb", "model.json", "serving_model.py", "tf_serving_warmup_requests"} <= {p.name for p in kept}
    assert not [path for path in kept if path.suffix in (".pkl", ".pickle", ".joblib", ".npy")]
    # Whatever its name, a pickle of protocol 2 or later starts with this byte.
    assert not [path for path in kept if path.read_bytes()[:1] == b"\x80"]


def without(name: str) -> Callable[[Inputs], Inputs]:
    return lambda inputs: {key: values for key, values in inputs.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("velocity"), "velocity"),
        (lambda inputs: inputs | {"surface": inputs["surface"][:, :-10]}, r"surface has shape \(1, 40, 60, 1\)"),
        (lambda inputs: inputs | {"accumulation": inputs["accumulation"][[0, 0]]}, r"accumulation has shape \(2, 5"),
        (lambda inputs: {name: values[:, :2] for name, values in inputs.items()}, "at least 3 x 3 cells"),
        (lambda inputs: inputs | {"surface": inputs["surface"] * np.inf}, "surface has infinite values"),
        (lambda inputs: inputs | {"surface": inputs["surface"] * np.nan}, "surface has a window without any valid"),
        (lambda inputs: tiny_inputs(600, (5, 6)), "18,000 low-resolution cells, at most 16,384"),
    ],
    ids=["missing", "other ratio", "other batch", "too small", "infinite", "all NaN", "too large"],
)
def test_refusals(served: Any, change: Callable[[Inputs], Inputs], message: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=message) as error:
        served.predict(change(tiny_inputs(1, (5, 6))))
    assert error.value.get_http_status_code() == 400


def test_one_window_without_data_among_others(served: Any) -> None:
    from mlflow.exceptions import MlflowException

    inputs = tiny_inputs(2, (5, 6))
    inputs["bed_lowres"][1] = np.nan
    with pytest.raises(MlflowException, match="bed_lowres has a window without any valid value"):
        served.predict(inputs)


def test_gaps_for_a_model_that_takes_none(store: Path, served: Any) -> None:
    from mlflow.exceptions import MlflowException

    folder = exported(store / "published", TINY)
    result = invoke(main, "register", "--model", folder)
    assert result.exit_code == 0, result.output
    address = result.stdout.strip()
    assert address.startswith("models:/deepbedmap/") and not address.endswith("/1")
    strict = set_up_mlflow().pyfunc.load_model(address)
    inputs = tiny_inputs(1, (5, 6))
    np.testing.assert_array_equal(strict.predict(inputs)["bed"], load_model(folder)(inputs))
    inputs["surface"][0, 0, 0] = np.nan
    with pytest.raises(MlflowException, match="surface has 1 NaN and this model takes none"):
        strict.predict(inputs)


def test_no_model_to_register(store: Path) -> None:
    result = invoke(main, "register", "--model", store / "none")
    assert result.exit_code == 2 and "holds no model" in result.stderr
