"""Maps that are killed, resumed, made by several workers or by one: always the same map, to the last bit."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from command_line import invoke
from data_files import write_netcdf
from map_runs import bed_of, end, rough_region, run, start, steps_done, tiny_model, wait_for_steps
from test_bad_input import refused

from deepbedmap_tf.cli import main
from deepbedmap_tf.data.cover import GROUNDED_ICE, OCEAN
from deepbedmap_tf.grid import Grid

BLOCK = 4
TASKS = 100


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """A map of a hundred blocks, by a network of a kilobyte."""
    folder = tmp_path_factory.mktemp("maps")
    region, model = rough_region(folder / "region"), tiny_model(folder / "model")
    return "--model", model, "--region", region, "--data-dir", region.parent, "--block", BLOCK


@pytest.fixture(scope="module")
def whole(arguments: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The map of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "map.nc"
    result = invoke(main, "predict", *arguments, "--workers", 0, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert not (out.parent / "map.nc.partial").exists()
    with xr.open_dataset(out) as file:
        made = file.load()
    assert np.isfinite(made["bed"]).all() and float(made["bed"].std()) > 20
    return made


def same_as(whole: xr.Dataset, path: Path) -> None:
    with xr.open_dataset(path) as file:
        assert set(file.data_vars) == set(whole.data_vars)
        for name in whole.data_vars:
            np.testing.assert_array_equal(file[name], whole[name], err_msg=str(name))


def test_a_killed_run_is_resumed_to_the_same_map(
    arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, folder = tmp_path / "map.nc", tmp_path / "map.nc.partial"
    done = 0
    for _ in range(2):
        process = start(*arguments, "--workers", 0, "--out", out)
        wait_for_steps(process, folder, done + 10)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        end(process)
        assert done + 10 <= steps_done(folder) < TASKS
        done = steps_done(folder)
    assert not out.exists()
    # Other arguments are refused, and nothing of what is there is touched.
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}
    message = refused(main, "predict", *arguments, "--workers", 0, "--halo", 3, "--limit-to-surface", "--out", out)
    assert "options.limit_to_surface False, now True; plan.halo 4, now 3" in message and "--restart" in message
    before.pop(folder / "lock")
    assert before == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before}
    # Who makes it is no part of the map: the rest is made in another way.
    result = invoke(main, "predict", *arguments, "--workers", 0, "--out", out, "--out", tmp_path / "map.zarr")
    assert result.exit_code == 0, result.stderr
    assert f"{done} of {TASKS} steps are done" in caplog.text and not folder.exists()
    same_as(whole, out)


def test_a_changed_input_is_noticed(arguments: tuple[Any, ...], tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    changed = [*arguments[:2], "--region", region, "--data-dir", region.parent, *arguments[6:], "--workers", 0]
    out = tmp_path / "map.nc"
    process = start(*changed, "--out", out)
    wait_for_steps(process, tmp_path / "map.nc.partial", 5)
    end(process)
    with xr.open_dataset(region.parent / "bed.nc") as file:
        other = file.load()
    other["bed"] += 1
    other.to_netcdf(region.parent / "bed.nc")
    message = refused(main, "predict", *changed, "--out", out)
    assert "inputs.bed.nc" in message and "halo" not in message
    result = invoke(main, "predict", *changed, "--out", out, "--restart")
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "map.nc.partial").exists() and bed_of(out).shape == (160, 160)


def test_ctrl_c_keeps_blocks_and_another_run_is_refused_meanwhile(
    arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path
) -> None:
    out, folder = tmp_path / "map.nc", tmp_path / "map.nc.partial"
    process = start(*arguments, "--workers", 0, "--out", out)
    wait_for_steps(process, folder, 5)
    # Held still meanwhile: on a quiet machine it would be at its end before it is asked to stop.
    os.killpg(process.pid, signal.SIGSTOP)
    message = refused(main, "predict", *arguments, "--workers", 0, "--out", out)
    assert f"another run (process {process.pid} on" in message
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    kept = steps_done(folder)
    assert 5 <= kept < TASKS and "Traceback" not in err
    assert f"{kept} of {TASKS} steps are kept in {folder}; the same command goes on from there" in err
    assert err.rstrip().endswith("interrupted")
    assert invoke(main, "predict", *arguments, "--workers", 0, "--out", out).exit_code == 0
    same_as(whole, out)


@pytest.mark.slow
def test_workers_that_die_are_replaced_and_the_map_is_the_same(
    arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path
) -> None:
    out, folder = tmp_path / "map.nc", tmp_path / "map.nc.partial"
    process = start(*arguments, "--workers", 2, "--out", out)
    wait_for_steps(process, folder, 5)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "local cluster of 2 workers" in err and "Traceback" not in err
    same_as(whole, out)


@pytest.mark.slow
def test_ctrl_c_ends_a_cluster_quietly(arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path) -> None:
    out, folder = tmp_path / "map.nc", tmp_path / "map.nc.partial"
    process = start(*arguments, "--workers", 2, "--blend", 2, "--out", out)
    wait_for_steps(process, folder, 5)
    workers = workers_of(process.pid)
    # As a terminal does: to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    # The blend goes on in this process, from predictions that workers made.
    assert invoke(main, "predict", *arguments, "--workers", 0, "--blend", 2, "--out", out).exit_code == 0
    difference = np.abs(bed_of(out) - whole["bed"].to_numpy())
    assert difference.max() > 0 and np.median(difference) < 0.5


@pytest.mark.slow
def test_a_cluster_that_is_there_already_makes_the_same_map(
    arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path
) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None) as cluster:
        code, _, err = run(*arguments, "--scheduler", cluster.scheduler_address, "--out", tmp_path / "map.nc")
    assert code == 0, err
    assert f"workers of the scheduler at {cluster.scheduler_address}" in err
    same_as(whole, tmp_path / "map.nc")


def test_a_window_and_batches_of_blocks(
    arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The window begins in the middle of blocks; edges are widened to whole low-resolution cells.
    bounds = (-1_597_900, -597_000, -1_580_001, -570_001)
    result = invoke(
        main, "predict", *arguments, "--batch", 3, "--bounds", *bounds, "--workers", 0, "--out", tmp_path / "part.nc"
    )
    assert result.exit_code == 0, result.stderr
    assert "to whole low-resolution cells: [-1598000.0, -597000.0, -1580000.0, -570000.0]" in caplog.text
    with xr.open_dataset(tmp_path / "part.nc") as part:
        assert part["bed"].shape == (108, 72)
        xr.testing.assert_equal(part["bed"].load(), whole["bed"].sel(x=part.x, y=part.y))


def test_blocks_without_grounded_ice_are_skipped(
    arguments: tuple[Any, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    region = rough_region(tmp_path / "region")
    content = yaml.safe_load(region.read_text())
    grid = Grid.from_bounds(tuple(content["bounds"]), 500).pad(2)
    cover = np.where(np.arange(grid.shape[1]) < 42, OCEAN, GROUNDED_ICE).astype(np.int8)
    write_netcdf(region.parent / "mask.nc", grid, mask=np.broadcast_to(cover, grid.shape).copy())
    content["mask"] = {"path": "mask.nc", "variable": "mask"}
    region.write_text(yaml.safe_dump(content, sort_keys=False))
    changed = [*arguments[:2], "--region", region, "--data-dir", region.parent, "--block", 10, "--workers", 0]
    result = invoke(main, "predict", *changed, "--out", tmp_path / "map.nc")
    assert result.exit_code == 0, result.stderr
    assert "8 of 16 blocks without grounded ice were skipped" in caplog.text
    with xr.open_dataset(tmp_path / "map.nc") as file:
        bed = file["bed"].to_numpy()
        assert np.isnan(bed[:, :80]).all() and np.isfinite(bed[:, 80:]).all()
        # What is known beside the bed is there all the same.
        assert np.isfinite(file["surface"]).all() and file.attrs["skipped_blocks"] == 8


def test_zarr_and_netcdf_hold_the_same(arguments: tuple[Any, ...], whole: xr.Dataset, tmp_path: Path) -> None:
    result = invoke(main, "predict", *arguments, "--workers", 0, "--out", tmp_path / "map.zarr")
    assert result.exit_code == 0, result.stderr
    np.testing.assert_array_equal(zarr.open_group(str(tmp_path / "map.zarr"), mode="r")["bed"][:], whole["bed"])


def workers_of(parent: int) -> list[int]:
    """Processes that a cluster's parent started to work, by what their command line says."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"spawn_main" in command:
            found.append(int(path.parent.name))
    return found
