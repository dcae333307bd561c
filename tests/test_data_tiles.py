from __future__ import annotations

import time

import numpy as np
import pytest
from data_files import add_radar, ramp, region_content, write_geotiff, write_region

from deepbedmap_tf.config import DataConfig
from deepbedmap_tf.data.cutting import windows
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.data.split import SPLITS, leak_fraction
from deepbedmap_tf.data.tiles import Tiles, open_tiles, prepare_tiles, store_hash
from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.grid import Grid

CONFIG = DataConfig(stride=8, block_size=64, buffer=12)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def content(tmp_path):
    return region_content(tmp_path)


def load(tmp_path, content):
    return load_region(write_region(tmp_path, content), data_dir=tmp_path)


def prepared(tmp_path, content, config=CONFIG, **settings):
    path = prepare_tiles(load(tmp_path, content), config, tmp_path / "tiles.zarr", 1, progress=False, **settings)
    return open_tiles(path, validity=True)


@pytest.mark.parametrize(("stride", "tile_size"), [(8, 9), (9, 9), (12, 12)])
def test_every_tile_is_co_located_with_its_inputs(tmp_path, content, stride, tile_size):
    # All fields are planes in map coordinates: a shift by any part of a cell would show.
    tiles = prepared(tmp_path, content, CONFIG.model_copy(update={"stride": stride, "tile_size": tile_size}))
    assert len(tiles) > 50 and tiles.bed.shape[1:] == (4 * tile_size, 4 * tile_size, 1)
    assert tiles.bed.dtype == tiles.inputs["surface"].dtype == np.float32
    for index in range(0, len(tiles), 7):
        x, y = tiles.x[index], tiles.y[index]
        side = 1000.0 * tile_size
        bed = Grid.from_bounds((x, y - side, x + side, y), 250)
        np.testing.assert_allclose(tiles.bed[index, ..., 0], ramp(bed, -500), atol=2e-3)
        coarse = bed.coarsen(4).pad(1)
        for name, ratio, offset in (("bed_lowres", 1, -500), ("surface", 10, 900), ("accumulation", 1, 20000)):
            np.testing.assert_allclose(tiles.inputs[name][index, ..., 0], ramp(coarse.refine(ratio), offset), atol=4e-3)
        np.testing.assert_allclose(tiles.inputs["velocity"][index, ..., 1], ramp(coarse.refine(2), -10), atol=4e-3)
    offsets = {round((x + 1600000) / 250) % 4 for x in tiles.x}
    assert offsets == ({0, 1, 2, 3} if stride == 9 else {0})


def test_the_store_says_what_it_was_made_from(tmp_path, content):
    content["holdout"] = {"test": [[-1600000, -600000, -1585000, -588000]]}
    content["citations"] = ["Author (2020)"]
    tiles = prepared(tmp_path, content)
    attrs = tiles.attrs
    assert attrs["leak_fraction"] == 0.0 and attrs["synthetic"] is False and attrs["label"] == "pseudo-truth"
    assert attrs["resolution"] == 250 and attrs["vertical_datum"] == "ellipsoid:WGS84"
    assert attrs["citations"] == ["Author (2020)"] and attrs["title"] == "Planes"
    assert len(attrs["made_from"]["provenance"]["sources"]["bed.nc"]) == 64
    assert attrs["made_from"]["data"]["stride"] == 8 and attrs["made_from"]["seed"] == 1
    assert {"zarr", "numpy", "pygmt"} <= set(attrs["software"])
    assert attrs["fill"]["surface"] == "none"
    for name in ("train", "validation", "test"):
        assert len(tiles.select(name)) == attrs["counts"][name] > 0
    # Tiles of the held-out box lie in it, no other tile comes near.
    test, train = tiles.select("test"), tiles.select("train")
    assert (test.x >= -1600000).all() and (test.x + 9000 <= -1585000).all() and (test.y <= -588000).all()
    assert np.maximum(train.x - -1585000, train.y - 9000 - -588000).min() >= 12 * 250
    rows, columns = (np.rint(axis / 250).astype(int) for axis in (-552000 - tiles.y, tiles.x + 1600000))
    assert leak_fraction(rows, columns, tiles.split, 36, (192, 192)) == 0


