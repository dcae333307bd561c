"""Write Keras weights in the layout of the published weight files, names and axes as its reference describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorflow import keras

PLACES = {
    "bed_lowres_conv": "input_block/conv_on_X",
    "surface_conv": "input_block/conv_on_W1",
    "velocity_conv": "input_block/conv_on_W2",
    "accumulation_conv": "input_block/conv_on_W3",
    "pre_residual_conv": "pre_residual_conv_layer",
    "post_residual_conv": "post_residual_conv_layer",
    "post_upsample_conv_1": "post_upsample_conv_layer_1",
    "post_upsample_conv_2": "post_upsample_conv_layer_2",
}


def oihw(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (3, 2), (0, 1))


def generator_arrays(model: keras.Model, blocks: int) -> dict[str, np.ndarray]:
    """All arrays of a generator by Chainer's names."""
    places = dict(PLACES)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for conv in (1, 2, 3, 4, 5):
                place = f"residual_network/{block}/residual_dense_block{dense}/conv_layer{conv}"
                places[f"rrdb_{block}_dense_{dense}_conv_{conv}"] = place
    arrays = {}
    for name, place in places.items():
        kernel, bias = model.get_layer(name).get_weights()
        arrays |= {f"{place}/W": oihw(kernel), f"{place}/b": bias}
    for number in (1, 2):
        layer = model.get_layer(f"final_deformable_{number}")
        place = f"final_conv_layer{number}"
        arrays |= {
            f"{place}/offset_conv/W": oihw(layer.offset_kernel.numpy()),
            f"{place}/offset_conv/b": layer.offset_bias.numpy(),
            f"{place}/deform_conv/W": oihw(layer.kernel.numpy()),
            f"{place}/deform_conv/b": layer.bias.numpy(),
        }
    return arrays


def discriminator_arrays(seed: int) -> dict[str, np.ndarray]:
    """Random arrays of a discriminator by Chainer's names, with the counters that Chainer keeps beside them."""
    generator = np.random.default_rng(seed)
    filters = (64, 64, 128, 128, 128, 256, 256, 512, 512, 512)

    def random(*shape: int) -> np.ndarray:
        return generator.normal(0, 0.05, shape).astype(np.float32)

    arrays = {"conv_layer0/b": random(64), "linear_1/W": random(100, 512), "linear_1/b": random(100)}
    arrays |= {"linear_2/W": random(1, 100), "linear_2/b": random(1)}
    for index, width in enumerate(filters):
        size = 3 if index % 2 == 0 else 4
        arrays[f"conv_layer{index}/W"] = random(width, filters[index - 1] if index else 1, size, size)
        if index:
            arrays |= {f"batch_norm{index}/{name}": random(width) for name in ("beta", "avg_mean")}
            arrays |= {f"batch_norm{index}/{name}": 1 + abs(random(width)) for name in ("gamma", "avg_var")}
            arrays[f"batch_norm{index}/N"] = np.array(17)
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray], prefix: str = "") -> Path:
    """Write a weight file."""
    np.savez(path, **{f"{prefix}{name}": array for name, array in arrays.items()})
    return path
