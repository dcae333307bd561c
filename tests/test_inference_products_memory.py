"""The memory that writing a map takes is that of its chunks, whatever the size of the map."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

CHUNK = 512
NAMES = ("bed", "surface", "thickness")

PROGRAM = """
import sys
from pathlib import Path
import netCDF4, pystac, rasterio.shutil, zarr
from pystac.extensions.projection import ProjectionExtension
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference import geotiff, netcdf, zarr_product
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.products import write_map

store, out, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
height, width = zarr.open_group(str(store), mode="r")["bed"].shape
grid = Grid.from_bounds((0, 0, 250 * width, 250 * height), 250, vertical_datum="ellipsoid:WGS84")
made = [Variable(name, "float32", float("nan"), {"long_name": name, "units": "m"}) for name in names]
status = Path("/proc/self/status")
before = int(status.read_text().split("VmRSS:")[1].split()[0])
write_map(store, grid, made, [out], {}, progress=False)
print((int(status.read_text().split("VmHWM:")[1].split()[0]) - before) / 1024)
"""


def stored(folder: Path, side: int) -> Path:
    """A map without gaps, of few different values, so that compressing it takes no time."""
    group = zarr.open_group(str(folder / f"{side}.zarr"), mode="w")
    for name in NAMES:
        array = group.create_array(name, shape=(side, side), chunks=(CHUNK, CHUNK), dtype="float32", fill_value=np.nan)
        for top in range(0, side, CHUNK):
            array[top : top + CHUNK] = np.float32(top)
    return folder / f"{side}.zarr"


def taken(folder: Path, side: int, suffix: str) -> float:
    """Memory in MB that writing one product of a map takes beyond what the process has before."""
    out = folder / f"map{suffix}"
    arguments = [sys.executable, "-c", PROGRAM, str(stored(folder, side)), str(out), ",".join(NAMES)]
    told = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert told.returncode == 0, told.stderr
    return float(told.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "most"), [(".nc", 64), (".zarr", 90), (".tif", 150)])
def test_memory_does_not_grow_with_the_map(tmp_path: Path, suffix: str, most: float) -> None:
    # Each of the three variables is 268 MB; GDAL's driver takes 100 MB for its threads and a cache.
    assert taken(tmp_path, 8192, suffix) < most


def test_a_netcdf_holds_on_to_no_chunk(tmp_path: Path) -> None:
    # The library's own cache would keep all of it: 64 MB of each variable, until the file is closed.
    assert taken(tmp_path, 2560, ".nc") < 50
