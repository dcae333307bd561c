"""A worker of a study without training, quick to start in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from deepbedmap_tf.training.search_space import SearchConfig
from deepbedmap_tf.training.storage import Turnstile, parse_address
from deepbedmap_tf.training.study import Claims, open_study

SEARCH = SearchConfig.model_validate(
    {"title": "t", "startup_trials": 3, "parameters": {"x": {"kind": "float", "low": 0, "high": 1, "sets": ["seed"]}}}
)


class Joined:
    """A worker that has joined the study in a folder."""

    def __init__(self, folder: Path, wanted: int, heartbeat: int = 60, **settings: Any) -> None:
        url = parse_address(f"sqlite:///{folder / 'study.db'}")
        self.lost: list[int] = []
        turnstile = Turnstile(url, "study")
        with turnstile:
            self.study = open_study(
                url, "study", SEARCH, 9, 42, settings or {"data": "same"}, heartbeat, self._lose
            )  # fmt: skip
        self.claims = Claims(self.study, turnstile, wanted, retries=1)

    def _lose(self, trial: optuna.trial.FrozenTrial) -> None:
        self.lost.append(trial.number)
