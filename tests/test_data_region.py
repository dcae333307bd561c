from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from data_files import ramp, region_content, write_geotiff, write_netcdf, write_region

from deepbedmap_tf.config import DEFAULT_INPUTS, DataConfig, InputConfig
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.data.resampling import sample
from deepbedmap_tf.data.transects import order_along
from deepbedmap_tf.errors import ConfigError, DataError, DatumError, GridError
from deepbedmap_tf.grid import Grid


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def content(tmp_path):
    return region_content(tmp_path, cells=12)


def load(tmp_path, content):
    return load_region(write_region(tmp_path, content), data_dir=tmp_path)


def test_inputs_lie_around_the_window_with_one_coarse_cell_of_margin(tmp_path, content):
    region = load(tmp_path, content)
    xmin, _, _, ymax = region.bounds
    window = (xmin + 3000, ymax - 7000, xmin + 8000, ymax - 1000)
    inputs = region.inputs(window)
    assert {name: array.shape for name, array in inputs.items()} == {
        "bed_lowres": (8, 7),
        "surface": (80, 70),
        "velocity": (16, 14, 2),
        "accumulation": (8, 7),
    }
    margin = (window[0] - 1000, window[1] - 1000, window[2] + 1000, window[3] + 1000)
    for name, offset in (("bed_lowres", -500), ("surface", 900), ("accumulation", 20000)):
        grid = Grid.of(inputs[name])
        assert grid.bounds == margin
        np.testing.assert_allclose(inputs[name], ramp(grid, offset), atol=1e-3)
        assert inputs[name].dtype == np.float32 and bool(inputs[name]["valid"].all())
    np.testing.assert_allclose(inputs["velocity"][..., 1], ramp(Grid.of(inputs["velocity"]), -10), atol=1e-3)
    assert inputs["surface"].attrs["vertical_datum"] == "ellipsoid:WGS84"
    assert "vertical_datum" not in inputs["accumulation"].attrs
    bed = region.target(window)
    np.testing.assert_allclose(bed, ramp(region.grid.window(window), -500), atol=1e-3)
    assert bed.attrs["label"] == "pseudo-truth" and Grid.of(bed) == region.grid.window(window)


def test_further_inputs_are_entries_of_the_file(tmp_path, content):
    content["inputs"]["hardness"] = {
        "path": "accumulation.tif",
        "units": "1",
        "source_units": "kg m-2 yr-1",
        "scale": 1,
    }
    region = load(tmp_path, content)
    found = region.inputs(inputs=(*DEFAULT_INPUTS, InputConfig(name="hardness", ratio=2, units="1")))
    assert found["hardness"].shape == (28, 28)


def test_unknown_and_missing_keys_are_named(tmp_path, content):
    with pytest.raises(ConfigError, match=r"unknown key 'inputs.surface.unit'"):
        load(tmp_path, {**content, "inputs": {**content["inputs"], "surface": {"path": "surface.tif", "unit": "m"}}})
    with pytest.raises(ConfigError, match="key 'bounds' is missing"):
        load(tmp_path, {key: value for key, value in content.items() if key != "bounds"})
    with pytest.raises(ConfigError, match=r"'target.kind' is 'radar'"):
        load(tmp_path, {**content, "target": {"kind": "radar"}})
    with pytest.raises(ConfigError, match="vertical_datum 'WGS84' is not one of"):
        load(tmp_path, {**content, "vertical_datum": "WGS84"})
    with pytest.raises(ConfigError, match="an embedded world has both"):
        load(tmp_path, {**content, "synthetic": True})
    with pytest.raises(ConfigError, match="cannot read"):
        load_region(tmp_path / "none.yml")


def test_bounds_are_whole_coarse_cells(tmp_path, content):
    xmin, ymin, xmax, ymax = content["bounds"]
    with pytest.raises(GridError, match="nearest that fit are"):
        load(tmp_path, {**content, "bounds": [xmin, ymin, xmax + 250, ymax]})
    region = load(tmp_path, content)
    with pytest.raises(GridError, match=r"cut through cells of 1000 m; the nearest that fit are"):
        region.inputs((xmin + 300, ymin, xmax, ymax))
    with pytest.raises(GridError, match="leave region planes"):
        region.target((xmin - 1000, ymin, xmax, ymax))


