"""`mlflow ui` with no options, in a real browser: runs, nested trials, curves, the transect figure, the model."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_servers import Server, running
from stand_in_region import StandInRegion, predict
from tiny_training import TINY, tiny_config

from deepbedmap_tf.evaluation.report import evaluate_region
from deepbedmap_tf.figures.evaluation import draw_evaluation
from deepbedmap_tf.figures.training import training_curves
from deepbedmap_tf.inference.export import export_model
from deepbedmap_tf.inference.serving import log_model
from deepbedmap_tf.models import build_generator
from deepbedmap_tf.training.tracking import record_evaluation, tracked

pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")
CONFIG = TINY.model_copy(update={"normalise": True, "output": "residual"})
PATIENCE = 120_000
RESIDUAL_SCALINGS = (0.125, 0.25, 0.375)
# Where a person looks at what the browser saw; nothing of it is kept in the checkout.
SCREENSHOTS = os.environ.get("DEEPBEDMAP_SCREENSHOTS")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A run with curves, figures and a model, and a study of three trials, in the folder's own database."""
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
        state: Any = SimpleNamespace(mlflow_run=None)
        history = [
            {"step": 100 * e, "val_rmse": 50 / e, "val_bicubic_rmse": 48.0, "val_ssim": 0.7, "rmse": 40 / e,
             "loss": 9 / e, "content": 30 / e, "structural": 0.3 / e, "val_skill": 0.1 * e, "epoch": e, "minutes": e}
            for e in range(1, 7)
        ]  # fmt: skip
        store = {"region": "synthetic_small", "fingerprint": "ab" * 32, "synthetic": True}
        with tracked(tiny_config(), {"synthetic": "True"}, [store]) as tracker:
            tracker.start(state)
            for entry in history:
                tracker.epoch(int(entry["step"]), entry)
            tracker.figures([training_curves(history, folder / "curves.png", "SYNTHETIC")])
            exported = export_model(build_generator(CONFIG, "float32"), CONFIG, folder / "tiny", {"synthetic": True})
            log_model(tracker.mlflow, exported, CONFIG)
        found = evaluate_region(StandInRegion((-1500e3, -500e3, -1470e3, -480e3)), "thwaites", 10.0, predict)
        figures = draw_evaluation(found, folder, formats=("png",))
        record_evaluation({"training": {"mlflow_run": state.mlflow_run}}, "thwaites", found.metrics(), figures)
        with tracker.mlflow.start_run(run_name="study tiny") as study:
            pass
        for number in range(3):
            trial: Any = SimpleNamespace(mlflow_run=None)
            scaled = TINY.model_copy(update={"residual_scaling": RESIDUAL_SCALINGS[number]})
            config = tiny_config().model_copy(update={"name": f"trial-{number}", "generator": scaled})
            with tracked(config, {"mlflow.parentRunId": study.info.run_id}) as nested:
                nested.start(trial)
                nested.epoch(4, {"val_rmse": 30.5 + number, "step": 4})
        experiment = tracker.mlflow.get_experiment_by_name("deepbedmap").experiment_id
        yield {"folder": folder, "run": state.mlflow_run, "experiment": experiment}


