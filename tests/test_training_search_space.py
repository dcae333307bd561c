"""Search spaces: what they set, what they refuse, and those that are shipped."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from deepbedmap_tf.config import read_yaml
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.training.search_space import SearchConfig, applied, apply, check_space, load_search

CONTENT: dict[str, Any] = {
    "name": "test",
    "generator": {"num_residual_blocks": 2},
    "losses": [{"name": "content", "weight": 0.1}, {"name": "structural", "weight": 5.0}],
    "training": {"epochs": 7},
}


def space(**parameters: Any) -> SearchConfig:
    return SearchConfig.model_validate({"title": "test", "parameters": parameters})


def number(key: str, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"kind": "float", "low": low, "high": high, "sets": [key], **more}


def test_the_paper_space_is_table_b1(root: Path) -> None:
    search = load_search(root / "configs/tuning/paper.yml")
    ranges = {name: each.extremes for name, each in search.parameters.items()}
    assert ranges == {
        "learning_rate": (1e-4, 2e-4),
        "residual_blocks": (8, 14),
        "batch_size": (64, 128),
        "epochs": (90, 150),
        "residual_scaling": (0.1, 0.5),
    }
    assert search.startup_trials == 20
    config = apply(search, read_yaml(root / "configs/paper.yml") | {"name": "paper"}, {"learning_rate": 1.2e-4}, "test")
    assert config.generator_optimizer.learning_rate == config.discriminator_optimizer.learning_rate == 1.2e-4


@pytest.mark.parametrize("name", ["paper", "default", "quick"])
def test_shipped_spaces_fit_their_configurations(root: Path, name: str) -> None:
    search = load_search(root / f"configs/tuning/{name}.yml")
    content = read_yaml(root / f"configs/{name}.yml") | {"name": name}
    check_space(search, content, name)
    assert search.most_epochs(content) == {"paper": 150, "default": 12, "quick": 4}[name]


def test_values_reach_settings_and_leave_the_original_alone() -> None:
    search = space(
        weight=number("losses.content.weight", 0.0, 1.0), rate=number("generator_optimizer.learning_rate", 1e-4, 1e-2)
    )
    found = applied(search, CONTENT, {"weight": 0.7, "rate": 3e-3})
    assert found["losses"] == [{"name": "content", "weight": 0.7}, {"name": "structural", "weight": 5.0}]
    assert found["generator_optimizer"] == {"learning_rate": 3e-3}
    assert CONTENT["losses"][0]["weight"] == 0.1 and "generator_optimizer" not in CONTENT


def test_what_is_fixed_serves_the_trials_alone() -> None:
    search = space(blocks={"kind": "int", "low": 1, "high": 3, "sets": ["generator.num_residual_blocks"]})
    search = search.model_copy(update={"fixed": {"training.epochs": 2}})
    assert apply(search, CONTENT, {"blocks": 3}, "test").training.epochs == 2
    assert search.most_epochs(CONTENT) == 2
    assert applied(search, CONTENT, {"blocks": 3})["training"]["epochs"] == 7


def test_every_value_of_a_space_is_drawn() -> None:
    search = space(
        blocks={"kind": "int", "low": 1, "high": 3, "sets": ["generator.num_residual_blocks"]},
        batch={"kind": "choice", "choices": [64, 128], "sets": ["training.batch_size"]},
        rate=number("generator_optimizer.learning_rate", 1e-4, 1e-2, log=True),
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [search.suggest(study.ask()) for _ in range(60)]
    assert set(Counter(each["blocks"] for each in drawn)) == {1, 2, 3}
    assert set(Counter(each["batch"] for each in drawn)) == {64, 128}
    rates = [each["rate"] for each in drawn]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    # Half of them lie below the geometric mean of the ends.
    assert 15 < sum(rate < 1e-3 for rate in rates) < 45


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (number("generator.num_blocks", 1, 2), "unknown key 'generator.num_blocks'; known here: .*num_residual_blocks"),
        (number("generator.residual_scaling", 0.1, 1.5), "'generator.residual_scaling' is 1.5"),
        (number("losses.roughness.weight", 0, 1), "no 'roughness' to set; the configuration has content, structural"),
        (number("name.first", 0, 1), "'name' holds no settings of its own"),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_any_trial(parameter: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_space(space(wrong=parameter), CONTENT, "space.yml")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (number("seed", 3, 2), "low must not exceed high"),
        (number("seed", 0, 2, log=True), "log wants low > 0"),
        ({"kind": "int", "low": 1, "high": 2.5, "sets": ["seed"]}, "whole numbers"),
        ({"kind": "choice", "choices": [], "sets": ["seed"]}, "parameters.wrong"),
        ({"kind": "float", "low": 1, "high": 2, "sets": []}, "parameters.wrong"),
        ({"kind": "normal", "sets": ["seed"]}, "parameters.wrong"),
    ],
)
def test_impossible_parameters(tmp_path: Path, parameter: dict[str, Any], message: str) -> None:
    path = tmp_path / "space.yml"
    path.write_text(yaml.safe_dump({"title": "test", "parameters": {"wrong": parameter}}))
    with pytest.raises(ConfigError, match=message) as caught:
        load_search(path)
    assert "\n" not in str(caught.value)
