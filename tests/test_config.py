"""Configuration files: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from deepbedmap_tf.config import Config, GeneratorConfig, load_config, read_yaml
from deepbedmap_tf.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["default", "paper", "quick"])
def test_shipped_configurations_are_valid(root: Path, name: str) -> None:
    config = load_config(root / f"configs/{name}.yml")
    assert config.name == name
    assert all((root / region).exists() for region in config.data.regions)


def test_the_papers_configuration_is_the_papers(root: Path) -> None:
    config = load_config(root / "configs/paper.yml")
    assert config.generator == GeneratorConfig(), "the defaults are the paper's"
    assert (config.training.batch_size, config.training.epochs) == (128, 140)
    assert {term.name: term.weight for term in config.losses} == {
        "content": 1e-2,
        "adversarial": 2e-2,
        "topographic": 2e-3,
        "structural": 5.25,
    }
    assert config.generator_optimizer.epsilon == 0.1 and config.generator_optimizer.learning_rate == 1.7e-4


def test_name_of_the_file_is_the_name(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "seed: 3")).name == "small"
    assert load_config(write(tmp_path, "name: other")).name == "other"


def test_round_trip(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "seed: 3\ngenerator: {num_residual_blocks: 2}"))
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_settings_do_not_change_under_way() -> None:
    with pytest.raises(ValidationError):
        GeneratorConfig().filters = 3  # type: ignore[misc]


def test_floats_of_yaml_1_2(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "generator_optimizer: {learning_rate: 1e-4, epsilon: 1E-8}"))
    assert (config.generator_optimizer.learning_rate, config.generator_optimizer.epsilon) == (1e-4, 1e-8)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "training: {epochs: 7}")
    overrides = ["training.epochs=3", "generator.output=residual", "data.max_tiles=null", "training.ema_momentum=9e-1"]
    config = load_config(path, overrides)
    assert (config.training.epochs, config.generator.output, config.data.max_tiles) == (3, "residual", None)
    assert config.training.ema_momentum == 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generatr: {}", "unknown key 'generatr'; known here: .*generator, generator_optimizer"),
        ("generator: {blocks: 3}", "unknown key 'generator.blocks'; known here: .*num_residual_blocks"),
        ("losses: [{name: content, weigth: 1}]", r"unknown key 'losses\.0\.weigth'; known here: name, weight"),
        ("losses: [{name: beauty, weight: 1}]", r"'losses\.0\.name' is 'beauty': .*'content'.*'structural'"),
        ("losses: [{name: content}]", r"'losses\.0\.weight' is missing"),
        ("training: {epochs: 0}", "'training.epochs' is 0: .*greater than or equal to 1"),
        ("training: {precision: half}", "'training.precision' is 'half': .*'mixed_bfloat16'"),
        ("generator: {residual_scaling: 1.5}", "'generator.residual_scaling' is 1.5: .*less than or equal to 1"),
        ("generator: {inputs: [{name: surface, ratio: 10}]}", "bed_lowres with ratio 1"),
        ("seed: [1", "line .* is not valid YAML"),
        ("- 1\n- 2", "holds list, expected a mapping"),
    ],
)
def test_faults_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "expected key.sub=value"),
        ("=3", "expected key.sub=value"),
        ("seed.part=3", "'seed' holds no settings of its own"),
        ("training.epoch=3", "unknown key 'training.epoch'; known here: .*epochs"),
        ("training.epochs=[3", "not a YAML value"),
        ("training.epochs=many", "'training.epochs' is 'many'"),
    ],
)
def test_faulty_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, "seed: 1"), [override])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yml: No such file.*check the path"):
        read_yaml(tmp_path / "none.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="cannot read"):
        read_yaml(tmp_path / "binary.yml")
