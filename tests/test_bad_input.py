"""Whatever is wrong with the input, a command says so in one line, ends with 2 and leaves nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from command_line import ROOT, TINY_CONFIG, invoke, run, script, write_yaml
from data_files import ramp, region_content, write_geotiff, write_netcdf, write_region

from deepbedmap_tf.cli import main
from deepbedmap_tf.grid import Grid

Content = dict[str, Any]
Fault = Callable[[Path, Content], None]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db")
    monkeypatch.chdir(ROOT)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    """Region file of 26 km with picks on lines 250 m apart; every field is a plane."""
    content = region_content(tmp_path, cells=26)
    xmin, ymin, xmax, ymax = content["bounds"]
    x, y = np.meshgrid(np.arange(xmin + 125, xmax, 250), np.arange(ymin + 125, ymax, 500))
    table = pd.DataFrame({"x": x.ravel(), "y": y.ravel(), "z": 0.001 * x.ravel() - 300})
    table.to_csv(tmp_path / "picks.csv", index=False)
    content["picks"] = [{"path": "picks.csv", "format": "xyz", "vertical_datum": "ellipsoid:WGS84"}]
    content["transects"] = {"line": {"picks": "picks", "bounds": [xmin + 2000, ymin + 6000, xmax - 2000, ymin + 6400]}}
    content["target"] = {"kind": "picks"}
    return content


def listing(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refused(command: click.Command, *arguments: Any) -> str:
    """Run a command that must fail as a user's mistake does; returns the line it says."""
    result = invoke(command, *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return one_line(result.exit_code, result.stderr)


def one_line(exit_code: int, stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert exit_code == 2, stderr
    assert "Traceback" not in stderr, stderr
    assert len(lines) == 1 and stderr.rstrip().splitlines()[-1] == lines[0], stderr
    assert len(lines[0]) < 700, lines[0]
    return lines[0].removeprefix("error: ")


def prepare(folder: Path, content: Content, *more: Any) -> tuple[Any, ...]:
    config = write_yaml(folder / "tiny.yml", TINY_CONFIG)
    region = write_region(folder, content)
    return (
        "prepare",
        "--region",
        region,
        "--out",
        folder / "tiles.zarr",
        "--config",
        config,
        "--data-dir",
        folder,
        *more,
    )


def refused_prepare(folder: Path, content: Content, *more: Any) -> str:
    arguments = prepare(folder, content, *more)
    before = listing(folder)
    message = refused(main, *arguments)
    assert listing(folder) == before
    return message


def truncate(path: Path, share: float = 0.6) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def test_the_region_these_tests_damage_is_sound(tmp_path: Path, content: Content) -> None:
    result = invoke(main, *prepare(tmp_path, content))
    assert result.exit_code == 0, result.stderr
    assert "leak fraction 0.0" in result.stdout and (tmp_path / "tiles.zarr/zarr.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "training.epoch=3"], "unknown key 'training.epoch'; known here: .*epochs"),
        (["--set", "training.epochs=many"], "'training.epochs' is 'many'"),
        (["--set", "epochs"], "expected key.sub=value"),
        (["--config", "configs/none.yml"], "cannot read configs/none.yml: No such file"),
        (["--config", "tests/conftest.py"], "not valid YAML|expected a mapping"),
        (["--region", "configs/regions/none.yml"], "cannot read configs/regions/none.yml: No such file"),
        (["--region", "configs"], "cannot read configs: Is a directory"),
        (["--data-dir", "no/such/folder"], "--data-dir no/such/folder is no folder"),
        (["--data-dir", "README.md"], "--data-dir README.md is no folder"),
    ],
)
def test_settings_and_paths(tmp_path: Path, content: Content, arguments: list[str], message: str) -> None:
    said = refused_prepare(tmp_path, content, *arguments)
    assert re.search(message, said), said


def test_unreadable_region_file(tmp_path: Path, content: Content) -> None:
    (tmp_path / "binary.yml").write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    assert "binary.yml" in refused_prepare(tmp_path, content, "--region", tmp_path / "binary.yml")


def other_crs(folder: Path, content: Content) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    write_geotiff(folder / "bed_1km.tif", grid, ramp(grid), crs="EPSG:3413")


def other_crs_netcdf(folder: Path, content: Content) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 500).pad(2)
    write_netcdf(folder / "velocity.nc", grid, crs="EPSG:3413", VX=ramp(grid), VY=ramp(grid))


def no_crs(folder: Path, content: Content) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 500).pad(2)
    write_netcdf(folder / "velocity.nc", grid, crs=None, VX=ramp(grid), VY=ramp(grid))


