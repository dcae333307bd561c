from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert picks.attrs == {"source": "picks.csv", "rows": 2, "masked": 0}
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
    picks = read_picks(cresis(tmp_path, ROW, ROW, wrong), "cresis")
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
    with pytest.raises(DataError, match=r"'segy' is not known; known are cells, cresis, xyz"):
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
            beds.append(elevation - bottom)
    path = cresis(tmp_path_factory.mktemp("picks"), *rows)
    if not beds:
        with pytest.raises(DataError, match="none of"):
            read_picks(path, "cresis")
        return
    found = read_picks(path, "cresis")
    np.testing.assert_allclose(found["bed"], beds, atol=0.011)
    assert found.attrs["masked"] == len(picks) - len(beds)


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
