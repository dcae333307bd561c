"""Maps written to files that say what they are: CF-1.10 NetCDF."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import xarray as xr

from deepbedmap_tf import __version__
from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import ConfigError, DataError
from deepbedmap_tf.grid import ELLIPSOID, Grid

SOFTWARE = ("tensorflow", "keras", "numpy", "xarray", "netCDF4", "pyproj")
_CHUNK = 512


def require_writable(path: Path) -> Path:
    """Check the name of a file to write, and make its folder, before any work is done for it.

    Raises
    ------
    ConfigError
        When the ending is of a format that can't be written.
    DataError
        When the folder can't be made, or the name is a folder's.
    """
    if path.suffix.lower() != ".nc":
        raise ConfigError(f"--out {path.name} ends in {path.suffix or 'nothing'!r}; expected a NetCDF file, NAME.nc")
    if path.is_dir():
        raise DataError(f"--out {path} is a folder; expected the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make folder {path.parent}: {error.strerror or error}; choose another --out") from error
    return path


def write_netcdf(bed: xr.DataArray, path: Path | str, metadata: Mapping[str, Any]) -> Path:
    """Write a bed as a CF-1.10 NetCDF, beside its place first and then renamed.

    Parameters
    ----------
    bed
        Shape (y, x), metres; NaN where undefined. Attributes ``crs`` and ``vertical_datum`` as `Grid` writes them.
    path
        File to write, ending in ``.nc``.
    metadata
        Global attributes: ``title``; ``citations`` (a list) becomes ``references``, ``command`` the first line of
        ``history``, ``input_files`` (path to sha256) a JSON text. Paths lose their folders where they are absolute.

    Returns
    -------
    Path
        The file. Dimensions y (from north to south) and x, the centres of the cells; variables ``bed`` (float32) and
        ``crs`` (grid mapping).

    Raises
    ------
    DatumError
        When the bed's vertical datum is unknown to the project.
    DataError
        When the disk refuses.
    """
    path = require_writable(Path(path))
    grid = Grid.of(bed)
    values = np.asarray(bed, np.float32)
    dataset = xr.Dataset(
        {
            "bed": (("y", "x"), values, _bed_attributes(values, grid)),
            "crs": ((), np.int32(0), _mapping_attributes(grid)),
        },
        coords={
            "y": ("y", grid.y, _axis_attributes("y")),
            "x": ("x", grid.x, _axis_attributes("x")),
        },
        attrs=_global_attributes(metadata, grid, bed),
    )
    encoding: dict[str, dict[str, Any]] = {
        "bed": {
            "_FillValue": np.float32(np.nan),
            "zlib": True,
            "complevel": 4,
            "shuffle": True,
            "chunksizes": tuple(min(_CHUNK, size) for size in grid.shape),
        },
        "crs": {"_FillValue": None},
        "x": {"_FillValue": None},
        "y": {"_FillValue": None},
    }
    with written_beside(path) as beside:
        try:
            dataset.to_netcdf(beside, engine="netcdf4", encoding=encoding)
        except RuntimeError as error:
            # The NetCDF library reports a full disk in words of its own.
            raise DataError(f"cannot write {path}: {error}; free some space or choose another folder") from error
    return path


def software_versions() -> dict[str, str]:
    """Versions of what a map is made with, by name."""
    versions = {name: importlib.metadata.version(name) for name in SOFTWARE}
    return {"deepbedmap_tf": __version__, "python": platform.python_version(), **versions}


def _bed_attributes(values: np.ndarray, grid: Grid) -> dict[str, Any]:
    above_ellipsoid = grid.vertical_datum == ELLIPSOID
    attributes: dict[str, Any] = {
        # In CF an altitude is a height above the geoid, and one above the ellipsoid has a name of its own.
        "standard_name": "height_above_reference_ellipsoid" if above_ellipsoid else "bedrock_altitude",
        "long_name": "bed elevation",
        "units": "m",
        "grid_mapping": "crs",
    }
    if grid.vertical_datum is not None:
        attributes["vertical_datum"] = grid.vertical_datum
    known = np.isfinite(values)
    return attributes | ({"actual_range": _range(values[known])} if known.any() else {})


def _mapping_attributes(grid: Grid) -> dict[str, Any]:
    from pyproj import CRS

    crs = CRS.from_user_input(grid.crs)
    attributes: dict[str, Any] = {"long_name": "coordinate reference system", **crs.to_cf()}
    if attributes.get("grid_mapping_name") == "polar_stereographic":
        # CF wants the pole named; it is the one on the side of the standard parallel.
        pole = -90.0 if attributes.get("standard_parallel", -71.0) < 0 else 90.0
        attributes.setdefault("latitude_of_projection_origin", pole)
    xmin, _, _, ymax = grid.bounds
    attributes["spatial_ref"] = attributes["crs_wkt"]
    attributes["GeoTransform"] = f"{xmin:.12g} {grid.resolution:.12g} 0 {ymax:.12g} 0 {-grid.resolution:.12g}"
    datum = grid.vertical_datum or ""
    if datum.startswith("geoid:"):
        attributes["geoid_name"] = datum.removeprefix("geoid:")
    return attributes


def _axis_attributes(axis: str) -> dict[str, Any]:
    # No `actual_range`: in CF it would be that of the centres, but GMT and GDAL take it for the outer edges.
    return {
        "standard_name": f"projection_{axis}_coordinate",
        "long_name": f"{axis} of the centres of the cells",
        "units": "m",
        "axis": axis.upper(),
    }


def _global_attributes(metadata: Mapping[str, Any], grid: Grid, bed: xr.DataArray) -> dict[str, Any]:
    content = dict(metadata)
    versions = software_versions()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    command = str(content.pop("command", "")) or "written by a script"
    citations = content.pop("citations", ())
    files = {_bare(name): value for name, value in content.pop("input_files", {}).items()}
    title = str(content.pop("title", "Bed elevation"))
    if content.get("synthetic") == "region" and "SYNTHETIC" not in title:
        title = f"SYNTHETIC {title}"
    attributes: dict[str, Any] = {
        "Conventions": "CF-1.10",
        "title": title,
        "source": f"deepbedmap_tf {__version__}, model {content.get('model', 'not named')}",
        "history": f"{now}: {command}",
        "references": "; ".join(citations) or "none named",
        "vertical_datum": grid.vertical_datum or "not stated",
        "date_created": now,
        # GMT reads this as: values belong to cells, not to the crossings of grid lines.
        "node_offset": np.int32(1),
        "input_files_sha256": json.dumps(files, sort_keys=True),
        "software": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    attributes |= {key: bed.attrs[key] for key in ("halo", "empty_blocks") if key in bed.attrs}
    attributes |= {key: _text(value) for key, value in content.items()}
    return {key: value for key, value in attributes.items() if value != ""}


def _range(values: np.ndarray) -> np.ndarray:
    return np.array([values.min(), values.max()], values.dtype)


def _bare(name: str) -> str:
    return PurePath(name).name if PurePath(name).is_absolute() or name.startswith("~") else name


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
