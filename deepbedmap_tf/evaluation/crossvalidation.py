"""Blocked cross-validation: a network a fold, scored beside baselines at radar cells that its training never saw."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepbedmap_tf.config import Config
from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.data.cutting import deal_cells
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.scoring import metrics
from deepbedmap_tf.scoring.baselines import BoostedRegression, bicubic
from deepbedmap_tf.scoring.roughness import shared_roughness

if TYPE_CHECKING:
    from deepbedmap_tf.training.loop import TrainingData

LOGGER = logging.getLogger(__name__)
Bed = NDArray[np.floating]
Scores = dict[str, float]

PRODUCTS = {
    "deepbedmap": "DeepBedMap",
    "bicubic": "Bicubic",
    "bedmachine": "BedMachine",
    "boosted": "Boosted regression",
}
"""What is scored, by key; a region without a BedMachine reference leaves that out."""


def cross_validate(
    config: Config,
    region_file: Path | str,
    out: Path,
    data_dir: Path | str | None = None,
    initial: Path | str | None = None,
    only: Sequence[int] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train and score one network a fold; a fold that is done, or begun, in `out` is not begun anew.

    Parameters
    ----------
    config
        With ``data.folds`` and ``data.supervision: sparse``.
    region_file, data_dir
        The region and the folder that its paths start from.
    out
        Each fold's checkpoints and model go to ``fold-<k>``, the scores to ``metrics.json``.
    initial
        Exported model that every fold starts from.
    only
        Folds to train, all by default; those in `out` that are trained already are scored in any case.
    progress
        Show progress bars.

    Returns
    -------
    dict
        ``folds``: fold (counted from 0), product and scores; ``mean`` and ``spread`` (standard deviation) over them.

    Raises
    ------
    ConfigError
        When the configuration has no folds or not that one, or wants complete tiles.
    """
    from deepbedmap_tf.inference.export import export_model, load_model
    from deepbedmap_tf.inference.predict import predict_window
    from deepbedmap_tf.training.loop import forget_networks, load_training_data, train

    folds = config.data.folds
    if folds is None or config.data.supervision != "sparse":
        raise ConfigError(
            "cross-validation scores at radar cells: set data.folds (2 or more) and data.supervision=sparse, "
            f"got folds={folds} and supervision={config.data.supervision}"
        )
    unknown = [fold for fold in only or () if not 0 <= fold < folds]
    if unknown:
        raise ConfigError(f"fold {unknown[0]} is not one of data.folds={folds}, counted from 0: 0 to {folds - 1}")
    region = load_region(region_file, data_dir)
    start = load_model(initial) if initial is not None else None
    scores: dict[int, dict[str, Scores]] = {}
    for fold in range(folds):
        own = config.model_copy(update={"data": config.data.model_copy(update={"fold": fold})})
        folder = out / f"fold-{fold}"
        if not (folder / "model.json").exists():
            if only is not None and fold not in only:
                continue
            data: TrainingData = load_training_data(own, [Path(region_file)], data_dir, progress)
            begun = (folder / "training" / "run.json").exists()
            run = train(
                own, data, folder / "training", begun, progress, initial_weights=start.weights() if start else None
            )
            metadata = {
                "name": folder.name,
                "title": f"{region.title}, fold {fold + 1} of {folds}",
                "synthetic": region.synthetic,
                "resolution": region.resolution,
                "config": own.model_dump(mode="json"),
                "training": {"steps": run.steps, "minutes": round(run.minutes, 1), "initial": start and start.ancestry},
            }
            export_model(run.gan.averaged_generator, own.generator, folder, metadata, own.training.symmetric)
            del run
            forget_networks()
        model = load_model(folder)
        if model.metadata["config"] != own.model_dump(mode="json"):
            raise ConfigError(f"{folder} was trained with other settings; choose another --out, or remove that folder")
        train_cells, scored_cells = fold_cells(region, own)
        bed = predict_window(model, region).to_numpy()
        products = {"deepbedmap": bed, **baselines(region, train_cells)}
        radar = np.where(scored_cells, region.weighted_target().to_numpy(), np.nan)
        scores[fold] = score_products(products, radar)
        LOGGER.info("fold %d of %d\n%s", fold + 1, folds, table(scores[fold]))
    result = summarise(scores)
    with written_beside(out / "metrics.json") as beside:
        beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def fold_cells(region: Region, config: Config) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Radar cells that a fold trains on and those it is scored at, shape of the region's grid."""
    target = region.weighted_target()
    measured = target["measured"].to_numpy()
    train, scored = deal_cells(region, target, region.tiling(config.data), config.seed)
    return train & measured, scored & measured


