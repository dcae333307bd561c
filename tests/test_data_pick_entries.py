"""Picks as a region file names them: their datum, their projection and their place in the region."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from data_files import ramp, region_content, write_netcdf, write_region
from product_layouts import bedmap_points

from deepbedmap_tf.data.projections import transform
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import ConfigError, DataError, DatumError
from deepbedmap_tf.grid import Grid

ELLIPSOID, EIGEN = "ellipsoid:WGS84", "geoid:EIGEN-6C4"


@pytest.fixture
def content(tmp_path):
    return region_content(tmp_path, cells=12)


def load(tmp_path, content):
    return load_region(write_region(tmp_path, content), data_dir=tmp_path)


def middle(content):
    xmin, ymin, xmax, ymax = content["bounds"]
    return (xmin + xmax) / 2, (ymin + ymax) / 2


def flight(tmp_path, content):
    x, y = middle(content)
    longitude, latitude = transform(np.array([x, x + 500]), np.array([y, y]), "EPSG:3031", "EPSG:4326")
    rows = [
        f"L,{i},{lon:.9f},{lat:.9f},2011-01-01,0,600,200,400,0,0,0"
        for i, (lon, lat) in enumerate(zip(longitude, latitude, strict=True))
    ]
    bedmap_points(tmp_path / "flight.csv", rows)
    return {"path": "flight.csv", "format": "bedmap"}


def test_a_format_brings_its_datum_and_another_is_refused(tmp_path, content):
    content["picks"] = [flight(tmp_path, content)]
    assert load(tmp_path, content).picks()["bed"].tolist() == [400, 400]
    content["picks"][0]["vertical_datum"] = EIGEN
    with pytest.raises(DatumError, match=r"declared on geoid:EIGEN-6C4, but format bedmap is on ellipsoid"):
        load(tmp_path, content).picks()
    x, y = middle(content)
    pd.DataFrame({"x": [x], "y": [y], "z": [5.0]}).to_csv(tmp_path / "points.csv", index=False)
    content["picks"] = [{"path": "points.csv", "format": "xyz"}]
    with pytest.raises(DatumError, match="'points' holds heights with no vertical_datum"):
        load(tmp_path, content).picks()


def test_picks_off_the_geoid_layer_are_counted(tmp_path, content, caplog):
    content["picks"] = [flight(tmp_path, content)]
    content["vertical_datum"] = EIGEN
    grid = Grid.from_bounds(tuple(content["bounds"]), 250)
    geoid = np.full(grid.shape, -40, np.float32)
    geoid[:, grid.shape[1] // 2 + 1 :] = np.nan
    write_netcdf(tmp_path / "geoid.nc", grid, geoid=geoid)
    content["geoids"] = {EIGEN: {"path": "geoid.nc"}}
    with caplog.at_level(logging.WARNING):
        picks = load(tmp_path, content).picks()
    assert picks["bed"].tolist() == [440] and "1 of 2 picks lie off the geoid layer" in caplog.text


def test_picks_follow_the_crs_of_the_region(tmp_path, content):
    content["crs"] = "EPSG:3412"
    content["picks"] = [flight(tmp_path, content)]
    x, y = transform(*(np.array([each]) for each in middle(content)), "EPSG:3031", "EPSG:3412")
    content["bounds"] = [float(np.floor(x[0] / 1000) * 1000 - 6000), float(np.floor(y[0] / 1000) * 1000 - 6000)]
    content["bounds"] += [edge + 12000 for edge in content["bounds"]]
    picks = load(tmp_path, content).picks()
    assert picks["x"][0] == pytest.approx(x[0], abs=0.01) and picks["y"][0] == pytest.approx(y[0], abs=0.01)
    middle_x, middle_y = middle(content)
    pd.DataFrame({"x": [middle_x], "y": [middle_y], "z": [5.0]}).to_csv(tmp_path / "points.csv", index=False)
    content["picks"] = [{"path": "points.csv", "format": "xyz", "vertical_datum": ELLIPSOID}]
    assert load(tmp_path, content).picks()["x"].tolist() == [middle_x]
    back_x, back_y = transform(np.array([middle_x]), np.array([middle_y]), "EPSG:3412", "EPSG:3031")
    pd.DataFrame({"x": back_x, "y": back_y, "z": [5.0]}).to_csv(tmp_path / "points.csv", index=False)
    content["picks"][0]["crs"] = "EPSG:3031"
    assert load(tmp_path, content).picks()["x"][0] == pytest.approx(middle_x, abs=0.01)


def test_exchanged_columns_are_named(tmp_path, content):
    x, y = middle(content)
    pd.DataFrame({"x": [y], "y": [x], "z": [5.0]}).to_csv(tmp_path / "points.csv", index=False)
    content["picks"] = [{"path": "points.csv", "format": "xyz", "vertical_datum": ELLIPSOID}]
    with pytest.raises(DataError, match="but they do with x and y exchanged: the columns are swapped"):
        load(tmp_path, content).picks()


def test_settings_of_quality_reach_the_reader(tmp_path, content):
    content["picks"] = [{**flight(tmp_path, content), "max_quality": 2}]
    with pytest.raises(DataError, match="holds no QUALITY, as max_quality 2 needs"):
        load(tmp_path, content).picks()
    content["picks"][0]["max_quality"] = 4
    with pytest.raises(ConfigError, match="max_quality"):
        load(tmp_path, content)


def test_picks_of_several_formats_make_one_table(tmp_path, content):
    x, y = middle(content)
    cells = pd.DataFrame({"x": [x], "y": [y], "thickness_mean_m": [300.0], "pick_count": [7]})
    cells.to_csv(tmp_path / "cells.csv", index=False)
    content["picks"] = [flight(tmp_path, content), {"path": "cells.csv", "format": "cells"}]
    picks = load(tmp_path, content).picks()
    assert picks["picks"].tolist() == ["flight", "flight", "cells"]
    assert picks["derived"].tolist() == [False, False, True] and picks["pick_count"].tolist() == [1, 1, 7]
    grid = Grid((1, 1), Grid.from_bounds((x - 125, y - 125, x + 125, y + 125), 250).transform)
    assert picks["bed"].iloc[2] == pytest.approx(float(ramp(grid, 900)[0, 0]) - 300, abs=1e-2)


def test_paths_of_the_catalogue_are_resolved_when_they_are_read(tmp_path, content, monkeypatch):
    catalog = pytest.importorskip("deepbedmap_tf.data.catalog")
    asked = []

    def resolve(reference):
        asked.append(reference)
        return tmp_path / "bed_1km.tif"

    monkeypatch.setattr(catalog, "resolve", resolve)
    content["inputs"]["bed_lowres"]["path"] = "catalogue:Fretwell2013BEDMAP2/bedmap2_bed.tif"
    region = load(tmp_path, content)
    assert not asked
    region.inputs()
    assert set(asked) == {"catalogue:Fretwell2013BEDMAP2/bedmap2_bed.tif"}


def survey(folder, content, name, rows):
    """Write a Bedmap file with (metres east and north of the middle, surface, thickness, bed)."""
    x, y = middle(content)
    east, north, *heights = np.array(rows, float).T
    longitude, latitude = transform(x + east, y + north, "EPSG:3031", "EPSG:4326")
    lines = [
        f"{name},{i},{lon:.9f},{lat:.9f},2011-01-01,0,{surface:.2f},{ice:.2f},{bed:.2f},0,0,0"
        for i, (lon, lat, surface, ice, bed) in enumerate(zip(longitude, latitude, *heights, strict=True))
    ]
    return bedmap_points(folder / f"{name}.csv", lines)


@pytest.fixture
def surveys(tmp_path, content):
    folder = tmp_path / "bedmap"
    (folder / "old").mkdir(parents=True)
    survey(folder, content, "B", [(500, 0, 600, 200, 400), (1000, 0, 600, 300, 300)])
    survey(folder, content, "A", [(0, 0, 600, 100, 500), (500, 0, 600, 200, 400)])
    survey(folder, content, "C", [(0, 100, -9999, -9999, -9999)])
    survey(folder / "old", content, "D", [(0, 500, 600, 250, 350)])
    survey(folder, content, "E", [(900000, 0, 600, 250, 350)])
    return folder


@pytest.mark.parametrize(
    ("path", "beds", "segments"),
    [
        ("bedmap/*.csv", [500, 400, 300], ["A", "A", "B"]),
        ("bedmap/[B-Z].csv", [400, 300], ["B", "B"]),
        ("bedmap", [500, 400, 300, 350], ["A", "A", "B", "D"]),
    ],
)
def test_many_surveys_by_a_folder_or_a_pattern(tmp_path, content, surveys, path, beds, segments, caplog):
    content["picks"] = [{"path": path, "format": "bedmap"}]
    with caplog.at_level(logging.INFO):
        region = load(tmp_path, content)
        picks = region.picks()
    # In order of name; what an earlier file has already is left out, and so are files with no pick or elsewhere.
    assert picks["bed"].round(2).tolist() == beds and picks["segment"].tolist() == segments
    assert set(picks["picks"]) == {"bedmap"}
    assert "bedmap: C.csv: none of 1 rows holds a pick with a bed (hold fill values)" in caplog.text
    content["target"] = {"kind": "picks"}
    hashes = load(tmp_path, content).provenance()["sources"]
    found = {name for name in hashes if name.startswith("bedmap/")}
    wanted = {"bedmap/*.csv": "ABCE", "bedmap/[B-Z].csv": "BCE"}.get(path)
    names = [f"bedmap/{name}.csv" for name in wanted] if wanted else [f"bedmap/{name}.csv" for name in "ABCE"]
    assert found == {*names, *([] if wanted else ["bedmap/old/D.csv"])}
    assert all(len(hashes[name]) == 64 for name in found)
    assert len({hashes[name] for name in found}) == len(found)


def test_a_damaged_survey_among_many_is_refused_by_name(tmp_path, content, surveys):
    content["picks"] = [{"path": "bedmap/*.csv", "format": "bedmap"}]
    text = (surveys / "B.csv").read_text()
    (surveys / "B.csv").write_text(text[: text.rindex(",")])
    with pytest.raises(DataError, match=r"B\.csv is cut off"):
        load(tmp_path, content).picks()
    content["picks"][0]["path"] = "bedmap/*.txt"
    with pytest.raises(DataError, match=r"no file of picks is at .*bedmap/\*\.txt; check the path"):
        load(tmp_path, content).picks()
    content["picks"][0]["path"] = "bedmap/E*.csv"
    with pytest.raises(DataError, match=r"none of the picks in bedmap/E\*\.csv lies in region planes"):
        load(tmp_path, content).picks()


def test_fetched_surveys_by_a_pattern(tmp_path, content, surveys, monkeypatch, caplog):
    from deepbedmap_tf.data import catalog

    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))
    key = "FremandFrimodig2023BedmapPoints"
    content["picks"] = [{"path": f"catalogue:{key}/BAS_2019*.csv", "format": "bedmap", "role": "target"}]
    content["target"] = {"kind": "picks"}
    with pytest.raises(DataError, match=rf"no file of catalogue:{key}/BAS_2019\*\.csv is there: run `deepbedmap fetch"):
        load(tmp_path, content).picks()
    folder = catalog.load_catalogue().product(key).folder
    folder.mkdir(parents=True)
    for source, name in (("A", "BAS_2019_Thwaites_AIR_BM3.csv"), ("B", "BAS_2019_mine.csv"), ("D", "D.csv")):
        place = surveys / "old" if source == "D" else surveys
        (folder / name).write_bytes((place / f"{source}.csv").read_bytes())
    region = load(tmp_path, content)
    assert region.picks()["bed"].round(2).tolist() == [500, 400, 300]
    found = {name for name in region.provenance()["sources"] if name.startswith("catalogue:")}
    assert found == {f"catalogue:{key}/BAS_2019_{name}.csv" for name in ("Thwaites_AIR_BM3", "mine")}
    content["picks"][0]["path"] = f"catalogue:{key}/BAS_201*.csv"
    with caplog.at_level(logging.WARNING):
        load(tmp_path, content).picks()
    assert f"{key}/BAS_201*.csv: 10 of the 11 files of the catalogue are not there" in caplog.text
    content["picks"][0]["path"] = f"catalogue:{key}/../*.csv"
    with pytest.raises(ConfigError, match=r"names a folder; expected a pattern of file names alone"):
        load(tmp_path, content).picks()


def test_thickness_alone_hangs_from_the_surface_and_is_marked(tmp_path, content, caplog):
    """Rows with nothing but thickness, in a region that is on another datum than the file's heights."""
    rows = [
        (0, 0, 600, 100, 500),
        (500, 0, 600, 200, -9999),
        (1000, 0, -9999, 300, -9999),
        (1500, 0, -9999, 310, -9999),
    ]
    survey(tmp_path, content, "S", rows)
    content["vertical_datum"] = EIGEN
    grid = Grid.from_bounds(tuple(content["bounds"]), 250).pad(8)
    write_netcdf(tmp_path / "geoid.nc", grid, geoid=np.full(grid.shape, -40, np.float32))
    content["geoids"] = {EIGEN: {"path": "geoid.nc"}}
    content["picks"] = [{"path": "S.csv", "format": "bedmap"}]
    with caplog.at_level(logging.WARNING):
        picks = load(tmp_path, content).picks()
    x, y = picks["x"].to_numpy(), picks["y"].to_numpy()
    surface = 0.011 * x - 0.007 * y + 900 + 40
    expected = [540, 440, surface[2] - 300, surface[3] - 310]
    np.testing.assert_allclose(picks["bed"], expected, atol=0.02)
    np.testing.assert_allclose(picks["surface"], [640, 640, *surface[2:]], atol=0.02)
    assert picks["derived"].tolist() == [False, True, True, True]
    assert "S: 2 of 4 picks give thickness alone; their bed is the region's surface less that" in caplog.text
    # Without a surface to hang from they are left out, and said to be.
    content["picks"][0]["surface"] = "nothing"
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(load(tmp_path, content).picks()) == 2
    assert "S.csv: 2 of 4 rows give thickness with neither surface nor bed and are left out" in caplog.text


