"""A finished map in its working store, read chunk by chunk, and what every product says of it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from deepbedmap_tf import __version__
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import Variable

SOFTWARE = ("tensorflow", "keras", "numpy", "xarray", "netCDF4", "zarr", "rasterio", "pyproj")
REALIZATION = "realization"
MAPPING = "crs"
_CHUNK = 512

Part = tuple[slice, slice]


@dataclass(frozen=True)
class StoredMap:
    """A finished map, of which only single chunks are ever in memory.

    Attributes
    ----------
    store
        Zarr group with one array a variable, dims (y, x) or (y, x, realization).
    grid
        Cells of the map, with its vertical datum.
    variables
        Those of `layers.variables`.
    metadata
        What the map says of itself: ``title``; ``citations`` (a list) becomes ``references``, ``command`` the first
        line of ``history``, ``input_files`` (path to sha256) a JSON text, as does every other mapping. Paths lose
        their folders where they are absolute.
    created
        When the products are written.
    """

    store: Path
    grid: Grid
    variables: tuple[Variable, ...]
    metadata: Mapping[str, Any]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        import zarr

        group = zarr.open_group(str(self.store), mode="r")
        return {each.name: group[each.name] for each in self.variables}

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns of a chunk, no larger than the map."""
        rows, columns = self._arrays[self.variables[0].name].chunks[:2]
        return min(int(rows), self.grid.shape[0]), min(int(columns), self.grid.shape[1])

    @property
    def realisations(self) -> int:
        """Size of the dimension of realisations, 0 without one."""
        sizes = [self._arrays[each.name].shape[2] for each in self.variables if each.per_realisation]
        return int(sizes[0]) if sizes else 0

    def parts(self) -> Iterator[Part]:
        """Rows and columns of every chunk, from north to south and from west to east."""
        (height, width), (rows, columns) = self.grid.shape, self.chunk
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))

    def read(self, variable: Variable, part: Part) -> np.ndarray:
        """Values of a part, shape (rows, columns) or (realization, rows, columns)."""
        values = np.asarray(self._arrays[variable.name][part], variable.dtype)
        return np.moveaxis(values, -1, 0) if variable.per_realisation else values

    def dimensions(self, variable: Variable) -> tuple[str, ...]:
        """Names of its dimensions in the products."""
        return (REALIZATION, "y", "x") if variable.per_realisation else ("y", "x")

    def shape(self, variable: Variable) -> tuple[int, ...]:
        """Its shape in the products."""
        return (self.realisations, *self.grid.shape) if variable.per_realisation else self.grid.shape

    def chunks(self, variable: Variable) -> tuple[int, ...]:
        """Shape of a chunk in the products: one of the store's or an even part of it, of a single realisation."""
        rows, columns = (_even_part(size) for size in self.chunk)
        return (1, rows, columns) if variable.per_realisation else (rows, columns)

    def coordinates(self) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
        """Values and CF attributes of y, x and, where there are some, realisations."""
        made = {axis: (getattr(self.grid, axis), _axis_attributes(axis)) for axis in ("y", "x")}
        if self.realisations:
            numbers = np.arange(1, self.realisations + 1, dtype=np.int32)
            attributes = {"long_name": "number of the realization", "standard_name": REALIZATION, "units": "1"}
            made[REALIZATION] = (numbers, attributes)
        return made

    def attributes(self, variable: Variable) -> dict[str, Any]:
        """CF attributes of a variable, flags in its own type."""
        attributes = {**variable.attributes, "grid_mapping": MAPPING}
        if "flag_values" in attributes:
            attributes["flag_values"] = np.asarray(attributes["flag_values"], variable.dtype)
        return attributes

    def mapping_attributes(self) -> dict[str, Any]:
        """CF attributes of the grid mapping, and what GDAL reads."""
        from pyproj import CRS

        crs = CRS.from_user_input(self.grid.crs)
        attributes: dict[str, Any] = {"long_name": "coordinate reference system", **crs.to_cf()}
        if attributes.get("grid_mapping_name") == "polar_stereographic":
            # CF wants the pole named; it is the one on the side of the standard parallel.
            pole = -90.0 if attributes.get("standard_parallel", -71.0) < 0 else 90.0
            attributes.setdefault("latitude_of_projection_origin", pole)
        xmin, _, _, ymax = self.grid.bounds
        cell = self.grid.resolution
        attributes["spatial_ref"] = attributes["crs_wkt"]
        attributes["GeoTransform"] = f"{xmin:.12g} {cell:.12g} 0 {ymax:.12g} 0 {-cell:.12g}"
        datum = self.grid.vertical_datum or ""
        if datum.startswith("geoid:"):
            attributes["geoid_name"] = datum.removeprefix("geoid:")
        return attributes

    def global_attributes(self) -> dict[str, Any]:
        """What the map says of itself, as attributes of CF."""
        content = dict(self.metadata)
        command = str(content.pop("command", "")) or "written by a script"
        citations = content.pop("citations", ())
        files = {_bare(name): value for name, value in content.pop("input_files", {}).items()}
        content.pop("title", None)
        attributes: dict[str, Any] = {
            "Conventions": "CF-1.10",
            "title": self.title,
            "institution": "not stated",
            "source": f"deepbedmap_tf {__version__}, model {content.get('model', 'not named')}",
            "history": f"{self._stamp}: {command}",
            "references": "; ".join(citations) or "none named",
            "vertical_datum": self.grid.vertical_datum or "not stated",
            "date_created": self._stamp,
            # GMT reads this as: values belong to cells, not to the crossings of grid lines.
            "node_offset": np.int32(1),
            "input_files_sha256": json.dumps(files, sort_keys=True),
            "software": ", ".join(f"{name} {version}" for name, version in software_versions().items()),
        }
        attributes |= {key: _text(value) for key, value in content.items()}
        return {key: value for key, value in attributes.items() if value not in ("", None)}

    @property
    def title(self) -> str:
        """Of the map; one of an embedded world says SYNTHETIC."""
        title = str(self.metadata.get("title", "Bed elevation"))
        synthetic = self.metadata.get("synthetic") == "region" and "SYNTHETIC" not in title
        return f"SYNTHETIC {title}" if synthetic else title

    @property
    def _stamp(self) -> str:
        return self.created.isoformat(timespec="seconds")


