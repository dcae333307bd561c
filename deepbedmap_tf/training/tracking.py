"""MLflow: every run in experiment ``deepbedmap``, in a local database that a plain ``mlflow ui`` shows."""

from __future__ import annotations

import logging
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepbedmap_tf.config import Config
from deepbedmap_tf.data.cache import digest
from deepbedmap_tf.errors import TrainingError, without_passwords
from deepbedmap_tf.training.checkpoints import RunState
from deepbedmap_tf.training.storage import with_driver

LOGGER = logging.getLogger(__name__)

EXPERIMENT = "deepbedmap"
LOCAL_DATABASE = "mlflow.db"
RETRIES = 3
"""How often a request to a server is sent again, over a quarter of a minute."""
DATABASE_ATTEMPTS = 7
"""How often a database is asked for a connection, over the same time."""
METRIC_UNITS = {
    "rmse": "m",
    "bicubic_rmse": "m",
    "content": "m",
    "squared": "m",
    "topographic": "m",
    "psnr": "db",
}
"""Units of the metrics that have one; the others are ratios, scores or weighted sums."""
SCORES = {"rmse": "rmse_m", "mae": "mae_m", "bias": "bias_m", "skill": "skill", "roughness_ratio": "roughness_ratio"}
"""Scores along a transect that MLflow gets, with the names that it gets them under."""
_NOT_METRICS = ("step",)
_OF_THE_RUN = ("epoch", "minutes")


