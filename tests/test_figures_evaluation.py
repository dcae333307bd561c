"""Each figure is drawn and has the size on paper that it should have; how it looks is for eyes to judge."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from stand_in_region import StandInRegion, predict

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.evaluation.report import Evaluation, evaluate_region
from deepbedmap_tf.figures.evaluation import draw_evaluation
from deepbedmap_tf.figures.style import colour_range, round_step, save

CENTIMETRE = 300 / 2.54


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate_region(StandInRegion((-1500e3, -500e3, -1470e3, -480e3)), "thwaites", 10.0, predict)


def _size(path: Path) -> tuple[float, float]:
    """Width and height of a PNG, cm at 300 dpi."""
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    return width / CENTIMETRE, height / CENTIMETRE


def test_figures_of_a_track(evaluation: Evaluation, tmp_path: Path) -> None:
    files = draw_evaluation(evaluation, tmp_path, formats=("png",))
    names = ["fig3_perspectives.png", "fig5_maps.png", "fig6_transect.png"]
    assert [file.name for file in files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    sizes = {file.name: _size(file) for file in files}
    # Two panels of 8.4 cm, a gap and the labels; one of 17 cm; two views and the gap.
    assert 18.1 < sizes["fig5_maps.png"][0] < 21
    assert 17 < sizes["fig6_transect.png"][0] < 20
    assert 11.9 < sizes["fig6_transect.png"][1] < 16
    assert 14 < sizes["fig3_perspectives.png"][0] < 26
    assert all(file.stat().st_size > 30_000 for file in files)


def test_figures_of_scattered_picks_and_gaps(evaluation: Evaluation, tmp_path: Path) -> None:
    from dataclasses import replace

    holed = evaluation.products[0].bed.copy(deep=True)
    holed.values[:30, :30] = np.nan
    products = (replace(evaluation.products[0], bed=holed), *evaluation.products[1:])
    files = draw_evaluation(replace(evaluation, scattered=True, products=products), tmp_path, formats=("png",))
    assert _size(files[2])[0] > 18.4


def test_pdf_and_unwritable_folder(evaluation: Evaluation, tmp_path: Path) -> None:
    import pygmt

    figure = pygmt.Figure()
    figure.basemap(region=[0, 1, 0, 1], projection="X2c", frame=True)
    (written,) = save(figure, tmp_path / "small", ("pdf",))
    assert written.read_bytes().startswith(b"%PDF")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        save(figure, tmp_path / "file" / "figure", ("png",))


def test_colours_share_round_limits() -> None:
    low, high, step = colour_range([np.array([-1480.0, np.nan]), np.array([510.0])], 0, 100)
    assert (low, high, step) == (-1600, 600, 200)
    assert colour_range([np.array([np.nan])]) == (0, 1, 0.1)
    flat = colour_range([np.full(5, 12.0)])
    assert flat[0] <= 12 <= flat[1]
    assert flat[1] > flat[0]
    assert [round_step(value) for value in (0.7, 1.0, 3.0, 12.0, 51.0)] == [1, 1, 5, 20, 100]


def test_a_reference_that_covers_the_map_and_has_a_long_name(evaluation: Evaluation, tmp_path: Path) -> None:
    from dataclasses import replace

    profile = evaluation.comparison.profile
    many = profile.sample(30_000, replace=True, random_state=1)
    comparison = replace(evaluation.comparison, profile=many)
    dense = replace(evaluation, comparison=comparison, scattered=True, reference="bed of the file, not radar")
    radar = replace(dense, reference="radar")
    tall = {file.name: _size(file) for file in draw_evaluation(dense, tmp_path / "dense", formats=("png",))}
    plain = {file.name: _size(file) for file in draw_evaluation(radar, tmp_path / "radar", formats=("png",))}
    # One line more above the panels, and no axis label beyond them.
    assert 0.3 < tall["fig6_transect.png"][1] - plain["fig6_transect.png"][1] < 0.8
    assert tall["fig6_transect.png"][0] == pytest.approx(plain["fig6_transect.png"][0], abs=0.1)
