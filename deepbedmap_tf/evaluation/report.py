"""Evaluate a model along a transect: predict around it, compare with every product there is, write it down."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from deepbedmap_tf import __version__
from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.evaluation.baselines import BoostedProduct
from deepbedmap_tf.evaluation.maps import compare_maps
from deepbedmap_tf.evaluation.tables import format_tables
from deepbedmap_tf.evaluation.transects import Comparison, Product, Scores, compare, rasterise, sample
from deepbedmap_tf.evaluation.windows import HeldOutArea, held_out_areas, speed_of, speed_on, surface_on, window_around
from deepbedmap_tf.grid import Bounds, Grid
from deepbedmap_tf.scoring.baselines import bicubic

if TYPE_CHECKING:
    from deepbedmap_tf.data.region import Region

logger = logging.getLogger(__name__)

Predict = Callable[[Any, Any, Bounds], xr.DataArray]
"""``predict(model, region, bounds)`` gives the bed on the region's output cells within the bounds."""

MakeProduct = Callable[[Any, Bounds], Product]
"""``make(region, bounds)`` gives one further bed to compare."""

RADAR = "radar"
"""What picks are called where the region file says nothing else; also their key among the scores."""

LABELS = {"bedmachine": "BedMachine", "truth": "Truth"}
"""What tables and figures call references that have no label of their own."""

COLOURS = ("0/114/178", "86/180/233", "204/121/167")
"""GMT colours of the references' lines, told apart by colour-blind readers too (Okabe & Ito)."""


