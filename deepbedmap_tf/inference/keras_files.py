"""Keras files of generators, in and out; reading one runs no code that came with it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow import keras

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import ModelError
from deepbedmap_tf.inference.export import export_model, load_model
from deepbedmap_tf.models.generator import build_generator

_KEYS = ("class_name", "module", "registered_name")
_OURS = "deepbedmap_tf"
_LARGEST_DESCRIPTION = 20_000_000


def save_keras(generator: keras.Model, path: Path) -> None:
    """Write ``generator.keras``, complete or not at all."""
    with written_beside(path) as beside:
        # Keras goes by the ending of the name.
        named = beside.with_name(f"{beside.name}.keras")
        try:
            generator.save(named)
            named.replace(beside)
        finally:
            named.unlink(missing_ok=True)


def load_keras(path: Path | str) -> keras.Model:
    """Read a Keras file that is made of Keras' own layers and this package's.

    Keras' safe mode refuses Python code in Lambda layers, but does not ask which modules a file has it import, and
    reads a file that is no zip archive in an older format without any safe mode. So the description in the file is
    looked through first.

    Parameters
    ----------
    path
        ``*.keras``, as ``deepbedmap export --keras`` or Keras 2.15 writes it.

    Raises
    ------
    ModelError
        When there is none, it is in another format, has a Lambda layer, or names a class from anywhere else.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _LARGEST_DESCRIPTION:
                raise ModelError(f"{path} has a description of more than {_LARGEST_DESCRIPTION:,} bytes; not loaded")
            description = json.loads(archive.read("config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ModelError(
            f"{path} is no readable Keras file ({error}); expected *.keras in the format of Keras 2.15, which is a "
            "zip archive"
        ) from error
    if path.suffix != ".keras":
        raise ModelError(f"{path}: expected a name that ends in .keras, without which Keras takes an older format")
    for class_name, module, registered in _named(description):
        if class_name.rpartition(".")[2] == "Lambda" or registered.rpartition(">")[2] == "Lambda":
            raise ModelError(f"{path} has a Lambda layer, which is Python code of whoever wrote it; not loaded")
        ours = registered.startswith(f"{_OURS}>") or module == _OURS or module.startswith(f"{_OURS}.")
        # Keras' own functions have no module of their own, only a name that is looked up in Keras.
        if not ours and module not in ("", "builtins", "keras") and not module.startswith("keras."):
            raise ModelError(f"{path} would import {class_name!r} from {module!r}, which is not Keras; not loaded")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    # Keras raises what its layers raise.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"{path} is corrupt or of another version of Keras ({reason}); export it again") from error


def import_keras(path: Path | str, like: Path | str, folder: Path | str) -> Path:
    """Export the generator of a Keras file, for example one trained further by a program of your own.

    Parameters
    ----------
    path
        See `load_keras`.
    like
        Exported model of the same architecture; its model.json is taken over.
    folder
        Where the new model goes.

    Raises
    ------
    ModelError
        When either can't be read, or the architectures differ.
    """
    model = load_model(like)
    generator = load_keras(path)
    expected = [weight.shape for weight in build_generator(model.config, "float32").weights]
    if [weight.shape for weight in generator.weights] != expected:
        raise ModelError(f"{path} has other weights than the architecture of {like}; name the model it was made from")
    kept = ("title", "synthetic", "citations", "resolution")
    metadata: dict[str, Any] = {key: model.metadata[key] for key in kept if key in model.metadata}
    metadata |= {"name": Path(folder).name, "source": f"{Path(path).name}, weights of unknown training"}
    return export_model(generator, model.config, folder, {**metadata, "started_from": model.ancestry})


def _named(content: Any) -> Iterator[tuple[str, str, str]]:
    """Go through everything in a description that names a class or function."""
    if isinstance(content, dict):
        if any(key in content for key in _KEYS):
            name, module, registered = (str(content.get(key) or "") for key in _KEYS)
            yield name, module, registered
        for value in content.values():
            yield from _named(value)
    elif isinstance(content, list):
        for value in content:
            yield from _named(value)