def mixed_datum(folder: Path, content: Content) -> None:
    content["inputs"]["bed_lowres"]["vertical_datum"] = "geoid:EIGEN-GL04C"


def mixed_datum_of_picks(folder: Path, content: Content) -> None:
    content["picks"][0]["vertical_datum"] = "geoid:EIGEN-6C4"


def no_datum(folder: Path, content: Content) -> None:
    del content["inputs"]["surface"]["vertical_datum"]


def unknown_datum(folder: Path, content: Content) -> None:
    content["inputs"]["surface"]["vertical_datum"] = "sea level"


def unknown_fill(folder: Path, content: Content) -> None:
    content["inputs"]["surface"]["fill"] = "mean"


def missing_column(folder: Path, content: Content) -> None:
    pd.read_csv(folder / "picks.csv").drop(columns="z").assign(depth=1.0).to_csv(folder / "picks.csv", index=False)


def only_fill_values(folder: Path, content: Content) -> None:
    pd.read_csv(folder / "picks.csv").assign(z=-9999.0).to_csv(folder / "picks.csv", index=False)


def text_for_a_number(folder: Path, content: Content) -> None:
    with (folder / "picks.csv").open("a") as stream:
        stream.write("-1595000.0,-590000.0,deep\n")


def cut_picks(folder: Path, content: Content) -> None:
    text = (folder / "picks.csv").read_text()
    (folder / "picks.csv").write_text(text[: text.rindex(",")])


def empty_picks(folder: Path, content: Content) -> None:
    (folder / "picks.csv").write_text("")


def picks_elsewhere(folder: Path, content: Content) -> None:
    pd.DataFrame({"x": [0.0], "y": [0.0], "z": [0.0]}).to_csv(folder / "picks.csv", index=False)


def all_nan(folder: Path, content: Content) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    write_geotiff(folder / "accumulation.tif", grid, np.full(grid.shape, np.nan, np.float32))


def too_small(folder: Path, content: Content) -> None:
    xmin, ymin, *_ = content["bounds"]
    content["bounds"] = [xmin, ymin, xmin + 8000, ymin + 8000]
    content["transects"] = {}


def gone(name: str) -> Fault:
    return lambda folder, content: (folder / name).unlink()


def cut(name: str) -> Fault:
    return lambda folder, content: truncate(folder / name)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (gone("bed_1km.tif"), ("bed_1km.tif", "No such file", "check the path")),
        (gone("velocity.nc"), ("velocity.nc", "No such file", "check the path")),
        (gone("picks.csv"), ("picks.csv", "No such file", "check the path")),
        (cut("surface.tif"), ("surface.tif", "damaged or cut off")),
        (cut("velocity.nc"), ("velocity.nc", "damaged or cut off")),
        (cut_picks, ("picks.csv", "cut off")),
        (empty_picks, ("picks.csv", "damaged")),
        (other_crs, ("bed_1km.tif", "EPSG:3413", "expected EPSG:3031", "gdalwarp")),
        (other_crs_netcdf, ("velocity.nc", "EPSG:3413", "expected EPSG:3031")),
        (no_crs, ("velocity.nc", "does not say its CRS", "declare `crs`")),
        (mixed_datum, ("bed_lowres", "geoid:EIGEN-GL04C", "geoid layer")),
        (mixed_datum_of_picks, ("picks", "geoid:EIGEN-6C4", "geoid layer")),
        (no_datum, ("surface", "no vertical_datum", "state it")),
        (unknown_datum, ("sea level", "ellipsoid:WGS84")),
        (unknown_fill, ("inputs.surface.fill", "'mean'", "'nearest'")),
        (missing_column, ("picks.csv", "no column z", "expected x, y, z")),
        (only_fill_values, ("picks.csv", "none of", "check the file")),
        (text_for_a_number, ("picks.csv, line", "'deep'", "expected a number")),
        (picks_elsewhere, ("picks.csv", "lies in region planes", "check its bounds")),
        (all_nan, ("'accumulation' has no valid cell", "expected data there")),
        (too_small, ("no complete window of 36 x 36", "tile_size")),
    ],
)
def test_data_of_a_region(tmp_path: Path, content: Content, fault: Fault, words: tuple[str, ...]) -> None:
    fault(tmp_path, content)
    message = refused_prepare(tmp_path, content)
    assert all(word in message for word in words), message


