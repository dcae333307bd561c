from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from product_layouts import bedmap_points

from deepbedmap_tf.data.picks import bed_from_thickness, project, read_picks
from deepbedmap_tf.errors import DataError

HEADER = "LAT,LON,UTCTIMESOD,THICK,ELEVATION,FRAME,SURFACE,BOTTOM,QUALITY"
# Range to the surface 500 m and to the bed 1700 m from 2000 m up: bed at 300 m.
ROW = "-75.5,-106.2,51234.5,1200.00,2000.00,2014112105001,500.00,1700.00,1"


def cresis(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "picks.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_the_first_row_is_not_lost(tmp_path):
    # Fault 10 of the published code: one row too many was skipped with the header.
    second = ROW.replace("1200.00", "1100.00").replace("1700.00", "1600.00")
    picks = read_picks(cresis(tmp_path, ROW, second), "cresis")
    assert picks["bed"].tolist() == [300, 400]
    assert picks["surface"].tolist() == [1500, 1500]
    assert picks["thickness"].tolist() == [1200, 1100]
    assert picks["segment"].tolist() == ["20141121_05"] * 2
    assert {key: picks.attrs[key] for key in ("source", "rows", "masked", "duplicates", "left_out")} == {
        "source": "picks.csv", "rows": 2, "masked": 0, "duplicates": 0, "left_out": {},
    }  # fmt: skip
    x, y = project(np.array([-106.2]), np.array([-75.5]))
    assert (picks["x"][0], picks["y"][0]) == (x[0], y[0])


def test_projection_is_antarctic_polar_stereographic():
    x, y = project(np.array([0.0, 90.0, -90.0, 45.0]), np.array([-71.0, -71.0, -71.0, -90.0]))
    # Along 71 S the projection is true to scale; numbers of PROJ's own documentation of EPSG:3031.
    np.testing.assert_allclose(np.hypot(x[:3], y[:3]), 2082760.109, atol=0.01)
    assert y[0] > 0 and x[1] > 0 and x[2] < 0 and abs(x[3]) < 1e-6


def test_fill_values_are_masked_and_counted(tmp_path, caplog):
    # Where THICK is a fill value, BOTTOM can be the surface plus 9999 and look like a depth.
    rows = [
        ROW,
        "-75.5,-106.2,51235.5,-9999.00,2000.00,2014112105001,500.00,-9999.00,0",
        "-75.5,-106.2,51236.5,-9999.00,2000.00,2014112105001,77.00,10076.00,0",
        "-75.5,-106.2,51237.5,1200.00,2000.00,2014112105001,-9999.00,1700.00,0",
        "-75.5,-106.2,51238.5,,2000.00,2014112105001,500.00,1700.00,0",
    ]
    with caplog.at_level(logging.INFO):
        picks = read_picks(cresis(tmp_path, *rows), "cresis")
    assert picks["bed"].tolist() == [300]
    assert picks.attrs["masked"] == 4
    assert "4 of 5 rows" in caplog.text


def test_rows_that_contradict_themselves_are_left_out(tmp_path, caplog):
    wrong = ROW.replace("1700.00", "1400.00")
    picks = read_picks(cresis(tmp_path, ROW, ROW.replace("-75.5", "-75.6"), wrong), "cresis")
    assert picks["bed"].tolist() == [300, 300]
    assert "contradict" in caplog.text
    with pytest.raises(DataError, match="none of 1 rows holds a pick"):
        read_picks(cresis(tmp_path, ROW.replace("1200.00", "-1200.00")), "cresis")


def test_time_header_and_heights_instead_of_ranges(tmp_path):
    header = HEADER.replace("UTCTIMESOD", "TIME") + ",DATE,DEM_SELECT"
    row = "-75.5,-106.2,82800.0,573.80,1889.37,20120317T010256,1475.92,902.12,3,170312,0"
    picks = read_picks(cresis(tmp_path, row, header=header), "cresis")
    assert picks["bed"].tolist() == [902.12]
    assert picks["surface"].tolist() == [1475.92]
    assert picks["segment"].tolist() == ["20120317T010256"]


def test_the_shared_excerpt_with_a_time_header(shared):
    path = next(shared("data/formats").glob("icebridge_hf_rows*.csv"))
    picks = read_picks(path, "cresis")
    assert picks["bed"].tolist() == [902.11, -164.96, 1627.58]
    assert picks.attrs["masked"] == 3


@pytest.mark.parametrize("column", ["LAT", "LON", "THICK", "ELEVATION", "SURFACE", "BOTTOM", "FRAME"])
def test_a_missing_column_is_named(tmp_path, column):
    with pytest.raises(DataError, match=f"picks.csv has no column {column}; expected LAT, LON"):
        read_picks(cresis(tmp_path, ROW, header=HEADER.replace(column, "OTHER")), "cresis")


def test_a_file_without_header_does_not_lose_its_first_row_silently(tmp_path):
    with pytest.raises(DataError, match="no column LAT"):
        read_picks(cresis(tmp_path, ROW, header=ROW), "cresis")


def test_damage_is_one_line(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_picks(tmp_path / "none.csv", "cresis")
    with pytest.raises(DataError, match=r"line 3: THICK is '12OO.00', expected a number"):
        read_picks(cresis(tmp_path, ROW, ROW.replace("1200.00", "12OO.00")), "cresis")
    with pytest.raises(DataError, match=r"Expected 9 fields in line 3, saw 17"):
        read_picks(cresis(tmp_path, ROW, ROW + ROW), "cresis")
    with pytest.raises(DataError, match="off the globe"):
        read_picks(cresis(tmp_path, ROW.replace("-75.5,-106.2", "-106.2,-75.5")), "cresis")
    empty = tmp_path / "empty.csv"
    empty.write_text("", encoding="utf-8")
    for form in ("cresis", "xyz", "cells"):
        with pytest.raises(DataError) as caught:
            read_picks(empty, form)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"'segy' is not known; known are bedmap, carlson, cells, cresis"):
        read_picks(empty, "segy")


def test_bom_blanks_and_lower_case_do_no_harm(tmp_path):
    path = tmp_path / "picks.csv"
    path.write_text(HEADER.lower().replace(",", ", ") + "\n" + ROW.replace(",", ", ") + "\n", encoding="utf-8-sig")
    assert read_picks(path, "cresis")["bed"].tolist() == [300]


@given(
    picks=st.lists(
        st.tuples(
            st.floats(-89, -61), st.floats(-180, 180), st.floats(1, 4500), st.floats(300, 9000), st.floats(100, 4000),
            st.booleans(),
        ),
        min_size=1,
        max_size=30,
    )
)  # fmt: skip
def test_every_whole_row_comes_back_in_order(tmp_path_factory, picks):
    rows, beds = [], []
    for latitude, longitude, thickness, elevation, surface, good in picks:
        thickness, elevation, surface = round(thickness, 2), round(elevation, 2), round(surface, 2)
        bottom = surface + thickness if good else -9999
        rows.append(
            f"{latitude:.6f},{longitude:.6f},1.0,{thickness:.2f},{elevation:.2f},2014112105001,{surface:.2f},{bottom:.2f},1"
        )
        if good:
            beds.append((f"{latitude:.6f}", f"{longitude:.6f}", elevation - bottom))
    path = cresis(tmp_path_factory.mktemp("picks"), *rows)
    if not beds:
        with pytest.raises(DataError, match="none of"):
            read_picks(path, "cresis")
        return
    found = read_picks(path, "cresis")
    once = list(dict.fromkeys((*place, round(bed, 6)) for *place, bed in beds))
    np.testing.assert_allclose(found["bed"], [bed for *_, bed in once], atol=0.011)
    assert found.attrs["masked"] == len(picks) - len(beds)
    assert found.attrs["duplicates"] == len(beds) - len(once)


def test_cells_of_thickness_get_their_bed_from_the_surface(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(
        "x,y,thickness_mean_m,thickness_std_m,pick_count\n350000,-980000,95.5,5.4,18\n350500,-980000,640,,1\n"
        "351000,-980000,-9999,,1\n",
        encoding="utf-8",
    )
    picks = read_picks(path, "cells")
    assert picks["thickness"].tolist() == [95.5, 640] and picks["x"].tolist() == [350000, 350500]
    assert picks.attrs["masked"] == 1
    with_bed = bed_from_thickness(picks, np.array([1000.0, np.nan]))
    assert with_bed["bed"].tolist() == [904.5] and with_bed.attrs["without_surface"] == 1
    with pytest.raises(DataError, match="no column thickness_mean_m"):
        path.write_text("x,y,thickness\n1,2,3\n", encoding="utf-8")
        read_picks(path, "cells")


@pytest.mark.parametrize(
    "text",
    ["x,y,z\n1,2,-3\n4,5,-6\n", "1 2 -3\n4 5 -6\n", "x\ty\tz\n1\t2\t-3\n4\t5\t-6\n", "z, x, y\n-3, 1, 2\n-6, 4, 5\n"],
)
def test_plain_points_in_any_spelling(tmp_path, text):
    path = tmp_path / "points.txt"
    path.write_text(text, encoding="utf-8")
    picks = read_picks(path, "xyz")
    assert picks[["x", "y", "bed"]].to_numpy().tolist() == [[1, 2, -3], [4, 5, -6]]


def test_plain_points_need_three_columns(tmp_path):
    path = tmp_path / "points.txt"
    path.write_text("1 2\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 columns, expected x, y and z"):
        read_picks(path, "xyz")
    path.write_text("x,north,z\n1,2,3\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column y"):
        read_picks(path, "xyz")


def test_inputs_are_not_changed():
    picks = pd.DataFrame({"thickness": [1.0], "surface": [np.nan], "bed": [np.nan]})
    bed_from_thickness(picks, np.array([5.0]))
    assert picks["bed"].isna().all()


def test_duplicates_are_dropped_counted_and_said(tmp_path, caplog):
    other = ROW.replace("-75.5", "-75.6")
    deeper = ROW.replace("1200.00", "1300.00").replace("1700.00", "1800.00")
    with caplog.at_level(logging.INFO):
        picks = read_picks(cresis(tmp_path, ROW, other, ROW, deeper, ROW), "cresis")
    # The same place with another bed is another pick.
    assert picks["bed"].tolist() == [300, 300, 200]
    assert picks.attrs["duplicates"] == 2 and "2 of 5 rows repeat an earlier pick" in caplog.text


def test_quality_is_kept_and_can_be_asked_for(tmp_path, caplog):
    rows = [ROW[:-1].replace("-75.5", f"-75.{digit}") + str(digit) for digit in (1, 2, 3)]
    rows.append(ROW[:-1].replace("-75.5", "-75.9"))
    path = cresis(tmp_path, *rows)
    picks = read_picks(path, "cresis")
    np.testing.assert_array_equal(picks["quality"], [1, 2, 3, np.nan])
    with caplog.at_level(logging.WARNING):
        good = read_picks(path, "cresis", max_quality=2)
    assert good["quality"].tolist() == [1, 2]
    assert good.attrs["left_out"] == {"are of a worse quality than 2 or of none": 2}
    assert "2 of 4 rows are of a worse quality than 2" in caplog.text
    bare = cresis(tmp_path, ROW.rpartition(",")[0], header=HEADER.replace(",QUALITY", ""))
    assert read_picks(bare, "cresis")["bed"].tolist() == [300]
    with pytest.raises(DataError, match="holds no QUALITY, as max_quality 1 needs"):
        read_picks(bare, "cresis", max_quality=1)


def test_swapped_latitude_and_longitude_are_named_where_the_globe_allows_both(tmp_path):
    swapped = ROW.replace("-75.5,-106.2", "-45.2,-75.5")
    with pytest.raises(DataError, match=r"in it when latitude and longitude are exchanged; these columns are swapped"):
        read_picks(cresis(tmp_path, swapped, swapped.replace("-45.2", "-45.3")), "cresis")


def test_negative_thickness_is_said_by_name(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        picks = read_picks(cresis(tmp_path, ROW, ROW.replace("1200.00", "-1200.00")), "cresis")
    assert picks.attrs["left_out"] == {"have negative thickness": 1}
    assert "1 of 2 rows have negative thickness and are left out" in caplog.text


@pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3412", "EPSG:32718"])
def test_picks_come_in_the_projection_asked_for(tmp_path, crs):
    from pyproj import Transformer

    expected = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(-76.2, -75.5)
    picks = read_picks(cresis(tmp_path, ROW.replace("-106.2", "-76.2")), "cresis", crs=crs)
    np.testing.assert_allclose(picks[["x", "y"]].iloc[0], expected)
    assert picks.attrs["crs"] == crs
    x, y = project(np.array([-76.2]), np.array([-75.5]))
    path = tmp_path / "points.csv"
    path.write_text(f"x,y,z\n{x[0]!r},{y[0]!r},5\n", encoding="utf-8")
    moved = read_picks(path, "xyz", crs=crs, source_crs="EPSG:3031")
    np.testing.assert_allclose(moved[["x", "y"]].iloc[0], expected)
    # Without a statement, plain points are in the projection asked for.
    assert read_picks(path, "xyz", crs=crs)["x"][0] == pytest.approx(x[0], abs=1e-6)
    with pytest.raises(DataError, match="are in EPSG:4326, not EPSG:3412; leave `crs` out"):
        read_picks(cresis(tmp_path, ROW), "cresis", source_crs="EPSG:3412")


@pytest.mark.parametrize("form", ["cresis", "cells", "xyz", "rutford", "carlson", "pine_island", "bedmap"])
def test_merged_cut_and_short_lines_are_named(tmp_path, form):
    headers = {
        "cresis": HEADER, "cells": "x,y,thickness_mean_m", "xyz": "x y z", "rutford": "x\ty\tz", "carlson": "x,y,z",
        "pine_island": "x\ty\tz_surf\ttime\th\th_fc\tz\tz_fc", "bedmap": "lon,lat,s,h,b",
    }  # fmt: skip
    separator = "," if "," in headers[form] else "\t" if "\t" in headers[form] else " "
    width = headers[form].count(separator) + 1
    row = ROW if form == "cresis" else separator.join(["-75.5"] * width)
    path = tmp_path / "table.txt"

    def message(*rows: str) -> str:
        path.write_text("\n".join([headers[form], *rows]) + "\n", encoding="utf-8")
        with pytest.raises(DataError) as caught:
            read_picks(path, form)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"Expected {width} fields in line 3, saw {2 * width - 1}" in message(row, row + row, row)
    short = row.rpartition(separator)[0]
    assert f"Expected {width} fields in line 3, saw {width - 1}" in message(row, short, row)
    assert f"is cut off: its last line has {width - 1} fields, expected {width}" in message(row, row, short)
    assert "expected a number" in message(row, row.replace("-75.5", "-75.5.5", 1), row)


def test_quotation_marks_swallow_no_row(tmp_path):
    path = tmp_path / "points.csv"

    def read(*rows: str) -> pd.DataFrame:
        path.write_text("\n".join(["x,y,z,name", *rows]) + "\n", encoding="utf-8")
        return read_picks(path, "xyz")

    assert len(read('1,2,3,"a, b"', "4,5,6,c", '7,8,9,d"e')) == 3
    for first, last in (('"a', 'b"'), ('"a', '"b')):
        with pytest.raises(DataError, match="4 lines of data hold 2 rows, for quotation marks"):
            read(f"1,2,3,{first}", "4,5,6,c", f"7,8,9,{last}", "1,1,1,d")
    with pytest.raises(DataError, match="Expected 4 fields in line 3, saw 3"):
        read("1,2,3,a", '4,5,"6"', "7,8,9,c")
    with pytest.raises(DataError, match=r"Expected 4 fields in line 3, saw 7; lines are merged"):
        read("1,2,3,a", '4,5,6,"b"7,8,9,c', "7,8,9,c")


def test_lines_may_end_by_a_carriage_return_alone(tmp_path):
    path = tmp_path / "points.csv"
    path.write_bytes(b"x,y,z\r1,2,3\r4,5,6\r")
    assert read_picks(path, "xyz")["bed"].tolist() == [3, 6]
    path.write_bytes(b"x,y,z\r1,2,3\r4,5,6,7\r8,9,10\r")
    with pytest.raises(DataError, match="Expected 3 fields in line 3, saw 4"):
        read_picks(path, "xyz")


def test_cells_without_a_sounding_are_no_cells(tmp_path, caplog):
    path = tmp_path / "cells.csv"
    path.write_text("x,y,thickness_mean_m,pick_count\n1,2,300,-2\n1,3,300,0\n1,4,300,2\n1,5,300,\n", encoding="utf-8")
    picks = read_picks(path, "cells")
    assert picks["pick_count"].tolist() == [2, 1]
    assert picks.attrs["left_out"] == {"have a pick_count of 0 or less": 2}
    assert "2 of 4 rows have a pick_count of 0 or less and are left out" in caplog.text


def test_blank_lines_do_not_shift_the_line_that_is_named(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("\nx,y,z\n\n1,2,3\n\n4,5,deep\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"points.csv, line 6: z is 'deep', expected a number"):
        read_picks(path, "xyz")


def test_a_place_may_be_where_a_fill_value_would_be(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("x,y,z\n-9999,5,1\n-9999,-9999,2\n7,-32768,-9999\n8,-32768,3\n", encoding="utf-8")
    assert read_picks(path, "xyz")[["x", "y", "bed"]].to_numpy().tolist() == [[-9999, 5, 1], [8, -32768, 3]]


NUMBERS = st.floats(-4000, 4000).map(lambda value: round(value, 2))


@given(
    points=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=20, unique=True),
    separator=st.sampled_from([",", "\t", "  ", ", "]),
    header=st.sampled_from([None, "x y z", "Y Z X", "bed x y extra"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_plain_points_come_back_whatever_their_spelling(tmp_path_factory, points, separator, header, ending, last):
    words = header.split() if header else ["x", "y", "z"]
    place = {"x": 0, "y": 1, "z": 2, "bed": 2}
    rows = [separator.join(str(point[place[w.lower()]]) if w != "extra" else "9" for w in words) for point in points]
    lines = [separator.join(words), *rows] if header else rows
    path = tmp_path_factory.mktemp("points") / "points.txt"
    path.write_bytes((ending.join(lines) + (ending if last else "")).encode())
    found = read_picks(path, "xyz")[["x", "y", "bed"]].to_numpy()
    np.testing.assert_array_equal(found, np.array(points) + 0.0)


@given(
    rows=st.lists(
        st.tuples(st.floats(0, 4000), st.floats(-50, 4000), st.floats(-3000, 3000), st.sampled_from("sthb-")),
        min_size=1,
        max_size=25,
    )
)
def test_bedmap_rows_are_all_accounted_for(tmp_path_factory, rows):
    lines = []
    for i, (surface, thickness, bed, kind) in enumerate(rows):
        given_bed = {"t": surface - thickness, "s": -9999, "-": -9999}.get(kind, bed)
        ice = -9999 if kind in "b-" else thickness
        lines.append(f"L,1,{-100 + i * 0.01:.3f},-75,2011-01-01,0,{surface:.2f},{ice:.2f},{given_bed:.2f},0,0,0")
    path = bedmap_points(tmp_path_factory.mktemp("bedmap") / "points.csv", lines)
    try:
        picks = read_picks(path, "bedmap")
    except DataError as error:
        assert f"none of {len(rows)} rows" in str(error)
        return
    assert len(picks) + picks.attrs["masked"] + picks.attrs["duplicates"] == len(rows)
    assert sum(picks.attrs["left_out"].values()) == picks.attrs["masked"]
    assert (picks["thickness"].fillna(0) >= -1).all()
    assert (
        (picks["derived"] == np.isclose(picks["bed"], picks["surface"] - picks["thickness"]))
        .loc[picks["derived"]]
        .all()
    )