@dataclass(frozen=True)
class Evaluation:
    """All that was found along one transect.

    Attributes
    ----------
    title
        Of the transect, for figures; says SYNTHETIC where it is.
    transect
        Name of the transect.
    synthetic
        True when the region is an embedded world.
    scattered
        True when the picks follow no line.
    bounds
        Edges of the window around the transect, m.
    products
        Beds within it, DeepBedMap first.
    surface
        Ice surface on the same cells, m.
    radar
        Median of the radar picks in each of those cells, of all picks there are, m; NaN elsewhere.
    truth
        The true bed on the same cells, where it is known.
    comparison
        Scores and profile along the transect.
    areas
        Name of a held-out area to scores against its radar cells, for picks that follow no line.
    maps
        Name of a map (``window``, ``box 1`` ...) to scores against the truth there.
    about
        What was evaluated with what: written as ``_about``.
    reference
        What the picks are: radar, or what stands in for it where there is none.
    """

    title: str
    transect: str
    synthetic: bool
    scattered: bool
    bounds: Bounds
    products: tuple[Product, ...]
    surface: xr.DataArray
    radar: xr.DataArray
    truth: xr.DataArray | None
    comparison: Comparison
    areas: dict[str, dict[str, Scores]] = field(default_factory=dict)
    maps: dict[str, dict[str, Scores]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    reference: str = RADAR

    def metrics(self) -> dict[str, Any]:
        """Collect the content of ``metrics.json``: products by name, the rest under keys with an underscore.

        What the products are compared with has the key ``radar`` where it is radar, ``reference`` where it is not.
        """
        scores, areas = self.comparison.scores, self.areas
        if self.reference != RADAR:
            scores = _renamed(scores)
            areas = {name: _renamed(each) for name, each in areas.items()}
        return {**scores, "_areas": areas, "_maps": self.maps, "_about": self.about}

    def profile(self) -> pd.DataFrame:
        """Return the content of ``profile.csv``, with the same names as `metrics`."""
        if self.reference == RADAR:
            return self.comparison.profile
        return self.comparison.profile.rename(columns=lambda name: name.replace(RADAR, "reference"))

    def table(self) -> str:
        """Format the scores for a console."""
        labels = {product.name: product.label for product in self.products}
        count = self.comparison.scores["radar"]["count"]
        heading = f"{self.title}: {count} radar picks"
        if self.reference != RADAR:
            heading = f"{self.title}: {count} points of {self.reference}\nNo radar here: that is the reference"
        if learned := self.about.get("learned_from"):
            heading += f"; the network learned from {' and '.join(learned)}"
        return format_tables(heading, self.comparison.scores, self.areas, self.maps, labels, self.reference)


def evaluate_region(
    region: Region, transect: str, model: Any, predict: Predict, extra: Sequence[MakeProduct] = ()
) -> Evaluation:
    """Compare a model with bicubic, the region's reference products and radar along one of its transects.

    Parameters
    ----------
    region
        Where the inputs, references and picks come from.
    transect
        Name of one of the region's transects.
    model, predict
        ``predict(model, region, bounds)`` gives the bed.
    extra
        Makers of further beds to compare, on the region's cells within the bounds they are given.

    Raises
    ------
    DeepBedMapError
        For an unknown transect, picks without values, inputs that are missing.
    """
    picks = region.transect(transect).reset_index(drop=True)
    reference = str(picks.attrs.get("label", RADAR))
    scattered = region.transects[transect].order == "principal"
    bounds = window_around(
        picks["x"].to_numpy(np.float64), picks["y"].to_numpy(np.float64), region.bounds, 4 * region.resolution
    )
    grid = region.grid.window(bounds)
    logger.info("predicting %d x %d cells around transect %s", *grid.shape, transect)
    inputs = region.inputs(bounds)
    products = _products(region, model, predict, bounds, inputs, extra)
    surface, speed = surface_on(grid, inputs), speed_of(inputs)
    if "surface" not in picks:
        picks["surface"] = sample(surface, picks["x"].to_numpy(), picks["y"].to_numpy(), "l")
    speed_at_picks = None if speed is None else sample(speed, picks["x"].to_numpy(), picks["y"].to_numpy(), "l")
    truth = region.reference("truth", bounds) if "truth" in region.settings.references else None
    # The truth is a product like any other against radar: its error is the radar's own.
    against_radar = [*products] if truth is None else [*products, Product("truth", "Truth", truth, "black")]
    comparison = compare(picks, against_radar, grid, speed_at_picks, scattered)
    comparison.profile.insert(4, "surface", picks["surface"].to_numpy())
    if speed_at_picks is not None:
        comparison.profile.insert(5, "speed", speed_at_picks)
    for product in against_radar:
        comparison.scores[product.name]["above_surface"] = _share_above(product.bed, surface)

    areas: dict[str, dict[str, Scores]] = {}
    if scattered:
        for area in held_out_areas(region):
            inside = area.holds(picks)
            if inside.any():
                speeds = None if speed_at_picks is None else speed_at_picks[inside]
                areas[area.name] = compare(picks[inside], against_radar, grid, speeds, scattered).scores
    maps: dict[str, dict[str, Scores]] = {}
    if truth is not None:
        maps["window"] = compare_maps(products, truth, speed_on(grid, speed))
        for area in held_out_areas(region):
            maps[area.name] = _score_area(region, model, predict, area, extra)
    about = _about(region, transect, bounds, comparison, getattr(model, "metadata", {}))
    about["reference"] = reference
    return Evaluation(
        title=about["title"],
        transect=transect,
        synthetic=bool(region.synthetic),
        scattered=scattered,
        bounds=bounds,
        products=products,
        surface=surface,
        radar=_radar(region, grid, picks),
        truth=truth,
        comparison=comparison,
        areas=areas,
        maps=maps,
        about=about,
        reference=reference,
    )


def evaluate(
    model_folder: Path | str,
    transect: str,
    region_file: Path | str | None = None,
    data_dir: Path | str | None = None,
    out: Path | str | None = None,
    baseline_tiles: Sequence[Path | str] = (),
) -> Evaluation:
    """Load a saved model and a region, evaluate, and write ``metrics.json`` and ``profile.csv``.

    Parameters
    ----------
    model_folder
        ``saved_models/<name>``.
    transect
        Name of one of the region's transects.
    region_file
        Region; None takes the one the model was trained on, as its model.json says.
    data_dir
        Folder that the region file's relative paths start from.
    out
        Folder for the results, made if needed; None writes nothing.
    baseline_tiles
        Tile stores whose training tiles a boosted regression learns from, to be compared as one more product.

    Raises
    ------
    DeepBedMapError
        Whatever is wrong with the model, region or transect, before anything is written.
    """
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.inference.export import load_model
    from deepbedmap_tf.inference.predict import predict_window

    model = load_model(model_folder)
    region = load_region(region_file or default_region(getattr(model, "metadata", {})), data_dir=data_dir)
    extra = (BoostedProduct.from_tiles(*baseline_tiles),) if baseline_tiles else ()
    result = evaluate_region(region, transect, model, predict_window, extra)
    result.about["model"] = Path(model_folder).name
    if out is not None:
        write(result, Path(out))
    return result


def default_region(metadata: Mapping[str, Any]) -> str:
    """Region file named in a model's metadata, else that of the embedded world."""
    regions = metadata.get("config", {}).get("data", {}).get("regions", ())
    return str(regions[0]) if regions else "configs/regions/synthetic.yml"


def write(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write ``metrics.json`` and ``profile.csv``, each beside its place first and then renamed.

    Raises
    ------
    DataError
        When the folder can't be written.
    """
    metrics = json.dumps(_plain(evaluation.metrics()), indent=2, allow_nan=False) + "\n"
    profile = evaluation.profile()
    columns = {name: _decimals(name) for name in profile.columns}
    rounded = profile.round({name: digits for name, digits in columns.items() if digits is not None})
    paths = [out / "metrics.json", out / "profile.csv"]
    # Both are complete before either takes its name.
    with written_beside(paths[0]) as first, written_beside(paths[1]) as second:
        first.write_text(metrics, encoding="utf-8")
        second.write_text(rounded.to_csv(index=False), encoding="utf-8")
    return paths


def _products(
    region: Region,
    model: Any,
    predict: Predict,
    bounds: Bounds,
    inputs: Mapping[str, xr.DataArray],
    extra: Sequence[MakeProduct],
) -> tuple[Product, ...]:
    products = [
        Product("deepbedmap", "DeepBedMap", predict(model, region, bounds), "216/27/96"),
        Product("bicubic", "Bicubic low-resolution bed", bicubic(inputs["bed_lowres"]), "230/159/0"),
    ]
    for name, colour in zip((n for n in region.settings.references if n != "truth"), cycle(COLOURS)):
        label = region.settings.references[name].label or LABELS.get(name, name)
        products.append(Product(name, label, region.reference(name, bounds), colour))
    return (*products, *(make(region, bounds) for make in extra))


def _radar(region: Region, grid: Grid, transect: pd.DataFrame) -> xr.DataArray:
    columns = ["x", "y", "bed"]
    every = pd.concat([region.picks()[columns], transect[columns]]).drop_duplicates()
    cells = rasterise(grid, *(every[column].to_numpy(np.float64) for column in columns))
    return grid.dataarray(cells.astype(np.float32), "bed", "m", long_name="bed elevation, median of radar picks")


def _score_area(
    region: Region, model: Any, predict: Predict, area: HeldOutArea, extra: Sequence[MakeProduct]
) -> dict[str, Scores]:
    inputs = region.inputs(area.bounds)
    products = _products(region, model, predict, area.bounds, inputs, extra)
    truth = region.reference("truth", area.bounds).where(area.cells)
    return compare_maps(products, truth, speed_on(area.grid, speed_of(inputs)))


def _share_above(bed: xr.DataArray, surface: xr.DataArray) -> float:
    """Share of the cells where the bed would lie above the ice surface."""
    known = np.isfinite(bed.values) & np.isfinite(surface.values)
    return float((bed.values > surface.values)[known].mean()) if known.any() else float("nan")


def _title(region: Region, transect: str, synthetic_model: bool) -> str:
    title = region.transects[transect].title or f"{region.title}, transect {transect}"
    if region.synthetic:
        return title if "SYNTHETIC" in title else f"SYNTHETIC {title}"
    return f"{title} (model of a SYNTHETIC world)" if synthetic_model else title


def _about(
    region: Region, transect: str, bounds: Bounds, comparison: Comparison, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "region": region.name,
        "title": _title(region, transect, bool(metadata.get("synthetic"))),
        "synthetic": bool(region.synthetic),
        "transect": transect,
        "bounds": list(bounds),
        "resolution": float(region.resolution),
        "vertical_datum": region.vertical_datum,
        "picks": len(comparison.profile),
        "picks_scored": comparison.scores["radar"]["count"],
        "roughness": {
            "rule": "population standard deviation over the cells with picks in 5 x 5, every product on the same cells",
            "fewest_cells": comparison.min_count,
            "cells": comparison.roughness_cells,
        },
        "model": metadata.get("name"),
        "learned_from": _learned_from(metadata),
        "model_synthetic": bool(metadata.get("synthetic")),
        "citations": list(region.citations),
        "version": __version__,
    }


def _renamed(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    return {"reference" if name == RADAR else name: values for name, values in scores.items()}


def _learned_from(metadata: Mapping[str, Any]) -> list[str]:
    """Labels of the beds that the model was trained on, such as radar or pseudo-truth."""
    stores = metadata.get("training_data", {}).get("stores", ())
    return sorted({str(store["label"]) for store in stores if store.get("label")})


def _decimals(column: str) -> int | None:
    return 1 if column in ("x", "y", "distance") else 3


def _plain(value: Any) -> Any:
    """Turn numpy numbers, tuples and NaN into what JSON has: NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
