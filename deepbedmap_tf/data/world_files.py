"""Write the files of an embedded world in the forms of the products they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from deepbedmap_tf.grid import Grid

NODATA = -9999.0
_MAPPING = {
    "grid_mapping_name": "polar_stereographic",
    "latitude_of_projection_origin": -90.0,
    "standard_parallel": -71.0,
    "straight_vertical_longitude_from_pole": 0.0,
    "false_easting": 0.0,
    "false_northing": 0.0,
    "semi_major_axis": 6378137.0,
    "inverse_flattening": 298.257223563,
    "spatial_epsg": 3031,
    "long_name": "EPSG:3031",
}
_NOTE = "SYNTHETIC: made by deepbedmap_tf.data.synthetic, not observed"


def write_geotiff(path: Path, grid: Grid, values: NDArray[np.floating], units: str, description: str) -> None:
    """Write one band of float32 with CRS, nodata tag, units and datum.

    Parameters
    ----------
    path
        File to write.
    grid
        Its cells; the vertical datum, if any, becomes a tag.
    values
        Shape of the grid, NaN where invalid.
    units, description
        Of the band.
    """
    import rasterio

    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": grid.shape[0], "width": grid.shape[1],
        "crs": grid.crs, "transform": grid.transform, "nodata": NODATA,
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1, "predictor": 3,
        "num_threads": 2,
    }  # fmt: skip
    tags = {"note": _NOTE, "AREA_OR_POINT": "Area"}
    if grid.vertical_datum:
        tags["vertical_datum"] = grid.vertical_datum
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.where(np.isnan(values), NODATA, values).astype(np.float32), 1)
        file.set_band_description(1, description)
        file.set_band_unit(1, units)
        file.update_tags(**tags)


def write_netcdf(
    path: Path,
    grid: Grid,
    variables: dict[str, tuple[NDArray[np.generic], dict[str, object]]],
    mapping: str,
    title: str,
) -> None:
    """Write variables on one grid, y from north to south, with a polar stereographic grid mapping.

    Parameters
    ----------
    path
        File to write.
    grid
        Its cell centres become x and y.
    variables
        Values and attributes by name; floats are stored as float32 with NaN where invalid.
    mapping
        Name of the grid-mapping variable (products differ).
    title
        Of the file; a note says that it is synthetic.
    """
    data: dict[str, xr.DataArray] = {mapping: xr.DataArray(np.int8(0), attrs=_MAPPING)}
    encoding: dict[str, dict[str, object]] = {}
    for name, (values, attributes) in variables.items():
        floating = np.issubdtype(values.dtype, np.floating)
        stored = values.astype(np.float32) if floating else values
        data[name] = xr.DataArray(stored, dims=("y", "x"), attrs={**attributes, "grid_mapping": mapping})
        encoding[name] = {"zlib": True, "complevel": 1}
        if floating:
            encoding[name]["_FillValue"] = np.float32(np.nan)
    axis = {"units": "m", "long_name": "Cartesian {}-coordinate", "standard_name": "projection_{}_coordinate"}
    dataset = xr.Dataset(data, attrs={"Conventions": "CF-1.7", "title": f"SYNTHETIC {title}", "note": _NOTE})
    for name, values in (("x", grid.x), ("y", grid.y)):
        attributes = {key: text.format(name) for key, text in axis.items()}
        dataset = dataset.assign_coords({name: (name, values, attributes)})
        encoding[name] = {"_FillValue": None}
    dataset.to_netcdf(path, engine="netcdf4", encoding=encoding)


def write_picks(path: Path, picks: pd.DataFrame) -> None:
    """Write picks as comma-separated values with one header row."""
    import pyarrow as arrow
    from pyarrow import csv

    options = csv.WriteOptions(quoting_style="none", quoting_header="none")
    csv.write_csv(arrow.Table.from_pandas(picks, preserve_index=False), path, options)
