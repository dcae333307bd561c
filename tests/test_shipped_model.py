"""What README and docs/results.md say of the model in saved_models/default, on the worlds they say it of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import ROOT

from deepbedmap_tf.data.region import load_region
from deepbedmap_tf.inference.export import SuperResolution, load_model
from deepbedmap_tf.inference.predict import predict_window
from deepbedmap_tf.scoring.baselines import bicubic
from deepbedmap_tf.scoring.metrics import rmse
from deepbedmap_tf.scoring.roughness import roughness_ratio


@pytest.fixture(scope="module")
def model() -> SuperResolution:
    return load_model(ROOT / "saved_models" / "default")


@pytest.mark.parametrize(
    ("world", "box", "gain", "ratio"),
    [
        ("synthetic", (-1480e3, -550e3, -1380e3, -425e3), 0.32, (0.85, 1.15)),
        ("synthetic_unseen", (-1580e3, -580e3, -1300e3, -420e3), 0.25, (0.75, 1.25)),
    ],
)
def test_scores_against_the_truth(
    model: SuperResolution, world: str, box: tuple[float, float, float, float], gain: float, ratio: tuple[float, float]
) -> None:
    region = load_region(ROOT / "configs" / "regions" / f"{world}.yml")
    bed = predict_window(model, region, box).to_numpy()
    truth = region.reference("truth", box).to_numpy()
    baseline = bicubic(region.inputs(box)["bed_lowres"]).to_numpy()
    product = region.reference("bedmachine", box).to_numpy()
    error = rmse(bed, truth)
    assert error < (1 - gain) * rmse(baseline, truth)
    assert error < rmse(product, truth)
    assert ratio[0] < roughness_ratio(bed, truth) < ratio[1]


def test_the_model_tells_where_it_comes_from(model: SuperResolution) -> None:
    about = json.loads((ROOT / "saved_models" / "default" / "model.json").read_text(encoding="utf-8"))
    assert about["name"] == "default" and about["synthetic"] is True and "SYNTHETIC" in about["title"]
    stores = about["training_data"]["stores"]
    assert [store["leak_fraction"] for store in stores] == [0.0] * 3
    assert "synthetic_unseen" not in {store["region"] for store in stores}
    start = about["training"]["initial"]
    assert start["synthetic"] is True and start["training"]["steps"] == 2400
    assert about["training"]["steps"] == 1800
    # The paper's 8,854,981 and the kernels over the features and validity channels that normalise adds.
    assert sum(weights.size for weights in model.weights()) > 8_854_981


def test_the_shipped_model_is_small_enough_and_holds_no_checkpoint() -> None:
    folder = ROOT / "saved_models" / "default"
    files = [each for each in folder.rglob("*") if each.is_file() and "training" not in each.parts]
    assert sum(each.stat().st_size for each in files) < 40e6


def test_a_large_window_equals_its_middle_alone(model: SuperResolution) -> None:
    region = load_region(ROOT / "configs" / "regions" / "synthetic.yml")
    whole = predict_window(model, region, (-1480e3, -500e3, -1400e3, -420e3))
    middle = predict_window(model, region, (-1468e3, -488e3, -1412e3, -432e3))
    # Twenty coarse cells from its edge a window no longer knows of it.
    inside = {"x": slice(-1448e3, -1432e3), "y": slice(-452e3, -468e3)}
    np.testing.assert_allclose(whole.sel(inside), middle.sel(inside), atol=0.1)
