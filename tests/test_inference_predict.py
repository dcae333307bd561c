"""Prediction of a window: its grid, its gaps, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from data_files import region_content, write_region
from stand_in_region import DATUM, StandInRegion

from deepbedmap_tf.config import DataConfig, GeneratorConfig, InputConfig
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.data.tiles import open_tiles, prepare_tiles
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Bounds
from deepbedmap_tf.inference.predict import predict_window

WINDOW = (-1490e3, -490e3, -1475e3, -478e3)


class RepeatedBed:
    """In the place of a network: every low-resolution cell as 4 x 4 equal ones, 0 for NaN."""

    def __init__(self, normalise: bool = True) -> None:
        self.config = GeneratorConfig(normalise=normalise)
        self.seen: dict[str, tuple[int, ...]] = {}

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self.seen = {name: values.shape for name, values in inputs.items()}
        return np.nan_to_num(inputs["bed_lowres"][:, 1:-1, 1:-1].repeat(4, axis=1).repeat(4, axis=2))


class Region(StandInRegion):
    """The stand-in with a hole in its bed, or in its surface."""

    def __init__(self, hole: str | None = None) -> None:
        super().__init__()
        self.hole = hole

    def inputs(
        self, bounds: Bounds | None = None, inputs: Sequence[InputConfig] | None = None
    ) -> dict[str, xr.DataArray]:
        fields = super().inputs(bounds)
        if self.hole is not None:
            fields[self.hole][3, 4] = np.nan
        return fields


def test_window_lies_on_the_regions_grid() -> None:
    model, region = RepeatedBed(), Region()
    bed = predict_window(model, region, WINDOW)
    assert bed.shape == (48, 60) and bed.dtype == np.float32
    assert bed.attrs["vertical_datum"] == DATUM and bed.attrs["units"] == "m"
    np.testing.assert_array_equal(bed.x, np.arange(WINDOW[0] + 125, WINDOW[2], 250))
    np.testing.assert_array_equal(bed.y, np.arange(WINDOW[3] - 125, WINDOW[1], -250))
    assert model.seen["bed_lowres"] == (1, 14, 17, 1)
    assert model.seen["surface"] == (1, 140, 170, 1)
    assert model.seen["velocity"] == (1, 28, 34, 2)
    # Block means of the truth are what the stand-in's low-resolution bed is made of.
    truth = region.reference("truth", WINDOW).values.reshape(12, 4, 15, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(bed.values[::4, ::4], truth, atol=1e-3)


def test_whole_region_by_default() -> None:
    region = Region()
    bed = predict_window(RepeatedBed(), region)
    assert bed.shape == region.grid.shape
    np.testing.assert_array_equal(
        bed.sel(x=slice(WINDOW[0], WINDOW[2]), y=slice(WINDOW[3], WINDOW[1])),
        predict_window(RepeatedBed(), region, WINDOW),
    )


def test_bed_is_unknown_where_its_low_resolution_is() -> None:
    bed = predict_window(RepeatedBed(), Region("bed_lowres"), WINDOW).values
    unknown = np.zeros_like(bed, bool)
    unknown[8:12, 12:16] = True
    np.testing.assert_array_equal(np.isnan(bed), unknown)


def test_gaps_of_other_inputs_do_not_show() -> None:
    assert predict_window(RepeatedBed(), Region("surface"), WINDOW).notnull().all()


def test_a_model_without_validity_channels_takes_no_gaps() -> None:
    with pytest.raises(DataError, match=r"'surface' of region stand-in has 1 invalid values.*normalise: true"):
        predict_window(RepeatedBed(normalise=False), Region("surface"), WINDOW)


def test_inference_feeds_what_training_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The published map had velocity clipped at 0 for the continent, and only there.
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))
    region = load_region(write_region(tmp_path, region_content(tmp_path)), data_dir=tmp_path)
    config = DataConfig(stride=8, block_size=64, buffer=12)
    tiles = open_tiles(prepare_tiles(region, config, tmp_path / "tiles.zarr", 1, progress=False))
    assert tiles.inputs["velocity"].min() < 0
    model = KeepInputs()
    for index in (0, len(tiles) // 2, len(tiles) - 1):
        x, y = tiles.x[index], tiles.y[index]
        predict_window(model, region, (x, y - 9000, x + 9000, y))
        for name, values in tiles.inputs.items():
            np.testing.assert_array_equal(model.inputs[name][0], values[index], err_msg=name)


class KeepInputs(RepeatedBed):
    """Remember what came."""

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self.inputs = inputs
        return super().__call__(inputs)
