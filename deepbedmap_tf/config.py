"""The configuration of networks, losses and training, read from YAML and checked key by key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deepbedmap_tf.errors import ConfigError


class Settings(BaseModel):
    """A block of settings that can't be changed and refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InputConfig(Settings):
    """One conditional input of the generator.

    Attributes
    ----------
    name
        Key of the input in the dictionaries that the network takes.
    ratio
        Cells of this input per cell of the low-resolution bed, along one axis.
    channels
        Bands of the input (velocity has two, VX and VY).
    units
        Units that the network expects.
    """

    name: str
    ratio: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)] = 1
    units: str = "m"


DEFAULT_INPUTS: tuple[InputConfig, ...] = (
    InputConfig(name="bed_lowres", ratio=1),
    InputConfig(name="surface", ratio=10),
    InputConfig(name="velocity", ratio=2, channels=2, units="m yr-1"),
    InputConfig(name="accumulation", ratio=1, units="kg m-2 yr-1"),
)


class GeneratorConfig(Settings):
    """The generator (Leong & Horgan 2020, section 3.1 and Table A1).

    Attributes
    ----------
    num_residual_blocks
        Number of residual-in-residual dense blocks (RRDB).
    input_filters
        Filters of each input's first convolution: 16 as the paper says, 32 as its code has it.
    filters, growth_filters
        Width of the trunk and growth of the dense blocks.
    residual_scaling
        Factor on the residual of every dense block and every RRDB.
    output, residual_scale
        ``absolute``: the network's last layer is the bed in metres. ``residual``: the bed is the bicubic
        low-resolution bed plus ``residual_scale`` metres times the last layer.
    normalise
        Turn the inputs, inside the graph, into scaled features with validity channels, so that NaN is allowed.
    initial_scale
        Factor on the He-normal standard deviation of the kernels of the residual blocks, the offsets and the last
        layer, so that all of them begin close to doing nothing.
    trunk_initial_scale
        The same for the layers that the signal has to pass; the published 0.1 makes it tenfold smaller at each.
    consistent
        Make every 4 x 4 mean of the bed its low-resolution cell, in the last layer (`models.consistency`).
    inputs
        The conditional inputs; the first is the low-resolution bed.
    """

    num_residual_blocks: Annotated[int, Field(ge=0)] = 12
    input_filters: Annotated[int, Field(ge=1)] = 16
    filters: Annotated[int, Field(ge=1)] = 64
    growth_filters: Annotated[int, Field(ge=1)] = 32
    residual_scaling: Annotated[float, Field(gt=0, le=1)] = 0.2
    output: Literal["absolute", "residual"] = "absolute"
    residual_scale: Annotated[float, Field(gt=0)] = 100.0
    normalise: bool = False
    initial_scale: Annotated[float, Field(gt=0)] = 0.1
    trunk_initial_scale: Annotated[float, Field(gt=0)] = 0.1
    consistent: bool = False
    inputs: tuple[InputConfig, ...] = DEFAULT_INPUTS

    @model_validator(mode="after")
    def _low_resolution_bed_comes_first(self) -> GeneratorConfig:
        if not self.inputs or self.inputs[0].name != "bed_lowres" or self.inputs[0].ratio != 1:
            raise ValueError("the first of `inputs` must be bed_lowres with ratio 1")
        return self


class DiscriminatorConfig(Settings):
    """The VGG-style discriminator.

    Attributes
    ----------
    tile_size
        Cells along one side of the square beds it judges.
    normalise
        Judge the bed relative to its tile mean and scaled by 100 m instead of raw metres.
    initial_scale
        Factor on the He-normal standard deviation of every kernel.
    sees
        ``everything``, or ``measured``: of both beds only the cells with radar, on the bicubic low-resolution bed, so
        that nothing made up by gridding counts as real.
    """

    tile_size: Annotated[int, Field(ge=32)] = 36
    normalise: bool = False
    initial_scale: Annotated[float, Field(gt=0)] = 0.1
    sees: Literal["everything", "measured"] = "everything"


class LossConfig(Settings):
    """One term of the generator's loss and its weight.

    Attributes
    ----------
    name
        The paper's four terms, or ``squared``, which minds the few large errors that a root mean square is made of.
    weight
        Factor in the sum.
    """

    name: Literal["content", "adversarial", "topographic", "structural", "squared"]
    weight: Annotated[float, Field(ge=0)]


