"""A map as a Zarr group with CF attributes, format 2 with consolidated metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepbedmap_tf.inference.stored_map import MAPPING, Range, StoredMap

if TYPE_CHECKING:
    from tqdm import tqdm

_DIMENSIONS = "_ARRAY_DIMENSIONS"


def write_zarr(stored: StoredMap, path: Path, bar: tqdm[Any] | None = None) -> None:
    """Write every variable of a map to a Zarr group.

    Format 2 is what GDAL, older xarray and most other readers know, and the only one whose consolidated metadata are
    part of the format: ``xarray.open_zarr(path)`` reads them in one request.

    Parameters
    ----------
    stored
        What to write.
    path
        Folder to make.
    bar
        Moved on by one for every chunk of every variable.

    Raises
    ------
    OSError
        When the disk refuses.
    """
    import zarr
    from numcodecs import Blosc  # type: ignore[import-untyped]

    group = zarr.open_group(str(path), mode="w-", zarr_format=2, attributes=_plain(stored.global_attributes()))
    for name, (values, attributes) in stored.coordinates().items():
        axis = group.create_array(
            name, shape=values.shape, chunks=values.shape, dtype=values.dtype, fill_value=None, compressors=None
        )
        axis[:] = values
        axis.attrs.update(_plain(attributes) | {_DIMENSIONS: [name]})
    mapping = group.create_array(MAPPING, shape=(), dtype="int32", fill_value=None, compressors=None)
    mapping[...] = 0
    mapping.attrs.update(_plain(stored.mapping_attributes()) | {_DIMENSIONS: []})
    for each in stored.variables:
        floating = np.dtype(each.dtype).kind == "f"
        array = group.create_array(
            each.name,
            shape=stored.shape(each),
            chunks=stored.chunks(each),
            dtype=each.dtype,
            # xarray takes the fill value for that of missing cells; whole numbers have none, and stay whole so.
            fill_value=each.fill if floating else None,
            compressors=Blosc(cname="zstd", clevel=5, shuffle=Blosc.SHUFFLE),
            config={"write_empty_chunks": not floating},
        )
        seen = Range()
        for rows, columns in stored.parts():
            values = stored.read(each, (rows, columns))
            seen.see(values)
            array[..., rows, columns] = values
            if bar is not None:
                bar.update()
        attributes = stored.attributes(each) | seen.attributes(each.dtype)
        array.attrs.update(_plain(attributes) | {_DIMENSIONS: list(stored.dimensions(each))})
    zarr.consolidate_metadata(str(path), zarr_format=2)


def _plain(attributes: dict[str, Any]) -> dict[str, Any]:
    """Numbers and lists that JSON can hold."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in attributes.items()}
