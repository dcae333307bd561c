"""Write and read exported models: a SavedModel that needs TensorFlow alone, and a model.json that says what it is."""

from __future__ import annotations

import importlib.metadata
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from deepbedmap_tf import __version__
from deepbedmap_tf.config import GeneratorConfig, validate
from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import ConfigError, DataError, ModelError
from deepbedmap_tf.inference.warmup import write_warmup
from deepbedmap_tf.models.chainer import chainer_generator_config, load_chainer_weights, read_chainer
from deepbedmap_tf.models.generator import build_generator
from deepbedmap_tf.models.layers import FEATURES, UPSCALING
from deepbedmap_tf.models.symmetry import symmetric_mean

VERSION_FOLDER = "1"
METADATA = "model.json"
PREDICT = "serving_default"
PREDICT_WITH_RESIDUAL = "predict_with_residual"
"""Names of the SavedModel's signatures; exports made before the second one existed have the first alone."""

SOFTWARE = ("tensorflow", "keras", "numpy", "deepbedmap-tf")


def export_model(
    generator: keras.Model,
    config: GeneratorConfig,
    folder: Path | str,
    metadata: dict[str, Any],
    symmetric: bool = False,
) -> Path:
    """Write a generator as ``<folder>/1`` (SavedModel, float32) and ``<folder>/model.json``.

    The SavedModel has the signatures `PREDICT`, with output ``bed``, and `PREDICT_WITH_RESIDUAL`, which adds
    ``coarse_residual``: what the 4 x 4 means of the bed differ from the low-resolution bed. Requests of both, with
    which TensorFlow Serving warms up, lie in its ``assets.extra``.

    Parameters
    ----------
    generator
        Trained network in any precision; its weights are copied into a float32 one.
    config
        Its architecture.
    folder
        For example ``saved_models/default``. An earlier export there is replaced once the new one is complete.
    metadata
        What model.json holds beside the architecture and software versions.
    symmetric
        The SavedModel gives the mean over the eight symmetries of the square (`models.symmetry`).

    Raises
    ------
    DataError
        When the disk refuses.
    """
    folder = Path(folder)
    exact = build_generator(config, "float32")
    exact.set_weights(generator.get_weights())
    signature = {
        each.name: tf.TensorSpec((None, None, None, each.channels), tf.float32, name=each.name)
        for each in config.inputs
    }
    module = tf.Module(name="deepbedmap")
    # A plain list in Keras' order lets a generator be made from the SavedModel again.
    module.generator_weights = exact.weights

    @tf.function(input_signature=[signature])
    def once(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return exact(inputs, training=False)

    @tf.function(input_signature=[signature])
    def predict(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"bed": symmetric_mean(once, inputs) if symmetric else exact(inputs, training=False)}

    @tf.function(input_signature=[signature])
    def predict_with_residual(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        bed = predict(inputs)["bed"]
        return {"bed": bed, "coarse_residual": coarse_residual(bed, inputs["bed_lowres"])}

    module.predict = predict
    module.predict_with_residual = predict_with_residual
    signatures = {PREDICT: predict, PREDICT_WITH_RESIDUAL: predict_with_residual}
    content = {
        "format": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "generator": config.model_dump(mode="json"),
        "symmetric": symmetric,
        "normalisation": FEATURES if config.normalise else "none: metres, metres per year, kg m-2 yr-1",
        "software": {name: _version(name) for name in SOFTWARE},
        **metadata,
    }
    # Both are complete before either takes its name.
    with written_beside(folder / VERSION_FOLDER) as saved, written_beside(folder / METADATA) as description:
        try:
            tf.saved_model.save(module, str(saved), signatures=signatures)
            write_warmup(saved, config.inputs, tuple(signatures))
        except tf.errors.OpError as error:
            raise DataError(
                f"cannot write {folder / VERSION_FOLDER}: {str(error).splitlines()[0][:160]}; free some space or "
                "choose another folder"
            ) from error
        description.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def coarse_residual(bed: tf.Tensor, bed_lowres: tf.Tensor) -> tf.Tensor:
    """Mean of every 4 x 4 cells of the bed less the low-resolution bed there, metres.

    Parameters
    ----------
    bed
        (n, 4h, 4w, 1), metres.
    bed_lowres
        (n, h + 2, w + 2, 1), metres, with its margin of one cell.

    Returns
    -------
    tf.Tensor
        (n, h, w, 1); NaN where the low-resolution bed is.
    """
    return tf.nn.avg_pool2d(bed, UPSCALING, UPSCALING, "VALID") - bed_lowres[:, 1:-1, 1:-1]


class SuperResolution:
    """An exported model.

    Attributes
    ----------
    folder
        Where it lies.
    metadata
        Content of model.json.
    config
        Architecture of the generator.
    """

    def __init__(self, folder: Path, metadata: dict[str, Any], config: GeneratorConfig, loaded: Any) -> None:
        self.folder = folder
        self.metadata = metadata
        self.config = config
        self._loaded = loaded
        self._serve = loaded.signatures[PREDICT]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on an embedded world only."""
        return bool(self.metadata.get("synthetic"))

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the bed (n, 4(h-2), 4(w-2), 1), metres, for inputs (n, height, width, bands) by name.

        Raises
        ------
        ModelError
            When the network can't take the inputs, naming the shapes that came.
        """
        return self._run(self._serve, inputs)["bed"]

    @property
    def signatures(self) -> tuple[str, ...]:
        """Names of the SavedModel's signatures; `PREDICT_WITH_RESIDUAL` is not among those of older exports."""
        return tuple(sorted(self._loaded.signatures))

    def with_residual(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return the bed as a call does, and the residual of its 4 x 4 means (n, h-2, w-2, 1), metres.

        Raises
        ------
        ModelError
            When the network can't take the inputs, or the export is older than this signature.
        """
        if PREDICT_WITH_RESIDUAL not in self.signatures:
            raise ModelError(
                f"the SavedModel in {self.folder} has no signature {PREDICT_WITH_RESIDUAL}, as exports "
                f"before it existed; run deepbedmap export --model {self.folder} --saved-model ANOTHER_FOLDER"
            )
        outputs = self._run(self._loaded.signatures[PREDICT_WITH_RESIDUAL], inputs)
        return outputs["bed"], outputs["coarse_residual"]

    def _run(self, signature: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            tensors = {each.name: tf.constant(inputs[each.name], tf.float32) for each in self.config.inputs}
            return {name: np.asarray(values) for name, values in signature(**tensors).items()}
        except (tf.errors.InvalidArgumentError, KeyError, ValueError) as error:
            shapes = {name: tuple(np.shape(values)) for name, values in inputs.items()}
            ratios = {each.name: each.ratio for each in self.config.inputs}
            raise ModelError(
                f"model {self.folder} can't take inputs of shapes {shapes}; expected, for h x w low-resolution cells "
                f"of at least 3 x 3, {ratios} times as many"
            ) from error

    @property
    def ancestry(self) -> dict[str, Any]:
        """What a model that starts from this one has to say of it: how and on which data it was trained."""
        kept = ("name", "synthetic", "training", "citations")
        data = self.metadata.get("training_data", {})
        regions = [store.get("region") for store in data.get("stores", ())]
        about = {key: self.metadata[key] for key in kept if key in self.metadata}
        return {**about, "training_data": {"hash": data.get("hash"), "regions": regions}}

    def weights(self) -> list[np.ndarray]:
        """Return the generator's weights in Keras' order."""
        return [np.asarray(variable) for variable in self._loaded.generator_weights]

    def generator(self) -> keras.Model:
        """Return a Keras generator with these weights.

        Raises
        ------
        ModelError
            When the SavedModel's weights are not those of the architecture in model.json.
        """
        model = build_generator(self.config, "float32")
        try:
            model.set_weights(self.weights())
        except (AttributeError, ValueError) as error:
            raise ModelError(
                f"the SavedModel in {self.folder} has other weights than its model.json describes ({error}); "
                "export the model again"
            ) from error
        return model


def read_metadata(folder: Path | str) -> dict[str, Any]:
    """Read the model.json of an exported model.

    Raises
    ------
    ModelError
        When there is none, or it is no description of a model.
    """
    folder = Path(folder)
    path = folder / METADATA
    if folder.suffix == ".keras":
        raise ModelError(f"{folder} is a Keras file; make a model of it with deepbedmap import-keras")
    try:
        metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        validate(GeneratorConfig, metadata["generator"], str(path))
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} holds no model (no {METADATA}); expected an export of train.py, see saved_models/"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise ModelError(f"{path} is corrupt ({error}); export the model again") from error
    return metadata


def load_model(folder: Path | str) -> SuperResolution:
    """Load an exported model.

    Raises
    ------
    ModelError
        When there is none, it is corrupt, or its SavedModel is not what model.json says.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    config: GeneratorConfig = validate(GeneratorConfig, metadata["generator"], str(folder / METADATA))
    try:
        loaded = tf.saved_model.load(str(folder / VERSION_FOLDER))
        found = {
            name: (spec.dtype.name, spec.shape.rank, spec.shape[-1])
            for name, spec in loaded.signatures[PREDICT].structured_input_signature[1].items()
        }
    except (OSError, ValueError, KeyError, IndexError, AttributeError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ModelError(f"{folder / VERSION_FOLDER} is no readable SavedModel ({reason}); export it again") from error
    expected = {each.name: ("float32", 4, each.channels) for each in config.inputs}
    if found != expected:
        raise ModelError(
            f"the SavedModel in {folder} takes {found}, but its model.json says {expected}; export the model again"
        )
    return SuperResolution(folder, metadata, config, loaded)


def export_again(model: Path | str, folder: Path | str) -> Path:
    """Export a model anew, with all signatures of this version, into another folder.

    Parameters
    ----------
    model
        An exported model; it stays as it is.
    folder
        Where the new one goes.

    Raises
    ------
    ModelError
        When there is no such model, or `folder` is the same.
    """
    source, folder = Path(model), Path(folder)
    if folder.resolve() == source.resolve():
        raise ModelError(f"{folder} is the model itself; choose another folder, so that neither is ever half-written")
    loaded = load_model(source)
    made = {"format", "created", "generator", "symmetric", "normalisation", "software"}
    metadata = {key: value for key, value in loaded.metadata.items() if key not in made}
    about = {key: loaded.metadata[key] for key in ("created", "software") if key in loaded.metadata}
    origin: dict[str, Any] = {"exported_from": {"name": source.name, **about}}
    symmetric = bool(loaded.metadata.get("symmetric"))
    return export_model(loaded.generator(), loaded.config, folder, {**metadata, **origin}, symmetric)


def import_chainer(weights: Path | str, folder: Path | str, residual_scaling: float = 0.2) -> Path:
    """Turn the published network's weight file into an exported model.

    Parameters
    ----------
    weights
        .npz file as `chainer.serializers.save_npz` writes it; the number of blocks and filters is read from it.
    folder
        Where the model goes.
    residual_scaling
        The file does not hold it: 0.2 in the paper.

    Raises
    ------
    ModelError
        When the file is not a generator's.
    """
    config = chainer_generator_config(read_chainer(weights), residual_scaling)
    generator = load_chainer_weights(build_generator(config, "float32"), weights)
    metadata = {
        "name": Path(folder).name,
        "synthetic": False,
        "source": f"imported from {Path(weights).name}",
        "citations": ["Leong & Horgan (2020), The Cryosphere 14, 3687-3705, doi:10.5194/tc-14-3687-2020"],
    }
    return export_model(generator, config, folder, metadata)


def _version(name: str) -> str:
    return __version__ if name == "deepbedmap-tf" else importlib.metadata.version(name)
