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
from deepbedmap_tf.data import catalog
from deepbedmap_tf.data.cache import cache_directory, digest
from deepbedmap_tf.data.cover import read_cover
from deepbedmap_tf.data.fields import FieldReader
from deepbedmap_tf.data.gridded import grid_picks_once
from deepbedmap_tf.data.gridding import count_picks, mean_of_cells
from deepbedmap_tf.data.holdout import ALL
from deepbedmap_tf.data.pick_entries import PickReader, picks_name
from deepbedmap_tf.data.rasters import canonical_units
from deepbedmap_tf.data.resampling import fill_gaps
from deepbedmap_tf.data.schema import Box, PicksSettings, RegionSettings
from deepbedmap_tf.data.sources import fingerprints, path_within
from deepbedmap_tf.data.transects import chosen_picks, order_along
from deepbedmap_tf.errors import ConfigError, DataError, GridError
from deepbedmap_tf.grid import VERTICAL_DATUMS, Bounds, Grid

_LOGGER = logging.getLogger(__name__)

SCALE = 4
MARGIN = 1
_WORLD = "{world}/"
# Raised when gridding comes out differently from the same picks, so that no cache serves an old grid.
_GRIDDING_VERSION = 2


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
        return tuple(self.settings.holdout.boxes.values())

    @property
    def held_out_names(self) -> tuple[str, ...]:
        """Names of the boxes and polygons that are held out."""
        return tuple(self.settings.holdout.extents)

    @cached_property
    def held_out(self) -> np.ndarray:
        """Output cells that are never trained or validated on, boolean, shape of the grid."""
        return self.held_out_area(ALL)

    def held_out_area(self, name: str) -> np.ndarray:
        """Output cells of one area that is held out, or of all (``holdout``); ConfigError for an unknown name."""
        return self.settings.holdout.mask(self.grid, name)

    def tiling(self, config: DataConfig) -> DataConfig:
        """Return a data configuration with what this region's file says of its own tiling put in."""
        own = self.settings.tiling.model_dump(exclude_none=True) if config.supervision == "complete" else {}
        if own:
            _LOGGER.info("region %s sets %s", self.name, ", ".join(f"{key}={value}" for key, value in own.items()))
        return config.model_copy(update=own)

    def resolve(self, path: str) -> Path:
        """Turn a path of the region file into one of the file system, making the embedded world on first use.

        ``catalogue:KEY/FILE`` is a file that ``deepbedmap fetch`` got; an absent one's `DataError` says how to get it.
        """
        if path.startswith(catalog.REFERENCE):
            return catalog.resolve(path)
        relative = path_within(self.data_dir, path.removeprefix(_WORLD), self.name)
        return (self._world if path.startswith(_WORLD) else self.data_dir) / relative

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

    def weighted_target(self, bounds: Bounds | None = None) -> xr.DataArray:
        """Bed to learn from with a weight a cell, for sparse supervision.

        Returns
        -------
        xarray.DataArray
            Bed at the output resolution, NaN where there is none. Coordinate ``weight`` is n / (n + count_scale) in
            cells with n picks, ``unmeasured_weight`` in others that have a bed, 0 where there is none; ``measured``
            tells the first from the second.

        Raises
        ------
        ConfigError
            When the target is a product and names no radar.
        """
        target = self.settings.target
        window = self._coarse_window(bounds)
        grid = self._fine(window)
        bed = self.target(bounds)
        if target.raster is None:
            counts = count_picks(self.picks("target"), grid)
            measured = (counts > 0) & np.isfinite(bed.to_numpy())
        else:
            purpose = (
                f"sparse supervision of region {self.name} needs `radar` under `target`, the name of its picks; got"
            )
            entries = self._picks_named(target.radar, purpose)
            picks = pd.concat([self._picks_of(entry) for entry in entries], ignore_index=True)
            counts = count_picks(picks, grid)
            # Where the product has no bed, the ice floats or there is none: surface less thickness is no bed there.
            measured = (counts > 0) & np.isfinite(bed.to_numpy())
            bed = bed.copy(data=np.where(measured, mean_of_cells(picks, grid), bed.to_numpy()).astype(np.float32))
            bed.attrs["label"] = f"radar on {bed.attrs['label']}" if target.unmeasured_weight else "radar"
        known_cells = np.isfinite(bed.to_numpy())
        with np.errstate(invalid="ignore"):
            weight = np.where(measured, counts / (counts + target.count_scale), target.unmeasured_weight * known_cells)
        return bed.assign_coords(weight=(("y", "x"), weight.astype(np.float32)), measured=(("y", "x"), measured))

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

    def mask(self, bounds: Bounds | None = None) -> xr.DataArray:
        """What covers the bed, at the output resolution: flags of `data.cover`; ConfigError without a mask."""
        return read_cover(self._reader, self.settings.mask, self._fine(self._coarse_window(bounds)), self.name)

    @property
    def geoid_name(self) -> str | None:
        """Datum whose geoid layer a map carries, None where the region file names no layer."""
        known = self.settings.geoids
        preferred = (self.settings.geoid, self.vertical_datum, *VERTICAL_DATUMS)
        return next((name for name in preferred if name in known), None)

    def geoid(self, bounds: Bounds | None = None) -> xr.DataArray:
        """Height of the geoid `geoid_name` above the WGS84 ellipsoid, m; ConfigError without a geoid layer."""
        if self.geoid_name is None:
            raise ConfigError(f"region {self.name} has no geoid layer; name one under `geoids` of the region file")
        return self._reader.geoid_on_grid(self.geoid_name, self._fine(self._coarse_window(bounds)))

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
        entries = self._picks_named(settings.picks, f"transect {name!r} is over picks")
        frame = pd.concat([self._picks_of(entry) for entry in entries], ignore_index=True)
        area = None if settings.within is None else self.held_out_area(settings.within)
        kept = chosen_picks(frame, self.grid, settings.segment, settings.bounds, area)
        if not kept.any():
            raise DataError(f"transect {name!r} of {self.name} holds no pick; check its bounds, segment and within")
        ordered = order_along(frame.loc[kept], settings.order)
        label = " and ".join(sorted({entry.label for entry in entries}))
        ordered.attrs = {"vertical_datum": self.vertical_datum, "title": settings.title or name, "label": label}
        return ordered

    @cached_property
    def input_sources(self) -> dict[str, str]:
        """Fingerprint (sha256) of every file that the inputs are made from, by its path in the region file."""
        return fingerprints([*self.settings.inputs.values(), *self.settings.geoids.values()], self.resolve)

    @cached_property
    def sources(self) -> dict[str, str]:
        """Fingerprint (sha256) of every file that tiles are made from, by its path in the region file."""
        target = self.settings.target
        picks = [e for e in self.settings.picks if e.role == "target" or target.radar in (picks_name(e), e.path)]
        return {**self.input_sources, **fingerprints([target.raster, *picks], self.resolve)}

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

    def _picks_named(self, name: str | None, purpose: str) -> list[PicksSettings]:
        entries = [entry for entry in self.settings.picks if name in (picks_name(entry), entry.path)]
        if not entries:
            known = ", ".join(picks_name(entry) for entry in self.settings.picks) or "none"
            raise ConfigError(f"{purpose} {name!r}; picks there are: {known}")
        return entries

    def _picks_of(self, entry: PicksSettings) -> pd.DataFrame:
        name = picks_name(entry)
        if name not in self._picks:
            reader = PickReader(self._reader, self.settings.inputs, self.bounds, self.vertical_datum, self.name)
            self._picks[name] = reader.read(entry)
        return self._picks[name]

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
        return grid_picks_once(
            lambda: self.picks("target"),
            self.grid,
            tension=target.tension,
            mask_cells=target.mask_cells,
            place=cache_directory() / "gridded" / f"{self.name}-{digest(content)[:20]}.npz",
        )


def _cut(array: xr.DataArray, bounds: Bounds) -> xr.DataArray:
    xmin, ymin, xmax, ymax = bounds
    return array.sel(x=slice(xmin, xmax), y=slice(ymax, ymin)).copy()
