"""Read weights in the layout of the published network (`chainer.serializers.save_npz`)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.errors import ModelError

if TYPE_CHECKING:
    from tensorflow import keras

INPUTS = {"bed_lowres": "X", "surface": "W1", "velocity": "W2", "accumulation": "W3"}
"""The paper's letters of the inputs."""


def read_chainer(path: Path | str) -> dict[str, np.ndarray]:
    """Read all arrays of a weight file, with their names stripped of the leading slash.

    Raises
    ------
    ModelError
        When the file is missing or is no readable .npz file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name.lstrip("/"): arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; expected the published weights, a .npz file") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise ModelError(f"{path} is not a readable .npz weight file ({error}); fetch it again") from error


def chainer_generator_config(weights: dict[str, np.ndarray], residual_scaling: float = 0.2) -> GeneratorConfig:
    """Find the architecture that a generator's weights belong to.

    Parameters
    ----------
    weights
        Arrays as `read_chainer` returns them.
    residual_scaling
        The file does not hold it: 0.2 in the paper.

    Raises
    ------
    ModelError
        When the arrays are not those of a generator.
    """
    blocks = {int(match[1]) for name in weights if (match := re.match(r"residual_network/(\d+)/", name))}
    first = weights.get("input_block/conv_on_X/W")
    if first is None or blocks != set(range(len(blocks))):
        raise ModelError(
            "the weight file holds no generator: expected input_block/conv_on_X/W and residual_network/0..n, "
            f"found {', '.join(sorted(weights)[:3]) or 'nothing'}"
        )
    return GeneratorConfig(
        num_residual_blocks=len(blocks),
        input_filters=first.shape[0],
        residual_scaling=residual_scaling,
        output="absolute",
        normalise=False,
    )


def load_chainer_weights(model: keras.Model, path: Path | str) -> keras.Model:
    """Load a published weight file into a generator or discriminator, which is returned.

    Parameters
    ----------
    model
        From `build_generator` (``output="absolute"``, ``normalise=False``) or `build_discriminator`.
    path
        .npz file in Chainer's layout: kernels OIHW, moving statistics of batch normalisation as persistent values.

    Raises
    ------
    ModelError
        When an array is missing, left over, or of another shape than the layer; the model is then unchanged.
    """
    weights = read_chainer(path)
    known = {name for name in weights if not name.endswith("/N")}
    values: list[tuple[str, Any, np.ndarray]] = []
    names = _discriminator_names(model) if model.name == "discriminator" else _generator_names(model)
    for name, variable in names:
        if name not in known:
            raise ModelError(
                f"{path} lacks {name}, which layer variable {variable.name} needs; is it for another architecture?"
            )
        known.discard(name)
        array = weights[name]
        if name.endswith("/W"):
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        if tuple(array.shape) != tuple(variable.shape):
            raise ModelError(
                f"{path}: {name} is {weights[name].shape}, which does not fit {variable.name} {tuple(variable.shape)}; "
                "check input_filters and num_residual_blocks"
            )
        values.append((name, variable, array))
    if known:
        raise ModelError(f"{path} holds {len(known)} arrays that the model has no place for, such as {min(known)}")
    for _, variable, array in values:
        variable.assign(array)
    return model


def _generator_names(model: keras.Model) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        variables = {variable.name.rpartition("/")[2].removesuffix(":0"): variable for variable in layer.weights}
        if not variables:
            continue
        if deformable := re.fullmatch(r"final_deformable_(\d)", layer.name):
            base = f"final_conv_layer{deformable[1]}"
            yield f"{base}/offset_conv/W", variables["offset_kernel"]
            yield f"{base}/offset_conv/b", variables["offset_bias"]
            yield f"{base}/deform_conv/W", variables["kernel"]
            yield f"{base}/deform_conv/b", variables["bias"]
            continue
        yield f"{_conv_path(layer.name)}/W", variables["kernel"]
        yield f"{_conv_path(layer.name)}/b", variables["bias"]


def _conv_path(layer: str) -> str:
    if dense := re.fullmatch(r"rrdb_(\d+)_dense_(\d)_conv_(\d)", layer):
        return f"residual_network/{dense[1]}/residual_dense_block{dense[2]}/conv_layer{dense[3]}"
    if upsample := re.fullmatch(r"post_upsample_conv_(\d)", layer):
        return f"post_upsample_conv_layer_{upsample[1]}"
    name = layer.removesuffix("_conv")
    return f"input_block/conv_on_{INPUTS[name]}" if name in INPUTS else f"{name}_conv_layer"


def _discriminator_names(model: keras.Model) -> Iterator[tuple[str, Any]]:
    suffixes = {"kernel": "W", "bias": "b", "moving_mean": "avg_mean", "moving_variance": "avg_var"}
    for layer in model.layers:
        for variable in layer.weights:
            base = re.sub(r"^conv_", "conv_layer", layer.name)
            base = re.sub(r"^batch_norm_", "batch_norm", re.sub(r"^dense_", "linear_", base))
            kind = variable.name.rpartition("/")[2].removesuffix(":0")
            yield f"{base}/{suffixes.get(kind, kind)}", variable