def test_what_the_network_needs_must_be_there(tmp_path, content):
    inputs = content["inputs"]
    missing = load(tmp_path, {**content, "inputs": {k: v for k, v in inputs.items() if k != "velocity"}})
    with pytest.raises(ConfigError, match="has no input 'velocity'; it has bed_lowres, surface, accumulation"):
        missing.inputs()
    single = load(
        tmp_path,
        {**content, "inputs": {**inputs, "velocity": {"path": "velocity.nc", "variable": "VX", "units": "m/yr"}}},
    )
    with pytest.raises(ConfigError, match="has 1 bands, expected 2"):
        single.inputs()
    units = load(
        tmp_path, {**content, "inputs": {**inputs, "accumulation": {"path": "accumulation.tif", "units": "m yr-1"}}}
    )
    with pytest.raises(ConfigError, match="is in 'm yr-1', expected 'kg m-2 yr-1'"):
        units.inputs()
    gone = load(tmp_path, {**content, "inputs": {**inputs, "surface": {**inputs["surface"], "path": "none.tif"}}})
    with pytest.raises(DataError, match="does not exist; check the path in the region file, or pass --data-dir"):
        gone.inputs()


def test_heights_without_datum_or_geoid_are_refused(tmp_path, content):
    bare = {**content["inputs"], "surface": {"path": "surface.tif"}}
    with pytest.raises(DatumError, match="'surface' holds heights with no vertical_datum"):
        load(tmp_path, {**content, "inputs": bare}).inputs()
    on_geoid = {**content["inputs"], "bed_lowres": {"path": "bed_1km.tif", "vertical_datum": "geoid:EIGEN-GL04C"}}
    with pytest.raises(DatumError, match="'bed_lowres' is on geoid:EIGEN-GL04C; to convert it, the geoid layer"):
        load(tmp_path, {**content, "inputs": on_geoid}).inputs()
    at_sea = {**content["inputs"], "bed_lowres": {"path": "bed_1km.tif", "vertical_datum": "msl"}}
    with pytest.raises(DatumError, match="is on msl"):
        load(tmp_path, {**content, "inputs": at_sea}).inputs()


def test_two_geoids_are_joined_over_the_ellipsoid(tmp_path, content):
    grid = Grid.of(load(tmp_path, content).inputs()["bed_lowres"]).pad(1)
    # Sloping, and within what a geoid may be.
    centre = float(ramp(grid).mean())
    write_geotiff(tmp_path / "gl04c.tif", grid, (ramp(grid) - centre) / 20 - 20)
    write_netcdf(tmp_path / "eigen.nc", grid, geoid=(ramp(grid) - centre) / 20 - 50)
    content["vertical_datum"] = "geoid:EIGEN-6C4"
    content["geoids"] = {"geoid:EIGEN-6C4": {"path": "eigen.nc", "variable": "geoid"}}
    content["inputs"]["bed_lowres"] |= {"vertical_datum": "geoid:EIGEN-GL04C", "geoid": {"path": "gl04c.tif"}}
    inputs = load(tmp_path, content).inputs()
    # -20 up to the ellipsoid and 50 down to the other geoid; the slopes of both geoids cancel.
    bed, surface = inputs["bed_lowres"], inputs["surface"]
    np.testing.assert_allclose(bed, ramp(Grid.of(bed), -500) + 30, atol=2e-3)
    plane = ramp(Grid.of(surface))
    np.testing.assert_allclose(surface, plane + 900 - ((plane - centre) / 20 - 50), atol=3e-3)
    assert bed.attrs["vertical_datum"] == surface.attrs["vertical_datum"] == "geoid:EIGEN-6C4"