def test_thickness_alone_off_the_surface_is_counted(tmp_path, content, caplog):
    survey(tmp_path, content, "S", [(0, 0, 600, 100, 500), (500, 0, -9999, 300, -9999)])
    grid = Grid.from_bounds((0, 0, 5000, 5000), 500)
    write_netcdf(tmp_path / "elsewhere.nc", grid, surface=ramp(grid))
    surface = {"path": "elsewhere.nc", "variable": "surface", "vertical_datum": ELLIPSOID}
    content["picks"] = [{"path": "S.csv", "format": "bedmap", "surface": surface}]
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path, content).picks()["bed"].tolist() == [500]
    assert "1 of 2 picks lie off the geoid layer or surface and are left out" in caplog.text


def test_latitudes_without_the_sign_of_the_south_are_said(tmp_path, content):
    longitude, latitude = transform(*(np.array([each]) for each in middle(content)), "EPSG:3031", "EPSG:4326")
    bedmap_points(tmp_path / "flight.csv", [f"L,1,{longitude[0]},{-latitude[0]},2011-01-01,0,600,200,400,0,0,0"])
    content["picks"] = [{"path": "flight.csv", "format": "bedmap"}]
    with pytest.raises(DataError, match="but they do with latitudes of the south: their sign is lost"):
        load(tmp_path, content).picks()


