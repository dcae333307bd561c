"""What a search may change, read from YAML, and how a trial's choice becomes a configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from deepbedmap_tf.config import Config, Settings, read_yaml, validate
from deepbedmap_tf.errors import ConfigError

if TYPE_CHECKING:
    import optuna

Key = str
"""Dotted name of a setting, such as ``training.batch_size``; ``losses.content.weight`` goes by the term's name."""


class NumberRange(Settings):
    """A real or whole number between two ends, both included.

    Attributes
    ----------
    kind
        ``float`` or ``int``.
    low, high
        Ends of the range.
    log
        Draw the logarithm evenly.
    step
        Distance between the values; None for any number, and 1 for whole ones.
    sets
        Settings that get the number.
    """

    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    sets: Annotated[tuple[Key, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ends_fit(self) -> NumberRange:
        if not self.low <= self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low must not exceed high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log wants low > 0 and no step")
        numbers = (self.low, self.high) if self.step is None else (self.low, self.high, self.step)
        if self.kind == "int" and any(number != int(number) for number in numbers):
            raise ValueError("low, high and step of kind int must be whole numbers")
        return self

    def suggest(self, trial: optuna.Trial, name: str) -> float | int:
        """Ask the sampler for a value."""
        if self.kind == "int":
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values at the ends, which any other lies between."""
        return (int(self.low), int(self.high)) if self.kind == "int" else (self.low, self.high)


class Choice(Settings):
    """One of several values.

    Attributes
    ----------
    choices
        Numbers, names or true and false.
    sets
        Settings that get the value.
    """

    kind: Literal["choice"]
    choices: Annotated[tuple[bool | int | float | str | None, ...], Field(min_length=1)]
    sets: Annotated[tuple[Key, ...], Field(min_length=1)]

    def suggest(self, trial: optuna.Trial, name: str) -> bool | int | float | str | None:
        """Ask the sampler for a value."""
        return trial.suggest_categorical(name, self.choices)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """All of them."""
        return self.choices


class PruningConfig(Settings):
    """Hyperband (Li et al. 2018), with epochs as the resource.

    Attributes
    ----------
    min_epochs
        Epochs that every trial may take.
    reduction_factor
        Of so many trials that reach a rung, one goes on.
    """

    min_epochs: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[int, Field(ge=2)] = 3


class SearchConfig(Settings):
    """A search space and how it is searched.

    Attributes
    ----------
    title
        What the space is, with its source.
    parameters
        By the name that tables and figures show.
    trials
        Trials of the study when the command line names no number.
    startup_trials
        Random trials before the tree-structured Parzen estimator learns from them.
    retries
        How often a trial whose worker died is run again.
    pruning
        When trials end early.
    fixed
        Settings of every trial that the resulting configuration does not take over, such as shorter epochs.
    """

    title: str
    parameters: Annotated[dict[str, Annotated[NumberRange | Choice, Field(discriminator="kind")]], Field(min_length=1)]
    trials: Annotated[int, Field(ge=1)] = 60
    startup_trials: Annotated[int, Field(ge=0)] = 20
    retries: Annotated[int, Field(ge=0)] = 3
    pruning: PruningConfig = PruningConfig()
    fixed: dict[Key, bool | int | float | str | None] = Field(default_factory=dict)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Ask the sampler for a value of every parameter."""
        return {name: each.suggest(trial, name) for name, each in self.parameters.items()}

    def most_epochs(self, content: Mapping[str, Any]) -> int:
        """Epochs of the longest trial on the configuration `content`."""
        lengths = [each.extremes for each in self.parameters.values() if "training.epochs" in each.sets]
        if lengths:
            return max(int(each) for extremes in lengths for each in extremes)
        return apply(self, content, {}, "configuration").training.epochs


def load_search(path: Path | str) -> SearchConfig:
    """Read a search space.

    Raises
    ------
    ConfigError
        For an unreadable file, an unknown key or an impossible value.
    """
    result: SearchConfig = validate(SearchConfig, read_yaml(path), str(path))
    return result


def check_space(search: SearchConfig, content: Mapping[str, Any], source: str) -> None:
    """Make sure before the first trial that every parameter sets something that exists, to values that it takes.

    Raises
    ------
    ConfigError
        Naming the parameter.
    """
    for name, parameter in search.parameters.items():
        for value in parameter.extremes:
            apply(search, content, {name: value}, f"{source}, parameter {name}")


def apply(search: SearchConfig, content: Mapping[str, Any], values: Mapping[str, Any], source: str) -> Config:
    """Return the configuration of a trial.

    Parameters
    ----------
    search
        Says what each parameter sets.
    content
        Settings that the search starts from, as read from YAML.
    values
        By parameter.
    source
        Named in messages.
    """
    changed = applied(search, content, values, source)
    for key, value in search.fixed.items():
        _put(changed, key.split("."), value, f"{source}: {key}")
    result: Config = validate(Config, changed, source)
    return result


def applied(
    search: SearchConfig, content: Mapping[str, Any], values: Mapping[str, Any], source: str = "search space"
) -> dict[str, Any]:
    """Return `content` with the values of a trial in their places, without what is fixed for the search alone."""
    changed = copy.deepcopy(dict(content))
    for name, value in values.items():
        for key in search.parameters[name].sets:
            _put(changed, key.split("."), value, f"{source}: {key}")
    return changed


def _put(node: Any, path: Sequence[str], value: Any, where: str) -> None:
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if isinstance(node, list):
            named = [entry for entry in node if isinstance(entry, dict) and entry.get("name") == part]
            if not named or last:
                known = ", ".join(str(entry.get("name")) for entry in node if isinstance(entry, dict))
                raise ConfigError(f"{where}: there is no {part!r} to set; the configuration has {known or 'none'}")
            node = named[0]
        elif not isinstance(node, dict):
            raise ConfigError(f"{where}: {path[position - 1]!r} holds no settings of its own")
        elif last:
            node[part] = value
        else:
            node = node.setdefault(part, {})