def baselines(region: Region, train_cells: NDArray[np.bool_]) -> dict[str, Bed]:
    """Beds of the baselines over the whole region, the regression fitted on the radar of training cells alone."""
    inputs = batch_of_one(region.inputs())
    radar = np.where(train_cells, region.weighted_target().to_numpy(), np.nan)
    regression = BoostedRegression().fit(inputs, radar[np.newaxis, ..., np.newaxis])
    beds: dict[str, Bed] = {"bicubic": bicubic(inputs["bed_lowres"][0, ..., 0])}
    if "bedmachine" in region.settings.references:
        beds["bedmachine"] = region.reference("bedmachine").to_numpy()
    return {**beds, "boosted": regression.predict(inputs)[0, ..., 0]}


def score_products(products: Mapping[str, Bed], radar: Bed) -> dict[str, Scores]:
    """Score beds at the cells where radar and all of them are known.

    Parameters
    ----------
    products
        Name to bed, shape (rows, columns), m.
    radar
        Same shape, NaN where there is none to score at.

    Returns
    -------
    dict
        Name to rmse, mae, bias, roughness, roughness_ratio, roughness_rmse (m) and count.
    """
    shared = np.isfinite(radar) & np.all([np.isfinite(bed) for bed in products.values()], axis=0)
    truth = np.where(shared, radar, np.nan)
    result = {}
    for name, bed in products.items():
        rough, true_rough = shared_roughness(bed, truth)
        known = np.isfinite(true_rough)
        result[name] = {
            "rmse": metrics.rmse(bed, truth),
            "mae": metrics.mae(bed, truth),
            "bias": metrics.bias(bed, truth),
            "roughness": float(rough[known].mean()) if known.any() else float("nan"),
            "roughness_ratio": float(rough[known].mean() / true_rough[known].mean()) if known.any() else float("nan"),
            "roughness_rmse": metrics.rmse(rough, true_rough) if known.any() else float("nan"),
            "count": float(shared.sum()),
        }
    return result


def summarise(scores: Mapping[int, Mapping[str, Scores]]) -> dict[str, Any]:
    """Mean and standard deviation over the folds of every product's scores."""
    first, *_ = scores.values()
    collected = {
        name: {key: np.array([fold[name][key] for fold in scores.values()]) for key in first[name]} for name in first
    }
    return {
        "folds": {number: dict(fold) for number, fold in scores.items()},
        "mean": {n: {key: float(v.mean()) for key, v in each.items()} for n, each in collected.items()},
        "spread": {n: {key: float(v.std()) for key, v in each.items()} for n, each in collected.items()},
    }


def table(scores: Mapping[str, Scores], spread: Mapping[str, Scores] | None = None) -> str:
    """Format scores as lines of text: RMSE and its gain over bicubic, MAE, bias and roughness ratio."""
    heading = f"{'':20}{'RMSE (m)':>16}{'gain':>8}{'MAE (m)':>10}{'bias (m)':>10}{'roughness ratio':>20}"
    lines = [heading]
    for name, each in scores.items():
        gain = 1 - each["rmse"] / scores["bicubic"]["rmse"]
        rmse, ratio = f"{each['rmse']:.1f}", f"{each['roughness_ratio']:.2f}"
        if spread is not None:
            rmse += f" +- {spread[name]['rmse']:.1f}"
            ratio += f" +- {spread[name]['roughness_ratio']:.2f}"
        lines.append(
            f"{PRODUCTS.get(name, name):20}{rmse:>16}{gain:>8.1%}{each['mae']:>10.1f}{each['bias']:>10.1f}{ratio:>20}"
        )
    return "\n".join(lines)
