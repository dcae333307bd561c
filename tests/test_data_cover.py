"""What covers the bed: flags read, flags made of other fields, and what no file tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_files import region_content, write_netcdf, write_region
from map_files import make_region

from deepbedmap_tf.data.cover import UNKNOWN
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.grid import Grid


def test_flags_come_from_the_nearest_cell_and_are_never_mixed(tmp_path: Path) -> None:
    content = region_content(tmp_path, cells=8)
    half = Grid.from_bounds(content["bounds"], 500).pad(2)
    flags = np.random.default_rng(0).integers(0, 5, half.shape).astype(np.int8)
    write_netcdf(tmp_path / "cover.nc", half, mask=flags)
    content["mask"] = {"path": "cover.nc", "variable": "mask"}
    mask = load_region(write_region(tmp_path, content), tmp_path).mask()
    assert mask.dtype == np.int8
    np.testing.assert_array_equal(mask, flags[2:-2, 2:-2].repeat(2, axis=0).repeat(2, axis=1))


def test_the_first_layer_that_knows_a_cell_counts(tmp_path: Path) -> None:
    content = region_content(tmp_path, cells=8)
    grid = Grid.from_bounds(content["bounds"], 250)
    level = np.full(grid.shape, np.nan, np.float32)
    level[:, :10], level[:, 10:20], level[0, 0] = -3, 0, 7.5
    ocean = np.zeros(grid.shape, np.float32)
    ocean[:, 15:25] = 1
    write_netcdf(tmp_path / "cover.nc", grid, level=level, ocean=ocean)
    content["mask"] = [
        {"path": "cover.nc", "variable": "level", "flags": [{"flag": 3, "high": 0}, {"flag": 2, "low": 0, "high": 5}]},
        {"path": "cover.nc", "variable": "ocean", "flags": [{"flag": 0, "low": 1, "high": 2}]},
    ]
    region = load_region(write_region(tmp_path, content), tmp_path)
    expected = np.full(grid.shape, UNKNOWN)
    expected[:, 15:25] = 0
    expected[:, :10], expected[:, 10:20] = 3, 2
    expected[0, 0] = UNKNOWN
    np.testing.assert_array_equal(region.mask(), expected)
    assert "cover.nc" not in region.input_sources


def test_beyond_the_file_nothing_is_known(tmp_path: Path) -> None:
    content = region_content(tmp_path, cells=32)
    xmin, ymin, _, _ = content["bounds"]
    small = Grid.from_bounds((xmin, ymin, xmin + 8000, ymin + 8000), 250)
    write_netcdf(tmp_path / "cover.nc", small, mask=np.full(small.shape, 2, np.int8))
    content["mask"] = {"path": "cover.nc", "variable": "mask"}
    region = load_region(write_region(tmp_path, content), tmp_path)
    mask = region.mask().to_numpy()
    assert (mask[-32:, :32] == 2).all() and (mask == 2).sum() == 32 * 32
    far = region.mask((xmin + 16000, ymin + 16000, xmin + 20000, ymin + 20000))
    assert (far == UNKNOWN).all()


def test_a_region_may_have_neither(tmp_path: Path) -> None:
    region = make_region(tmp_path, mask=None, geoids=None)
    assert region.geoid_name is None
    with pytest.raises(ConfigError, match="region planes has no mask; name one"):
        region.mask()
    with pytest.raises(ConfigError, match="region planes has no geoid layer; name one"):
        region.geoid()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": {"path": "cover.nc", "flags": [{"flag": 7}]}}, "less than or equal to 4"),
        ({"mask": {"path": "cover.nc", "resampling": "average"}}, "'nearest'"),
        ({"geoid": "geoid:EIGEN-GL04C"}, "is none of `geoids`: geoid:EIGEN-6C4"),
    ],
)
def test_what_a_region_file_cannot_say(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_region(tmp_path, **change)


def test_masks_of_the_sample_data(root: Path, shared: Callable[[str], Path]) -> None:
    folder = shared("data/thwaites").parent
    thwaites = load_region(root / "configs/regions/thwaites_1500m.yml", folder)
    values, counts = np.unique(thwaites.mask(), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {-1: 13709, 0: 7460, 2: 48493, 3: 3922}
    pine_island = load_region(root / "configs/regions/pine_island_500m.yml", folder)
    mask = pine_island.mask().to_numpy()
    assert ((mask == 2).sum(), (mask == 3).sum()) == (43051, 295)
    # Known exactly where the target is.
    np.testing.assert_array_equal(mask != UNKNOWN, np.isfinite(pine_island.target()))
