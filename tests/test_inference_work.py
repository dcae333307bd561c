"""The folder in which a map grows: its lock, and a store whose chunks are blocks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.tiling import Plan, place_in
from deepbedmap_tf.inference.work import clear, create_store, cut_out, locked, work_folder

REGION = Grid.from_bounds((0, 0, 23_000, 17_000), 1000)
BED = Variable("bed", "float32", float("nan"), {"units": "m"})
SOURCE = Variable("source", "int8", 0, {})
DRAWN = Variable("bed_realization", "float32", float("nan"), {"units": "m"}, per_realisation=True)

HOLD = """
import sys, time
from pathlib import Path
from deepbedmap_tf.inference.work import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_exclude_each_other_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    folder = work_folder(tmp_path / "map.nc")
    assert folder.name == "map.nc.partial"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=rf"another run \(process {holder.pid} on .*\) is making this map"):
            locked(folder).__enter__()
    finally:
        holder.kill()
        holder.wait()
    with locked(folder) as free:
        assert free == folder
        # Also within one process.
        with pytest.raises(DataError, match=f"process {os.getpid()} on"):
            locked(folder).__enter__()


def test_the_lock_survives_clearing_and_goes_with_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "map.nc.partial"
    with locked(folder):
        (folder / "store").mkdir()
        (folder / "record").write_text("")
        clear(folder)
        assert [path.name for path in folder.iterdir()] == ["lock"]
        with pytest.raises(DataError, match="another run"):
            locked(folder).__enter__()


def test_a_path_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write into .*file/map.nc.partial.*another folder"):
        locked(tmp_path / "file/map.nc.partial").__enter__()


@pytest.mark.parametrize("window", [REGION.bounds, (6000, 1000, 19_000, 16_000), (5000, 7000, 10_000, 12_000)])
def test_every_block_is_chunks_of_its_own(tmp_path: Path, window: tuple[float, float, float, float]) -> None:
    plan = Plan(REGION, REGION.window(window), size=5, halo=2)
    store = create_store(tmp_path / "map.zarr", plan, [BED, SOURCE, DRAWN], realisations=3)
    group = zarr.open_group(str(store), mode="r+")
    area = plan.area.refine(4)
    for number, block in enumerate(plan.blocks()):
        before = {path for path in store.rglob("c/*/*") if "bed/" in str(path)}
        assert block.core is not None
        rows, columns = place_in(block.core, area.bounds, 250)
        group["bed"][rows, columns] = number
        shape = (rows.stop - rows.start, columns.stop - columns.start, 3)
        group["bed_realization"][rows, columns] = np.broadcast_to(np.arange(3.0), shape)
        after = {path for path in store.rglob("c/*/*") if "bed/" in str(path)}
        assert len(after - before) == 1 and before <= after
    made = cut_out(store, plan, [BED, SOURCE, DRAWN])
    assert (made == store) == (plan.area.shape == plan.window.shape)
    arrays = zarr.open_group(str(made), mode="r")
    fine = plan.window.refine(4)
    assert arrays["bed"].shape == fine.shape and arrays["bed_realization"].shape == (*fine.shape, 3)
    expected = np.full(fine.shape, -1.0)
    for number, block in enumerate(plan.blocks()):
        assert block.core is not None
        expected[place_in(block.core, fine.bounds, 250)] = number
    np.testing.assert_array_equal(arrays["bed"][:], expected)
    assert (arrays["bed_realization"][:] == np.arange(3)).all() and not arrays["source"][:].any()


def test_a_lock_is_taken_again_when_its_holder_removed_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "map.nc.partial"
    with locked(folder):
        (folder / "lock").unlink()
        folder.rmdir()
        # Another run comes after that, while the first has not let go yet.
        with locked(folder):
            assert (folder / "lock").exists()
