"""Products as a whole: names, what stands until the new is complete, disks that refuse, memory that stays bounded."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from map_files import ABOUT, make_region, make_store

from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.products import require_writable, write_map

NAMES = ("map.nc", "map.tif", "map.zarr")
BED = Variable("bed", "float32", float("nan"), {"long_name": "bed elevation", "units": "m"})
FLAG = Variable("source", "int8", 0, {"long_name": "source", "flag_values": [0, 1], "flag_meanings": "no_bed network"})


def noise(folder: Path, size: int = 400) -> tuple[Path, Grid]:
    """A store whose bed doesn't compress."""
    grid = Grid.from_bounds((0, 0, size * 250, size * 250), 250, vertical_datum="ellipsoid:WGS84")
    array = zarr.open_group(str(folder / "store.zarr"), mode="w").create_array(
        "bed", shape=grid.shape, chunks=(200, 200), dtype="float32", fill_value=float("nan")
    )
    array[:] = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    return folder / "store.zarr", grid


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {str(each.relative_to(path.parent)): each.read_bytes() for each in files}


def run(script: str, *arguments: Any) -> str:
    """What a script of its own process prints; it may do to that process what a test must not do to its own."""
    head = "import resource, signal, sys\nfrom pathlib import Path\nimport test_inference_products as t\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_products_of_one_map_hold_the_same(tmp_path: Path) -> None:
    region = make_region(tmp_path)
    store, variables, whole = make_store(tmp_path, region)
    outs = [tmp_path / "made" / "here" / name for name in NAMES]
    written = write_map(store, region.grid, variables, outs, ABOUT | {"synthetic": "region"})
    assert written == [*outs, outs[0].with_suffix(".json")]
    with xr.open_dataset(outs[0]) as netcdf, rasterio.open(outs[1]) as tif:
        group = xr.open_zarr(outs[2])
        for name in whole:
            np.testing.assert_array_equal(netcdf[name], group[name])
        np.testing.assert_array_equal(tif.read(1), netcdf["bed"])
        titles = {netcdf.attrs["title"], group.attrs["title"], tif.tags()["title"]}
        titles.add(json.loads(written[3].read_text(encoding="utf-8"))["properties"]["title"])
        assert titles == {"SYNTHETIC Made for tests"}
    assert sorted(each.name for each in outs[0].parent.iterdir()) == ["map.json", *NAMES]


def test_a_map_with_no_height_at_all_is_written(tmp_path: Path) -> None:
    grid = Grid.from_bounds((0, 0, 30000, 20000), 250, vertical_datum="msl")
    group = zarr.open_group(str(tmp_path / "store.zarr"), mode="w")
    for each in (BED, FLAG):
        group.create_array(each.name, shape=grid.shape, chunks=(64, 64), dtype=each.dtype, fill_value=each.fill)
    netcdf, tif, product, _ = write_map(
        tmp_path / "store.zarr", grid, [BED, FLAG], [tmp_path / name for name in NAMES], {}
    )
    with xr.open_dataset(netcdf) as file, rasterio.open(tif) as raster:
        for made in (file, xr.open_zarr(product)):
            assert bool(made["bed"].isnull().all()) and "actual_range" not in made["bed"].attrs
            assert (made["source"] == 0).all() and made["source"].dtype == np.int8
        assert np.isnan(raster.read(1)).all()


