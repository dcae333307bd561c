"""Beds against a whole map of the truth, where there is one: an embedded world, or a withheld product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from deepbedmap_tf.evaluation.transects import Product, Scores, check_datums, rmse_by_class
from deepbedmap_tf.scoring.metrics import METRICS, psnr, roughness_ratio, roughness_rmse, skill, spectral_slope, ssim
from deepbedmap_tf.scoring.roughness import shared_roughness


def compare_maps(
    products: Sequence[Product], truth: xr.DataArray, speed: NDArray[np.floating] | None = None
) -> dict[str, Scores]:
    """Score products cell by cell.

    Parameters
    ----------
    products
        Beds on the cells of `truth`, m; the skill of each is against the one named ``bicubic``.
    truth
        Dims (y, x), m; NaN where it isn't known.
    speed
        Ice speed on the same cells, m/yr.

    Returns
    -------
    dict
        Product name to RMSE, MAE, bias, skill, PSNR and SSIM (range of the truth), roughness (5 x 5, complete
        neighbourhoods), its ratio to the truth's and its RMSE, isotropic spectral slope, RMSE by speed class;
        and ``truth`` to its own roughness and slope. All products are scored on the same cells.
    """
    check_datums(products, truth.attrs.get("vertical_datum"), "truth")
    beds = {product.name: np.asarray(product.bed.values, np.float64) for product in products}
    target = np.asarray(truth.values, np.float64)
    for values in beds.values():
        target = np.where(np.isfinite(values), target, np.nan)
    spacing = float(abs(truth["x"][1] - truth["x"][0]))
    # A hole would make the spectrum of one product that of another area.
    complete = bool(np.isfinite(target).all())
    scores: dict[str, Scores] = {}
    for name, values in beds.items():
        rough = shared_roughness(values, target, min_count=25)[0]
        result: Scores = {metric.name: metric.compute(values, target) for metric in METRICS}
        result |= {
            "skill": skill(values, target, beds.get("bicubic", values)),
            "psnr": psnr(values, target),
            "ssim": ssim(values, target),
            "count": int(np.isfinite(target).sum()),
            "roughness": float(np.nanmean(rough)) if np.isfinite(rough).any() else float("nan"),
            "roughness_ratio": roughness_ratio(values, target, min_count=25),
            "roughness_rmse": roughness_rmse(values, target, min_count=25),
            "spectral_slope": spectral_slope(values, spacing) if complete else float("nan"),
        }
        if speed is not None:
            result["rmse_by_speed"] = rmse_by_class(values, target, speed)
        scores[name] = result
    own = shared_roughness(target, target, min_count=25)[0]
    scores["truth"] = {
        "count": int(np.isfinite(target).sum()),
        "roughness": float(np.nanmean(own)) if np.isfinite(own).any() else float("nan"),
        "spectral_slope": spectral_slope(target, spacing),
    }
    return scores
