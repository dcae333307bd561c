"""Vertical datums on real data: BedMachine and radar meet on the ellipsoid as they should, and not otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from data_files import region_content, write_geotiff, write_netcdf, write_region

from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import DatumError
from deepbedmap_tf.evaluation.transects import Product, compare
from deepbedmap_tf.grid import ELLIPSOID, Grid, require_same_datum, to_datum

GEOID = "geoid:EIGEN-6C4"
OTHER = "geoid:EIGEN-GL04C"

Byrd = Callable[..., Region]


@pytest.fixture
def byrd(root: Path, shared: Callable[[str], Path], tmp_path: Path) -> Byrd:
    """Byrd's region with the heights on the ellipsoid, and the layers that are added to the surface chosen."""
    folder = shared("data/byrd").parent

    def make(add: tuple[str, ...] = ("firn",), **changes: Any) -> Region:
        content = yaml.safe_load((root / "configs/regions/byrd.yml").read_text(encoding="utf-8"))
        content["inputs"]["surface"]["add"] = list(add)
        return load_region(write_region(tmp_path, {**content, "vertical_datum": ELLIPSOID, **changes}), folder)

    return make


def against_radar(region: Region) -> np.ndarray:
    """BedMachine minus radar in the radar's cells, m."""
    cells = region.picks()
    bed = region.reference("bedmachine").sel(x=cells["x"].to_xarray(), y=cells["y"].to_xarray(), method="nearest")
    difference = bed.to_numpy() - cells["bed"].to_numpy()
    return difference[np.isfinite(difference)]


@pytest.mark.parametrize(
    ("add", "rmse", "bias"), [(("firn",), 162.3, 20.5), ((), 165.1, 36.0)], ids=["snow surface", "firn forgotten"]
)
def test_bedmachine_on_the_ellipsoid_against_radar(byrd: Byrd, add: tuple[str, ...], rmse: float, bias: float) -> None:
    difference = against_radar(byrd(add))
    assert difference.size == 13_211
    assert np.sqrt(np.mean(difference**2)) == pytest.approx(rmse, abs=0.05)
    assert difference.mean() == pytest.approx(bias, abs=0.05)


def test_a_forgotten_geoid_would_show(byrd: Byrd, root: Path, shared: Callable[[str], Path]) -> None:
    # What the published pipeline did: heights above the geoid beside picks above the ellipsoid.
    folder = shared("data/byrd").parent
    on_geoid = load_region(root / "configs/regions/byrd.yml", folder).reference("bedmachine")
    cells = byrd().picks()
    bed = on_geoid.sel(x=cells["x"].to_xarray(), y=cells["y"].to_xarray(), method="nearest").to_numpy()
    mixed = np.nanmean(bed - cells["bed"].to_numpy())
    # The geoid lies 43 to 51 m below the ellipsoid here.
    assert 20.5 + 43 < mixed < 20.5 + 51


def test_every_height_is_brought_to_the_ellipsoid(byrd: Byrd, shared: Callable[[str], Path]) -> None:
    region = byrd()
    path = shared("data/byrd") / "BedMachineAntarctica_v3.4_byrd.nc"
    with xr.open_dataset(path, decode_times=False) as file:
        bed, geoid = (file[name].to_numpy().astype(np.float64) for name in ("bed", "geoid"))
        snow = sum(file[name].to_numpy().astype(np.float64) for name in ("surface", "firn", "geoid"))
    # 400 x 400 cells of 500 m centred on whole half-kilometres: the region's own.
    np.testing.assert_allclose(region.target(), bed + geoid, atol=2e-3)
    cells = region.picks()
    row = np.rint((region.grid.y[0] - cells["y"].to_numpy()) / 500).astype(int)
    column = np.rint((cells["x"].to_numpy() - region.grid.x[0]) / 500).astype(int)
    np.testing.assert_allclose(cells["surface"], snow[row, column], atol=2e-3)
    np.testing.assert_allclose(cells["bed"], snow[row, column] - cells["thickness"], atol=2e-3)
    assert region.target().attrs["vertical_datum"] == cells.attrs["vertical_datum"] == ELLIPSOID


def test_without_the_geoid_layer_nothing_is_converted(byrd: Byrd) -> None:
    with pytest.raises(DatumError, match=f"'bed_lowres' is on {GEOID}; to convert it, the geoid layer of {GEOID}"):
        byrd(geoids={}).inputs()


