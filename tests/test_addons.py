"""What is taken from TensorFlow Addons, and that nothing else imports it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow import keras

from deepbedmap_tf.addons import optimizer, progress_bar
from deepbedmap_tf.errors import ConfigError


@pytest.mark.parametrize(("name", "kind"), [("rectified_adam", "RectifiedAdam"), ("lookahead", "Lookahead")])
def test_optimizers(name: str, kind: str) -> None:
    made = optimizer(name, 0.01, beta_1=0.8, beta_2=0.95, epsilon=1e-6)
    assert type(made).__name__ == kind
    settings = made.get_config()
    inner = settings["optimizer"]["config"] if kind == "Lookahead" else settings
    assert (inner["beta_1"], inner["beta_2"], inner["epsilon"]) == (0.8, 0.95, 1e-6)


def test_unknown_optimizer_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'sgd' is unknown; expected adam, rectified_adam or lookahead"):
        optimizer("sgd", 0.01)


def test_progress_bar_is_a_keras_callback() -> None:
    assert isinstance(progress_bar(), keras.callbacks.Callback)


def test_nothing_else_imports_addons(root: Path) -> None:
    files = [path for path in (root / "deepbedmap_tf").rglob("*.py") if path.name != "addons.py"]
    assert not [path for path in files if "tensorflow_addons" in path.read_text(encoding="utf-8")]
