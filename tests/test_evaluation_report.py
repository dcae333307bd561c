"""A whole evaluation over a region in memory: what it scores, writes and says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from stand_in_region import StandInRegion, predict

from deepbedmap_tf.data.holdout import HoldoutSettings
from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.evaluation.maps import compare_maps
from deepbedmap_tf.evaluation.report import Evaluation, default_region, evaluate_region, write
from deepbedmap_tf.evaluation.transects import Product
from deepbedmap_tf.evaluation.windows import held_out_areas, speed_on, surface_on, window_around
from deepbedmap_tf.grid import Bounds, Grid

# pytest would take the imported function for a test of its own.


@pytest.fixture(scope="module")
def region() -> StandInRegion:
    return StandInRegion()


@pytest.fixture(scope="module")
def evaluation(region: StandInRegion) -> Evaluation:
    return evaluate_region(region, "thwaites", 0.0, predict)


def test_window_is_whole_coarse_cells_around_the_picks(region: StandInRegion) -> None:
    x, y = np.array([-1485_300.0, -1470_100.0]), np.array([-480_250.0, -479_900.0])
    window = window_around(x, y, region.bounds, 1000, padding=5000)
    assert window == (-1491_000, -486_000, -1465_000, -474_000)
    whole = window_around(x, y, region.bounds, 1000, padding=1e6)
    assert whole == region.bounds
    with pytest.raises(DataError, match="none of the 2 picks"):
        window_around(x + 1e6, y, region.bounds, 1000)


def test_surface_and_speed_lie_on_the_output_cells(region: StandInRegion) -> None:
    bounds = (-1490e3, -490e3, -1470e3, -480e3)
    inputs = region.inputs(bounds)
    surface = surface_on(region.grid.window(bounds), inputs)
    exact, grid = region._cut(region._surface, bounds, 0)
    assert Grid.of(surface).bounds == bounds
    assert np.abs(surface.values - exact).max() < 2
    speed = speed_on(grid, region.inputs(bounds)["velocity"].pipe(lambda v: np.hypot(v[..., 0], v[..., 1])))
    expected = region._cut(region._speed, bounds, 0)[0] * np.hypot(1, 0.1)
    assert np.allclose(speed, expected, rtol=0.02)


def test_held_out_boxes_are_cut_to_whole_cells_inside() -> None:
    region = StandInRegion()
    boxes = ((-1.6e6, -499_400.0, -1485_100.0, -480_000.0), (-1.6e6, -6e5, -1499e3, -4e5))
    region.settings.holdout = HoldoutSettings(test=boxes)
    (area,) = held_out_areas(region)
    assert (area.name, area.bounds) == ("box 1", (-1500_000, -499_000, -1486_000, -480_000))
    assert area.cells.all() and area.cells.shape == (76, 56)


def test_a_polygon_is_scored_on_its_own_cells() -> None:
    region = StandInRegion()
    corners = ((-1480e3, -490e3), (-1450e3, -490e3), (-1480e3, -470e3))
    region.settings.holdout = HoldoutSettings(polygons={"triangle": corners})
    region.transects["thwaites"].order = "principal"
    (area,) = held_out_areas(region)
    # Half of the rectangle around it, and the cells that its long side cuts.
    assert area.cells.size == 120 * 80
    assert area.cells.mean() == pytest.approx(0.5, abs=0.02)
    picks = region.transect("thwaites")
    above = (picks["y"] + 470e3) / 20e3 + (picks["x"] + 1480e3) / 30e3
    inside = (above < 0) & (picks["x"] > -1480e3) & (picks["y"] > -490e3)
    assert inside.sum() > 50
    result = evaluate_region(region, "thwaites", 10.0, lambda m, r, b: r.reference("truth", b) + m)
    assert area.holds(picks)[inside].all() and not area.holds(picks)[above > 0.05].any()
    scores = result.areas["triangle"]
    assert inside.sum() <= scores["radar"]["count"] <= inside.sum() + 60
    assert scores["deepbedmap"]["bias"] == pytest.approx(scores["truth"]["bias"] + 10, abs=1e-3)
    assert result.maps["triangle"]["truth"]["count"] == area.cells.sum()
    assert "Held-out triangle" in result.table() and "true bed, triangle" in result.table()


def test_the_truth_as_model_scores_as_the_truth(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics()
    assert set(metrics) == {"deepbedmap", "bicubic", "bedmachine", "truth", "radar", "_about", "_maps", "_areas"}
    assert metrics["deepbedmap"]["rmse"] == metrics["truth"]["rmse"]
    # The picks are the truth with 5 m of noise.
    assert metrics["truth"]["rmse"] == pytest.approx(5, abs=0.5)
    assert 0.9 < metrics["truth"]["roughness_ratio"] < 1.1
    assert metrics["bicubic"]["rmse"] > 2 * metrics["deepbedmap"]["rmse"]
    assert metrics["bedmachine"]["roughness_ratio"] < metrics["bicubic"]["roughness_ratio"] < 1
    assert metrics["bedmachine"]["spectral_slope"] < metrics["radar"]["spectral_slope"] < 0
    for name in ("window", "box 1"):
        exact = metrics["_maps"][name]["deepbedmap"]
        assert exact["rmse"] == 0
        assert exact["roughness_ratio"] == 1
        assert exact["ssim"] == pytest.approx(1, abs=1e-9)


def test_contract_of_the_files(evaluation: Evaluation, tmp_path: Path) -> None:
    files = write(evaluation, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["metrics.json", "profile.csv"]
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["metrics.json", "profile.csv"]
    metrics = json.loads(files[0].read_text(encoding="utf-8"))
    for name in ("deepbedmap", "bicubic", "bedmachine"):
        assert {"rmse", "mae", "bias", "roughness", "roughness_ratio", "roughness_rmse", "spectral_slope"} <= set(
            metrics[name]
        )
        assert sum(value is not None for value in metrics[name]["rmse_by_speed"].values()) >= 3
    assert metrics["_about"]["synthetic"] is True
    assert metrics["_about"]["picks"] == 1200
    assert metrics["_about"]["bounds"] == list(evaluation.bounds)
    profile = pd.read_csv(files[1])
    wanted = ["distance", "x", "y", "radar", "surface", "deepbedmap", "bicubic", "bedmachine", "roughness_radar"]
    assert set(wanted) <= set(profile.columns)
    error = (profile["deepbedmap"] - profile["radar"]).to_numpy()
    assert np.sqrt(np.nanmean(error**2)) == pytest.approx(metrics["deepbedmap"]["rmse"], abs=1e-3)
    assert (profile["surface"] > profile["radar"]).mean() > 0.99


def test_table_names_what_it_shows(evaluation: Evaluation) -> None:
    table = evaluation.table()
    assert table.startswith("SYNTHETIC")
    for text in ("DeepBedMap", "Bicubic", "BedMachine", "Truth", "Radar", "RMSE m", "50-200", "box 1"):
        assert text in table
    assert "nan" not in table
    assert max(len(line) for line in table.splitlines()) <= 120


def test_no_truth_means_no_maps_and_nan_becomes_null(tmp_path: Path) -> None:
    region = StandInRegion((-1480e3, -490e3, -1440e3, -460e3), truth=False)
    region.transects["thwaites"].order = "principal"
    # Across the flight line.
    halves = ((-1480e3, -490e3, -1460e3, -460e3), (-1460e3, -490e3, -1440e3, -460e3))
    region.settings.holdout = HoldoutSettings(test=halves)
    result = evaluate_region(region, "thwaites", 10.0, lambda m, r, b: r.reference("bedmachine", b))
    assert result.maps == {}
    assert result.truth is None
    counts = [scores["radar"]["count"] for scores in result.areas.values()]
    assert sum(counts) == result.comparison.scores["radar"]["count"]
    metrics = json.loads(write(result, tmp_path)[0].read_text(encoding="utf-8"))
    assert metrics["deepbedmap"]["spectral_slope"] is None
    assert "Held-out box 2" in result.table()


def test_a_model_of_a_synthetic_world_is_said_to_be_one() -> None:
    region = StandInRegion((-1480e3, -490e3, -1440e3, -460e3), truth=False)
    region.synthetic, region.title = False, "Some glacier"
    model = SimpleNamespace(metadata={"synthetic": True, "name": "trial"})
    result = evaluate_region(region, "thwaites", model, lambda m, r, b: r.reference("bedmachine", b))
    assert result.title == "Some glacier, transect thwaites (model of a SYNTHETIC world)"
    assert result.about["model_synthetic"] is True
    assert result.about["model"] == "trial"


def test_unknown_transect_lists_the_known(region: StandInRegion) -> None:
    with pytest.raises(ConfigError, match="known: thwaites"):
        evaluate_region(region, "byrd", 0.0, predict)


def test_a_further_product_is_scored_everywhere(region: StandInRegion) -> None:
    def make(region: StandInRegion, bounds: Bounds) -> Product:
        return Product("higher", "Higher", region.reference("truth", bounds) + np.float32(30))

    result = evaluate_region(region, "thwaites", 0.0, predict, [make])
    assert result.comparison.scores["higher"]["bias"] == pytest.approx(30, abs=1)
    assert result.maps["box 1"]["higher"]["rmse"] == pytest.approx(30, abs=1e-3)
    assert "Higher" in result.table()


def test_default_region_is_that_of_the_training() -> None:
    assert default_region({"config": {"data": {"regions": ["configs/regions/byrd.yml"]}}}).endswith("byrd.yml")
    assert default_region({}) == "configs/regions/synthetic.yml"


def test_maps_by_hand() -> None:
    grid = Grid.from_bounds((0, 0, 16_000, 16_000), 250)
    truth = grid.dataarray(np.random.default_rng(0).normal(size=grid.shape) * 50, "bed", "m")
    flat = grid.dataarray(np.zeros(grid.shape), "bed", "m")
    products = (Product("bicubic", "B", flat), Product("half", "H", truth * 0.5))
    speed = np.full(grid.shape, 100.0)
    scores = compare_maps(products, truth, speed)
    spread = float(np.sqrt(np.mean(truth.values**2)))
    assert scores["bicubic"]["rmse"] == pytest.approx(spread, rel=1e-12)
    assert scores["half"]["rmse"] == pytest.approx(spread / 2, rel=1e-12)
    assert scores["half"]["skill"] == pytest.approx(0.5, rel=1e-12)
    assert scores["half"]["roughness_ratio"] == pytest.approx(0.5, rel=1e-9)
    assert scores["half"]["psnr"] == pytest.approx(20 * np.log10(np.ptp(truth.values) / (spread / 2)), rel=1e-9)
    assert scores["half"]["spectral_slope"] == pytest.approx(scores["truth"]["spectral_slope"], abs=1e-9)
    assert scores["half"]["rmse_by_speed"]["50-200"] == pytest.approx(spread / 2, rel=1e-12)
    assert np.isnan(scores["half"]["rmse_by_speed"][">500"])


def test_what_is_no_radar_is_not_called_radar(tmp_path: Path) -> None:
    class OwnBed(StandInRegion):
        def transect(self, name: str) -> pd.DataFrame:
            cells = super().transect(name)
            cells.attrs["label"] = "bed of the file, not radar"
            return cells

    result = evaluate_region(OwnBed((-1500e3, -500e3, -1470e3, -480e3)), "thwaites", 10.0, predict)
    table = result.table()
    assert "points of bed of the file, not radar\nNo radar here: that is the reference" in table
    assert "radar picks" not in table and "\nRadar" not in table and "\nBed of the file, not radar" in table
    write(result, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert "radar" not in metrics and metrics["reference"]["count"] > 0
    assert metrics["_about"]["reference"] == "bed of the file, not radar"
    header = (tmp_path / "profile.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"reference", "roughness_reference"} <= set(header) and "radar" not in header