def test_some_fill_values_are_left_out_and_said(tmp_path: Path, content: Content) -> None:
    picks = pd.read_csv(tmp_path / "picks.csv")
    picks.loc[::10, "z"] = -9999.0
    picks.to_csv(tmp_path / "picks.csv", index=False)
    result = run("deepbedmap", *prepare(tmp_path, content), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"picks.csv: {len(picks[::10])} of {len(picks)} rows hold fill values and are left out" in result.stderr
    from deepbedmap_tf.data.tiles import open_tiles

    assert open_tiles(tmp_path / "tiles.zarr").bed.min() > -3000


@pytest.mark.parametrize("kind", ["folder", "file", "store", "below a file"])
def test_tiles_onto_something_else(tmp_path: Path, content: Content, kind: str) -> None:
    out = tmp_path / "mine"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    elif kind == "store":
        import zarr

        zarr.open_group(out, mode="w").attrs["thesis"] = "years of work"
    else:
        out.write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    target = out / "tiles.zarr" if kind == "below a file" else out
    message = refused_prepare(tmp_path, content, "--out", target)
    assert str(target) in message and ("another" in message), message
    assert all(path.read_bytes() == data for path, data in before.items())


def test_traceback_with_debug_only(tmp_path: Path, content: Content) -> None:
    gone("surface.tif")(tmp_path, content)
    arguments = prepare(tmp_path, content)
    plain, debug = (run("deepbedmap", *arguments, *more, folder=tmp_path) for more in ((), ("--debug",)))
    message = one_line(plain.returncode, plain.stderr)
    assert plain.stdout == "" and "surface.tif" in message
    assert debug.returncode == 2
    assert "Traceback (most recent call last)" in debug.stderr and "region.py" in debug.stderr
    assert debug.stderr.rstrip().splitlines()[-1] == f"error: {message}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model that has learned nothing."""
    return exported(tmp_path_factory.mktemp("models") / "tiny")


def exported(folder: Path, **changes: Any) -> Path:
    from deepbedmap_tf.config import GeneratorConfig
    from deepbedmap_tf.inference.export import export_model
    from deepbedmap_tf.models import build_generator

    config = GeneratorConfig.model_validate(TINY_CONFIG["generator"] | changes)
    return export_model(build_generator(config, "float32"), config, folder, {"name": folder.name, "synthetic": False})


def evaluation(folder: Path, content: Content, model: Path, *more: Any) -> tuple[Any, ...]:
    region = write_region(folder, content)
    out = folder / "out"
    return ("--transect", "line", "--model", model, "--region", region, "--data-dir", folder, "--out", out, *more)


def refused_evaluation(folder: Path, content: Content, model: Path, *more: Any) -> str:
    arguments = evaluation(folder, content, model, "--no-figures", *more)
    before = listing(folder)
    message = refused(script("evaluate"), *arguments)
    assert listing(folder) == before
    return message


def test_the_model_these_tests_damage_is_sound(tmp_path: Path, content: Content, model: Path) -> None:
    result = invoke(script("evaluate"), *evaluation(tmp_path, content, model, "--no-figures"))
    assert result.exit_code == 0, result.stderr
    assert "DeepBedMap" in result.stdout and (tmp_path / "out/metrics.json").exists()


def all_nan_bed(folder: Path, content: Content) -> None:
    grid = Grid.from_bounds(tuple(content["bounds"]), 1000).pad(2)
    write_geotiff(folder / "bed_1km.tif", grid, np.full(grid.shape, np.nan, np.float32))


def picks_leave_the_transect(folder: Path, content: Content) -> None:
    content["transects"]["line"]["bounds"] = [0, 0, 1000, 1000]


@pytest.mark.parametrize(
    ("fault", "more", "words"),
    [
        (None, ("--transect", "thwaite"), ("no transect 'thwaite'", "known are: line")),
        (all_nan_bed, (), ("'bed_lowres' has no valid cell", "choose other bounds")),
        (all_nan, (), ("'accumulation' has no valid cell", "choose other bounds")),
        (picks_leave_the_transect, (), ("'line'", "holds no pick", "check its bounds")),
        (only_fill_values, (), ("picks.csv", "none of")),
        (None, ("--region", "configs/regions/none.yml"), ("none.yml", "check the path")),
        (None, ("--model", "saved_models/none"), ("saved_models/none holds no model", "train.py")),
        (None, ("--baseline-tiles", "none.zarr"), ("none.zarr", "deepbedmap prepare")),
        (None, ("--out", "README.md/results"), ("README.md", "another folder")),
    ],
)
def test_evaluation(
    tmp_path: Path, content: Content, model: Path, fault: Fault | None, more: tuple[str, ...], words: tuple[str, ...]
) -> None:
    if fault is not None:
        fault(tmp_path, content)
    message = refused_evaluation(tmp_path, content, model, *more)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("model.json", ("model.json is corrupt", "export")),
        ("1/saved_model.pb", ("no readable SavedModel", "export")),
        ("1/variables/variables.data-00000-of-00001", ("no readable SavedModel", "export")),
    ],
)
def test_a_model_that_is_cut_off(
    tmp_path: Path, content: Content, model: Path, part: str, words: tuple[str, ...]
) -> None:
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    truncate(damaged / part)
    message = refused_evaluation(tmp_path, content, damaged)
    assert all(word in message for word in words), message


