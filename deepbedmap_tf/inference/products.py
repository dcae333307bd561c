"""Maps written to files that say what they are: NetCDF, Cloud-Optimised GeoTIFF, Zarr, and a STAC item."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import Variable
from deepbedmap_tf.inference.stac import write_item
from deepbedmap_tf.inference.stored_map import StoredMap

_WRITERS = {".nc": "NetCDF", ".tif": "Cloud-Optimised GeoTIFF", ".zarr": "Zarr"}


def require_writable(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Check the names of the files to write, and make their folders, before any work is done for them.

    Parameters
    ----------
    paths
        Files ending in ``.nc``, ``.tif`` or ``.zarr``.

    Raises
    ------
    ConfigError
        When an ending is of a format that can't be written, or two files have one name.
    DataError
        When a folder can't be made or written to, or a name is that of something else.
    """
    for path in paths:
        suffix = path.suffix.lower()
        if suffix not in _WRITERS:
            known = ", ".join(f"NAME{ending} ({name})" for ending, name in _WRITERS.items())
            raise ConfigError(f"--out {path.name} ends in {path.suffix or 'nothing'!r}; expected {known}")
        if suffix != ".zarr" and path.is_dir():
            raise DataError(f"--out {path} is a folder; expected the name of a file in it")
        if suffix == ".zarr" and path.exists() and not _is_zarr(path):
            raise DataError(f"--out {path} exists and holds no Zarr group; choose another name")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot make folder {path.parent}: {error.strerror or error}; choose another --out"
            ) from error
        if not os.access(path.parent, os.W_OK):
            raise DataError(f"cannot write to folder {path.parent}: it is read-only; choose another --out")
    places = [path.resolve() for path in paths]
    twice = next((path for path in places if places.count(path) > 1), None)
    if twice is not None:
        raise ConfigError(f"--out {twice.name} is named twice; give each file its own name")
    return tuple(paths)


def write_map(
    store: Path,
    grid: Grid,
    variables: Sequence[Variable],
    outs: Sequence[Path],
    metadata: Mapping[str, Any],
    progress: bool | None = None,
) -> list[Path]:
    """Write the products of a finished map from its working store.

    Each is written beside its place and renamed when it is complete; until then what stood there stays. Memory is
    bounded by the store's chunks, whatever the size of the map.

    Parameters
    ----------
    store
        Zarr group with one array a variable, dims (y, x) or (y, x, realization).
    grid
        Cells of the map, with its vertical datum.
    variables
        Those of `layers.variables`.
    outs
        Files to write, as for `require_writable`.
    metadata
        As `StoredMap.metadata` has them.
    progress
        Show a bar; by default where standard error is a terminal.

    Returns
    -------
    list of Path
        The files, and a STAC item ``<stem>.json`` beside those of one name.

    Raises
    ------
    ConfigError, DataError
        As `require_writable`; DataError also when the disk refuses.
    """
    from tqdm import tqdm

    outs = require_writable(outs)
    stored = StoredMap(Path(store), grid, tuple(variables), metadata)
    chunks = sum(1 for _ in stored.parts())
    steps = sum(chunks * (1 if path.suffix.lower() == ".tif" else len(stored.variables)) for path in outs)
    written: list[Path] = []
    with tqdm(total=steps, desc="writing", unit="chunk", disable=None if progress is None else not progress) as bar:
        for path in outs:
            with _written(path) as beside:
                _writer(path)(stored, beside, bar)
            written.append(path)
    items: dict[Path, list[Path]] = {}
    for path in outs:
        items.setdefault(path.with_suffix(".json"), []).append(path)
    for item, products in items.items():
        with _written(item) as beside:
            write_item(stored, products, beside, item.stem)
        written.append(item)
    return written


def _writer(path: Path) -> Callable[[StoredMap, Path, Any], None]:
    from deepbedmap_tf.inference import geotiff, netcdf, zarr_product

    by_suffix: dict[str, Callable[[StoredMap, Path, Any], None]] = {
        ".nc": netcdf.write_netcdf,
        ".tif": geotiff.write_geotiff,
        ".zarr": zarr_product.write_zarr,
    }
    return by_suffix[path.suffix.lower()]


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """`written_beside`, with the words that libraries have for a disk that refuses."""
    # Some errors of GDAL come through rasterio under the name that it keeps to itself.
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    with written_beside(path) as beside:
        try:
            yield beside
        except (RuntimeError, RasterioError, CPLE_BaseError) as error:
            cause = str(error.__cause__ or error).splitlines()[0]
            raise DataError(f"cannot write {path}: {cause}; free some space or choose another folder") from error


def _is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in (".zgroup", "zarr.json"))
