"""The record of a run: what a kill in the middle of a line leaves, and what another map differs in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepbedmap_tf.errors import DataError
from deepbedmap_tf.inference.manifest import Manifest

CONTENT = {"model": {"name": "default", "sha256": "a" * 64}, "plan": {"halo": 20, "window": [0.0, 0.0, 4.0, 4.0]}}


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    manifest = Manifest.begin(tmp_path / "record", CONTENT)
    manifest.record(3)
    manifest.record(0, ("no data\nhere",), skipped=2)
    again = Manifest.read(tmp_path / "record")
    assert again.done == {0, 3} and again.empty == ["no data\nhere"] and again.skipped == 2
    assert again.content == CONTENT and not again.differences(CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["record"]


@given(cut=st.integers(1, 40), numbers=st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True))
def test_a_line_that_was_cut_off_counts_for_nothing(
    cut: int, numbers: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "record"
    manifest = Manifest.begin(path, CONTENT)
    for number in numbers[:-1]:
        manifest.record(number)
    complete = path.read_bytes()
    manifest.record(numbers[-1])
    last = len(path.read_bytes()) - len(complete)
    path.write_bytes(path.read_bytes()[: len(complete) + max(0, last - cut)])
    again = Manifest.read(path)
    assert again.done == set(numbers[:-1])
    # What comes next starts on a line of its own.
    again.record(1000)
    assert Manifest.read(path).done == {*numbers[:-1], 1000}


def test_differences_are_named(tmp_path: Path) -> None:
    manifest = Manifest.begin(tmp_path / "record", CONTENT)
    other = {"model": {"name": "default", "sha256": "b" * 64}, "plan": {"halo": 16, "window": (0.0, 0.0, 4.0, 4.0)}}
    assert manifest.differences(other) == ["model.sha256 aaaaaaaaaaaa..., now bbbbbbbbbbbb...", "plan.halo 20, now 16"]
    assert manifest.differences({**CONTENT, "options": {"seed": 1}}) == ["options.seed none, now 1"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"format": 2, "map": {}}\n', b'{"format": 1}\n', b"\xff\n"])
def test_what_is_no_record_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record").write_bytes(content)
    with pytest.raises(DataError, match=r"no readable record of a map .*; start anew with --restart"):
        Manifest.read(tmp_path / "record")