def test_layers_are_added_and_gaps_taken_from_a_fallback(tmp_path, content):
    grid = Grid.of(load(tmp_path, content).inputs()["bed_lowres"]).refine(2)
    holed = ramp(grid)
    holed[5:9, 5:9] = np.nan
    write_netcdf(tmp_path / "layers.nc", grid, surface=holed, firn=np.full(grid.shape, 15, np.float32))
    content["inputs"]["surface"] = {
        "path": "layers.nc",
        "variable": "surface",
        "add": ["firn"],
        "vertical_datum": "ellipsoid:WGS84",
    }
    open_ = load(tmp_path, content).inputs()["surface"]
    assert np.isnan(open_).any() and not bool(open_["valid"].all())
    np.testing.assert_array_equal(np.isfinite(open_), open_["valid"])
    content["inputs"]["surface"]["fallback"] = {"path": "surface.tif", "vertical_datum": "ellipsoid:WGS84"}
    whole = load(tmp_path, content).inputs()["surface"]
    missing = ~open_["valid"].to_numpy()
    np.testing.assert_allclose(whole.to_numpy()[~missing], ramp(Grid.of(whole), 15)[~missing], atol=1e-3)
    np.testing.assert_allclose(whole.to_numpy()[missing], ramp(Grid.of(whole), 900)[missing], atol=1e-3)


def test_an_input_with_nothing_in_the_window_is_an_error(tmp_path, content):
    grid = Grid.of(load(tmp_path, content).inputs()["bed_lowres"])
    write_geotiff(tmp_path / "empty.tif", grid, np.full(grid.shape, -9999, np.float32), -9999)
    content["inputs"]["accumulation"]["path"] = "empty.tif"
    with pytest.raises(DataError, match="'accumulation' has no valid cell within"):
        load(tmp_path, content).inputs()


def test_scattered_nodes_are_linear_inside_and_nearest_outside(tmp_path, content):
    import xarray as xr

    xmin, ymin, xmax, ymax = content["bounds"]
    x, y = np.meshgrid(np.linspace(xmin + 2000, xmax - 2000, 5), np.linspace(ymin + 2000, ymax - 2000, 4))
    smb = 0.3 + 1e-6 * (x - xmin)
    smb[0, 0] = np.nan
    nodes = {name: (("j", "i"), values) for name, values in (("x_ps", x), ("y_ps", y), ("smb", smb))}
    xr.Dataset(nodes).to_netcdf(tmp_path / "racmo.nc")
    content["inputs"]["accumulation"] = {
        "path": "racmo.nc",
        "kind": "nodes",
        "variable": "smb",
        "source_units": "m yr-1",
        "scale": 917,
        "units": "kg m-2 yr-1",
    }
    found = load(tmp_path, content).inputs()["accumulation"]
    at_x, at_y = np.meshgrid(found.x, found.y)
    hull = (at_x > x[0, 1]) & (at_x < x.max()) & (at_y > y.min()) & (at_y < y.max())
    expected = 917 * (0.3 + 1e-6 * (at_x - xmin))
    np.testing.assert_allclose(found.to_numpy()[hull], expected[hull], rtol=1e-5)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(float(found[5, -1]), 917 * smb[1, -1], rtol=1e-5)


def add_picks(tmp_path, content, **entry):
    xmin, ymin, xmax, ymax = content["bounds"]
    x, y = np.meshgrid(np.arange(xmin + 125, xmax, 250), np.arange(ymin + 125, ymax, 500))
    points = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "z": 0.001 * x.ravel()})
    points.loc[len(points)] = [0.0, 0.0, 0.0]
    points.to_csv(tmp_path / "points.csv", index=False)
    content["picks"] = [{"path": "points.csv", "format": "xyz", "vertical_datum": "ellipsoid:WGS84", **entry}]
    return points.iloc[:-1]


