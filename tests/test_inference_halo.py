"""The halo of a network whose reach is known is found exactly, on any window, and kept in model.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import region_content, write_region
from scipy.ndimage import uniform_filter

from deepbedmap_tf.config import GeneratorConfig
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import DataError, ModelError
from deepbedmap_tf.inference.halo import halo_for, measure_halo, measure_region_halo, update_metadata


class OfReach:
    """Averages the low-resolution bed over some cells around each, zeros beyond the window."""

    def __init__(self, reach: int, normalise: bool = True) -> None:
        self.config = GeneratorConfig(normalise=normalise)
        self.reach = reach

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        bed = inputs["bed_lowres"][:, 1:-1, 1:-1]
        mean = uniform_filter(bed, (1, 2 * self.reach + 1, 2 * self.reach + 1, 1), mode="constant")
        return mean.repeat(4, axis=1).repeat(4, axis=2)


def window(cells: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = {
        each.name: (1, cells * each.ratio, cells * each.ratio, each.channels) for each in GeneratorConfig().inputs
    }
    return {name: generator.normal(500, 100, shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("reach", [0, 1, 3, 7, 9, 14])
def test_halo_is_the_reach_of_the_network(reach: int) -> None:
    found = measure_halo(OfReach(reach), window(62))
    assert found["halo"] == reach
    changes = dict(found["halo_changes"])
    # The mean loses a row of cells of some 500 m out of 2 reach + 1: far above the tolerance up to the last cell.
    assert all(change > 5 for halo, change in changes.items() if halo < reach)
    assert all(change < 1e-9 for halo, change in changes.items() if halo >= reach)


def test_tolerance_decides() -> None:
    inputs = window(62)
    changes = dict(measure_halo(OfReach(7), inputs, candidates=range(12))["halo_changes"])
    looser = measure_halo(OfReach(7), inputs, tolerance=(changes[4] + changes[5]) / 2, candidates=range(12))
    assert changes[4] > changes[5] > changes[6] > 0
    assert looser["halo"] == 5


def test_a_reach_beyond_the_window_is_told() -> None:
    found = measure_halo(OfReach(25), window(46))
    assert found["halo"] == found["halo_reference"] == 20


def test_small_windows_are_refused() -> None:
    with pytest.raises(DataError, match="too small"):
        measure_halo(OfReach(1), window(8))


def test_over_a_region(tmp_path: Path) -> None:
    content = region_content(tmp_path, cells=40)
    bed = {"path": "bed.nc", "variable": "bed", "vertical_datum": "ellipsoid:WGS84", "resampling": "average"}
    rough = {**content, "inputs": {**content["inputs"], "bed_lowres": bed}}
    region = load_region(write_region(tmp_path, rough), tmp_path)
    found = measure_region_halo(OfReach(6), region, tolerance=1e-3)
    assert found["halo"] == 6
    assert found["halo_region"] == region.name


def test_a_region_may_need_more_than_where_the_model_was_trained() -> None:
    metadata = {"halo": 22, "halo_by_region": {"home": 22, "away": 34}}
    assert halo_for(metadata, "away") == 34
    assert halo_for(metadata, "elsewhere") == halo_for(metadata, "home") == 22
    assert halo_for({}, "home") is None


def test_metadata_keep_what_they_had(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "halo": 3, "name": "x"}))
    update_metadata(tmp_path, {"halo": 5})
    assert json.loads((tmp_path / "model.json").read_text()) == {"format": 1, "halo": 5, "name": "x"}
    with pytest.raises(ModelError, match=r"model\.json"):
        update_metadata(tmp_path / "none", {"halo": 5})
