"""``deepbedmap halo`` and ``deepbedmap calibrate`` as a user runs them: what they print, keep, and refuse."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from command_line import invoke
from map_runs import end, rough_region, start, tiny_model, wait_for_steps
from test_bad_input import refused

from deepbedmap_tf.cli import main
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.inference.export import load_model
from deepbedmap_tf.inference.halo import update_metadata
from deepbedmap_tf.inference.predict import predict_window

OFFSET, NOISE = 6.0, 25.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model", training_data={"stores": [{"region": "elsewhere"}]})


def surveyed(folder: Path, model: Path, **keys: Any) -> Path:
    """A region with picks on every third row that differ from the model's own bed by noise of known size."""
    path = rough_region(folder)
    region = load_region(path, folder)
    bed = predict_window(load_model(model), region)
    rows = np.arange(1, region.grid.shape[0], 3)
    x, y = np.meshgrid(region.grid.x, region.grid.y[rows])
    z = bed.to_numpy()[rows] + OFFSET + np.random.default_rng(5).normal(0, NOISE, x.shape)
    table = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "z": z.ravel()})
    table.to_csv(folder / "radar.csv", index=False)
    picks = [
        {"path": "radar.csv", "format": "xyz", "role": "score", "vertical_datum": "ellipsoid:WGS84"},
        {"path": "none.csv", "format": "xyz", "role": "on_request", "vertical_datum": "ellipsoid:WGS84"},
    ]
    content = {**yaml.safe_load(path.read_text()), "picks": picks, **keys}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def arguments(command: str, model: Path, region: Path, *more: Any) -> tuple[Any, ...]:
    return (command, "--model", model, "--region", region, "--data-dir", region.parent, *more)


def metadata(model: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((model / "model.json").read_text())
    return content


def weights(model: Path) -> dict[str, str]:
    files = (path for path in model.rglob("*") if path.is_file() and path.name != "model.json")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_halo_is_measured_kept_and_used(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    before, hashes = metadata(model), weights(model)
    result = invoke(main, *arguments("halo", model, region, "--tolerance", 0.5))
    assert result.exit_code == 0, result.stderr
    after = metadata(model)
    found = after["halo_by_region"]["planes"]
    assert f"{model}: a halo of {found} low-resolution cells for 0.5 m on planes" in result.stdout
    table = {int(row[0]): float(row[1]) for row in re.findall(r"^ +(\d+)  (\S+)$", result.stdout, re.MULTILINE)}
    # The least halo from which on the bed holds.
    assert 0 < found < 18 and table[found - 1] > 0.5
    assert all(change <= 0.5 for halo, change in table.items() if halo >= found) and max(table) > found
    assert weights(model) == hashes
    assert {**after, **{key: before.get(key) for key in after}} == {**dict.fromkeys(after), **before}
    # A map of the region takes it, and its blocks agree with the whole within what was asked for.
    out = tmp_path / "map.nc"
    cut = ("--workers", 0, "--block", 10, "--out", out)
    assert invoke(main, *arguments("predict", model, region, *cut)).exit_code == 0
    whole = predict_window(load_model(model), load_region(region, region.parent))
    with xr.open_dataset(out) as file:
        assert file.attrs["halo"] == found
        difference = np.abs(file["bed"].to_numpy() - whole.to_numpy()).max()
    # The halo is measured on windows, of which the blocks of a map are others.
    assert difference < 2.5


def test_calibrate_finds_a_known_error_and_realisations_take_it(model: Path, tmp_path: Path) -> None:
    region = surveyed(tmp_path / "region", model)
    out = tmp_path / "map.nc"
    want = ("--workers", 0, "--realisations", 4, "--out", out)
    message = refused(main, *arguments("predict", model, region, *want))
    assert "no calibrated uncertainty" in message and "deepbedmap calibrate" in message
    assert not list(tmp_path.glob("map*"))
    hashes = weights(model)
    result = invoke(main, *arguments("calibrate", model, region))
    assert result.exit_code == 0, result.stderr
    stored = metadata(model)["uncertainty"]["planes"]
    said = re.search(r"error of ([\d.]+) m, ([\d.]+) x spread and ([\d.]+) x relief", result.stdout)
    assert said is not None and float(said[1]) == pytest.approx(stored["floor"], abs=0.06)
    assert stored["cells"] == 53 * 160 and f"from {stored['cells']} cells with picks" in result.stdout
    # Squares that were not fitted are covered as they should be, whatever share each term has of the error.
    assert stored["coverage_50"] == pytest.approx(0.5, abs=0.05)
    assert stored["coverage_90"] == pytest.approx(0.9, abs=0.03)
    assert f"hold {100 * stored['coverage_50']:.1f} and {100 * stored['coverage_90']:.1f} %" in result.stdout
    assert weights(model) == hashes
    result = invoke(main, *arguments("predict", model, region, *want))
    assert result.exit_code == 0, result.stderr
    picks = pd.read_csv(region.parent / "radar.csv")
    with xr.open_dataset(out) as file:
        assert file["bed_realization"].sizes["realization"] == 4
        assert json.loads(file.attrs["uncertainty"]) == stored
        place = {"x": xr.DataArray(picks["x"]), "y": xr.DataArray(picks["y"])}
        error = picks["z"].to_numpy() - file["bed"].sel(place).to_numpy()
        sigma = file["bed_uncertainty"].sel(place).to_numpy()
    # What it says of the bed's error, with the picks' own 10 m, is what the picks have.
    assert np.sqrt(np.mean(sigma**2 + 10**2)) == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.1)


def test_a_symmetric_model_has_no_spread_to_fit(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", symmetric=True, training_data={"stores": [{"region": "elsewhere"}]})
    result = invoke(main, *arguments("calibrate", model, surveyed(tmp_path / "region", model)))
    assert result.exit_code == 0, result.stderr
    stored = metadata(model)["uncertainty"]["planes"]
    assert stored["symmetries"] == 1 and stored["spread"] == 0
    assert stored["coverage_90"] == pytest.approx(0.9, abs=0.03)


def test_what_can_not_be_measured_is_one_line(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    before = (model / "model.json").read_bytes()
    message = refused(main, *arguments("calibrate", model, region))
    assert "0 cells with picks in region planes are free of training and testing; expected at least 200" in message
    small = rough_region(tmp_path / "small", cells=8)
    assert "too small to measure a halo" in refused(main, *arguments("halo", model, small))
    assert "none.yml" in refused(main, *arguments("halo", model, tmp_path / "none.yml"))
    assert "holds no model" in refused(main, *arguments("calibrate", tmp_path / "none", region))
    assert (model / "model.json").read_bytes() == before


def test_a_model_calibrated_anew_makes_another_map(tmp_path: Path) -> None:
    known = {"floor": 8.0, "spread": 1.0, "relief": 0.1, "range": 3000.0, "factor_50": 0.67, "factor_90": 1.64}
    known |= {"symmetries": 2, "region": "planes", "cells": 400, "resolution": 250.0}
    model = tiny_model(tmp_path / "model", uncertainty={"planes": known})
    region = rough_region(tmp_path / "region")
    out = tmp_path / "map.nc"
    which = arguments("predict", model, region, "--workers", 0, "--block", 4, "--realisations", 2, "--out", out)
    process = start(*which[1:])
    wait_for_steps(process, tmp_path / "map.nc.partial", 3)
    end(process)
    update_metadata(model, {"uncertainty": {"planes": {**known, "floor": 80.0}}})
    message = refused(main, *which)
    assert "uncertainty.floor 8.0, now 80.0" in message and "--restart" in message