def set_up_mlflow() -> Any:
    """Import MLflow, point it to ``MLFLOW_TRACKING_URI`` or the local database, and select the experiment."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # With MLflow's own seven an epoch would wait four minutes for a server that is gone.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", str(RETRIES))
    for name in ("alembic", "mlflow.store.db.utils", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What comes of its attempts is said once, by us.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
        from mlflow.store.db import utils as database
    # With MLflow's own ten a mistyped address would be told after a hundred seconds.
    database.MAX_RETRY_COUNT = DATABASE_ATTEMPTS
    # Absolute, as MLflow keeps one connection an address whatever folder a process works in. Said even where the
    # environment says it: an address that was set earlier in this process would go first.
    local = f"sqlite:///{(Path.cwd() / LOCAL_DATABASE).as_posix()}"
    mlflow.set_tracking_uri(with_driver(os.environ.get("MLFLOW_TRACKING_URI") or local))
    # Importing it has set its level.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        mlflow.set_experiment(EXPERIMENT)
    # Whatever its store raises: a database of its own, the network, the disk.
    except Exception as error:
        where, reason = (without_passwords(" ".join(str(each).split())) for each in (mlflow.get_tracking_uri(), error))
        raise TrainingError(
            f"MLflow cannot use {where}: {reason[:160]}; set MLFLOW_TRACKING_URI to a place that can be written"
        ) from error
    return mlflow


@contextmanager
def forgiven(what: str) -> Iterator[None]:
    """Go on without a record in MLflow, with a warning: no failure of its store is worth a trained model."""
    try:
        yield
    except Exception as error:
        reason = without_passwords(" ".join(str(error).split()))[:160]
        LOGGER.warning("MLflow did not take %s (%s); the run goes on", what, reason)


def metric_name(name: str) -> str:
    """Name under which MLflow gets a metric of Keras' history: where it was measured, what it is, and its unit.

    Pages of MLflow group metrics by what stands before the slash.

    Examples
    --------
    >>> [metric_name(name) for name in ("val_rmse", "content", "val_skill", "minutes")]
    ['validation/rmse_m', 'train/content_m', 'validation/skill', 'minutes']
    """
    if name in _OF_THE_RUN:
        return name
    place, measured = ("validation", name.removeprefix("val_")) if name.startswith("val_") else ("train", name)
    unit = METRIC_UNITS.get(measured)
    return f"{place}/{measured}" + (f"_{unit}" if unit else "")


class Tracker:
    """One run in MLflow.

    Parameters
    ----------
    config
        Its whole configuration is logged, one parameter a setting.
    tags
        Further facts, such as the tile store's hash.
    datasets
        Attributes of the tile stores of the regions, the first of which is also validated on.
    """

    def __init__(self, config: Config, tags: dict[str, str], datasets: Sequence[dict[str, Any]] = ()) -> None:
        self.mlflow = set_up_mlflow()
        self.config = config
        self.tags = tags
        self.datasets = datasets
        self.active = False
        self.run_id: str | None = None

    def start(self, state: RunState) -> None:
        """Start the run, or go on with the one that the resumed checkpoint names.

        Raises
        ------
        TrainingError
            When the store doesn't take it, as from a user who may only look.
        """
        try:
            self._start(state)
        except self.mlflow.exceptions.MlflowException as error:
            where, reason = (without_passwords(" ".join(str(e).split())) for e in (self._address, error))
            raise TrainingError(
                f"MLflow at {where} did not take the run: {reason[-160:]}; see that it is well and lets you write to "
                f"experiment {EXPERIMENT!r}, then start the same command again"
            ) from error

    @property
    def _address(self) -> str:
        return str(self.mlflow.get_tracking_uri())

    def _start(self, state: RunState) -> None:
        known = state.mlflow_run
        if known is not None and not self._exists(known):
            LOGGER.warning("MLflow run %s is not in %s; a new one is made", known, without_passwords(self._address))
            known = None
        run = self.mlflow.start_run(run_id=known, run_name=None if known else self.config.name, log_system_metrics=True)
        self.active = True
        state.mlflow_run = self.run_id = run.info.run_id
        if known is None:
            self.mlflow.log_params({key: str(value)[:500] for key, value in flatten(self.config).items()})
            self.mlflow.log_text(self.config.model_dump_json(indent=1), "config.json")
            for position, attributes in enumerate(self.datasets):
                with forgiven("what the run is trained on"):
                    self._log_dataset(attributes, validated=position == 0)
        self.mlflow.set_tags({"git_revision": git_revision(), **self.tags})

    def epoch(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of an epoch."""
        with forgiven(f"the metrics of step {step}"):
            named = {metric_name(name): value for name, value in metrics.items() if name not in _NOT_METRICS}
            self.mlflow.log_metrics(named, step=step)

    def figures(self, paths: list[Path]) -> None:
        """Log files under ``figures``."""
        for path in paths:
            with forgiven(path.name):
                self.mlflow.log_artifact(str(path), "figures")

    def _log_dataset(self, attributes: dict[str, Any], validated: bool) -> None:
        """Log what a tile store is: its region and fingerprint, without its content."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        about = {key: attributes[key] for key in ("title", "synthetic", "label", "leak_fraction") if key in attributes}
        fingerprint = str(attributes.get("fingerprint") or digest(attributes))
        source = CodeDatasetSource({key: str(value) for key, value in about.items()})
        region = str(attributes.get("region", "tiles"))
        # MLflow takes 36 characters of a fingerprint, and keeps one context for a name.
        uses = {"training": region, **({"validation": f"{region} validation"} if validated else {})}
        for context, name in uses.items():
            self.mlflow.log_input(MetaDataset(source, name=name, digest=fingerprint[:36]), context=context)

    def _exists(self, run_id: str) -> bool:
        try:
            self.mlflow.get_run(run_id)
        except self.mlflow.exceptions.MlflowException:
            return False
        return True


@contextmanager
def tracked(config: Config, tags: dict[str, str], datasets: Sequence[dict[str, Any]] = ()) -> Iterator[Tracker]:
    """Track a run; it ends as FINISHED, KILLED after Ctrl-C, or FAILED after an error. See `Tracker`."""
    tracker = Tracker(config, tags, datasets)
    status = "FINISHED"
    try:
        yield tracker
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except BaseException:
        status = "FAILED"
        raise
    finally:
        if tracker.active:
            with forgiven("the end of the run"):
                tracker.mlflow.end_run(status)


def record_evaluation(
    metadata: Mapping[str, Any], transect: str, scores: Mapping[str, Any], files: Sequence[Path]
) -> str | None:
    """Add what an evaluation found to the run that the model was trained in, if this MLflow has it.

    Parameters
    ----------
    metadata
        The model's model.json.
    transect
        Name of the transect.
    scores
        Scores by product, as in ``metrics.json``; those of ``deepbedmap`` and ``bicubic`` are recorded.
    files
        Tables and figures, kept under ``transects/<transect>``.

    Returns
    -------
    str or None
        Identifier of the run; None where nothing was recorded.
    """
    known = metadata.get("training", {}).get("mlflow_run")
    # Without a store there is nothing to add to, and none is made.
    if not known or not (os.environ.get("MLFLOW_TRACKING_URI") or Path(LOCAL_DATABASE).exists()):
        return None
    recorded = None
    with forgiven(f"the evaluation along {transect}"):
        mlflow = set_up_mlflow()
        client = mlflow.MlflowClient()
        try:
            run = client.get_run(known)
        except mlflow.exceptions.MlflowException:
            return None
        for product, prefix in (("deepbedmap", ""), ("bicubic", "bicubic_")):
            for key, name in SCORES.items():
                value = scores.get(product, {}).get(key)
                if value is not None:
                    client.log_metric(known, f"transect_{transect}/{prefix}{name}", float(value))
        for path in files:
            client.log_artifact(known, str(path), f"transects/{transect}")
        recorded = str(run.info.run_id)
    return recorded


def flatten(config: Config) -> dict[str, Any]:
    """Return the settings by dotted name; lists of named entries by their name."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, content: Any) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                visit(f"{prefix}.{key}" if prefix else key, value)
        elif isinstance(content, (list, tuple)) and content and isinstance(content[0], dict):
            for entry in content:
                name = entry["name"]
                visit(f"{prefix}.{name}", {key: value for key, value in entry.items() if key != "name"})
        else:
            flat[prefix] = content

    visit("", config.model_dump(mode="json"))
    return flat


def git_revision() -> str:
    """Return the commit of the checkout, with ``+changes`` where it differs, or ``unknown`` outside of one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
