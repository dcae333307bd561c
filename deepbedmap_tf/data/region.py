"""A region: where each input lies, what is learned from, and what is measured against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from deepbedmap_tf.config import DEFAULT_INPUTS, DataConfig, InputConfig, read_yaml, validate
from deepbedmap_tf.data.cache import cache_directory, digest, file_sha256, written_beside
from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.gridding import grid_picks
from deepbedmap_tf.data.picks import bed_from_thickness, read_picks
from deepbedmap_tf.data.rasters import canonical_units
from deepbedmap_tf.data.resampling import fill_gaps
from deepbedmap_tf.data.schema import Box, LayerSettings, PicksSettings, RasterSettings, RegionSettings
from deepbedmap_tf.data.transects import order_along
from deepbedmap_tf.errors import ConfigError, DataError, GridError
from deepbedmap_tf.grid import Bounds, Grid

_LOGGER = logging.getLogger(__name__)

SCALE = 4
MARGIN = 1
_WORLD = "{world}/"
# Raised when gridding comes out differently from the same picks, so that no cache serves an old grid.
_GRIDDING_VERSION = 1


def load_region(path: Path | str, data_dir: Path | str | None = None) -> Region:
    """Read a region file.

    Parameters
    ----------
    path
        ``configs/regions/<name>.yml``.
    data_dir
        Folder that the file's relative paths start from; the root of the checkout by default.

    Raises
    ------
    ConfigError
        For an unreadable file, a missing or an unknown key.
    GridError
        When the bounds are not a whole number of low-resolution cells.
    """
    settings = validate(RegionSettings, read_yaml(path), str(path))
    root = Path(data_dir) if data_dir is not None else Path(__file__).resolve().parents[2]
    if not root.is_dir():
        raise ConfigError(f"--data-dir {root} is no folder; expected the one that the paths of {path} start from")
    return Region(settings, root)


class Region:
    """The data of a region, read from its files whenever they are asked for.

    Parameters
    ----------
    settings
        Content of the region file.
    data_dir
        Folder that relative paths start from.
    """

    def __init__(self, settings: RegionSettings, data_dir: Path) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self.name = settings.name
        self.title = settings.title
        self.synthetic = settings.synthetic
        self.resolution = settings.resolution
        self.vertical_datum = settings.vertical_datum
        self.citations = settings.citations
        self.transects = settings.transects
        self.coarse_grid = Grid.from_bounds(settings.bounds, SCALE * self.resolution, crs=settings.crs)
        self.grid = self.coarse_grid.refine(SCALE).with_datum(self.vertical_datum)
        self.bounds: Bounds = self.grid.bounds
        self._reader = FieldReader(self.resolve, settings.crs, settings.geoids)
        self._picks: dict[str, pd.DataFrame] = {}

    @property
    def holdout(self) -> tuple[Box, ...]:
        """Boxes (xmin, ymin, xmax, ymax) that are never trained or validated on."""
        return self.settings.holdout.test

    def tiling(self, config: DataConfig) -> DataConfig:
        """Return a data configuration with what this region's file says of its own tiling put in."""
        own = self.settings.tiling.model_dump(exclude_none=True)
        if own:
            _LOGGER.info("region %s sets %s", self.name, ", ".join(f"{key}={value}" for key, value in own.items()))
        return config.model_copy(update=own)

    def resolve(self, path: str) -> Path:
        """Turn a path of the region file into one of the file system, making the embedded world on first use."""
        if path.startswith(_WORLD):
            return self._world / path.removeprefix(_WORLD)
        return self.data_dir / Path(path).expanduser()

    def inputs(
        self, bounds: Bounds | None = None, inputs: Sequence[InputConfig] = DEFAULT_INPUTS
    ) -> dict[str, xr.DataArray]:
        """Inputs of the network over a window with a margin of one low-resolution cell all round.

        Parameters
        ----------
        bounds
            Edges of the window, on edges of low-resolution cells; the whole region by default.
        inputs
            Which inputs, at how many cells per low-resolution cell.

        Returns
        -------
        dict of xarray.DataArray
            Shape ((rows + 2) * ratio, (columns + 2) * ratio[, bands]), float32, heights in the region's datum,
            NaN where invalid and not filled; coordinate ``valid`` tells what was valid before filling.

        Raises
        ------
        ConfigError
            When the region file lacks an input or gives other units.
        DataError
            When an input has no valid cell in the window.
        GridError
            When the window cuts through cells or leaves the region.
        """
        return self.inputs_on(self._coarse_window(bounds), inputs)

    def inputs_on(self, coarse: Grid, inputs: Sequence[InputConfig] = DEFAULT_INPUTS) -> dict[str, xr.DataArray]:
        """Inputs over any grid of low-resolution cells, also one shifted against the region's; see `inputs`."""
        return {each.name: self._input(each, coarse.pad(MARGIN).refine(each.ratio)) for each in inputs}

    def target(self, bounds: Bounds | None = None) -> xr.DataArray:
        """Bed to learn from at the output resolution, NaN where there is none; ``attrs["label"]`` says what it is."""
        target = self.settings.target
        window = self._coarse_window(bounds)
        if target.raster is None:
            bed = _cut(self._gridded_picks, window.bounds)
            bed.attrs["label"] = target.label or "radar"
            return bed
        label = target.label or target.raster.label or "pseudo-truth"
        bed = self._reader.on_grid(target.raster, self._fine(window), "target")
        bed.attrs["label"] = label
        return bed.rename("bed")

    def reference(self, name: str, bounds: Bounds | None = None) -> xr.DataArray:
        """Bed of another product at the output resolution, in the region's datum.

        Raises
        ------
        ConfigError
            When the region file names no such reference.
        """
        if name not in self.settings.references:
            known = ", ".join(self.settings.references) or "none"
            raise ConfigError(f"region {self.name} has no reference {name!r}; known are: {known}")
        settings = self.settings.references[name]
        bed = self._reader.on_grid(settings, self._fine(self._coarse_window(bounds)), name)
        return fill_gaps(bed, settings.fill, settings.fill_limit)

    def picks(self, role: str | None = None) -> pd.DataFrame:
        """Radar picks within the region, of one role or all.

        Returns
        -------
        pandas.DataFrame
            Columns x, y (m), bed, surface (m in the region's datum), thickness (m), segment, picks (name of the file).

        Raises
        ------
        DataError
            When there are none.
        """
        entries = [entry for entry in self.settings.picks if role in (None, entry.role)]
        if not entries:
            roles = ", ".join(sorted({entry.role for entry in self.settings.picks})) or "none"
            raise ConfigError(f"region {self.name} has no picks of role {role!r}; roles there are: {roles}")
        frames = [self._picks_of(entry) for entry in entries]
        frame = pd.concat(frames, ignore_index=True)
        frame.attrs = {"vertical_datum": self.vertical_datum, "masked": sum(f.attrs["masked"] for f in frames)}
        return frame

    def transect(self, name: str) -> pd.DataFrame:
        """Picks of a transect in order, with ``distance`` along it in metres.

        Raises
        ------
        ConfigError
            When the region file names no such transect.
        DataError
            When no pick is left after its bounds and segment.
        """
        if name not in self.transects:
            known = ", ".join(self.transects) or "none"
            raise ConfigError(f"region {self.name} has no transect {name!r}; known are: {known}")
        settings = self.transects[name]
        entries = [entry for entry in self.settings.picks if settings.picks in (_picks_name(entry), entry.path)]
        if not entries:
            known = ", ".join(_picks_name(entry) for entry in self.settings.picks) or "none"
            raise ConfigError(f"transect {name!r} is over picks {settings.picks!r}; picks there are: {known}")
        frame = pd.concat([self._picks_of(entry) for entry in entries], ignore_index=True)
        kept = np.ones(len(frame), bool)
        if settings.segment is not None:
            kept &= (frame["segment"] == settings.segment).to_numpy()
        if settings.bounds is not None:
            kept &= _in_box(frame, settings.bounds)
        if settings.within == "holdout":
            kept &= np.any([_in_box(frame, box) for box in self.holdout], axis=0) if self.holdout else False
        if not kept.any():
            raise DataError(f"transect {name!r} of {self.name} holds no pick; check its bounds and segment")
        ordered = order_along(frame.loc[kept], settings.order)
        ordered.attrs = {"vertical_datum": self.vertical_datum, "title": settings.title or name}
        return ordered

    @cached_property
    def sources(self) -> dict[str, str]:
        """Fingerprint (sha256) of every file that tiles are made from, by its path in the region file."""
        layers: list[Any] = [
            *self.settings.inputs.values(),
            *self.settings.geoids.values(),
            self.settings.target.raster,
        ]
        layers += [entry for entry in self.settings.picks if entry.role == "target"]
        paths = sorted({path for layer in layers if layer is not None for path in _paths(layer)})
        return {path: file_sha256(self.resolve(path)) for path in paths}

    def provenance(self) -> dict[str, Any]:
        """What the region's data are and come from, for the metadata of everything made from them."""
        return {
            "region": self.name,
            "title": self.title,
            "synthetic": self.synthetic,
            "resolution": self.resolution,
            "crs": self.settings.crs,
            "vertical_datum": self.vertical_datum,
            "bounds": list(self.bounds),
            "citations": list(self.citations),
            "settings": self.settings.model_dump(mode="json"),
            "sources": self.sources,
        }

    @cached_property
    def _world(self) -> Path:
        from deepbedmap_tf.data.synthetic import make_world
        from deepbedmap_tf.data.world_parameters import WorldParameters

        if self.settings.world is None:
            raise ConfigError(f"region {self.name} has a path with {_WORLD} but no `world`; add its parameters")
        return Path(make_world(validate(WorldParameters, self.settings.world, f"world of region {self.name}")))

    def _coarse_window(self, bounds: Bounds | None) -> Grid:
        if bounds is None:
            return self.coarse_grid
        window = self.coarse_grid.window(bounds)
        inside, outer = window.bounds, self.bounds
        if inside[0] < outer[0] or inside[1] < outer[1] or inside[2] > outer[2] or inside[3] > outer[3]:
            raise GridError(
                f"bounds {list(inside)} leave region {self.name}, which is {list(outer)}; choose a part of it"
            )
        return window

    def _fine(self, coarse: Grid) -> Grid:
        return coarse.refine(SCALE).with_datum(self.vertical_datum)

    def _input(self, wanted: InputConfig, grid: Grid) -> xr.DataArray:
        settings = self.settings.inputs.get(wanted.name)
        if settings is None:
            raise ConfigError(
                f"region {self.name} has no input {wanted.name!r}; it has {', '.join(self.settings.inputs)}"
            )
        if canonical_units(settings.units) != canonical_units(wanted.units):
            raise ConfigError(
                f"input {wanted.name!r} of region {self.name} is in {settings.units!r}, expected {wanted.units!r}; "
                "state source_units, scale and units"
            )
        heights = settings.vertical_datum is not None or wanted.name in ("bed_lowres", "surface")
        field = self._reader.on_grid(settings, grid.with_datum(self.vertical_datum if heights else None), wanted.name)
        bands = field.shape[2] if field.ndim == 3 else 1
        if bands != wanted.channels:
            raise ConfigError(
                f"input {wanted.name!r} of region {self.name} has {bands} bands, expected {wanted.channels}; name them "
                "in `variables`"
            )
        return fill_gaps(field, settings.fill, settings.fill_limit)

    def _picks_of(self, entry: PicksSettings) -> pd.DataFrame:
        name = _picks_name(entry)
        if name in self._picks:
            return self._picks[name]
        frame = read_picks(self.resolve(entry.path), entry.format)
        frame = frame.loc[_in_box(frame, self.bounds)].reset_index(drop=True)
        if not len(frame):
            raise DataError(f"none of the picks in {entry.path} lies in region {self.name}; check its bounds")
        x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
        if entry.format == "cells":
            surface = self.settings.inputs.get(entry.surface) if isinstance(entry.surface, str) else entry.surface
            if surface is None:
                raise ConfigError(f"picks {name!r} need surface {entry.surface!r}; it is no input of {self.name}")
            frame = bed_from_thickness(frame, self._reader.at_points(surface, x, y, self.vertical_datum, "surface"))
        else:
            shift = self._reader.datum_shift(x, y, entry.vertical_datum, self.vertical_datum, entry.geoid, name)
            frame["bed"] += shift
            frame["surface"] += shift
            frame = frame.loc[frame["bed"].notna()].reset_index(drop=True)
        frame["picks"] = name
        self._picks[name] = frame
        return frame

    @cached_property
    def _gridded_picks(self) -> xr.DataArray:
        target = self.settings.target
        entries = [entry for entry in self.settings.picks if entry.role == "target"]
        content = {
            "version": _GRIDDING_VERSION,
            "grid": [self.grid.shape, list(self.grid.bounds), self.vertical_datum],
            "parameters": [target.tension, target.mask_cells],
            "picks": [entry.model_dump(mode="json") for entry in entries],
            "sources": self.sources,
        }
        path = cache_directory() / "gridded" / f"{self.name}-{digest(content)[:20]}.npz"
        try:
            with np.load(path) as stored:
                bed, measured = stored["bed"], stored["measured"]
            return self.grid.dataarray(bed, "bed", "m").assign_coords(measured=(("y", "x"), measured))
        except (OSError, ValueError, KeyError, EOFError, GridError):
            _LOGGER.info("gridding the picks of region %s, once; kept in %s", self.name, path.parent)
        gridded = grid_picks(self.picks("target"), self.grid, tension=target.tension, mask_cells=target.mask_cells)
        with written_beside(path) as beside, beside.open("wb") as stream:
            np.savez_compressed(stream, bed=gridded.to_numpy(), measured=gridded["measured"].to_numpy())
        return gridded


def _cut(array: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    xmin, ymin, xmax, ymax = bounds
    return array.sel(x=slice(xmin, xmax), y=slice(ymax, ymin)).copy()


def _in_box(frame: pd.DataFrame, box: Bounds) -> np.ndarray:
    xmin, ymin, xmax, ymax = box
    return np.asarray(frame["x"].between(xmin, xmax) & frame["y"].between(ymin, ymax))


def _picks_name(entry: PicksSettings) -> str:
    return entry.name or Path(entry.path).stem


def _paths(layer: RasterSettings | LayerSettings | PicksSettings) -> list[str]:
    further: list[Any] = [getattr(layer, key, None) for key in ("geoid", "fallback", "surface")]
    further += [each for each in getattr(layer, "add", ()) if not isinstance(each, str)]
    nested = [path for each in further if each is not None and not isinstance(each, str) for path in _paths(each)]
    return [layer.path, *nested]