@pytest.fixture(scope="module")
def server(runs: dict[str, Any]) -> Iterator[Server]:
    """The command as the README has it: no option, so its own port."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 5000)) == 0:
            pytest.skip("something else listens on port 5000, which a plain `mlflow ui` takes")
    # Of its four workers a machine of two cores has use for one.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
    with running(["ui"], 5000, "/health", runs["folder"], environment) as started:
        yield started


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there (apt-get install chromium); the test looks at MLflow's pages with it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def shoot(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.listens_on() == {"127.0.0.1"}


def test_the_experiment_is_on_the_first_page(page: Any, server: Server) -> None:
    page.goto(f"{server.address}/#/experiments")
    page.get_by_text("deepbedmap", exact=True).first.wait_for()
    shoot(page, "experiments")


def test_the_list_of_runs_with_nested_trials(page: Any, server: Server, runs: dict[str, Any]) -> None:
    page.goto(f"{server.address}/#/experiments/{runs['experiment']}/runs?workflowType=machine_learning")
    page.get_by_text("study tiny").first.wait_for()
    page.get_by_role("link", name="tiny", exact=True).first.wait_for()
    shoot(page, "runs")
    # Trials are folded away under their study.
    assert not page.get_by_text("trial-2").first.is_visible()
    page.locator(".ag-cell-wrapper").filter(has_text="study tiny").locator("button").first.click()
    page.get_by_text("trial-2").first.wait_for()
    shoot(page, "trials")


def test_the_run_with_its_settings(page: Any, server: Server, runs: dict[str, Any]) -> None:
    page.goto(f"{server.address}/#/experiments/{runs['experiment']}/runs/{runs['run']}")
    page.get_by_text("generator.num_residual_blocks").first.wait_for()
    page.get_by_text("validation/rmse_m").first.wait_for()
    page.get_by_text("synthetic_small").first.wait_for()
    shoot(page, "run")


def test_its_metrics_are_charts(page: Any, server: Server, runs: dict[str, Any]) -> None:
    page.goto(f"{server.address}/#/experiments/{runs['experiment']}/runs/{runs['run']}/model-metrics")
    page.get_by_text(re.compile("rmse_m")).first.wait_for()
    chart = page.locator(".js-plotly-plot, svg.main-svg").first
    chart.wait_for()
    assert chart.bounding_box()["height"] > 50
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .scatterlayer path').length > 0")
    shoot(page, "metrics")


def test_trials_are_compared(page: Any, server: Server, runs: dict[str, Any]) -> None:
    # A browser that has not been here, as MLflow remembers what was unfolded.
    page = page.context.browser.new_page(viewport={"width": 1500, "height": 1100})
    page.set_default_timeout(PATIENCE)
    page.goto(f"{server.address}/#/experiments/{runs['experiment']}/runs?workflowType=machine_learning")
    page.get_by_text("study tiny").first.wait_for()
    page.locator(".ag-cell-wrapper").filter(has_text="study tiny").locator("button").first.click()
    for number in range(3):
        trial = page.locator(".ag-row").filter(has_text=f"trial-{number}").first
        trial.wait_for()
        trial.locator("input[type=checkbox]").first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Comparing 3 Runs").first.wait_for()
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot svg').length > 0")
    shoot(page, "compare")
    page.get_by_text("validation/rmse_m", exact=True).last.wait_for()
    words = re.split(r"[\t\n]+", page.locator("body").inner_text())
    page.close()

    def row(name: str) -> list[str]:
        # The plot above names some of them too.
        start = len(words) - words[::-1].index(name)
        return words[start : start + 3]

    names = row("Run Name:")
    assert sorted(names) == ["trial-0", "trial-1", "trial-2"]
    order = [int(name[-1]) for name in names]
    assert [float(word) for word in row("generator.residual_scaling")] == [
        RESIDUAL_SCALINGS[number] for number in order
    ]
    assert [float(word) for word in row("validation/rmse_m")] == [30.5 + number for number in order]


@pytest.mark.parametrize("path", ["figures/curves.png", "transects/thwaites/fig6_transect.png"])
def test_its_figures_are_shown(page: Any, server: Server, runs: dict[str, Any], path: str) -> None:
    # From one file to the next the page would keep what it shows.
    page.goto("about:blank")
    page.goto(f"{server.address}/#/experiments/{runs['experiment']}/runs/{runs['run']}/artifacts/{path}")
    page.get_by_text(path).first.wait_for()
    image = page.locator("img[src^='blob:'], img[src*='artifact'], img[src^='data:image/png']").first
    image.wait_for()
    page.wait_for_function("Array.from(document.images).some(image => image.naturalWidth > 300)")
    shoot(page, path.rpartition("/")[2].removesuffix(".png"))


def test_the_registered_model(page: Any, server: Server) -> None:
    page.goto(f"{server.address}/#/models/deepbedmap")
    page.get_by_text("Version 1").first.wait_for()
    shoot(page, "model")
