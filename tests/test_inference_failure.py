"""What goes wrong while a map is made is one line and exit code 2, and what was done stays."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import yaml
from command_line import invoke
from data_files import ramp
from map_runs import bed_of, end, rough_region, start, steps_done, tiny_model, wait_for_steps
from test_bad_input import one_line, refused

from deepbedmap_tf.cli import main
from deepbedmap_tf.grid import Grid

CLUSTER = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    time.sleep(3000)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def arguments(model: Path, region: Path, *more: Any) -> tuple[Any, ...]:
    return "--model", model, "--region", region, "--data-dir", region.parent, "--workers", 0, *more


def limited(size: int, *more: Any) -> tuple[int, str]:
    """Run ``deepbedmap predict`` where no file may grow beyond a size: the kernel refuses, as on a full disk."""
    command = [str(Path(sys.executable).with_name("deepbedmap")), "predict", *map(str, more)]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        timeout=600,
    )
    return result.returncode, result.stderr


def test_a_disk_that_refuses_the_product_keeps_the_blocks(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    region = rough_region(tmp_path / "region")
    out, folder = tmp_path / "map.nc", tmp_path / "map.nc.partial"
    message = one_line(*limited(40_000, *arguments(model, region, "--block", 8, "--out", out)))
    assert re.match(r"cannot write .*map.nc.*; free some space or choose another folder", message), message
    assert not out.exists() and steps_done(folder) == 25
    assert {path.name for path in tmp_path.iterdir()} == {"region", "map.nc.partial"}
    result = invoke(main, "predict", *arguments(model, region, "--block", 8, "--out", out))
    assert result.exit_code == 0 and "25 of 25 steps are done" in caplog.text
    assert np.isfinite(bed_of(out)).all() and not folder.exists()


def test_a_disk_that_refuses_the_first_block_keeps_nothing(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    message = one_line(*limited(20_000, *arguments(model, region, "--block", 40, "--out", tmp_path / "map.nc")))
    assert "cannot write" in message and "free some space" in message
    assert {path.name for path in tmp_path.iterdir()} == {"region"}


def test_a_damaged_part_of_an_input_stops_the_map_there(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    path = region.parent / "surface.tif"
    with rasterio.open(path) as file:
        profile, values = file.profile, file.read()
    profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
    with rasterio.open(path) as file:
        offset, size = (int(file.get_tag_item(f"BLOCK_{what}_5_5", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\x00" * size
    path.write_bytes(content)
    message = refused(main, "predict", *arguments(model, region, "--block", 4, "--out", tmp_path / "map.nc"))
    assert "surface.tif" in message and "damaged" in message
    kept = steps_done(tmp_path / "map.nc.partial")
    # The damage is a third of the way down; what comes before it is done.
    assert 20 <= kept < 100 and not (tmp_path / "map.nc").exists()
    # With a sound file of another content the map would be another one.
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)
    message = refused(main, "predict", *arguments(model, region, "--block", 4, "--out", tmp_path / "map.nc"))
    assert "inputs.surface.tif" in message and "--restart" in message


def test_an_input_that_ends_early_leaves_a_gap_and_it_is_said(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    region = rough_region(tmp_path / "region")
    with rasterio.open(region.parent / "accumulation.tif") as file:
        grid = Grid(file.shape, file.transform)
    west = grid.window((grid.bounds[0], grid.bounds[1], grid.bounds[0] + 24_000, grid.bounds[3]))
    with rasterio.open(region.parent / "accumulation.tif", "r") as file:
        profile = file.profile
    with rasterio.open(region.parent / "accumulation.tif", "w", **{**profile, "width": west.shape[1]}) as file:
        file.write(ramp(west, 20_000), 1)
    result = invoke(main, "predict", *arguments(model, region, "--block", 10, "--out", tmp_path / "map.nc"))
    assert result.exit_code == 0, result.stderr
    assert "4 of 16 blocks have no data and stay NaN; the first: accumulation.tif covers" in caplog.text
    bed = bed_of(tmp_path / "map.nc")
    assert np.isfinite(bed[:, :120]).all() and np.isnan(bed[:, 120:]).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--bounds", 0, 0, 1000, 1000], "leave the region"),
        (["--block", 0], "blocks of 0 cells"),
        (["--halo", -1], "a halo of -1"),
        (["--blend", 30], "a blend of 30 cells; expected 0 to 8"),
        (["--memory-limit", 0.2], "--memory-limit 0.2 GB is too little"),
        (["--block", 400, "--memory-limit", 1.2], "choose a smaller --block"),
        (["--realisations", 2], "has no calibrated uncertainty"),
        (["--scheduler", "tcp://127.0.0.1:1"], "exclude each other"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    model: Path, tmp_path: Path, more: list[Any], message: str
) -> None:
    region = rough_region(tmp_path / "region")
    assert message in refused(main, "predict", *arguments(model, region, "--out", tmp_path / "map.nc", *more))
    assert {path.name for path in tmp_path.iterdir()} == {"region"}


def test_a_folder_that_is_read_only_is_one_line(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    # Where not even an administrator can write.
    message = refused(main, "predict", *arguments(model, region, "--out", "/proc/map.nc"))
    assert "/proc" in message and "another" in message


def test_a_model_of_another_ratio_is_one_line(model: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    from deepbedmap_tf.inference.export import load_model

    made = load_model(model)
    folder = tmp_path / "double"
    module = tf.Module()
    signature = {
        each.name: tf.TensorSpec((None, None, None, each.channels), tf.float32, name=each.name)
        for each in made.config.inputs
    }

    @tf.function(input_signature=[signature])
    def predict(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        bed = inputs["bed_lowres"][:, 1:-1, 1:-1]
        unused = sum(tf.reduce_sum(values) * 0 for values in inputs.values())
        return {"bed": tf.repeat(tf.repeat(bed, 2, 1), 2, 2) + unused}

    module.predict = predict
    tf.saved_model.save(module, str(folder / "1"), signatures={"serving_default": predict})
    (folder / "model.json").write_bytes((model / "model.json").read_bytes())
    region = rough_region(tmp_path / "region")
    message = refused(main, "predict", *arguments(folder, region, "--block", 20, "--out", tmp_path / "map.nc"))
    assert "makes (48, 48) cells of 24 x 24 low-resolution ones, expected (96, 96)" in message
    assert not (tmp_path / "map.nc.partial").exists()


def test_a_scheduler_that_is_not_there_is_one_line(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    which = ("--model", model, "--region", region, "--data-dir", region.parent, "--out", tmp_path / "map.nc")
    message = refused(main, "predict", *which, "--scheduler", "tcp://127.0.0.1:1")
    assert "no scheduler with workers can be reached at tcp://127.0.0.1:1" in message
    assert not (tmp_path / "map.nc.partial").exists()


def test_a_scheduler_that_is_lost_in_the_middle_is_one_line(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    (tmp_path / "cluster.py").write_text(CLUSTER)
    cluster = subprocess.Popen([sys.executable, tmp_path / "cluster.py"], stdout=subprocess.PIPE, text=True)
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        out = tmp_path / "map.nc"
        which = ("--model", model, "--region", region, "--data-dir", region.parent, "--block", 4, "--out", out)
        process = start(*which, "--scheduler", address)
        wait_for_steps(process, tmp_path / "map.nc.partial", 5)
        cluster.kill()
        cluster.wait()
        _, err = process.communicate(timeout=900)
    finally:
        cluster.kill()
        cluster.wait()
    end(process)
    message = one_line(process.returncode, err)
    assert f"the scheduler at {address} was lost in the middle" in message
    assert 5 <= steps_done(tmp_path / "map.nc.partial") < 100
    assert invoke(main, "predict", *which, "--workers", 0).exit_code == 0


def test_debug_shows_where_an_error_comes_from(model: Path, tmp_path: Path) -> None:
    region = rough_region(tmp_path / "region")
    content = yaml.safe_load(region.read_text())
    content["inputs"]["velocity"]["path"] = "none.nc"
    region.write_text(yaml.safe_dump(content))
    given = arguments(model, region, "--out", tmp_path / "map.nc")
    assert "Traceback" not in invoke(main, "predict", *given).stderr
    result = invoke(main, "predict", *given, "--debug")
    assert result.exit_code == 2 and "Traceback" in result.stderr and "none.nc" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_memory_stays_within_the_limit_on_a_region_twenty_times_as_large(model: Path, tmp_path: Path) -> None:
    from deepbedmap_tf.inference.cluster import fitting_block, memory_need
    from deepbedmap_tf.inference.export import load_model

    limit = 1.15
    config = load_model(model).config
    block = fitting_block(config, 4, limit, 1)
    cells = 14 * block
    # What it would take done in one piece.
    assert memory_need(config, cells, 0) > 20 * limit * 1e9
    region = rough_region(tmp_path / "region", cells=cells)
    # Not `ru_maxrss`, which a process inherits from the one that starts it.
    program = (
        "import sys; from deepbedmap_tf.cli import main; main(standalone_mode=False);"
        "sys.stderr.write('peak ' + open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    # What is written counts too, in every format: five variables are twice what the limit leaves beside the process.
    outs = [tmp_path / f"map{suffix}" for suffix in (".zarr", ".nc", ".tif")]
    which = arguments(model, region, "--memory-limit", limit, *(each for out in outs for each in ("--out", out)))
    result = subprocess.run(
        [sys.executable, "-c", program, "predict", *map(str, which)], capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr
    assert 1024 * float(result.stderr.rpartition("peak ")[2]) < limit * 1e9
    with xr.open_zarr(outs[0]) as file, xr.open_dataset(outs[1]) as same:
        assert file.attrs["block"] == block and bool(np.isfinite(file["bed"][::97, ::89]).all())
        np.testing.assert_array_equal(file["bed"][::97, ::89], same["bed"][::97, ::89])
    with rasterio.open(outs[2]) as file:
        np.testing.assert_array_equal(file.read(1)[::97, ::89], same["bed"][::97, ::89])
