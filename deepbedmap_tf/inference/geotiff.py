"""A map's bed as a Cloud-Optimised GeoTIFF."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.inference.stored_map import StoredMap

if TYPE_CHECKING:
    from tqdm import tqdm

_TILE = 512
# GDAL's own default is a share of the machine's memory. What it keeps beyond this grows a little with the map where the
# cache is larger (by 36 MB from 17 to 151 million cells at 64 MB, by 2 MB at 16), and it is no faster then.
_CACHE_BYTES = 16 * 2**20


def write_geotiff(stored: StoredMap, path: Path, bar: tqdm[Any] | None = None) -> None:
    """Write the bed of a map to a Cloud-Optimised GeoTIFF of one band.

    One band, because the bands of a GeoTIFF share one type and one nodata value: flags would become floats, and a
    program that opens the file gets the bed without having to choose. The other variables are in NetCDF and Zarr.

    GDAL makes its tiles and overviews from a whole raster only; the bed is laid out in a plain one beside it first.

    Parameters
    ----------
    stored
        What to write.
    path
        File to make.
    bar
        Moved on by one for every chunk of the bed.

    Raises
    ------
    OSError, rasterio.errors.RasterioError
        When the disk refuses.
    DataError
        When what was written does not read back.
    """
    import rasterio
    from rasterio.shutil import copy

    variable = stored.variables[0]
    plain = path.with_name(f"{path.name}.plain")
    height, width = stored.grid.shape
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": height, "width": width, "crs": stored.grid.crs,
        "transform": stored.grid.transform, "nodata": math.nan, "tiled": True, "blockxsize": _TILE,
        "blockysize": _TILE, "compress": "lzw", "predictor": 3, "sparse_ok": True, "bigtiff": "if_safer",
    }  # fmt: skip
    total = _Total()
    try:
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_PAM_ENABLED=False):
            with rasterio.open(plain, "w", **profile) as file:
                for rows, columns in stored.parts():
                    values = stored.read(variable, (rows, columns))
                    total.see(values)
                    if np.isfinite(values).any():
                        window = ((rows.start, rows.stop), (columns.start, columns.stop))
                        file.write(values, 1, window=window)
                    if bar is not None:
                        bar.update()
                file.set_band_description(1, f"{variable.attributes['long_name']} (m above {_datum(stored)})")
                file.set_band_unit(1, "m")
                file.update_tags(**_tags(stored))
            copy(
                plain,
                path,
                driver="COG",
                compress="DEFLATE",
                level=6,
                predictor="YES",
                blocksize=_TILE,
                overview_resampling="AVERAGE",
                num_threads="ALL_CPUS",
                bigtiff="IF_SAFER",
            )
            # GDAL keeps silent of some writes that fail; a tile that is not there would read as no data.
            if _read_back(path) != total:
                raise DataError(f"{path.name} does not read back as it was written; free some space and try again")
    finally:
        for left in path.parent.glob(f"{path.name}.*"):
            left.unlink(missing_ok=True)


class _Total:
    """Number and exact sum of the cells seen that are defined, whatever their order."""

    def __init__(self) -> None:
        self.count, self.bits = 0, 0

    def see(self, values: np.ndarray) -> None:
        known = values[np.isfinite(values)].astype(np.float32)
        self.count += known.size
        self.bits = (self.bits + int(known.view(np.uint32).sum(dtype=np.uint64))) % 2**64

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Total) and (self.count, self.bits) == (other.count, other.bits)

    __hash__ = None  # type: ignore[assignment]


def _read_back(path: Path) -> _Total:
    import rasterio

    total = _Total()
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            total.see(file.read(1, window=window))
    return total


def _datum(stored: StoredMap) -> str:
    return (stored.grid.vertical_datum or "a datum that is not stated").replace(":", " ")


def _tags(stored: StoredMap) -> dict[str, str]:
    content = {key: str(value) for key, value in stored.global_attributes().items()}
    for key in ("Conventions", "node_offset"):
        content.pop(key, None)
    return {**content, "AREA_OR_POINT": "Area"}