def test_a_window_too_small_for_the_network(model: Path) -> None:
    from deepbedmap_tf.errors import ModelError
    from deepbedmap_tf.inference.export import load_model

    ratios = {"bed_lowres": 1, "surface": 10, "velocity": 2, "accumulation": 1}
    inputs = {name: np.ones((1, 2 * k, 2 * k, 1 + (name == "velocity")), np.float32) for name, k in ratios.items()}
    with pytest.raises(ModelError, match="expected, for h x w low-resolution cells of at least 3 x 3"):
        load_model(model)(inputs)


def test_a_saved_model_of_another_shape(tmp_path: Path, content: Content, model: Path) -> None:
    inputs = [
        {"name": "bed_lowres", "ratio": 1},
        {"name": "surface", "ratio": 10},
        {"name": "velocity", "ratio": 2, "channels": 1, "units": "m yr-1"},
        {"name": "accumulation", "ratio": 1, "units": "kg m-2 yr-1"},
    ]
    other = exported(tmp_path / "other", inputs=inputs, normalise=False)
    shutil.copy(model / "model.json", other / "model.json")
    message = refused_evaluation(tmp_path, content, other)
    assert "the SavedModel in" in message and "model.json says" in message and "export the model again" in message
    wider = exported(tmp_path / "wider", filters=6)
    shutil.copy(model / "model.json", wider / "model.json")
    before = listing(tmp_path)
    message = refused(main, "export", "--model", wider, "--keras", tmp_path / "generator.keras")
    assert "wider" in message and "model.json" in message and listing(tmp_path) == before


@pytest.fixture(params=["a full disk", "a limit on file size"])
def scarce(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that holds some 100 kB: a small disk of its own (root only), or a limit that everyone can set."""
    folder = tmp_path / "scarce"
    folder.mkdir()
    if request.param == "a full disk":
        mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small disk; the limit on file size is tested in its place")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.getfixturevalue("content")
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(folder: Path) -> None:
    """Leave no room: 16 kB on a disk of its own, 2 kB a file elsewhere."""
    if folder.is_mount():
        (folder / "ballast").write_bytes(bytes(80 * 1024))
        return
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_tiles_on_a_full_disk(tmp_path: Path, content: Content, scarce: Path) -> None:
    arguments = prepare(tmp_path, content, "--out", scarce / "tiles.zarr")
    fill(scarce)
    message = refused(main, *arguments)
    assert "cannot write" in message and "free some space or choose another folder" in message, message
    assert listing(scarce) <= {"ballast"}


def test_results_on_a_full_disk(tmp_path: Path, content: Content, model: Path, scarce: Path) -> None:
    arguments = evaluation(tmp_path, content, model, "--no-figures", "--out", scarce / "out")
    fill(scarce)
    if scarce.is_mount():
        (scarce / "more").write_bytes(bytes(14 * 1024))
    message = refused(script("evaluate"), *arguments)
    assert "cannot write" in message and "free some space or choose another folder" in message, message
    assert listing(scarce) <= {"ballast", "more", "out"}


def test_models_on_a_full_disk(tmp_path: Path, model: Path, scarce: Path) -> None:
    from chainer_layout import generator_arrays, save

    from deepbedmap_tf.config import GeneratorConfig
    from deepbedmap_tf.models import build_generator

    network = build_generator(GeneratorConfig(num_residual_blocks=1, input_filters=2), "float32")
    weights = save(tmp_path / "weights.npz", generator_arrays(network, 1))
    for command in (
        ("import-chainer", weights, "--out", scarce / "imported"),
        ("export", "--model", model, "--keras", scarce / "generator.keras"),
    ):
        if not (scarce / "ballast").exists():
            fill(scarce)
        message = refused(main, *command)
        assert "cannot write" in message and "free some space or choose another folder" in message, message
        assert listing(scarce) <= {"ballast", "imported"}
