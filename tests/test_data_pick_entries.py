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
