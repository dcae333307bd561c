"""MLflow: every run in experiment ``deepbedmap``, in a local database that a plain ``mlflow ui`` shows."""

from __future__ import annotations

import logging
import os
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepbedmap_tf.config import Config
from deepbedmap_tf.errors import TrainingError
from deepbedmap_tf.training.checkpoints import RunState

LOGGER = logging.getLogger(__name__)

EXPERIMENT = "deepbedmap"
LOCAL_DATABASE = "mlflow.db"


def set_up_mlflow() -> Any:
    """Import MLflow, point it to ``MLFLOW_TRACKING_URI`` or the local database, and select the experiment."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        # Absolute, as MLflow keeps one connection an address whatever folder a process works in.
        mlflow.set_tracking_uri(f"sqlite:///{(Path.cwd() / LOCAL_DATABASE).as_posix()}")
    # Importing it has set its level.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        mlflow.set_experiment(EXPERIMENT)
    # Whatever its store raises: a database of its own, the network, the disk.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise TrainingError(
            f"MLflow cannot use {mlflow.get_tracking_uri()}: {reason}; set MLFLOW_TRACKING_URI to a place that can be "
            "written"
        ) from error
    return mlflow


@contextmanager
def forgiven(what: str) -> Iterator[None]:
    """Go on without a record in MLflow, with a warning: no failure of its store is worth a trained model."""
    try:
        yield
    except Exception as error:
        LOGGER.warning("MLflow did not take %s (%s); the run goes on", what, " ".join(str(error).split())[:160])


class Tracker:
    """One run in MLflow.

    Parameters
    ----------
    config
        Its whole configuration is logged, one parameter a setting.
    tags
        Further facts, such as the tile store's hash.
    """

    def __init__(self, config: Config, tags: dict[str, str]) -> None:
        self.mlflow = set_up_mlflow()
        self.config = config
        self.tags = tags
        self.active = False

    def start(self, state: RunState) -> None:
        """Start the run, or go on with the one that the resumed checkpoint names."""
        known = state.mlflow_run
        if known is not None and not self._exists(known):
            LOGGER.warning("MLflow run %s is not in %s; a new one is made", known, self.mlflow.get_tracking_uri())
            known = None
        run = self.mlflow.start_run(run_id=known, run_name=None if known else self.config.name)
        self.active = True
        state.mlflow_run = run.info.run_id
        if known is None:
            self.mlflow.log_params({key: str(value)[:500] for key, value in flatten(self.config).items()})
            self.mlflow.log_text(self.config.model_dump_json(indent=1), "config.json")
        self.mlflow.set_tags({"git_revision": git_revision(), **self.tags})

    def epoch(self, step: int, metrics: dict[str, float]) -> None:
        """Log the metrics of an epoch."""
        with forgiven(f"the metrics of step {step}"):
            self.mlflow.log_metrics({name: value for name, value in metrics.items() if name != "step"}, step=step)

    def figures(self, paths: list[Path]) -> None:
        """Log files under ``figures``."""
        for path in paths:
            with forgiven(path.name):
                self.mlflow.log_artifact(str(path), "figures")

    def _exists(self, run_id: str) -> bool:
        try:
            self.mlflow.get_run(run_id)
        except self.mlflow.exceptions.MlflowException:
            return False
        return True


@contextmanager
def tracked(config: Config, tags: dict[str, str]) -> Iterator[Tracker]:
    """Track a run; it ends as FINISHED, KILLED after Ctrl-C, or FAILED after an error."""
    tracker = Tracker(config, tags)
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
            tracker.mlflow.end_run(status)


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