class StructuralConfig(Settings):
    """Constants of the structural similarity (SSIM).

    Attributes
    ----------
    window
        Side of the uniform window, cells.
    c1, c2
        Stabilising constants, m2. The published code used 1e-4 and 9e-4, those of an image with a range of 1.
    least_cells
        With sparse supervision, cells with radar that a window needs to count.
    """

    window: Annotated[int, Field(ge=3)] = 9
    c1: Annotated[float, Field(gt=0)] = 1e-4
    c2: Annotated[float, Field(gt=0)] = 9e-4
    least_cells: Annotated[int, Field(ge=2)] = 8


class OptimizerConfig(Settings):
    """Adam, or one of its relatives in TensorFlow Addons.

    Attributes
    ----------
    name
        ``adam``; ``rectified_adam`` and ``lookahead`` come from TensorFlow Addons and can't keep an EMA themselves.
    learning_rate, beta_1, beta_2, epsilon
        As in the paper's Table B1 by default.
    schedule
        ``constant``, or ``cosine`` down to 1 % of the learning rate over the whole run.
    warmup_steps
        Steps of linear warm-up from 0.
    clip_norm
        Global gradient norm above which gradients are scaled down; None for no limit.
    """

    name: Literal["adam", "rectified_adam", "lookahead"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1.7e-4
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    epsilon: Annotated[float, Field(gt=0)] = 0.1
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class DataConfig(Settings):
    """Which regions are tiled for training, and how.

    Attributes
    ----------
    regions
        Region files whose tiles are trained on. Only the first is validated on, and evaluated by default.
    tile_size
        Low-resolution cells along a tile, without its margin of one cell: 9 makes 36 x 36 output cells.
    stride
        Step between tiles, in output cells.
    block_size, buffer
        Side of the spatial blocks that are dealt to training and validation, and the distance between tiles of
        different splits, both in output cells.
    validation_fraction
        Share of the complete windows kept for validation, in whole blocks.
    augment
        Random flips and quarter turns, VX and VY turned along.
    max_tiles
        At most so many training tiles, drawn with the seed; None for all.
    supervision
        ``complete``: only windows whose bed is known in every cell. ``sparse``: windows with radar in at least
        `minimum_coverage` of their cells, every cell weighed by what is known of it; then it is cells that are dealt to
        splits, and `buffer` is the distance between the cells that two splits are measured on.
    minimum_coverage
        Least share of a window's cells that hold radar, for sparse supervision.
    regression_weight
        For sparse supervision: in training cells without radar the network learns, with this weight, the bed of a
        regression that is fitted to the radar of the training cells (`training.teaching`), wherever inputs are known;
        0 for the target's own bed between flight lines.
    folds, fold
        Blocked cross-validation: so many folds of blocks, of which this is validated on; None: `validation_fraction`.
    """

    regions: tuple[str, ...] = ("configs/regions/synthetic.yml",)
    tile_size: Annotated[int, Field(ge=9)] = 9
    stride: Annotated[int, Field(ge=1)] = 9
    block_size: Annotated[int, Field(ge=1)] = 144
    buffer: Annotated[int, Field(ge=0)] = 36
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    augment: bool = True
    max_tiles: Annotated[int, Field(ge=1)] | None = None
    supervision: Literal["complete", "sparse"] = "complete"
    minimum_coverage: Annotated[float, Field(gt=0, le=1)] = 0.05
    regression_weight: Annotated[float, Field(ge=0)] = 0.0
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _parts_go_together(self) -> DataConfig:
        if self.regression_weight and self.supervision != "sparse":
            raise ValueError("regression_weight is for sparse supervision; set supervision to sparse, or it to 0")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold is {self.fold} but there are {self.folds or 'no'} folds; they count from 0")
        return self


class TrainingConfig(Settings):
    """Length, precision and bookkeeping of a run.

    Attributes
    ----------
    batch_size, epochs
        Tiles a step; passes through the training tiles.
    steps_per_epoch
        Steps between validations; None for one pass through the training tiles.
    precision
        ``auto`` takes bfloat16 where the CPU or GPU computes in it, float16 on older GPUs, float32 elsewhere.
    ema_momentum
        Momentum of the averaged generator weights used to evaluate and export; None for none.
    checkpoint_steps
        Steps between checkpoints within an epoch; one is always written at the end of an epoch.
    deterministic
        Make two runs of one seed equal bit by bit.
    max_minutes
        Stop in order (checkpoint, export) after so many minutes of training; None for no limit.
    symmetric
        Export a model that gives the mean over the eight symmetries of the square: less error where data were few, less
        texture, and eight times the work.
    """

    batch_size: Annotated[int, Field(ge=1)] = 128
    epochs: Annotated[int, Field(ge=1)] = 140
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    precision: Literal["auto", "float32", "float64", "mixed_bfloat16", "mixed_float16"] = "auto"
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    checkpoint_steps: Annotated[int, Field(ge=1)] = 200
    deterministic: bool = False
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    symmetric: bool = False


class Config(Settings):
    """Everything that decides a training run, apart from the region's data."""

    name: Annotated[str, Field(pattern=r"^\w[\w .+-]*$")]
    seed: int = 42
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: tuple[LossConfig, ...] = (
        LossConfig(name="content", weight=1e-2),
        LossConfig(name="adversarial", weight=2e-2),
        LossConfig(name="topographic", weight=2e-3),
        LossConfig(name="structural", weight=5.25),
    )
    structural: StructuralConfig = StructuralConfig()
    generator_optimizer: OptimizerConfig = OptimizerConfig()
    discriminator_optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _discriminator_fits_into_a_tile(self) -> Config:
        cells = 4 * self.data.tile_size
        if self.discriminator.tile_size > cells:
            raise ValueError(
                f"discriminator.tile_size is {self.discriminator.tile_size} but a tile has {cells} cells; "
                "raise data.tile_size (low-resolution cells, 4 output cells each)"
            )
        return self


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises
    ------
    ConfigError
        When the file is missing, is not YAML, or holds something else than a mapping.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}; check the path") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line} is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, expected a mapping of settings")
    return content


