"""The embedded world: exact answers of its physics, and its files through the readers of real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
import yaml
from pydantic import ValidationError

from deepbedmap_tf.data import synthetic
from deepbedmap_tf.data.picks import read_picks
from deepbedmap_tf.data.survey import Sampler
from deepbedmap_tf.data.synthetic import SurveyBox, World, WorldParameters, make_world, simulate, world_folder
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid

BOUNDS = (-1_450_000.0, -510_000.0, -1_410_000.0, -470_000.0)


def small(**changes: object) -> WorldParameters:
    return WorldParameters.model_validate({"seed": 5, "bounds": BOUNDS, "trough_width": 15_000.0, **changes})


@pytest.fixture(scope="module")
def parameters() -> WorldParameters:
    box = SurveyBox(bounds=(-1_447_000.0, -505_000.0, -1_432_000.0, -490_000.0))
    return small(dense_boxes=(box,), transect=((-1_425_000.0, -508_000.0), (-1_415_000.0, -472_000.0)))


@pytest.fixture(scope="module")
def folder(parameters: WorldParameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(parameters, tmp_path_factory.mktemp("worlds") / "small", progress=False)


@pytest.fixture(scope="module")
def rough(parameters: WorldParameters) -> World:
    return simulate(parameters)


def test_flat_bed_leaves_no_perturbation(rough: World) -> None:
    flat = simulate(small(bed_rms=0, highland_rms=0, bedform_rms=0))
    np.testing.assert_array_equal(flat.surface, flat.flow.surface)
    np.testing.assert_array_equal(flat.velocity_x, flat.flow.speed * flat.flow.direction_x)
    np.testing.assert_array_equal(flat.velocity_y, flat.flow.speed * flat.flow.direction_y)
    np.testing.assert_array_equal(flat.bed, flat.bed_smooth)
    # A rough one shows, damped: by metres to tens of metres of a hundred.
    np.testing.assert_array_equal(flat.flow.surface, rough.flow.surface)
    assert (rough.bed - rough.bed_smooth).std() > 50
    assert 1 < (rough.surface - rough.flow.surface).std() < 50


def test_bed_lies_below_the_ice(folder: Path, parameters: WorldParameters) -> None:
    truth = xr.open_dataset(folder / "truth_250m.nc")
    assert float((truth.surface - truth.bed).min()) > 0.45 * parameters.minimum_thickness
    thin = simulate(small(highland_height=2500.0, highland_rms=400.0, surface_coast=300.0))
    surface = Sampler(thin.wave_grid, thin.surface).on(thin.grid)
    assert (thin.bed < surface).all()


def test_same_seed_same_arrays(folder: Path, parameters: WorldParameters, rough: World, tmp_path: Path) -> None:
    again = make_world(parameters, tmp_path / "again", progress=False)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        if name.endswith(".nc"):
            xr.testing.assert_identical(xr.open_dataset(folder / name), xr.open_dataset(again / name))
        elif name.endswith(".tif"):
            with rasterio.open(folder / name) as first, rasterio.open(again / name) as second:
                np.testing.assert_array_equal(first.read(1), second.read(1))
        else:
            assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    assert np.abs(simulate(small(seed=6)).bed - rough.bed).max() > 10


def test_picks_have_the_cresis_form(folder: Path, parameters: WorldParameters) -> None:
    picks = pd.read_csv(folder / "picks_transect.csv")
    header = "LAT,LON,UTCTIMESOD,THICK,ELEVATION,FRAME,SURFACE,BOTTOM,QUALITY"
    assert (folder / "picks_transect.csv").read_text().splitlines()[0] == header
    assert picks["FRAME"].astype(str).str.fullmatch(r"20141121050\d\d").all()
    np.testing.assert_allclose(picks["BOTTOM"] - picks["SURFACE"], picks["THICK"], atol=0.011)
    dense = pd.read_csv(folder / "picks_dense.csv")
    # 15 km x 15 km at 500 m, a cross line every 5 km, a pick every 30 m, 1 % missing.
    assert len(dense) == pytest.approx((30 + 3) * 500 * 0.99, rel=0.05)


def test_picks_err_by_one_per_cent_of_thickness(folder: Path) -> None:
    truth = xr.open_dataset(folder / "truth_250m.nc")
    picks = read_picks(folder / "picks_old.csv", "cresis")
    at = {axis: xr.DataArray(picks[axis].to_numpy(), dims="pick") for axis in ("x", "y")}
    surface, bed = (truth[name].interp(at).to_numpy() for name in ("surface", "bed"))
    inside = np.isfinite(bed)
    error = (picks["bed"].to_numpy() - bed)[inside] / (surface - bed)[inside]
    assert abs(error.mean()) < 0.002
    assert error.std() == pytest.approx(0.01, rel=0.15)
    assert np.abs(picks["surface"].to_numpy() - surface)[inside].mean() < 0.5


def test_rasters_state_grid_datum_and_nodata(folder: Path) -> None:
    for name, cell, datum in (
        ("bed_lowres_1km.tif", 1000, "geoid:EIGEN-GL04C"),
        ("geoid_gl04c_1km.tif", 1000, "ellipsoid:WGS84"),
        ("surface_100m.tif", 100, "ellipsoid:WGS84"),
        ("accumulation_1km.tif", 1000, None),
    ):
        with rasterio.open(folder / name) as file:
            assert file.crs.to_epsg() == 3031 and file.nodata == -9999 and file.res == (cell, cell)
            assert file.tags().get("vertical_datum") == datum
            assert "SYNTHETIC" in file.tags()["note"]
            assert file.bounds.left <= BOUNDS[0] - 2000 and file.bounds.top >= BOUNDS[3] + 2000
            assert np.isfinite(file.read(1)).all()
    velocity = xr.open_dataset(folder / "velocity_450m.nc")
    assert {"VX", "VY", "ERRX", "ERRY", "coord_system"} <= set(velocity.variables)
    assert float(velocity.y[1] - velocity.y[0]) == -450
    np.testing.assert_array_equal((velocity.x + 2_800_000) % 450, 0)


def test_products_agree_on_heights(folder: Path) -> None:
    """Forgotten geoids and firn are 15 m and more; the products themselves err by tens, but not on average."""
    machine, truth = xr.open_dataset(folder / "bedmachine_500m.nc"), xr.open_dataset(folder / "truth_250m.nc")
    here = truth.interp(x=machine.x, y=machine.y)
    snow = machine.surface + machine.firn + machine.geoid
    assert float(np.abs(snow - here.surface).mean()) < 0.5
    assert abs(float((machine.bed + machine.geoid - here.bed).mean())) < 8
    np.testing.assert_allclose(machine.thickness, machine.surface - machine.bed, atol=1e-3)
    with rasterio.open(folder / "bed_lowres_1km.tif") as bed, rasterio.open(folder / "geoid_gl04c_1km.tif") as geoid:
        lowres = bed.read(1) + geoid.read(1)
    blocks = truth.bed.to_numpy().reshape(lowres.shape[0], 4, lowres.shape[1], 4).mean(axis=(1, 3))
    assert abs((lowres - blocks).mean()) < 8
    assert (lowres - blocks).std() > 10, "the coarse bed must come from sparse noisy picks, not from the truth"


def test_surface_noise_has_its_size(folder: Path, rough: World) -> None:
    with rasterio.open(folder / "surface_100m.tif") as file:
        surface = file.read(1).astype(float)
    grid = Grid.from_bounds((BOUNDS[0] - 4000, BOUNDS[1] - 4000, BOUNDS[2] + 4000, BOUNDS[3] + 4000), 100)
    texture = surface - Sampler(rough.wave_grid, rough.surface).on(grid)
    assert 0.5 < texture.std() < 1.5


def test_world_is_cached_and_complete_or_absent(
    parameters: WorldParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path))
    folder = world_folder(parameters)
    folder.mkdir(parents=True)
    (folder / "world.json").write_text("{}")
    assert make_world(parameters) == folder
    assert world_folder(small(seed=9)) != folder

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "_write_truth", full_disk)
    with pytest.raises(DataError, match="No space left"):
        make_world(parameters, tmp_path / "full", progress=False)
    assert not (tmp_path / "full").exists() and not list(tmp_path.glob(".*part"))


def test_the_second_of_two_leaves_the_first_ones_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the same world while this one is still at work."""
    tiny = WorldParameters(bounds=(-1_440_000.0, -480_000.0, -1_420_000.0, -460_000.0))
    target = tmp_path / "w"

    def meanwhile(*_: object) -> None:
        target.mkdir()
        (target / "world.json").write_text("of the other")

    monkeypatch.setattr(synthetic, "_write_truth", meanwhile)
    assert make_world(tiny, target, progress=False) == target
    assert (target / "world.json").read_text() == "of the other"
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bounds": [0, 0, 50_500, 50_000]},
        {"bounds": [0, 0, 5_000, 50_000]},
        {"dense_boxes": [{"bounds": [0, 0, 1000, 1000]}]},
        {"transect": [[-1_440_000, -480_000]]},
        {"sead": 3},
        {"hurst": -1},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        small(**wrong)


def test_region_files_describe_worlds(root: Path) -> None:
    files = sorted((root / "configs" / "regions").glob("synthetic*.yml"))
    assert len(files) >= 5
    digests = set()
    for path in files:
        content = yaml.safe_load(path.read_text())
        world = WorldParameters.model_validate(content["world"])
        assert list(world.bounds) == content["bounds"] and content["synthetic"] and "SYNTHETIC" in content["title"]
        digests.add(world.digest() + str(content["resolution"]))
        for left, bottom, right, top in content["holdout"]["test"]:
            if [left, bottom, right, top] == content["bounds"]:
                continue
            for x, y in world.transect:
                assert left < x < right and bottom < y < top
            for box in world.dense_boxes:
                a, b, c, d = box.bounds
                assert a >= right or c <= left or b >= top or d <= bottom, f"{path.name}: {box} is in the holdout"
        if world.transect:
            x, y = np.array(world.transect).T
            assert ((x > -1_550_000) & (x < -1_300_000) & (y > -550_000) & (y < -425_000)).all()
    assert len(digests) == len(files)
