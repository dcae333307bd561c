"""What a map reads is all that it needs, and inputs that can't be what they say make no map."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from command_line import invoke
from data_files import add_radar, ramp, write_geotiff, write_netcdf
from map_runs import rough_region, tiny_model
from test_bad_input import refused

from deepbedmap_tf.cli import main
from deepbedmap_tf.config import DEFAULT_INPUTS, GeneratorConfig
from deepbedmap_tf.data.cover import FLOATING_ICE, GROUNDED_ICE
from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import variables
from deepbedmap_tf.inference.map_inputs import SQUARE, SQUARES, _squares, map_sources, require_ice
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.pick_index import PickIndex

ABSENT = {"path": "not_there.csv", "format": "xyz", "role": "on_request", "vertical_datum": "ellipsoid:WGS84"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def changed(path: Path, **keys: Any) -> Path:
    """Change keys of a region file, and those of its inputs by `inputs`."""
    content = yaml.safe_load(path.read_text())
    content["inputs"] |= keys.pop("inputs", {})
    path.write_text(yaml.safe_dump({**content, **keys}, sort_keys=False))
    return path


def arguments(model: Path, region: Path, out: Path) -> tuple[Any, ...]:
    which = ("--model", model, "--region", region, "--data-dir", region.parent)
    return (*which, "--workers", 0, "--block", 20, "--out", out)


def test_picks_that_a_map_does_not_tell_of_may_be_absent(model: Path, tmp_path: Path) -> None:
    path = rough_region(tmp_path / "region")
    content = add_radar(path.parent, yaml.safe_load(path.read_text()))
    region = changed(path, picks=[*content["picks"], ABSENT])
    result = invoke(main, "predict", *arguments(model, region, tmp_path / "map.nc"), "--honour-picks", 3000)
    assert result.exit_code == 0, result.stderr
    with xr.open_dataset(tmp_path / "map.nc") as file:
        # Two lines of 160 picks and 40 picks again.
        assert int(file["pick_count"].sum()) == 360 and float(file["distance_to_pick"].min()) == 0
        read = set(json.loads(file.attrs["input_files_sha256"]))
    assert read == {"bed.nc", "surface.tif", "velocity.nc", "accumulation.tif", "radar.csv"}
    # Picks that it does tell of are not left out in silence.
    changed(region, picks=[*content["picks"], {**ABSENT, "role": "score"}])
    message = refused(main, "predict", *arguments(model, region, tmp_path / "other.nc"))
    assert "not_there.csv" in message


def test_a_region_with_no_picks_to_tell_of_has_no_such_variables(model: Path, tmp_path: Path) -> None:
    path = changed(rough_region(tmp_path / "region"), picks=[ABSENT])
    region = load_region(path, path.parent)
    names = {each.name for each in variables(region, MapOptions())}
    assert not names & {"pick_count", "distance_to_pick"} and len(PickIndex.of_region(region)) == 0
    out = tmp_path / "map.nc"
    assert invoke(main, "predict", *arguments(model, path, out)).exit_code == 0
    message = refused(main, "predict", *arguments(model, path, out), "--honour-picks", 3000)
    assert "region planes names no picks of role target or score, which --honour-picks needs" in message


def test_antarctica_needs_nothing_that_is_handed_out_on_request(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = load_region(root / "configs/regions/antarctica.yml")
    placed: list[str] = []

    def resolve(path: str) -> Path:
        placed.append(path)
        file = tmp_path / path.replace("/", "-").replace(":", "-")
        file.write_text(path)
        return file

    monkeypatch.setattr(region, "resolve", resolve)
    sources = map_sources(region, GeneratorConfig())
    on_request = {entry.path for entry in region.settings.picks if entry.role == "on_request"}
    assert len(on_request) == 10 and not on_request & {*sources, *placed}
    assert sum("Shi2010CRESIS" in name for name in sources) == 6
    assert any("Arthern" in name for name in sources)


def test_inputs_that_the_network_does_without_are_not_needed(tmp_path: Path) -> None:
    from tiny_training import TINY

    from deepbedmap_tf.inference.export import export_model
    from deepbedmap_tf.models import build_generator

    config = TINY.model_copy(update={"normalise": True, "output": "residual", "inputs": DEFAULT_INPUTS[:3:2]})
    assert [each.name for each in config.inputs] == ["bed_lowres", "velocity"]
    network = build_generator(config, "float32")
    model = export_model(network, config, tmp_path / "model", {"resolution": 250.0, "halo": 4})
    region = rough_region(tmp_path / "region")
    (region.parent / "accumulation.tif").unlink()
    for blend in (0, 2):
        out = tmp_path / f"{blend}.nc"
        result = invoke(main, "predict", *arguments(model, region, out), "--blend", blend)
        assert result.exit_code == 0, result.stderr
        with xr.open_dataset(out) as file:
            # The surface is shown all the same; a plane passes through resampling unchanged.
            place = Grid.from_bounds(tuple(yaml.safe_load(region.read_text())["bounds"]), 250)
            np.testing.assert_allclose(file["surface"], ramp(place, 900), atol=0.02)
            assert "accumulation.tif" not in file.attrs["input_files_sha256"] and np.isfinite(file["bed"]).all()


def exchanged(folder: Path) -> Path:
    """A region whose low-resolution bed is the surface of its ice, and the other way round."""
    region = rough_region(folder)
    inputs = yaml.safe_load(region.read_text())["inputs"]
    surface = {**inputs["surface"], "resampling": "average"}
    bed = {**inputs["bed_lowres"], "resampling": "bilinear"}
    return changed(region, inputs={"bed_lowres": surface, "surface": bed})


def test_exchanged_inputs_make_no_map(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.nc"
    message = refused(main, "predict", *arguments(model, exchanged(tmp_path / "region"), out))
    assert "region planes: the surface lies below the low-resolution bed in " in message
    below, compared = (int(word) for word in message.split("bed in ")[1].split(" cells")[0].split(" of "))
    assert below == compared >= 1600 and "may be exchanged" in message
    # Nothing was begun.
    assert {path.name for path in tmp_path.iterdir()} == {"region"}


def test_only_grounded_ice_is_compared(tmp_path: Path) -> None:
    path = exchanged(tmp_path / "region")
    grid = Grid.from_bounds(tuple(yaml.safe_load(path.read_text())["bounds"]), 250)
    cover = np.full(grid.shape, FLOATING_ICE, np.int8)
    write_netcdf(path.parent / "mask.nc", grid, mask=cover)
    region = load_region(changed(path, mask={"path": "mask.nc", "variable": "mask"}), path.parent)
    require_ice(region, region.coarse_grid)
    # A strip of 2 x 40 low-resolution cells, and a cell of another that the mask cuts through.
    cover[:, :8] = GROUNDED_ICE
    cover[:, 8:11] = GROUNDED_ICE
    write_netcdf(path.parent / "mask.nc", grid, mask=cover)
    region = load_region(path, path.parent)
    with pytest.raises(DataError, match=r"in (80|128) of \1 cells of grounded ice"):
        require_ice(region, region.coarse_grid)


def test_some_cells_below_the_bed_are_no_reason(tmp_path: Path) -> None:
    path = rough_region(tmp_path / "region")
    wide = Grid.from_bounds(tuple(yaml.safe_load(path.read_text())["bounds"]), 1000).pad(2).refine(10)
    for share, fine in ((0.4, True), (0.6, False)):
        surface = ramp(wide, 900)
        surface[: round(share * wide.shape[0])] -= 3000
        write_geotiff(path.parent / "surface.tif", wide, surface)
        region = load_region(path, path.parent)
        if fine:
            require_ice(region, region.coarse_grid)
        else:
            with pytest.raises(DataError, match="surface lies below"):
                require_ice(region, region.coarse_grid)
        # Too few cells to tell: a peak of rock.
        xmin, _, _, ymax = region.bounds
        require_ice(region, region.coarse_grid.window((xmin, ymax - 7000, xmin + 7000, ymax)))


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (160, 159), (4500, 5500)])
def test_work_is_bounded_and_small_maps_are_covered(shape: tuple[int, int]) -> None:
    window = Grid.from_bounds((0, 0, shape[1] * 1000, shape[0] * 1000), 1000)
    squares = _squares(window)
    assert len(squares) <= SQUARES**2 and all(max(each.shape) <= SQUARE for each in squares)
    seen = np.zeros(shape, bool)
    for each in squares:
        left, bottom, right, top = each.bounds
        row, column = round((window.bounds[3] - top) / 1000), round(left / 1000)
        assert bottom >= 0 and right <= window.bounds[2]
        seen[row : row + each.shape[0], column : column + each.shape[1]] = True
    assert seen.all() or max(shape) > SQUARE * SQUARES
    # In the corners at least.
    assert seen[0, 0] and seen[-1, -1]


@pytest.mark.parametrize("name", ["byrd", "pine_island_500m", "thwaites_1500m"])
def test_real_regions_pass(root: Path, shared: Callable[[str], Path], name: str) -> None:
    folder = shared("data/byrd").parent
    region = load_region(root / f"configs/regions/{name}.yml", folder)
    require_ice(region, region.coarse_grid)
