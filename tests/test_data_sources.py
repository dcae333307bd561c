"""Several files by one path: a folder or a pattern, in order of name, each with its own fingerprint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepbedmap_tf.data.sources import files_at, fingerprints


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.csv", "b/1.csv", "b/c/3.csv", "b/2.csv.part", "b/notes.pdf", "a [x]/1.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("b/*.csv", ["b/1.csv", "b/2.csv"]),
        ("b/*", ["b/1.csv", "b/2.csv", "b/notes.pdf"]),
        ("b/[2-9].csv", ["b/2.csv"]),
        ("*/c/?.csv", ["b/c/3.csv"]),
        ("b", ["b/1.csv", "b/2.csv", "b/c/3.csv"]),
        ("b/1.csv", ["b/1.csv"]),
        ("b/9.csv", ["b/9.csv"]),
        ("b/*.txt", []),
        ("a [x]/1.csv", ["a [x]/1.csv"]),
        ("a [x]/*.csv", ["a [x]/1.csv"]),
    ],
)
def test_a_path_stands_for_files_in_order_of_name(folder: Path, path: str, names: list[str]) -> None:
    assert files_at(folder / path) == [folder / name for name in names]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("b/*.csv", ["b/1.csv", "b/2.csv"]),
        ("*/c/?.csv", ["b/c/3.csv"]),
        ("b", ["b/1.csv", "b/2.csv", "b/c/3.csv"]),
        ("b/", ["b/1.csv", "b/2.csv", "b/c/3.csv"]),
        ("b/2.csv", ["b/2.csv"]),
    ],
)
def test_each_file_has_its_fingerprint(folder: Path, path: str, names: list[str]) -> None:
    found = fingerprints([SimpleNamespace(path=path), None], lambda each: folder / each)
    assert found == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