def test_what_was_there_stays_until_the_new_is_complete(tmp_path: Path) -> None:
    store, grid = noise(tmp_path)
    outs = [tmp_path / name for name in NAMES]
    write_map(store, grid, [BED], outs, ABOUT)
    before = {path.name: content(path) for path in outs}
    listing = sorted(path.name for path in tmp_path.iterdir())
    # A chunk that can't be read: the writers meet it after they have begun.
    broken = store / "bed" / "c" / "1" / "1"
    broken.write_bytes(b"nothing that anyone packed")
    for path in outs:
        with pytest.raises((DataError, ValueError, OSError)):
            write_map(store, grid, [BED], [path], ABOUT)
        assert content(path) == before[path.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == listing
    array = zarr.open_group(str(store), mode="r+")["bed"]
    array[:] = 7.0
    write_map(store, grid, [BED], outs, ABOUT)
    with xr.open_dataset(outs[0]) as file, rasterio.open(outs[1]) as tif:
        assert (file["bed"] == 7).all() and (tif.read(1) == 7).all() and (xr.open_zarr(outs[2])["bed"] == 7).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line(tmp_path: Path, name: str) -> None:
    noise(tmp_path)
    told = run(
        """
        folder, name = Path(sys.argv[1]), sys.argv[2]
        # The system refuses to let a file grow further, as it does on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        grid = t.Grid.from_bounds((0, 0, 100_000, 100_000), 250, vertical_datum="ellipsoid:WGS84")
        try:
            t.write_map(folder / "store.zarr", grid, [t.BED], [folder / name], {}, progress=False)
        except t.DataError as error:
            print(error)
        """,
        tmp_path,
        name,
    )
    assert told.startswith(f"cannot write {tmp_path / name}: ") and "\n" not in told
    assert told.endswith("free some space or choose another folder")
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


@pytest.mark.parametrize(("name", "size"), [("map.nc", 25_600), ("map.tif", 7_680), ("map.zarr", 25_600)])
def test_memory_is_bounded_by_the_chunk(tmp_path: Path, name: str, size: int) -> None:
    """Sparse maps of 2621 MB, and of 236 MB for the slower GeoTIFF."""
    grid = Grid.from_bounds((0, 0, size * 250, size * 250), 250, vertical_datum="ellipsoid:WGS84")
    array = zarr.open_group(str(tmp_path / "store.zarr"), mode="w").create_array(
        "bed", shape=grid.shape, chunks=(640, 640), dtype="float32", fill_value=float("nan")
    )
    array[3000:4000, 3000:5000] = 12.0
    told = run(
        """
        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

        folder, name, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
        # What the libraries take is there before the first map is written.
        small = t.Grid.from_bounds((0, 0, 160_000, 160_000), 250, vertical_datum="ellipsoid:WGS84")
        t.write_map(folder / "store.zarr", small, [t.BED], [folder / f"small{Path(name).suffix}"], {}, progress=False)
        before = peak()
        grid = t.Grid.from_bounds((0, 0, size * 250, size * 250), 250, vertical_datum="ellipsoid:WGS84")
        t.write_map(folder / "store.zarr", grid, [t.BED], [folder / name], {}, progress=False)
        print(peak() - before)
        """,
        tmp_path,
        name,
        size,
    )
    assert int(told) / 1024 < 200, told
    if name == "map.nc":
        with xr.open_dataset(tmp_path / name) as file:
            part = file["bed"][2990:3010, 2990:3010]
            assert int(part.isnull().sum()) == 300 and float(part.max()) == 12


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["map"], ConfigError, r"--out map ends in 'nothing'; expected NAME.nc \(NetCDF\), NAME.tif"),
        (["map.nc", "map.png"], ConfigError, r"--out map.png ends in '.png'"),
        (["map.nc", "map.tif", "x/../map.nc"], ConfigError, "--out map.nc is named twice"),
        (["folder.nc"], DataError, "is a folder"),
        (["folder.zarr"], DataError, "exists and holds no Zarr group"),
        (["file.txt/map.nc"], DataError, "cannot make folder .*file.txt: Not a directory|File exists"),
    ],
)
def test_names_that_cannot_be_written(tmp_path: Path, names: list[str], error: type[Exception], message: str) -> None:
    for name in ("folder.nc", "folder.zarr", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.txt").write_text("text", encoding="utf-8")
    with pytest.raises(error, match=message):
        require_writable([tmp_path / name for name in names])


def test_names_that_can(tmp_path: Path) -> None:
    outs = [tmp_path / "new" / name for name in ("a.NC", "b.tif", "c.zarr")]
    assert require_writable(outs) == tuple(outs)
    assert (tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir())