def test_a_store_of_the_same_data_is_kept_and_another_replaced(tmp_path, content):
    region, path = load(tmp_path, content), tmp_path / "tiles.zarr"
    prepare_tiles(region, CONFIG, path, 1, progress=False)
    first, stamp = store_hash(path), (path / "zarr.json").stat().st_mtime_ns
    prepare_tiles(load(tmp_path, content), CONFIG.model_copy(update={"augment": False}), path, 1, progress=False)
    assert (path / "zarr.json").stat().st_mtime_ns == stamp
    prepare_tiles(region, CONFIG, tmp_path / "again.zarr", 1, progress=False)
    assert store_hash(tmp_path / "again.zarr") == first
    prepare_tiles(region, CONFIG, path, 2, progress=False)
    assert store_hash(path) != first
    grid = Grid.of(region.inputs()["accumulation"]).pad(1)
    write_geotiff(tmp_path / "accumulation.tif", grid, ramp(grid, 7))
    prepare_tiles(load(tmp_path, content), CONFIG, path, 2, progress=False)
    assert open_tiles(path).inputs["accumulation"].max() < 15000
    assert not [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_the_number_of_training_tiles_can_be_limited(tmp_path, content):
    whole = prepared(tmp_path, content)
    few = prepared(tmp_path, content, CONFIG.model_copy(update={"max_tiles": 10}))
    assert len(few.select("train")) == 10 and len(few.select("validation")) == len(whole.select("validation"))


def test_gaps_travel_as_nan_and_mask_and_empty_tiles_are_dropped(tmp_path, content):
    coarse = Grid.of(load(tmp_path, content).inputs()["bed_lowres"])
    holed = ramp(coarse, 20000)
    holed[:, :25] = -9999
    write_geotiff(tmp_path / "accumulation.tif", coarse, holed, -9999)
    tiles = prepared(tmp_path, content)
    missing = np.isnan(tiles.inputs["accumulation"][..., 0])
    assert missing.any() and not missing.all(axis=(1, 2)).any()
    np.testing.assert_array_equal(missing, ~tiles.valid["accumulation"])
    assert tiles.attrs["counts"]["empty"] > 0
    content["inputs"]["accumulation"]["fill"] = "nearest"
    filled = prepared(tmp_path, content)
    assert np.isfinite(filled.inputs["accumulation"]).all() and not filled.valid["accumulation"].all()
    assert len(filled) == len(tiles) + tiles.attrs["counts"]["empty"]


def test_windows_without_a_whole_target_are_no_tiles(tmp_path, content):
    fine = load(tmp_path, content).grid
    bed = ramp(fine, -500)
    bed[100:, :] = np.nan
    write_geotiff(tmp_path / "half.tif", fine, bed)
    content["target"] = {"kind": "raster", "path": "half.tif", "vertical_datum": "ellipsoid:WGS84", "label": "half"}
    config = CONFIG.model_copy(update={"block_size": 48, "buffer": 4})
    tiles = prepared(tmp_path, content, config)
    assert np.isfinite(tiles.bed).all() and tiles.y.min() - 9000 >= fine.bounds[3] - 25000
    bed[::30] = np.nan
    write_geotiff(tmp_path / "half.tif", fine, bed)
    with pytest.raises(DataError, match="no complete window of 36 x 36 cells in its half bed"):
        prepared(tmp_path, content, config)


def test_a_failed_write_leaves_nothing(tmp_path, content, monkeypatch):
    region = load(tmp_path, content)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepbedmap_tf.data.tiles.cut_tiles", full_disk)
    with pytest.raises(DataError, match="No space left on device; free some space"):
        prepare_tiles(region, CONFIG, tmp_path / "out" / "tiles.zarr", 1, progress=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path, content):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="exists and is no tile store"):
        prepare_tiles(load(tmp_path, content), CONFIG, tmp_path / "mine", 1, progress=False)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_damaged_and_missing_stores_are_one_line(tmp_path, content):
    with pytest.raises(DataError, match="no complete tile store"):
        open_tiles(tmp_path / "none.zarr")
    prepared(tmp_path, content)
    chunk = next((tmp_path / "tiles.zarr" / "bed").rglob("c/0/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(DataError, match="no complete tile store"):
        open_tiles(tmp_path / "tiles.zarr")


def test_regions_are_joined(tmp_path, content):
    tiles = prepared(tmp_path, content)
    both = Tiles.concatenate([tiles, tiles.select("train")])
    assert len(both) == len(tiles) + tiles.attrs["counts"]["train"]
    assert both.inputs["surface"].shape[0] == both.x.size == len(both)
    assert both.attrs["synthetic"] is False and len(both.attrs["parts"]) == 2
    larger = prepared(tmp_path, content, CONFIG.model_copy(update={"tile_size": 12}))
    with pytest.raises(DataError, match="can't be joined"):
        Tiles.concatenate([tiles, larger])
    assert len(tiles.take(np.array([3, 1]))) == 2 and len(tiles.select(SPLITS["test"])) == 0


def test_an_impossible_holdout_box_is_named(tmp_path, content):
    content["holdout"] = {"test": [[0, 0, -1000, 1000]]}
    with pytest.raises(ConfigError, match=r"holdout box .* is empty"):
        prepared(tmp_path, content)


def test_cutting_is_vectorised():
    fine = np.random.default_rng(0).normal(size=(2000, 2000)).astype(np.float32)
    rows, columns = (np.random.default_rng(seed).integers(0, 1890, 4000) for seed in (1, 2))
    start = time.perf_counter()
    tiles = windows(fine[..., np.newaxis], rows, columns, 110)
    # The aim is well under a minute for 4,000 tiles with all inputs; this is the largest of them.
    assert time.perf_counter() - start < 20
    np.testing.assert_array_equal(tiles[17, ..., 0], fine[rows[17] : rows[17] + 110, columns[17] : columns[17] + 110])


def test_byrd_tiles_from_the_real_files(root, shared, tmp_path):
    region = load_region(root / "configs/regions/byrd.yml", data_dir=shared("data/byrd").parent)
    tiles = open_tiles(prepare_tiles(region, DataConfig(), tmp_path / "byrd.zarr", 42, progress=False))
    assert tiles.attrs["leak_fraction"] == 0 and tiles.attrs["label"] == "pseudo-truth"
    assert len(tiles.select("train")) > 300 and len(tiles.select("validation")) > 20 and len(tiles.select("test")) > 20
    means = tiles.bed.reshape(-1, 9, 4, 9, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(means, tiles.inputs["bed_lowres"][:, 1:-1, 1:-1, 0], atol=0.01)


@pytest.fixture
def with_radar(tmp_path, content):
    return add_radar(tmp_path, content)


SPARSE = CONFIG.model_copy(update={"supervision": "sparse", "minimum_coverage": 0.02, "buffer": 3, "block_size": 40})


def test_sparse_tiles_carry_the_weight_of_their_own_split_alone(tmp_path, with_radar):
    tiles = prepared(tmp_path, with_radar, SPARSE)
    assert tiles.weight is not None and tiles.weight.shape == (*tiles.bed.shape[:3], 2)
    found = {round(float(value), 4) for value in np.unique(tiles.weight[..., 0])}
    # One pick of k = 2 weighs a third, two picks a half, the product a tenth; cells of another split nothing.
    assert found == {0.0, 0.1, 0.3333, 0.5}
    radar = tiles.weight[..., 1:] > 0
    np.testing.assert_array_equal(radar, tiles.weight[..., :1] > 0.2)
    size = tiles.bed.shape[1]
    assert (radar.mean(axis=(1, 2, 3)) >= 0.02).all()
    used = {}
    for index in range(len(tiles)):
        x, y = tiles.x[index], tiles.y[index]
        plane = ramp(Grid.from_bounds((x, y - 250 * size, x + 250 * size, y), 250), -500)
        known = radar[index, ..., 0]
        np.testing.assert_allclose(tiles.bed[index, ..., 0][known], plane[known] + 7, atol=2e-3)
        place = used.setdefault(int(tiles.split[index]), set())
        rows, columns = np.nonzero(known)
        place.update(zip((y - 250 * rows).tolist(), (x + 250 * columns).tolist(), strict=True))
    assert set(used) == {SPLITS["train"], SPLITS["validation"]}
    assert not used[0] & used[1] and tiles.attrs["leak_fraction"] == 0


def test_what_is_taught_fills_training_tiles_and_hides_radar_that_is_held_out(tmp_path, with_radar):
    region = load(tmp_path, with_radar)
    config = SPARSE.model_copy(update={"regression_weight": 0.7})
    store = prepare_tiles(
        region,
        config,
        tmp_path / "t.zarr",
        1,
        progress=False,
        teach=lambda: np.full(region.grid.shape, -4321, "float32"),
    )
    tiles = open_tiles(store)
    train, validation = tiles.select("train"), tiles.select("validation")
    radar = train.weight[..., 1:] > 0
    assert radar.any() and (train.bed[~radar] == -4321).all() and (train.bed[radar] != -4321).all()
    assert (train.weight[..., :1][~radar] == np.float32(0.7)).all()
    # Validation measures what it did without teaching, in cells where training saw nothing but what is taught.
    plain = prepared(tmp_path, with_radar, SPARSE).select("validation")
    np.testing.assert_array_equal(validation.bed, plain.bed)
    np.testing.assert_array_equal(validation.weight, plain.weight)


def test_weight_for_a_bed_that_nobody_teaches_is_refused(tmp_path, with_radar):
    with pytest.raises(ConfigError, match=r"regression_weight is 0\.7 but there is no regression"):
        prepared(tmp_path, with_radar, SPARSE.model_copy(update={"regression_weight": 0.7}))


def test_sparse_supervision_needs_radar_to_be_named(tmp_path, content):
    with pytest.raises(ConfigError, match="needs `radar` under `target`"):
        prepared(tmp_path, content, SPARSE)


def test_tiles_with_and_without_weights_are_not_mixed(tmp_path, with_radar):
    tiles = prepared(tmp_path, with_radar, SPARSE)
    from dataclasses import replace

    with pytest.raises(DataError, match="with and without weights"):
        Tiles.concatenate([tiles, replace(tiles, weight=None)])


def test_a_polygon_is_held_out_like_a_box(tmp_path, content):
    xmin, ymin, _, _ = content["bounds"]
    ring = [[xmin, ymin], [xmin + 20000, ymin], [xmin, ymin + 20000]]
    content["holdout"] = {"polygons": {"corner": ring}}
    region = load(tmp_path, content)
    inside = region.held_out
    assert inside[-1, 0] and not inside[0].any() and not inside[-1, -1]
    assert inside.sum() * 250**2 == pytest.approx(2e8, rel=0.05)
    tiles = prepared(tmp_path, content)
    train = tiles.select("train")
    reach = 36 * 250
    # The window's corner nearest to the polygon lies beyond its sloping side by the buffer.
    assert ((train.x - xmin) + (train.y - reach - ymin) >= 20000).all()
    content["holdout"] = {"polygons": {"corner": ring[:2]}}
    with pytest.raises(ConfigError, match="2 corners"):
        load(tmp_path, content)