def test_picks_are_gridded_once_and_then_come_from_the_cache(tmp_path, content, monkeypatch):
    points = add_picks(tmp_path, content)
    content["target"] = {"kind": "picks", "tension": 0.35}
    region = load(tmp_path, content)
    assert len(region.picks("target")) == len(points)
    bed = region.target()
    assert bed.attrs["label"] == "radar" and np.isfinite(bed).all()
    np.testing.assert_allclose(bed, np.broadcast_to(0.001 * region.grid.x, bed.shape), atol=0.01)
    monkeypatch.setattr("deepbedmap_tf.data.gridded.grid_picks", lambda *_, **__: pytest.fail("gridded again"))
    again = load(tmp_path, content).target()
    np.testing.assert_array_equal(again, bed)
    xmin, ymin, _, _ = region.bounds
    part = load(tmp_path, content).target((xmin, ymin, xmin + 2000, ymin + 1000))
    np.testing.assert_array_equal(part, bed[-4:, :8])


def test_heights_of_picks_are_converted(tmp_path, content):
    points = add_picks(tmp_path, content, geoid={"path": "geoid.nc", "variable": "geoid"})
    content["picks"][0]["vertical_datum"] = "geoid:EIGEN-6C4"
    grid = Grid.of(load(tmp_path, content).inputs()["bed_lowres"])
    write_netcdf(tmp_path / "geoid.nc", grid, geoid=np.full(grid.shape, -40, np.float32))
    picks = load(tmp_path, content).picks()
    np.testing.assert_allclose(picks["bed"], points["z"] - 40)
    assert picks.attrs["vertical_datum"] == "ellipsoid:WGS84"


def test_transects_are_cut_ordered_and_known_by_name(tmp_path, content):
    add_picks(tmp_path, content, name="lines", role="score")
    xmin, ymin, _, _ = content["bounds"]
    content["holdout"] = {"test": [[xmin, ymin, xmin + 1000, ymin + 1000]]}
    content["transects"] = {
        "first": {"picks": "lines", "bounds": [xmin, ymin, xmin + 2000, ymin + 500]},
        "blocks": {"picks": "points.csv", "within": "holdout", "order": "principal"},
        "none": {"picks": "lines", "segment": "20141121_05"},
        "lost": {"picks": "other"},
    }
    region = load(tmp_path, content)
    first = region.transect("first")
    assert first["distance"].tolist() == [250 * i for i in range(8)]
    blocks = region.transect("blocks")
    assert len(blocks) == 8 and blocks["distance"].is_monotonic_increasing and blocks["distance"][0] == 0
    with pytest.raises(ConfigError, match="no transect 'thwaite'; known are: first, blocks, none, lost"):
        region.transect("thwaite")
    with pytest.raises(ConfigError, match="is over picks 'other'; picks there are: lines"):
        region.transect("lost")
    with pytest.raises(DataError, match="holds no pick"):
        region.transect("none")
    with pytest.raises(ConfigError, match="no picks of role 'target'; roles there are: score"):
        region.picks("target")


def test_scattered_points_are_ordered_along_their_main_direction():
    rng = np.random.default_rng(0)
    along = rng.uniform(0, 1000, 50)
    points = pd.DataFrame({"x": -along * 0.6, "y": along * 0.8})
    ordered = order_along(points, "principal")
    np.testing.assert_allclose(np.sort(along.max() - along), ordered["distance"], atol=1e-9)


def test_references_come_at_the_output_resolution(tmp_path, content):
    content["references"] = {
        "product": {"path": "bed_1km.tif", "vertical_datum": "ellipsoid:WGS84", "resampling": "cubic"}
    }
    region = load(tmp_path, content)
    np.testing.assert_allclose(region.reference("product"), ramp(region.grid, -500), atol=1e-3)
    with pytest.raises(ConfigError, match="no reference 'truth'; known are: product"):
        region.reference("truth")


def test_a_region_can_set_its_own_tiling(tmp_path, content):
    assert load(tmp_path, content).tiling(DataConfig()) == DataConfig()
    content["tiling"] = {"stride": 4, "block_size": 50}
    assert load(tmp_path, content).tiling(DataConfig()) == DataConfig(stride=4, block_size=50)