def validate(model: type[Settings], content: dict[str, Any], source: str) -> Any:
    """Check a mapping against a settings class; the first fault becomes one line.

    Raises
    ------
    ConfigError
        With the dotted key, the value that came, and the keys or values that are accepted.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # A mistyped key also leaves the one that was meant missing: the cause comes first.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            message = f"unknown key '{key}'; known here: {', '.join(_known_keys(model, first['loc']))}"
        elif first["type"] == "missing":
            message = f"key '{key}' is missing"
        else:
            message = f"'{key}' is {first['input']!r}: {first['msg']}" if key else first["msg"]
        raise ConfigError(f"{source}: {message}") from error


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration and apply ``key.sub=value`` overrides, whose values are YAML.

    Parameters
    ----------
    path
        YAML file; its stem is the configuration's name unless it holds one.
    overrides
        For example ``["training.epochs=3", "generator.output=residual"]``.

    Raises
    ------
    ConfigError
        For an unreadable file, an unknown key or an impossible value.
    """
    content = read_yaml(path)
    content.setdefault("name", Path(path).stem)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {override!r}: expected key.sub=value, for example training.epochs=3")
        *parents, last = key.split(".")
        node: Any = content
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
            if not isinstance(node, dict):
                raise ConfigError(f"--set {override!r}: '{parent}' holds no settings of its own")
        try:
            node[last] = yaml.load(value, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override!r}: {value!r} is not a YAML value") from error
    result: Config = validate(Config, content, str(path))
    return result


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML's 1.1 rules read ``1e-2`` as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _known_keys(model: type[Settings], location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings at `location`; an index or a key of a mapping leads to its values."""
    known: list[Any] = [model]
    for part in location[:-1]:
        blocks = [each for each in known if isinstance(each, type) and issubclass(each, BaseModel)]
        named = [each.model_fields[part].annotation for each in blocks if part in each.model_fields]
        known = [inner for each in named or known for inner in _unwrapped(each)]
    return sorted(
        {name for each in known if isinstance(each, type) and issubclass(each, BaseModel) for name in each.model_fields}
    )


def _unwrapped(annotation: Any) -> list[Any]:
    """Settings classes within optional, tuple and mapping annotations."""
    arguments = getattr(annotation, "__args__", ())
    return [inner for each in arguments for inner in _unwrapped(each)] if arguments else [annotation]
