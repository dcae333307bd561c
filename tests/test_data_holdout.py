"""Areas of a region file that are never trained or validated on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from data_files import region_content, write_region

from deepbedmap_tf.data.gridding import cells_of
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import ConfigError


@pytest.fixture
def content(tmp_path):
    return region_content(tmp_path, cells=12)


def load(tmp_path, content):
    return load_region(write_region(tmp_path, content), data_dir=tmp_path)


def test_areas_held_out_are_known_by_name(tmp_path, content):
    xmin, ymin, xmax, ymax = content["bounds"]
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(xmin + 125, xmax, 250), np.arange(ymin + 125, ymax, 500)))
    points = pd.DataFrame({"x": x, "y": y, "z": 0.001 * x})
    points.to_csv(tmp_path / "lines.csv", index=False)
    content["picks"] = [{"path": "lines.csv", "format": "xyz", "vertical_datum": "ellipsoid:WGS84", "role": "score"}]
    box, ring = [xmin, ymin, xmin + 2000, ymin + 1000], [[xmax, ymax], [xmin, ymax], [xmax, ymin]]
    content["holdout"] = {"test": {"trunk": box}, "polygons": {"corner": ring}}
    content["transects"] = {
        name: {"picks": "lines", "within": name, "order": "principal"} for name in ("trunk", "corner", "holdout")
    }
    region = load(tmp_path, content)
    assert region.held_out_names == ("trunk", "corner") and region.holdout == (tuple(box),)
    trunk, corner = region.held_out_area("trunk"), region.held_out_area("corner")
    assert trunk.sum() == 8 * 4 and trunk[-4:, :8].all() and not (trunk & corner).any()
    np.testing.assert_array_equal(trunk | corner, region.held_out)
    row, column = cells_of(points, region.grid)
    for name in ("trunk", "corner", "holdout"):
        expected = points.loc[region.held_out_area(name)[row, column]]
        assert 0 < len(expected) < len(points)
        assert set(zip(*region.transect(name)[["x", "y"]].to_numpy().T, strict=True)) == set(
            zip(expected["x"], expected["y"], strict=True)
        )
    with pytest.raises(
        ConfigError, match="no area 'lake' under `holdout` of the region file; known are: trunk, corner"
    ):
        region.held_out_area("lake")
    # A list of boxes has numbers for names.
    content["holdout"] = {"test": [box]}
    content["transects"] = {"first": {"picks": "lines", "within": "box 1"}}
    assert len(load(tmp_path, content).transect("first")) == trunk[row, column].sum()


@pytest.mark.parametrize(
    ("holdout", "words"),
    [
        ({"test": {"a": [0, 0, -1, 1]}}, r"holdout box .* is empty"),
        ({"test": [[5e5, 5e5, 6e5, 6e5]]}, r"holdout area 'box 1' lies within .*, outside bounds .*x and y exchanged"),
        ({"polygons": {"a": [[5e5, 5e5], [6e5, 5e5], [5e5, 6e5]]}}, "holdout area 'a' lies within .*, outside bounds"),
        ({"test": {"holdout": "bounds"}}, "'holdout' is a name given twice"),
        ({"test": {"a": "bounds"}, "polygons": {"a": [[0, 0], [1, 0], [0, 1]]}}, "'a' is a name given twice"),
    ],
)
def test_areas_that_hold_out_nothing_are_refused_by_name(tmp_path, content, holdout, words):
    if isinstance(holdout.get("test"), dict):
        holdout["test"] = {k: content["bounds"] if v == "bounds" else v for k, v in holdout["test"].items()}
    content["holdout"] = holdout
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, content)
    content["holdout"] = {"test": {"trunk": content["bounds"]}}
    content["transects"] = {"t": {"picks": "x", "within": "trank"}}
    with pytest.raises(ConfigError, match="transect 't' is within 'trank'; areas are: holdout, trunk"):
        load(tmp_path, content)