def test_provenance_names_every_source_by_its_content(tmp_path, content):
    first = load(tmp_path, content).provenance()
    assert set(first["sources"]) == {"bed_1km.tif", "surface.tif", "velocity.nc", "accumulation.tif", "bed.nc"}
    assert first["bounds"] == content["bounds"] and first["synthetic"] is False
    grid = Grid.of(load(tmp_path, content).inputs()["bed_lowres"])
    write_geotiff(tmp_path / "bed_1km.tif", grid, ramp(grid, 1))
    second = load(tmp_path, content).provenance()
    changed = {name for name in first["sources"] if first["sources"][name] != second["sources"][name]}
    assert changed == {"bed_1km.tif"}


def test_byrd_on_the_real_files(root, shared):
    folder = shared("data/byrd").parent
    region = load_region(root / "configs/regions/byrd.yml", data_dir=folder)
    inputs = region.inputs()
    assert {name: array.shape[:2] for name, array in inputs.items()} == {
        "bed_lowres": (102, 102),
        "surface": (1020, 1020),
        "velocity": (204, 204),
        "accumulation": (102, 102),
    }
    assert all(np.isfinite(array).all() for array in inputs.values())
    # Metres of ice a year times 917 kg m-3.
    assert float(inputs["accumulation"].min()) > 3 and float(inputs["accumulation"].max()) < 300
    assert float(inputs["velocity"].min()) < -650
    assert region.target().attrs["label"] == "pseudo-truth"
    # The low-resolution bed is the mean of 4 x 4 cells of the target: nothing is shifted.
    target = region.target().to_numpy().reshape(100, 4, 100, 4).mean(axis=(1, 3))
    lowres = inputs["bed_lowres"].to_numpy()[1:-1, 1:-1]
    assert np.nanmax(np.abs(target - lowres)) < 0.01
    transect = region.transect("byrd")
    assert len(transect) > 1000 and set(transect["picks"]) == {"radar"}


@pytest.mark.parametrize(
    ("datum", "add", "rmse", "bias"),
    [
        ("geoid:EIGEN-6C4", ["firn"], 162.3, 20.5),
        ("ellipsoid:WGS84", ["firn"], 162.3, 20.5),
        ("ellipsoid:WGS84", [], None, 36.0),
    ],
)
def test_byrd_bed_against_radar_as_the_data_say(root, shared, tmp_path, datum, add, rmse, bias):
    folder = shared("data/byrd").parent
    content = yaml.safe_load((root / "configs/regions/byrd.yml").read_text(encoding="utf-8"))
    content["vertical_datum"] = datum
    content["inputs"]["surface"]["add"] = add
    region = load_region(write_region(tmp_path, content), data_dir=folder)
    cells = region.picks("score")
    bed = sample(region.reference("bedmachine"), cells["x"].to_numpy(), cells["y"].to_numpy())
    difference = (bed - cells["bed"])[np.isfinite(bed)]
    assert difference.size == 13211
    assert difference.mean() == pytest.approx(bias, abs=0.06)
    if rmse:
        assert np.sqrt((difference**2).mean()) == pytest.approx(rmse, abs=0.06)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c.update(bounds=[c["bounds"][i] for i in (2, 1, 0, 3)]),
            r"bounds \[.*\] are empty; expected \[xmin",
        ),
        (
            lambda c: c["inputs"]["velocity"].update(variables=["VY", "VX"]),
            r"velocity takes the component along x first, got \['VY', 'VX'\]",
        ),
        (
            lambda c: c["inputs"]["accumulation"].update(source_units="m yr-1"),
            "source_units 'm yr-1' are not units 'kg m-2 yr-1'; state `scale`",
        ),
    ],
)
def test_what_would_be_read_wrong_is_refused_by_name(tmp_path, content, change, words):
    load(tmp_path, content)
    change(content)
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, content)


def test_two_words_for_one_unit_need_no_scale(tmp_path, content):
    content["inputs"]["accumulation"]["source_units"] = "mm w.e. yr-1"
    plain = load(tmp_path, content).inputs()["accumulation"]
    content["inputs"]["accumulation"] |= {"source_units": "kg per square metre and year", "scale": 1}
    np.testing.assert_array_equal(load(tmp_path, content).inputs()["accumulation"], plain)