def test_between_two_geoids_the_way_leads_over_the_ellipsoid(tmp_path: Path) -> None:
    content = region_content(tmp_path)
    wide = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    write_geotiff(tmp_path / "gl04c.tif", wide, np.full(wide.shape, -32.5, np.float32))
    write_netcdf(tmp_path / "eigen.nc", wide, geoid=np.full(wide.shape, -30.0, np.float32))
    plain = load_region(write_region(tmp_path, content), tmp_path).inputs()["bed_lowres"].to_numpy()
    content["geoids"] = {OTHER: {"path": "gl04c.tif"}, GEOID: {"path": "eigen.nc", "variable": "geoid"}}
    content["inputs"]["bed_lowres"]["vertical_datum"] = OTHER
    content["vertical_datum"] = GEOID
    there = load_region(write_region(tmp_path, content), tmp_path).inputs()["bed_lowres"]
    # 0 on GL04C is -32.5 m on the ellipsoid, which is 2.5 m below the other geoid.
    np.testing.assert_allclose(there.to_numpy() - plain, -2.5, atol=1e-3)
    content["inputs"]["bed_lowres"]["vertical_datum"], content["vertical_datum"] = GEOID, OTHER
    back = load_region(write_region(tmp_path, content), tmp_path).inputs()["bed_lowres"]
    np.testing.assert_allclose(back.to_numpy() - plain, 2.5, atol=1e-3)
    assert there.attrs["vertical_datum"] == GEOID and back.attrs["vertical_datum"] == OTHER


def test_what_is_no_geoid_is_not_taken_for_one(tmp_path: Path) -> None:
    content = region_content(tmp_path)
    wide = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    write_netcdf(tmp_path / "layers.nc", wide, thickness=np.full(wide.shape, 2000.0, np.float32))
    content["geoids"] = {GEOID: {"path": "layers.nc", "variable": "thickness"}}
    content["inputs"]["bed_lowres"]["vertical_datum"] = GEOID
    xmin, ymin = content["bounds"][:2]
    (tmp_path / "points.csv").write_text(f"x,y,z\n{xmin + 500},{ymin + 500},5\n", encoding="utf-8")
    content["picks"] = [{"path": "points.csv", "format": "xyz", "vertical_datum": GEOID}]
    region = load_region(write_region(tmp_path, content), tmp_path)
    for read in (region.inputs, region.picks):
        with pytest.raises(DatumError, match=r"layers\.nc holds 2000 where a geoid's height .* never beyond 120 m"):
            read()


def test_cells_of_thickness_take_no_datum(byrd: Byrd) -> None:
    region = byrd()
    entry = region.settings.picks[0].model_copy(update={"vertical_datum": "msl"})
    region.settings = region.settings.model_copy(update={"picks": (entry,)})
    with pytest.raises(DatumError, match=r"are cells of thickness, which hold no heights.*take vertical_datum out"):
        region.picks()


def test_one_layer_does_not_join_two_geoids() -> None:
    grid = Grid.from_bounds((0, 0, 4000, 4000), 1000)
    bed = grid.with_datum(OTHER).dataarray(np.zeros(grid.shape, np.float32), "bedmap2", "m")
    layer = grid.dataarray(np.full(grid.shape, -30, np.float32), "geoid", "m", geoid=GEOID)
    way = f"convert to {ELLIPSOID} with the geoid layer of {OTHER}, then on with that of {GEOID}"
    with pytest.raises(DatumError, match=f"'bedmap2' is on {OTHER} and is wanted on {GEOID}.*{way}"):
        to_datum(bed, layer, GEOID)
    with pytest.raises(DatumError, match=f"convert with the geoid layer of {OTHER}"):
        to_datum(bed, layer, ELLIPSOID)
    with pytest.raises(DatumError, match="state the vertical_datum of the heights"):
        to_datum(grid.dataarray(np.zeros(grid.shape), "bed", "m"), layer, ELLIPSOID)


def test_mean_sea_level_stands_for_no_geoid() -> None:
    grid = Grid.from_bounds((0, 0, 4000, 4000), 1000, vertical_datum="msl")
    bed = grid.dataarray(np.zeros(grid.shape, np.float32), "bed", "m")
    layer = grid.with_datum(None).dataarray(np.zeros(grid.shape, np.float32), "geoid", "m", geoid=GEOID)
    with pytest.raises(DatumError, match="'bed' is on msl"):
        to_datum(bed, layer, ELLIPSOID)
    with pytest.raises(DatumError, match=rf"'bed' is on msl, 'radar' on {ELLIPSOID}; convert one"):
        require_same_datum("msl", ELLIPSOID, ("bed", "radar"))
    with pytest.raises(DatumError, match="no stated datum"):
        require_same_datum(None, None, ("bed", "radar"))


def test_products_on_two_datums_are_not_compared(byrd: Byrd) -> None:
    region = byrd()
    bounds = (*region.holdout[0],)
    bed = region.reference("bedmachine", bounds)
    ours = Product("deepbedmap", "DeepBedMap", bed)
    moved = Product("bicubic", "Bicubic", bed.assign_attrs(vertical_datum=GEOID))
    cells = region.transect("byrd")
    with pytest.raises(DatumError, match=f"'deepbedmap' is on {ELLIPSOID}, 'bicubic' on {GEOID}"):
        compare(cells, [ours, moved], region.grid.window(bounds))
    with pytest.raises(DatumError, match=f"'bicubic' is on {GEOID}, 'picks' on {ELLIPSOID}"):
        compare(cells, [moved], region.grid.window(bounds))
