"""What is done to a prediction block by block comes out as if it were done at once: picks, means, realisations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from command_line import invoke
from data_files import add_radar
from map_runs import rough_region, tiny_model

from deepbedmap_tf.cli import main
from deepbedmap_tf.data.region import load_region

CALIBRATION = {
    "floor": 8.0, "spread": 1.0, "relief": 0.1, "range": 3000.0, "factor_50": 0.67, "factor_90": 1.64, "symmetries": 2,
    "region": "planes", "cells": 400, "resolution": 250.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A region with two flight lines 7 m above its planes, and a calibrated model."""
    folder = tmp_path_factory.mktemp("finishing")
    region = rough_region(folder / "region")
    content = add_radar(region.parent, yaml.safe_load(region.read_text()))
    region.write_text(yaml.safe_dump(content, sort_keys=False))
    return region, tiny_model(folder / "model", halo=8, uncertainty={"planes": CALIBRATION})


def made(place: tuple[Path, Path], out: Path, *more: Any) -> xr.Dataset:
    region, model = place
    which = ("--model", model, "--region", region, "--data-dir", region.parent, "--workers", 0, "--out", out)
    result = invoke(main, "predict", *which, *more)
    assert result.exit_code == 0, result.stderr
    with xr.open_dataset(out) as file:
        return file.load()


def test_picks_are_met_and_blocks_leave_no_trace_in_it(place: tuple[Path, Path], tmp_path: Path) -> None:
    plain = made(place, tmp_path / "plain.nc", "--block", 40)
    whole = made(place, tmp_path / "whole.nc", "--block", 40, "--honour-picks", 2000)
    blocks = made(place, tmp_path / "blocks.nc", "--block", 12, "--honour-picks", 2000, "--blend", 2)
    measured = plain["pick_count"].to_numpy() > 0
    x, y = np.meshgrid(plain.x, plain.y)
    target = 0.011 * x - 0.007 * y - 500 + 7
    before, after = (np.abs(file["bed"].to_numpy() - target)[measured] for file in (plain, whole))
    assert measured.sum() == 320 and np.median(before) > 15 and np.median(after) < 5
    np.testing.assert_allclose(blocks["bed"], whole["bed"], atol=0.5)
    assert (np.asarray(whole["source"])[measured] == np.asarray(blocks["source"])[measured]).all()


def test_means_are_those_of_the_low_resolution_bed(place: tuple[Path, Path], tmp_path: Path) -> None:
    plain = made(place, tmp_path / "plain.nc", "--block", 12)
    exact = made(place, tmp_path / "exact.nc", "--block", 12, "--consistent")
    assert np.abs(plain["coarse_residual"]).max() > 1
    np.testing.assert_allclose(exact["coarse_residual"], 0, atol=2e-3)
    lowres = load_region(place[0], place[0].parent).inputs()["bed_lowres"].to_numpy()[1:-1, 1:-1]
    means = exact["bed"].to_numpy().astype(np.float64).reshape(40, 4, 40, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(means, lowres, atol=2e-3)


@pytest.mark.parametrize("more", [(), ("--honour-picks", 2000)])
def test_realisations_do_not_depend_on_blocks(place: tuple[Path, Path], tmp_path: Path, more: tuple[Any, ...]) -> None:
    drawn = ("--realisations", 3, "--seed", 5, *more)
    whole = made(place, tmp_path / "whole.nc", "--block", 40, *drawn)
    blocks = made(place, tmp_path / "blocks.nc", "--block", 20, *drawn)
    assert whole["bed_realization"].shape == (3, 160, 160)
    np.testing.assert_allclose(blocks["bed_uncertainty"], whole["bed_uncertainty"], atol=0.5)
    np.testing.assert_allclose(blocks["bed_realization"], whole["bed_realization"], atol=2)
    deviation = (whole["bed_realization"] - whole["bed"]) / whole["bed_uncertainty"]
    assert 0.8 < float(deviation.std()) < 1.2
    other = made(place, tmp_path / "other.nc", "--block", 40, *drawn, "--seed", 6)
    assert float(np.abs(other["bed_realization"] - whole["bed_realization"]).median()) > 3
