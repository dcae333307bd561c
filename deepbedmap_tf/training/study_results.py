"""What came out of a search: the best trials, what mattered, and a configuration to train with."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.training.search_space import SearchConfig, applied
from deepbedmap_tf.training.study import RUN

HEADER = "# Found by `deepbedmap tune`"


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Return the complete trials, the best first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (trial.value, trial.number))


def best_table(study: optuna.Study, search: SearchConfig, number: int = 10) -> str:
    """Return the best trials as text, one a line: validation RMSE (m), skill over bicubic (%), and parameters."""
    columns = list(search.parameters)
    rows = [["trial", "RMSE (m)", "skill (%)", "epochs", "minutes", *columns]]
    for trial in ranked(study)[:number]:
        skill, minutes = trial.user_attrs.get("val_skill"), trial.user_attrs.get("minutes")
        rows.append(
            [
                str(trial.number),
                f"{trial.value:.2f}",
                "" if skill is None else f"{100 * skill:.1f}",
                str(trial.user_attrs.get("epochs", "")),
                "" if minutes is None else f"{minutes:.1f}",
                *(_shown(trial.params.get(name)) for name in columns),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def counts(study: optuna.Study) -> str:
    """Return how many trials ended how."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    named = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "lost or failed": TrialState.FAIL}
    return ", ".join(f"{states.count(state)} {name}" for name, state in named.items())


def importances(study: optuna.Study) -> dict[str, float]:
    """Return each parameter's share in how the complete trials differ (PED-ANOVA), the largest first.

    Empty for a study of too few, or equal, complete trials to tell.
    """
    if len({trial.value for trial in ranked(study)}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}
    return {name: float(value) for name, value in found.items()}


def trials_csv(study: optuna.Study, search: SearchConfig) -> str:
    """Return every trial, lost and pruned ones too, as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "rmse_m", "epochs", "retry_of", "mlflow_run", *search.parameters])
    for trial in study.get_trials(deepcopy=False):
        repeats = trial.system_attrs.get("retry_history", [""])
        last = max(trial.intermediate_values, default="")
        writer.writerow(
            [
                trial.number,
                trial.state.name.lower(),
                "" if trial.value is None else trial.value,
                trial.user_attrs.get("epochs", last),
                repeats[-1],
                trial.user_attrs.get(RUN, ""),
                *(trial.params.get(name, "") for name in search.parameters),
            ]
        )
    return text.getvalue()


def refuse_foreign(path: Path) -> None:
    """Refuse to replace a configuration that somebody wrote.

    Raises
    ------
    ConfigError
        When the file is there and does not begin as ours do.
    """
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        raise ConfigError(f"{path} is there and not of `deepbedmap tune`; move it, or choose another --tuned")


def write_tuned(
    path: Path, study: optuna.Study, search: SearchConfig, content: Mapping[str, Any], synthetic: bool
) -> Path:
    """Write the configuration of the best trial, ready for ``train.py``.

    Parameters
    ----------
    path
        YAML file to write.
    content
        Settings that the search started from.
    synthetic
        Whether the tiles are.
    """
    best = ranked(study)[0]
    chosen = {key: value for key, value in applied(search, content, best.params).items() if key != "name"}
    about = [
        f"{HEADER}: trial {best.number} of study {study.study_name} ({search.title}),",
        f"# validation RMSE {best.value:.2f} m{' on SYNTHETIC tiles' if synthetic else ''}; {counts(study)}.",
    ]
    if search.fixed:
        about.append(f"# For the search alone: {json.dumps(search.fixed)}.")
    body = yaml.safe_dump(chosen, sort_keys=False, default_flow_style=None, width=118)
    with written_beside(path) as beside:
        beside.write_text("\n".join(about) + "\n" + body, encoding="utf-8")
    return path


def progress_of(study: optuna.Study) -> tuple[Sequence[tuple[int, float, str]], Sequence[tuple[int, float]]]:
    """Return trials as (number, last validation RMSE, state), and the best complete one up to each number."""
    points, best = [], []
    lowest = float("inf")
    for trial in study.get_trials(deepcopy=False):
        if trial.value is None or trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        points.append((trial.number, trial.value, trial.state.name.lower()))
        if trial.state == TrialState.COMPLETE:
            lowest = min(lowest, trial.value)
        if lowest < float("inf"):
            best.append((trial.number, lowest))
    return points, best


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
