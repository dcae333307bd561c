"""Every product in its own layout, read by the keys that a region file uses."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import product_layouts as layouts
import pytest
from data_files import ramp, read_raster

from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.nodes import read_nodes
from deepbedmap_tf.data.picks import FORMATS, project, read_picks
from deepbedmap_tf.data.rasters import open_raster
from deepbedmap_tf.data.schema import LayerSettings, RasterSettings
from deepbedmap_tf.errors import DataError, DatumError, GridError
from deepbedmap_tf.grid import Grid

ELLIPSOID = "ellipsoid:WGS84"
EIGEN = "geoid:EIGEN-6C4"
GRID = Grid.from_bounds((-1500250, -500250, -1480250, -485250), 500)


def reader(folder: Path, **geoids: LayerSettings) -> FieldReader:
    return FieldReader(
        lambda path: folder / path, "EPSG:3031", {f"geoid:{k.replace('_', '-')}": v for k, v in geoids.items()}
    )


def test_bedmap2_and_its_geoid_grid(tmp_path):
    grid = Grid.from_bounds((-1503500, -503500, -1473500, -473500), 1000)
    bed = np.rint(ramp(grid, -500)).astype(np.int16)
    bed[3, 4] = 32767
    layouts.geotiff(tmp_path / "bedmap2_bed.tif", grid, bed, nodata=32767)
    layouts.geotiff(tmp_path / "gl04c_geiod_to_wgs84.tif", grid, np.full(grid.shape, -37.5, np.float32))
    settings = RasterSettings(
        path="bedmap2_bed.tif",
        vertical_datum="geoid:EIGEN-GL04C",
        geoid=LayerSettings(path="gl04c_geiod_to_wgs84.tif"),
        resampling="nearest",
    )
    found = reader(tmp_path).on_grid(settings, grid.with_datum(ELLIPSOID), "bed_lowres")
    expected = np.where(bed == 32767, np.nan, bed - 37.5)
    np.testing.assert_allclose(found, expected)
    assert found.attrs["vertical_datum"] == ELLIPSOID and found.attrs["units"] == "m"


def test_rema_takes_its_gaps_from_the_filled_mosaic(tmp_path):
    fine = Grid.from_bounds((-1500000, -500000, -1490000, -490000), 100)
    holed = ramp(fine, 1000)
    holed[20:40, 30:60] = -9999
    # Tagged or not: some copies have lost the tag.
    for nodata in (-9999, None):
        layouts.geotiff(tmp_path / "REMA_100m_dem.tif", fine, holed, nodata=nodata)
        coarse = fine.pad(2).coarsen(2)
        layouts.geotiff(tmp_path / "REMA_200m_dem_filled.tif", coarse, ramp(coarse, 1000), nodata=-9999)
        filled = RasterSettings(path="REMA_200m_dem_filled.tif", vertical_datum=ELLIPSOID)
        settings = RasterSettings(path="REMA_100m_dem.tif", vertical_datum=ELLIPSOID, fallback=filled)
        found = reader(tmp_path).on_grid(settings, fine.with_datum(ELLIPSOID), "surface")
        np.testing.assert_allclose(found, ramp(fine, 1000), atol=2e-3)


@pytest.mark.parametrize("nodata", [-32767.0, None])
def test_its_live_velocity(tmp_path, nodata):
    grid = Grid.from_bounds((-1500000, -500000, -1490400, -490400), 120)
    values = ramp(grid, 10)
    values[0, :5] = -32767
    path = layouts.geotiff(tmp_path / "its_live_vx_120m.tif", grid, values, nodata=nodata)
    import rasterio

    with rasterio.open(path, "r+") as dataset:
        dataset.units = ("m/y",)
    found = read_raster(path, units="m yr-1")
    assert int(np.isnan(found).sum()) == 5 and found.attrs["units"] == "m yr-1"
    with pytest.raises(DataError, match="is in 'm/y', expected 'kg m-2 yr-1'"):
        read_raster(path, units="kg m-2 yr-1")


def test_measures_phase_map_at_450_m(tmp_path):
    grid = Grid.from_bounds((-1500075, -500175, -1482075, -482175), 450)
    path = layouts.measures_phase_map(tmp_path / "antarctic_ice_vel_phase_map_v01.nc", grid)
    settings = RasterSettings(path=path.name, variables=("VX", "VY"), units="m yr-1")
    wanted = Grid.from_bounds((-1496000, -496000, -1486000, -486000), 500)
    found = reader(tmp_path).on_grid(settings, wanted, "velocity")
    np.testing.assert_allclose(found[..., 0], ramp(wanted, 10), atol=2e-3)
    np.testing.assert_allclose(found[..., 1], ramp(wanted, -10), atol=2e-3)


def test_bedmachine_with_firn_and_geoid(tmp_path):
    layouts.bedmachine(tmp_path / "BedMachineAntarctica-v3.nc", GRID)
    path = "BedMachineAntarctica-v3.nc"
    fields = reader(tmp_path, EIGEN_6C4=LayerSettings(path=path, variable="geoid"))
    target = GRID.with_datum(ELLIPSOID)
    snow = RasterSettings(path=path, variable="surface", add=("firn",), vertical_datum=EIGEN)
    np.testing.assert_allclose(fields.on_grid(snow, target, "surface"), ramp(GRID, 1200 + 15 - 45), atol=1e-3)
    ice = RasterSettings(path=path, variable="surface", vertical_datum=EIGEN)
    np.testing.assert_allclose(fields.on_grid(ice, target, "surface"), ramp(GRID, 1200 - 45), atol=1e-3)
    # With the geoid added by hand the sum is on the ellipsoid already.
    summed = RasterSettings(path=path, variable="surface", add=("firn", "geoid"), vertical_datum=ELLIPSOID)
    np.testing.assert_allclose(fields.on_grid(summed, target, "surface"), ramp(GRID, 1200 + 15 - 45), atol=1e-3)
    x, y = np.array([-1491000.0, -1.0]), np.array([-490000.0, -1.0])
    at = fields.at_points(snow, x, y, ELLIPSOID, "surface")
    assert at[0] == pytest.approx(0.011 * x[0] - 0.007 * y[0] + 1170, abs=2e-3) and np.isnan(at[1])


def test_a_layer_in_other_units_or_of_another_geoid_is_refused_by_name(tmp_path):
    layouts.bedmachine(tmp_path / "bm.nc", GRID)
    import xarray as xr

    wrong = xr.load_dataset(tmp_path / "bm.nc")
    wrong["firn"].attrs["units"] = "cm"
    wrong.to_netcdf(tmp_path / "cm.nc")
    settings = RasterSettings(path="cm.nc", variable="surface", add=("firn",), vertical_datum=EIGEN)
    with pytest.raises(DataError, match=r"cm\.nc is in 'cm', expected 'm'"):
        reader(tmp_path).on_grid(settings, GRID.with_datum(EIGEN), "surface")
    layouts.geotiff(tmp_path / "bed.tif", GRID, ramp(GRID))
    gl04c = RasterSettings(path="bed.tif", vertical_datum="geoid:EIGEN-GL04C")
    with pytest.raises(DatumError, match=r"its layer is 'eigen-6c4 .*used as geoid:EIGEN-GL04C"):
        reader(tmp_path, EIGEN_GL04C=LayerSettings(path="bm.nc", variable="geoid")).on_grid(
            gl04c, GRID.with_datum(ELLIPSOID), "bed"
        )


def test_a_file_that_names_its_datum_is_held_to_it(tmp_path):
    from data_files import write_netcdf

    path = write_netcdf(
        tmp_path / "bed.nc", GRID, bed=(ramp(GRID), {"vertical_datum": "EIGEN-6C4 geoid", "units": "m"})
    )
    assert read_raster(path, vertical_datum=EIGEN).attrs["vertical_datum"] == EIGEN
    with pytest.raises(DatumError, match="heights are on 'EIGEN-6C4 geoid', declared is ellipsoid:WGS84"):
        read_raster(path, vertical_datum=ELLIPSOID)


@pytest.mark.parametrize("wrong", [ELLIPSOID, "geoid:EIGEN-GL04C", "msl"])
def test_heights_of_bedmachine_are_held_to_the_geoid_beside_them(tmp_path, wrong):
    layouts.bedmachine(tmp_path / "bm.nc", GRID)
    fields = reader(tmp_path, EIGEN_6C4=LayerSettings(path="bm.nc", variable="geoid"))
    surface, thickness = {"path": "bm.nc", "variable": "surface"}, LayerSettings(path="bm.nc", variable="thickness")
    # Firn and ice leave heights above what they were above; a geoid that is added does not.
    for own in ({}, {"add": ("firn",)}, {"subtract": (thickness,)}):
        with pytest.raises(DatumError, match=rf"bm\.nc says its heights are on 'eigen-6c4 .*', declared is {wrong}"):
            fields.on_grid(RasterSettings(**surface, **own, vertical_datum=wrong), GRID.with_datum(wrong), "bed")
        fields.on_grid(RasterSettings(**surface, **own, vertical_datum=EIGEN), GRID.with_datum(ELLIPSOID), "bed")
    summed = RasterSettings(**surface, add=("geoid",), vertical_datum=ELLIPSOID)
    np.testing.assert_allclose(
        fields.on_grid(summed, GRID.with_datum(ELLIPSOID), "surface"), ramp(GRID, 1155), atol=1e-3
    )
    assert read_raster(tmp_path / "bm.nc", ["thickness"]).shape == GRID.shape


def test_bedmap3_whose_rows_run_north(tmp_path):
    path = layouts.bedmap3(tmp_path / "bedmap3.nc", GRID)
    np.testing.assert_array_equal(read_raster(path, ["bed_topography"], vertical_datum=EIGEN), ramp(GRID, 10))
    part = read_raster(path, ["ice_thickness"], bounds=(-1495250, -490250, -1492250, -488250))
    np.testing.assert_array_equal(part, ramp(Grid.of(part), 30))


def test_accumulation_in_its_units(tmp_path):
    path = layouts.geotiff(tmp_path / "Arthern_accumulation_bedmap2_grid1.tif", GRID, ramp(GRID, 20000), nodata=-9999)
    assert read_raster(path, units="kg/m2/yr").attrs["units"] == "kg m-2 yr-1"


def test_racmo_by_longitude_and_by_its_rotated_pole(tmp_path):
    path, x, y = layouts.racmo(tmp_path / "racmo.nc")
    common = {"path": "racmo.nc", "kind": "nodes", "variable": "smb", "units": "kg m-2 yr-1", "mean_over": ("time",)}
    for axes in ({"x": "lon", "y": "lat"}, {"x": "rlon", "y": "rlat"}):
        found_x, found_y, smb = read_nodes(path, RasterSettings(**common, **axes))
        # The node with a fill value in one month is left out, not averaged.
        np.testing.assert_allclose(found_x, x.ravel()[1:], atol=1e-3)
        np.testing.assert_allclose(found_y, y.ravel()[1:], atol=1e-3)
        np.testing.assert_allclose(smb, 300 + 1e-4 * found_x, rtol=1e-5)
    with pytest.raises(GridError, match=r"'smb' has 3 steps of time, expected one field; state `mean_over: \[time\]`"):
        read_nodes(path, RasterSettings(**{**common, "mean_over": ()}, x="lon", y="lat"))
    with pytest.raises(DataError, match="is in 'kg m-2 yr-1', expected 'm yr-1'"):
        read_nodes(path, RasterSettings(**{**common, "units": "m yr-1"}, x="lon", y="lat"))
    with pytest.raises(
        GridError, match="rlon is in degrees, expected metres of a projection; read it with `kind: nodes`"
    ):
        read_raster(path, ["smb"], units="kg m-2 yr-1", mean_over=["time"])
    left, bottom = (float(np.rint(axis.mean() / 1e4) * 1e4) for axis in (x, y))
    middle = Grid.from_bounds((left, bottom, left + 20000, bottom + 20000), 1000)
    smb = reader(tmp_path).on_grid(RasterSettings(**common, x="lon", y="lat"), middle, "accumulation")
    np.testing.assert_allclose(smb, np.broadcast_to(300 + 1e-4 * middle.x, middle.shape), rtol=1e-5)


def test_mar_in_kilometres_and_one_time_step(tmp_path):
    path = layouts.mar(tmp_path / "mar.nc", GRID)
    found = read_raster(path, ["SMB"], units="kg m-2 yr-1")
    np.testing.assert_allclose(found, ramp(GRID, 300), atol=1e-3)
    assert Grid.of(found).same_cells(GRID)
    nodes = RasterSettings(path="mar.nc", kind="nodes", variable="SMB", x="x", y="y", units="kg m-2 yr-1")
    x, y, _ = read_nodes(path, nodes)
    assert set(x) == set(np.float64(GRID.x)) and y.size == GRID.shape[0] * GRID.shape[1]


def test_gmt_grids_of_both_registrations(tmp_path):
    pixel = read_raster(layouts.gmt_grid(tmp_path / "p.grd", GRID, "pixel"), crs="EPSG:3031")
    node = read_raster(layouts.gmt_grid(tmp_path / "g.grd", GRID, "gridline"), crs="EPSG:3031")
    # In both, a value stands at its coordinate; a node is the centre of the cell around it.
    for found in (pixel, node):
        np.testing.assert_array_equal(found, ramp(GRID))
        assert Grid.of(found).same_cells(GRID)
    for registration, offset in (("pixel", 0), ("gridline", 1)):
        path = layouts.gmt_grid(tmp_path / "wrong.grd", GRID, registration, offset=offset)
        with pytest.raises(GridError, match=r"says (pixel|gridline) registration, but x runs from .*grdedit"):
            read_raster(path, crs="EPSG:3031")


def test_inputs_are_never_touched(tmp_path):
    paths = [
        layouts.bedmachine(tmp_path / "bm.nc", GRID),
        layouts.geotiff(tmp_path / "bed.tif", GRID, ramp(GRID)),
        layouts.rutford(tmp_path / "bed_WGS84_grid.txt", [(1.0, 2.0, 3.0)]),
    ]
    before = [(hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in paths]
    names = sorted(path.name for path in tmp_path.iterdir())
    read_raster(paths[0], ["bed"])
    read_raster(paths[1])
    read_picks(paths[2], "rutford")
    assert [(hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in paths] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def bedmap_row(longitude: float, latitude: float, surface: float, thickness: float, bed: float) -> str:
    return f"L1,1,{longitude},{latitude},2011-11-21,12:00:00,{surface},{thickness},{bed},-9999,-9999,-9999"


def test_bedmap_points_derive_the_bed_and_say_so(tmp_path, caplog):
    rows = [
        bedmap_row(161.5, -75.4, 600, 200, 400),
        bedmap_row(161.6, -75.4, 600, 250, -9999),
        bedmap_row(161.7, -75.4, -9999, 300, -9999),
        bedmap_row(161.8, -75.4, 600, -5, -9999),
        bedmap_row(161.9, -75.4, 300, -9999, 500),
        bedmap_row(162.0, -75.4, 600, 100, 100),
        bedmap_row(161.5, -75.4, 600, 200, 400),
    ]
    with caplog.at_level("INFO"):
        picks = read_picks(layouts.bedmap_points(tmp_path / "bm3.csv", rows), "bedmap")
    assert picks["bed"].tolist() == [400, 350] and picks["derived"].tolist() == [False, True]
    x, y = project(np.array([161.5, 161.6]), np.array([-75.4, -75.4]))
    np.testing.assert_allclose(picks[["x", "y"]].to_numpy().T, [x, y])
    assert picks["segment"].tolist() == ["L1", "L1"]
    attrs = picks.attrs
    assert (attrs["rows"], attrs["masked"], attrs["duplicates"]) == (7, 4, 1)
    assert attrs["left_out"] == {
        "have negative thickness": 1,
        "have the surface below the bed": 1,
        "have a bed that is not surface - thickness, to 50 m": 1,
        "give thickness with neither surface nor bed": 1,
    }
    assert attrs["vertical_datum"] == ELLIPSOID and attrs["header"]["references"] == "none: at all"
    assert len(attrs["header"]) == 18
    assert "the bed of 1 picks is surface - thickness" in caplog.text and "1 of 7 rows repeat" in caplog.text


def test_bedmap_columns_and_units_are_held_to_their_promise(tmp_path):
    columns = (
        "trajectory_id,longitude (degree_east),latitude (degree_north),surface_altitude (m),land_ice_thickness (m)"
    )
    path = layouts.bedmap_points(tmp_path / "a.csv", ["L,161,-75,600,200"], columns)
    with pytest.raises(DataError, match=r"a.csv has no column bedrock_altitude \(m\)"):
        read_picks(path, "bedmap")
    columns += ",bedrock_altitude (km)"
    path = layouts.bedmap_points(tmp_path / "b.csv", ["L,161,-75,600,200,0.4"], columns)
    with pytest.raises(DataError, match="bedrock_altitude is in 'km', expected 'm'"):
        read_picks(path, "bedmap")


def test_rutford_keeps_its_first_row(tmp_path):
    rows = [(-1300000.0, 150000.0, -1500.5), (-1299500.0, 150000.0, -1501.5)]
    picks = read_picks(layouts.rutford(tmp_path / "bed_WGS84_grid.txt", rows), "rutford")
    assert [tuple(row) for row in picks[["x", "y", "bed"]].to_numpy()] == rows
    assert picks.attrs["vertical_datum"] == ELLIPSOID


def test_rutford_without_a_line_that_names_its_columns(tmp_path):
    rows = [(-1300000.0, 150000.0, -1500.5, 1, 1), (-1299500.0, 150000.0, -1501.5, 2, 1)]
    path = layouts.rutford(tmp_path / "bed_WGS84_grid.txt", rows, named=False)
    found = read_picks(path, "rutford")[["x", "y", "bed"]].to_numpy()
    assert [tuple(row) for row in found] == [row[:3] for row in rows]
    # Five columns of numbers are what the table is known by.
    with pytest.raises(DataError, match="has no column x"):
        read_picks(layouts.rutford(path, [row[:3] for row in rows], named=False), "rutford")


@pytest.mark.parametrize("named", [True, False])
def test_wise_isodyn_from_its_zip(tmp_path, named):
    def row(flight: str, longitude: float, bed: str, surface: str, ice: str) -> str:
        before = f"{flight} L{flight} {longitude} -72.5 1 2 3500 20051220 101500 S1 1 1 10 20 -333 -444 1"
        return f"{before} {bed} {surface} {ice}"

    flights = {
        "W02": [row("W02", 155.0, "-120.5", "2000.5", "2121.0"), row("W02", 155.1, "*", "*", "*")],
        "W01": [row("W01", 150.0, "*", "1900.0", "1800.0")],
    }
    path = layouts.wise_isodyn(tmp_path / "WISE_ISODYN_RadarByFlight_ASCII.zip", flights, named)
    picks = read_picks(path, "wise_isodyn")
    # Flights in order of name; the mixed columns of the table (-333, -444) are not read.
    assert picks["bed"].tolist() == [100.0, -120.5] and picks["segment"].tolist() == ["W01", "W02"]
    assert picks["derived"].tolist() == [True, False] and picks.attrs["masked"] == 1
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="the archive is damaged, get it again"):
        read_picks(path, "wise_isodyn")


@pytest.mark.parametrize("name", layouts.PINE_ISLAND)
def test_pine_island_takes_the_firn_corrected_bed(tmp_path, name):
    columns = layouts.PINE_ISLAND[name]
    row = [-1600000.0, -200000.0, 900.0, 1.5, 1500.0, 1510.0, -600.0, -610.0, 900.0][: len(columns.split())]
    picks = read_picks(layouts.pine_island(tmp_path / f"{name}.txt", columns, [row]), "pine_island")
    assert picks[["x", "y", "bed", "surface", "thickness"]].iloc[0].tolist() == [-1600000, -200000, -610, 900, 1510]
    assert picks["segment"].tolist() == [name] and picks.attrs["vertical_datum"] is None
    path = layouts.pine_island(tmp_path / "other.txt", columns.replace("_fc", "_raw"), [row])
    with pytest.raises(DataError, match="has no column h_fc"):
        read_picks(path, "pine_island")


def test_carlson_holds_heights_not_depths(tmp_path):
    path = tmp_path / "bed_depth_below_WGS84_datum.csv"
    path.write_text("x,y,z\n-1300000,150000,-1800.5\n", encoding="utf-8")
    assert read_picks(path, "carlson")["bed"].tolist() == [-1800.5]
    path.write_text("x,y,z\n-1300000,150000,1800.5\n", encoding="utf-8")
    with pytest.raises(DataError, match="these may be depths"):
        read_picks(path, "carlson")


def test_every_format_states_its_datum_or_that_it_has_none():
    assert {name: made.vertical_datum for name, made in FORMATS.items()} == {
        "bedmap": ELLIPSOID, "carlson": ELLIPSOID, "cells": None, "cresis": ELLIPSOID, "pine_island": None,
        "rutford": ELLIPSOID, "wise_isodyn": ELLIPSOID, "xyz": None,
    }  # fmt: skip


def test_the_shared_cut_outs_in_their_own_layouts(shared):
    byrd = shared("data/byrd")
    bedmachine = byrd / "BedMachineAntarctica_v3.4_byrd.nc"
    for name in ("firn", "surface", "thickness", "bed", "geoid"):
        assert open_raster(bedmachine, [name]).grid.shape == (400, 400)
    velocity = read_raster(byrd / "antarctic_ice_vel_VX_VY_byrd.nc", ["VX", "VY"], units="m yr-1")
    assert velocity.shape == (400, 400, 2)
    coarse = byrd / "bed_coarse_2km.nc"
    assert read_raster(coarse, ["bed"], vertical_datum=EIGEN).shape == (100, 100)
    with pytest.raises(DatumError, match="declared is ellipsoid:WGS84"):
        read_raster(coarse, ["bed"], vertical_datum=ELLIPSOID)
    nodes = RasterSettings(path="", kind="nodes", variable="smb_yearly", units="m yr-1")
    x, y, smb = read_nodes(byrd / "racmo24p1_smb_byrd.nc", nodes)
    assert x.size == y.size == 13 * 12 and smb.min() > 0.003 and smb.max() < 0.33


def test_the_other_shared_files(shared):
    thwaites = open_raster(shared("data/thwaites") / "thwaites_1500m.nc", ["bed_msl"])
    assert thwaites.layout.south_up and thwaites.grid.shape == (292, 255)
    pine_island = open_raster(shared("data/pine_island") / "pine_island_500m.nc", ["radar_bed_msl"])
    assert not pine_island.layout.south_up and pine_island.grid.shape == (200, 800)
    for name in ("bed", "surface", "icebase"):
        continent = open_raster(shared("data/continent") / f"BedMachine_{name}_5k_wgs.nc", crs="EPSG:3031")
        assert continent.grid.bounds == (-3330000, -3330000, 1900000, 1850000)
    formats = shared("data/formats")
    with pytest.raises(GridError, match="EPSG:3413"):
        open_raster(formats / "its_live_vy_120m.tif", units="m yr-1")
    velocity = read_raster(formats / "its_live_vy_120m.tif", units="m yr-1", expected_crs="EPSG:3413")
    assert velocity.shape == (375, 389)
    picks = read_picks(next(formats.glob("bedmap_points_*.csv")), "bedmap")
    assert len(picks) == 8 and set(picks["segment"]) == {"IR2HI2_2011325_DVG_JKB2e_Y26a"}
    import pandas as pd

    table = pd.read_csv(next(formats.glob("bedmap_points_*.csv")))
    np.testing.assert_allclose(picks[["x", "y"]], table[["x", "y"]], atol=1e-3)
