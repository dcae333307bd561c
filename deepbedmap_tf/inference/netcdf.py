"""A map as one CF-1.10 NetCDF file with all of its variables, written chunk by chunk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepbedmap_tf.inference.stored_map import MAPPING, Range, StoredMap

if TYPE_CHECKING:
    from tqdm import tqdm


def write_netcdf(stored: StoredMap, path: Path, bar: tqdm[Any] | None = None) -> None:
    """Write every variable of a map to a NetCDF-4 file.

    The chunks of the file are even parts of the store's, so that each is compressed once and memory is bounded.

    Parameters
    ----------
    stored
        What to write.
    path
        File to make.
    bar
        Moved on by one for every chunk of every variable.

    Raises
    ------
    OSError, RuntimeError
        When the disk refuses; the NetCDF library has words of its own for it.
    """
    from netCDF4 import Dataset

    with Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts(stored.global_attributes())
        for name, (values, attributes) in stored.coordinates().items():
            file.createDimension(name, values.size)
            axis = file.createVariable(name, values.dtype, (name,), fill_value=False)
            axis.setncatts(attributes)
            axis[:] = values
        mapping = file.createVariable(MAPPING, np.int32, ())
        mapping.setncatts(stored.mapping_attributes())
        mapping[...] = 0
        for each in stored.variables:
            floating = np.dtype(each.dtype).kind == "f"
            variable = file.createVariable(
                each.name,
                each.dtype,
                stored.dimensions(each),
                fill_value=np.dtype(each.dtype).type(each.fill) if floating else False,
                zlib=True,
                complevel=4,
                shuffle=True,
                chunksizes=stored.chunks(each),
            )
            variable.set_auto_maskandscale(False)
            # A chunk is written once and whole; a larger cache would only hold on to what is done. One that has no
            # room for a chunk the library replaces by 64 MB of its own, for each variable until the file is closed.
            chunk = math.prod(stored.chunks(each)) * np.dtype(each.dtype).itemsize
            variable.set_var_chunk_cache(size=chunk, nelems=1)
            variable.setncatts(stored.attributes(each))
            seen = Range()
            for rows, columns in stored.parts():
                values = stored.read(each, (rows, columns))
                seen.see(values)
                # What is nowhere defined takes no room: a chunk that is never written reads as the fill value.
                if not floating or np.isfinite(values).any():
                    variable[..., rows, columns] = values
                if bar is not None:
                    bar.update()
            variable.setncatts(seen.attributes(each.dtype))
