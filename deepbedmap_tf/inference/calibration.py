"""How far off a model's mean bed is, measured at radar cells that its training did not see."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from deepbedmap_tf.config import DataConfig
from deepbedmap_tf.data.cover import GROUNDED_ICE
from deepbedmap_tf.data.fields import batch_of_one
from deepbedmap_tf.data.region import SCALE, Region
from deepbedmap_tf.errors import DataError, NoDataError
from deepbedmap_tf.inference.halo import halo_for, update_metadata
from deepbedmap_tf.inference.pick_index import PickIndex
from deepbedmap_tf.inference.realisations import Calibration, predict_members, relief
from deepbedmap_tf.inference.tiling import BLOCK, HALO, place_in, plan_blocks
from deepbedmap_tf.scoring.coverage import coverage, fit_variance, interval_factors

if TYPE_CHECKING:
    from deepbedmap_tf.inference.export import SuperResolution

_LOGGER = logging.getLogger(__name__)

LEAST_CELLS = 200
_LAGS = 12


def calibrate(
    model: SuperResolution, region: Region, symmetries: int = 8, progress: bool | None = None
) -> tuple[Calibration, dict[str, float]]:
    """Measure a model's error on a region and write what it depends on into its model.json.

    Half of the cells, in squares of `BLOCK` cells, calibrate; the other half tells how well the intervals cover.
    Cells held out for testing take part in neither.

    Parameters
    ----------
    model
        Exported model.
    region
        With picks. Where the model was trained on it, only cells of its validation blocks count.
    symmetries
        Members of the mean. A model that was exported as the mean over the symmetries has one: itself.
    progress
        Show a bar; by default where standard error is a terminal.

    Returns
    -------
    tuple
        The calibration, and the coverage of the 50 and 90 % intervals on the other half.

    Raises
    ------
    DataError
        When fewer than `LEAST_CELLS` cells are left.
    """
    if model.metadata.get("symmetric"):
        # Its members would differ by rounding alone, and a fit would blow that up to the size of the error.
        symmetries = 1
    picks = PickIndex.of_region(region)
    picks = picks.take(calibration_cells(model.metadata, region)[picks.row, picks.column])
    if len(picks) < LEAST_CELLS:
        raise DataError(
            f"{len(picks)} cells with picks in region {region.name} are free of training and testing; expected at "
            f"least {LEAST_CELLS} to calibrate an uncertainty on"
        )
    mean, spread = _members(model, region, picks, symmetries, progress)
    square = SCALE * BLOCK // 4
    held = (picks.row // square + picks.column // square) % 2 == 1
    if min(held.sum(), (~held).sum()) < LEAST_CELLS // 2:
        held = np.arange(len(picks)) % 2 == 1
    about: dict[str, Any] = {"symmetries": symmetries, "region": region.name, "resolution": region.resolution}
    half = fit(mean, spread, picks.take(~held), **about)
    covered = check(mean, spread, picks.take(held), half)
    found = fit(mean, spread, picks, **about)
    stored = {**model.metadata.get("uncertainty", {}), region.name: {**found.as_dict(), **covered}}
    update_metadata(model.folder, {"uncertainty": stored})
    model.metadata["uncertainty"] = stored
    return found, covered


def fit(
    mean: np.ndarray, spread: np.ndarray, picks: PickIndex, symmetries: int, region: str, resolution: float
) -> Calibration:
    """Fit the error at cells with picks.

    Parameters
    ----------
    mean, spread
        Mean bed and standard deviation of the members, metres, on `picks.grid`; NaN where not predicted.
    picks
        What to compare with.
    symmetries, region, resolution
        As in `Calibration`.
    """
    place = picks.row, picks.column
    error, rough, wide = mean[place] - picks.bed, relief(mean)[place], spread[place]
    floor, by_spread, by_relief = fit_variance(error, [wide, rough], picks.sigma)
    sigma = np.sqrt(floor**2 + (by_spread * wide) ** 2 + (by_relief * rough) ** 2)
    factors = interval_factors(mean[place], picks.bed, sigma, truth_error=picks.sigma)
    scaled = np.full(picks.grid.shape, np.nan)
    scaled[place] = error / np.hypot(sigma, picks.sigma)
    reach = correlation_range(scaled) * resolution
    counted = int(np.isfinite(error).sum())
    values = (float(floor), float(by_spread), float(by_relief), reach, factors[0.5], factors[0.9])
    return Calibration(*values, symmetries, region, counted, resolution)


def check(mean: np.ndarray, spread: np.ndarray, picks: PickIndex, calibration: Calibration) -> dict[str, float]:
    """Coverage of the 50 and 90 % intervals at picks, as Gaussians and with the factors that were calibrated."""
    place, c = (picks.row, picks.column), calibration
    sigma = np.sqrt(c.floor**2 + (c.spread * spread[place]) ** 2 + (c.relief * relief(mean)[place]) ** 2)
    found = {}
    for level, factor in ((0.5, c.factor_50), (0.9, c.factor_90)):
        arguments = (mean[place], picks.bed, sigma, level)
        found[f"coverage_{100 * level:.0f}"] = coverage(*arguments, factor=factor, truth_error=picks.sigma)
        found[f"gaussian_coverage_{100 * level:.0f}"] = coverage(*arguments, truth_error=picks.sigma)
    return {name: round(value, 4) for name, value in found.items()}


def correlation_range(error: np.ndarray) -> float:
    """Range, in cells, of the exponential correlation that errors on a grid (NaN where there is none) come closest to.

    The part of the variance that is not correlated at all, as the picks' own error, is fitted beside it.
    """
    known = np.isfinite(error)
    values = np.where(known, error, 0.0)
    lags, found, weights = [], [], []
    for lag in range(min(_LAGS, min(error.shape) - 1) + 1):
        pairs = ((np.s_[lag:, :], np.s_[: error.shape[0] - lag, :]), (np.s_[:, lag:], np.s_[:, : error.shape[1] - lag]))
        count = sum(int((known[first] & known[second]).sum()) for first, second in pairs)
        if count:
            lags.append(lag)
            found.append(sum(float((values[first] * values[second]).sum()) for first, second in pairs) / count)
            weights.append(count)
    if len(lags) < 3 or found[0] <= 0:
        raise DataError("too few neighbouring cells with picks to see how far errors are correlated")
    distance, ratio, weight = np.array(lags[1:]), np.array(found[1:]) / found[0], np.sqrt(weights[1:])
    best, least = 1.0, np.inf
    for reach in np.geomspace(1, 200, 200):
        model = np.exp(-3 * distance / reach)
        share = np.clip(np.sum(weight * model * ratio) / np.sum(weight * model**2), 0, 1)
        misfit = float(np.sum(weight * (ratio - share * model) ** 2))
        if misfit < least:
            best, least = float(reach), misfit
    return best


def calibration_cells(metadata: dict[str, Any], region: Region) -> np.ndarray:
    """Cells that a model's training has not seen and that no test is on, boolean, shape of the region's grid."""
    from deepbedmap_tf.data.cutting import deal_cells, plan_tiles
    from deepbedmap_tf.data.split import VALIDATION, covered_cells

    # Where all of a region is a test, nothing of it can spoil another one.
    free = ~region.held_out if not region.held_out.all() else np.ones(region.grid.shape, bool)
    if region.settings.mask:
        # Under floating ice, surface less thickness is no bed.
        free &= region.mask().to_numpy() == GROUNDED_ICE
    stores = metadata.get("training_data", {}).get("stores", ())
    if region.name not in {store.get("region") for store in stores}:
        return free
    config = DataConfig.model_validate(metadata["config"]["data"])
    seed = int(metadata["config"]["seed"])
    if config.supervision == "sparse":
        return free & deal_cells(region, region.weighted_target(), config, seed)[1]
    config = region.tiling(config)
    plan = plan_tiles(region, region.target(), config, seed)
    chosen = plan.split == VALIDATION
    side = SCALE * config.tile_size
    return free & covered_cells(plan.rows[chosen], plan.columns[chosen], side, region.grid.shape)


def _members(
    model: SuperResolution, region: Region, picks: PickIndex, symmetries: int, progress: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the members around the picks, NaN elsewhere."""
    halo = halo_for(model.metadata, region.name) or HALO
    mean, spread = (np.full(region.grid.shape, np.nan, np.float32) for _ in range(2))
    coarse = region.coarse_grid
    blocks = [each for each in plan_blocks(coarse, coarse, BLOCK, halo) if each.core and len(picks.near(each.core))]
    for block in tqdm(blocks, desc="calibrating", unit="block", disable=None if progress is None else not progress):
        assert block.core is not None
        try:
            inputs = batch_of_one(region.inputs(block.context, model.config.inputs))
        except NoDataError as error:
            _LOGGER.info("a block is left out: %s", error)
            continue
        known = np.isfinite(inputs["bed_lowres"][0, 1:-1, 1:-1, 0]).repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        place = place_in(block.core, region.grid.bounds, region.resolution)
        inner = place_in(block.core, block.context, region.resolution)
        for target, values in zip((mean, spread), predict_members(model, inputs, symmetries), strict=True):
            target[place] = np.where(known, values[0], np.float32(np.nan))[inner]
    return mean, spread
