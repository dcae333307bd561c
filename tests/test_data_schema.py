"""What a region file may hold is documented, key by key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepbedmap_tf.config import read_yaml
from deepbedmap_tf.data import schema

SETTINGS = [
    each
    for each in vars(schema).values()
    if isinstance(each, type) and issubclass(each, schema.Settings) and each is not schema.Settings
]


@pytest.fixture(scope="module")
def documented(root: Path) -> set[str]:
    """Keys that stand in the first column of a table of docs/data.md, or in the sentence on layers."""
    text = (root / "docs/data.md").read_text(encoding="utf-8")
    section = text[text.index("## Keys of a region file") : text.index("## Vertical datums")]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    cells += re.findall(r"A \*layer\* .*?\n\n", section, re.DOTALL)
    cells += re.findall(r"^\| `(?:holdout|mask)` .*$", section, re.MULTILINE)
    return {name.rpartition(".")[2] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: each.__name__)
def test_every_key_of_a_region_file_is_documented(settings: Any, documented: set[str]) -> None:
    assert set(settings.model_fields) <= documented, settings.__name__


def keys(content: Any) -> Iterator[str]:
    for each in content if isinstance(content, list) else []:
        yield from keys(each)
    for key, value in content.items() if isinstance(content, dict) else []:
        yield key
        yield from keys(value)


def test_every_key_of_antarctica_is_explained(root: Path) -> None:
    file = root / "configs/regions/antarctica.yml"
    lines = file.read_text(encoding="utf-8").splitlines()
    comments = "\n".join(line.partition("#")[2] for line in lines)
    # Names of the region's own choice, or of its inputs.
    names = {*schema.VERTICAL_DATUMS, "bed_lowres", "surface", "velocity", "accumulation", "bedmachine", "thwaites"}
    for key in dict.fromkeys(keys(read_yaml(file))):
        if key not in names:
            first = next(i for i, line in enumerate(lines) if re.search(rf"(?<![#\w]){key}:", line.partition("#")[0]))
            said = "#" in lines[first] or lines[first - 1].lstrip().startswith("#") or f"`{key}`" in comments
            assert said, f"{key} stands unexplained in {file.name}, line {first + 1}"
