"""Prediction of areas of any size: blocks leave no trace, edges and gaps follow the rules, files say what they are."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from data_files import EAST, NORTH, region_content, write_region
from hypothesis import given, settings
from hypothesis import strategies as st
from map_runs import rough_region
from scipy.ndimage import uniform_filter

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import ConfigError, DataError, GridError, ModelError
from deepbedmap_tf.inference.predict import predict_region, predict_to_files, predict_window
from deepbedmap_tf.scoring.interpolation import upsample


class Cubic:
    """In the place of a network: the low-resolution bed interpolated, exact for planes."""

    def __init__(self, **metadata: Any) -> None:
        self.config = GeneratorConfig(normalise=True)
        self.metadata = metadata
        self.windows: list[tuple[int, ...]] = []

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        bed = inputs["bed_lowres"][0, ..., 0]
        self.windows.append(bed.shape)
        return self.change(upsample(np.nan_to_num(bed), 4, "not-a-knot")[4:-4, 4:-4])[np.newaxis, ..., np.newaxis]

    def change(self, bed: np.ndarray) -> np.ndarray:
        return bed


class Neighbourly(Cubic):
    """Looks three low-resolution cells around, and sees nothing beyond the window, as a network does."""

    def change(self, bed: np.ndarray) -> np.ndarray:
        return uniform_filter(bed, 25, mode="constant")


class Global(Cubic):
    """Looks at the whole window."""

    def change(self, bed: np.ndarray) -> np.ndarray:
        return bed + bed.mean()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("planes")
    return folder, region_content(folder, cells=40)


@pytest.fixture(scope="module")
def region(content: tuple[Path, dict[str, Any]]) -> Region:
    return load_region(write_region(*content), content[0])


@pytest.fixture(scope="module")
def relief(content: tuple[Path, dict[str, Any]]) -> Region:
    """The same with a rough low-resolution bed."""
    folder, keys = content
    bed = {"path": "bed.nc", "variable": "bed", "vertical_datum": "ellipsoid:WGS84", "resampling": "average"}
    path = write_region(folder, {**keys, "inputs": {**keys["inputs"], "bed_lowres": bed}})
    return load_region(path, folder)


@settings(max_examples=10)
@given(block=st.integers(3, 60), halo=st.integers(0, 9))
def test_a_coordinate_ramp_goes_through_unchanged(region: Region, block: int, halo: int) -> None:
    # The published map is shifted by 1 km in x and y.
    bounds = (region.bounds[0] + 3000, region.bounds[1] + 8000, region.bounds[0] + 11000, region.bounds[1] + 15000)
    bed = predict_region(Cubic(), region, bounds, block=block, halo=halo, progress=False)
    np.testing.assert_array_equal(bed.x, np.arange(bounds[0] + 125, bounds[2], 250))
    np.testing.assert_array_equal(bed.y, np.arange(bounds[3] - 125, bounds[1], -250))
    plane = EAST * bed.x.to_numpy() + NORTH * bed.y.to_numpy()[:, np.newaxis] - 500
    np.testing.assert_allclose(bed, plane, atol=0.02)


def test_with_enough_context_blocks_leave_no_trace(relief: Region) -> None:
    whole = predict_window(Neighbourly(), relief)
    model = Neighbourly()
    blocks = predict_region(model, relief, block=14, halo=5, progress=False)
    # The cubic stand-in itself reaches a few cells with weights that die away.
    np.testing.assert_allclose(blocks, whole, atol=0.2)
    assert len(model.windows) == 9 and max(model.windows) <= (26, 26)
    assert blocks.attrs["vertical_datum"] == "ellipsoid:WGS84" and blocks.dtype == np.float32
    # Without context the seams show: the test would notice.
    bare = predict_region(Neighbourly(), relief, block=14, halo=0, progress=False)
    assert float(np.abs(bare - whole).max()) > 100


class ShortSighted(Cubic):
    """Low-resolution cells repeated and averaged over 9 x 9 output cells: sees no further than two."""

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        bed = inputs["bed_lowres"].astype(np.float64).repeat(4, axis=1).repeat(4, axis=2)
        return uniform_filter(bed, (1, 9, 9, 1), mode="nearest")[:, 4:-4, 4:-4].astype(np.float32)


@settings(max_examples=8)
@given(block=st.integers(2, 60), halo=st.integers(2, 9), blend=st.integers(0, 18), batch=st.integers(1, 3))
def test_tiles_of_a_short_reach_are_the_whole(relief: Region, block: int, halo: int, blend: int, batch: int) -> None:
    # A blend as wide as the halo allows uses predictions near the edge of their context.
    blend = min(blend, block, 2 * (halo - 2))
    whole = predict_window(ShortSighted(), relief)
    tiled = predict_region(ShortSighted(), relief, block=block, halo=halo, blend=blend, batch=batch, progress=False)
    # Two units of the last digit at these heights: running sums round as they come.
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-3)


def test_a_blend_smooths_what_a_small_halo_tears(relief: Region) -> None:
    whole = predict_window(Neighbourly(), relief).to_numpy()
    hard, soft = (
        predict_region(Neighbourly(), relief, block=14, halo=2, blend=blend, progress=False).to_numpy() - whole
        for blend in (0, 4)
    )
    # Steps between neighbouring cells across the edges of blocks, in what the blocks got wrong.
    torn, mended = (np.abs(np.diff(error, axis=1))[:, [55, 111]].mean() for error in (hard, soft))
    assert torn > 1 and mended < 0.5 * torn


def test_a_part_of_a_blend_is_that_part(relief: Region) -> None:
    whole = predict_region(Neighbourly(), relief, block=12, halo=4, blend=6, progress=False)
    xmin, ymin, _, ymax = relief.bounds
    for bounds in (
        (xmin + 13_000, ymin + 9000, xmin + 14_000, ymin + 10_000),
        (xmin, ymin + 11_000, xmin + 29_000, ymax),
    ):
        part = predict_region(Neighbourly(), relief, bounds, block=12, halo=4, blend=6, progress=False)
        xr.testing.assert_equal(part, whole.sel(x=part.x, y=part.y))


@pytest.mark.parametrize("blend", [0, 3])
def test_a_turned_region_gives_a_turned_map(tmp_path: Path, blend: int) -> None:
    maps = []
    for turns in (0, 1):
        path = rough_region(tmp_path / str(turns))
        with xr.open_dataset(path.parent / "bed.nc") as file:
            turned = file.load()
        # The region and its blocks of ten cells are square, so that they lie alike after a quarter turn.
        turned["bed"].values[:] = np.rot90(turned["bed"].values, turns)
        turned.to_netcdf(path.parent / "bed.nc")
        region = load_region(path, path.parent)
        maps.append(predict_region(Neighbourly(), region, block=10, halo=2, blend=blend, progress=False).to_numpy())
    np.testing.assert_allclose(maps[1], np.rot90(maps[0]), atol=0.02)
    assert np.abs(maps[0] - maps[1]).max() > 10


def test_a_model_of_another_ratio_is_refused(region: Region) -> None:
    class Double(Cubic):
        def change(self, bed: np.ndarray) -> np.ndarray:
            return bed[::2, ::2]

    with pytest.raises(ModelError, match=r"makes \(80, 80\) cells of 40 x 40 low-resolution ones"):
        predict_region(Double(), region, block=40, progress=False)


def test_a_part_of_the_map_is_that_part(relief: Region) -> None:
    whole = predict_region(Global(), relief, block=12, halo=2, progress=False)
    xmin, ymin, _, ymax = relief.bounds
    for bounds in (
        (xmin + 5000, ymin + 9000, xmin + 6000, ymin + 10_000),
        (xmin, ymin + 11_000, xmin + 29_000, ymax),
    ):
        part = predict_region(Global(), relief, bounds, block=12, halo=2, progress=False)
        xr.testing.assert_equal(part, whole.sel(x=part.x, y=part.y))


def test_the_models_own_halo_is_used(region: Region) -> None:
    model = Cubic(halo=3)
    assert predict_region(model, region, block=10, progress=False).attrs["halo"] == 3
    assert max(model.windows) == (18, 18)


def test_bounds_are_widened_and_it_is_said(region: Region, caplog: pytest.LogCaptureFixture) -> None:
    xmin, ymin, _, _ = region.bounds
    with caplog.at_level(logging.INFO, "deepbedmap_tf"):
        bed = predict_region(Cubic(), region, (xmin + 10, ymin + 990, xmin + 1001, ymin + 1999), progress=False)
    assert bed.shape == (8, 8)
    assert f"to whole low-resolution cells: [{xmin}, {ymin}, {xmin + 2000}, {ymin + 2000}]" in caplog.text
    with pytest.raises(GridError, match="leave the region"):
        predict_region(Cubic(), region, (xmin - 10, ymin, xmin + 1000, ymin + 1000))


def test_another_resolution_is_allowed_and_said(region: Region, caplog: pytest.LogCaptureFixture) -> None:
    predict_region(Cubic(resolution=500), region, progress=False)
    assert "trained at 500 m, region planes is at 250 m" in caplog.text
    caplog.clear()
    predict_region(Cubic(resolution=250), region, progress=False)
    assert not caplog.text


def test_blocks_without_data_stay_nan(
    content: tuple[Path, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, keys = content
    with xr.open_dataset(folder / "bed.nc") as file:
        holed = file.load()
    # The eastern half has no bed at all.
    holed["plane"][:, holed.sizes["x"] // 2 :] = np.nan
    holed.to_netcdf(folder / "holed.nc")
    bed = {"path": "holed.nc", "variable": "plane", "vertical_datum": "ellipsoid:WGS84"}
    bed["resampling"] = "average"
    path = write_region(tmp_path, {**keys, "inputs": {**keys["inputs"], "bed_lowres": bed}})
    region = load_region(path, folder)
    result = predict_region(Cubic(), region, block=8, halo=1, progress=False)
    known = np.isfinite(result.to_numpy())
    assert known[:, :80].all() and not known[:, 84:].any()
    assert result.attrs["empty_blocks"] == 10 and "10 of 25 blocks have no data and stay NaN" in caplog.text
    xmin, ymin, xmax, ymax = region.bounds
    with pytest.raises(DataError, match="'bed_lowres' has no valid cell within"):
        predict_region(Cubic(), region, (xmin + 32_000, ymin, xmax, ymax), block=8, halo=1, progress=False)


def test_a_damaged_file_is_no_gap(content: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, keys = content
    (folder / "cut.nc").write_bytes((folder / "bed.nc").read_bytes()[:3000])
    bed = {"path": "cut.nc", "variable": "plane", "vertical_datum": "ellipsoid:WGS84"}
    path = write_region(tmp_path, {**keys, "inputs": {**keys["inputs"], "bed_lowres": bed}})
    with pytest.raises(DataError, match="damaged or cut off"):
        predict_region(Cubic(), load_region(path, folder), progress=False)


def test_progress_is_shown(region: Region, capsys: pytest.CaptureFixture[str]) -> None:
    predict_region(Cubic(), region, block=20, progress=True)
    assert "predicting" in (shown := capsys.readouterr().err) and "4/4" in shown
    predict_region(Cubic(), region, block=20, progress=False)
    assert not capsys.readouterr().err


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_training import TINY

    from deepbedmap_tf.inference.export import export_model
    from deepbedmap_tf.models import build_generator

    config = TINY.model_copy(update={"normalise": True, "output": "residual"})
    folder = tmp_path_factory.mktemp("models") / "tiny"
    stores = [{"region": "synthetic", "label": "radar"}]
    metadata = {"resolution": 500.0, "synthetic": True, "citations": ["A world"], "halo": 4}
    metadata["training_data"] = {"stores": stores}
    return export_model(build_generator(config, "float32"), config, folder, metadata)


def test_the_file_says_what_it_is(content: tuple[Path, dict[str, Any]], model_folder: Path, tmp_path: Path) -> None:
    folder, keys = content
    region_file = write_region(folder, {**keys, "citations": ["Nobody (2020)"]})
    bounds = (-1599_000, -599_000, -1590_500, -589_000)
    out, item = predict_to_files(model_folder, region_file, folder, bounds, [tmp_path / "new/map.nc"], progress=False)
    assert out == tmp_path / "new/map.nc" and item.name == "map.json"
    assert {path.name for path in out.parent.iterdir()} == {"map.nc", "map.json"}
    with xr.open_dataset(out) as file:
        assert file["bed"].shape == (40, 36) and file["bed"].dtype == np.float32
        attributes = dict(file.attrs)
        plane = EAST * file.x.to_numpy() + NORTH * file.y.to_numpy()[:, np.newaxis] - 500
        # A network that has learned nothing yet adds little to the interpolated bed.
        assert float(np.abs(file["bed"] - plane).max()) < 60
    assert attributes["model"] == "tiny" and len(attributes["model_sha256"]) == 64
    assert attributes["references"] == "A world; Nobody (2020)"
    assert attributes["comment"] == (
        "The model was trained at 500 m and is used at 250 m. The model was trained on a SYNTHETIC world alone."
    )
    assert attributes["synthetic"] == "model" and attributes["model_trained_on"] == "radar (synthetic)"
    files = json.loads(attributes["input_files_sha256"])
    assert set(files) == {"bed_1km.tif", "surface.tif", "velocity.nc", "accumulation.tif"}
    assert all(len(value) == 64 for value in files.values())
    assert attributes["history"].endswith(
        "deepbedmap predict --model tiny --region region.yml --bounds -1599000 -599000 -1590500 -589000 --out map.nc"
    )
    assert str(tmp_path) not in str(attributes) and str(folder) not in str(attributes)


def test_what_is_wrong_is_said_before_any_work(
    content: tuple[Path, dict[str, Any]], model_folder: Path, tmp_path: Path
) -> None:
    folder, keys = content
    region_file = write_region(folder, keys)
    with pytest.raises(ConfigError, match=r"--out map.xyz ends in '.xyz'"):
        predict_to_files(tmp_path / "none", region_file, folder, None, [tmp_path / "map.xyz"])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot make folder"):
        predict_to_files(tmp_path / "none", region_file, folder, None, [tmp_path / "file/map.nc"])
    with pytest.raises(GridError, match="leave the region"):
        predict_to_files(tmp_path / "none", region_file, folder, (0, 0, 1000, 1000), [tmp_path / "map.nc"])
    with pytest.raises(ModelError, match="holds no model"):
        predict_to_files(tmp_path / "none", region_file, folder, None, [tmp_path / "map.nc"])
    assert not list(tmp_path.glob("*.nc"))


def test_byrd_is_covered_wholly(root: Path, shared: Callable[[str], Path], model_folder: Path, tmp_path: Path) -> None:
    folder = shared("data/byrd").parent
    out, _ = predict_to_files(
        model_folder, root / "configs/regions/byrd.yml", folder, None, [tmp_path / "byrd.nc"], progress=False
    )
    with xr.open_dataset(out) as ours, xr.open_dataset(folder / "byrd/BedMachineAntarctica_v3.4_byrd.nc") as product:
        np.testing.assert_array_equal(ours.x, product.x)
        np.testing.assert_array_equal(ours.y, product.y)
        # Also where the fine bed is withheld.
        assert bool(product["bed"].isnull().any()) and bool(ours["bed"].notnull().all())
        assert ours["bed"].attrs["vertical_datum"] == "geoid:EIGEN-6C4"
        near = np.abs(ours["bed"] - product["bed"]).to_numpy()
        assert np.nanmedian(near) < 60