@dataclass
class Range:
    """Lowest and highest value of what has been seen, for ``actual_range``."""

    low: float = float("inf")
    high: float = float("-inf")

    def see(self, values: np.ndarray) -> None:
        """Take values into account, NaN left out."""
        known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if known.size:
            self.low, self.high = min(self.low, known.min()), max(self.high, known.max())

    def attributes(self, dtype: str) -> dict[str, Any]:
        """As an attribute of CF; none where there was no value at all."""
        return {"actual_range": np.array([self.low, self.high], dtype)} if self.low <= self.high else {}


def software_versions() -> dict[str, str]:
    """Versions of what a map is made with, by name."""
    versions = {name: importlib.metadata.version(name) for name in SOFTWARE}
    return {"deepbedmap_tf": __version__, "python": platform.python_version(), **versions}


def _even_part(size: int) -> int:
    """A chunk of the store is a block of the network; one that is read for a few cells has at most 512 x 512."""
    return next((size // parts for parts in range(1, 33) if size % parts == 0 and size // parts <= _CHUNK), size)


def _axis_attributes(axis: str) -> dict[str, Any]:
    # No `actual_range`: in CF it would be that of the centres, but GMT and GDAL take it for the outer edges.
    return {
        "standard_name": f"projection_{axis}_coordinate",
        "long_name": f"{axis} of the centres of the cells",
        "units": "m",
        "axis": axis.upper(),
    }


def _bare(name: str) -> str:
    return PurePath(name).name if PurePath(name).is_absolute() or name.startswith("~") else name


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, default=str)
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else value