def test_what_is_wrong_with_picks_off_the_region_is_said(tmp_path, content):
    # The peninsula's side, where a longitude may stand for a latitude.
    content["bounds"] = [-1306000, 144000, -1294000, 156000]
    x, y = np.array([-1300000.0]), np.array([150000.0])
    (longitude,), (latitude,) = transform(x, y, "EPSG:3031", "EPSG:4326")

    def message(first: float, second: float) -> str:
        (tmp_path / "points.csv").write_text(f"x,y,z\n{first},{second},5\n", encoding="utf-8")
        content["picks"] = [{"path": "points.csv", "format": "xyz", "vertical_datum": ELLIPSOID}]
        with pytest.raises(DataError, match=r"none of the picks in points\.csv lies in region planes") as caught:
            load(tmp_path, content).picks()
        return str(caught.value)

    assert "but they do with x and y exchanged" in message(y[0], x[0])
    assert "but they do in kilometres: give x and y in metres" in message(x[0] / 1e3, y[0] / 1e3)
    assert "but they do as longitude and latitude: state `crs: EPSG:4326`" in message(longitude, latitude)
    assert "check its bounds" in message(1e6, 1e6)
    for place, words in (
        ((latitude, longitude), "but they do with latitude and longitude exchanged"),
        ((longitude, -latitude), "are exchanged; these columns are swapped, or the latitudes have lost the sign"),
        ((longitude - 90, -latitude), "check its bounds"),
    ):
        bedmap_points(tmp_path / "flight.csv", [f"L,1,{place[0]},{place[1]},2011-01-01,0,600,200,400,0,0,0"])
        content["picks"] = [{"path": "flight.csv", "format": "bedmap"}]
        with pytest.raises(DataError, match=words):
            load(tmp_path, content).picks()
