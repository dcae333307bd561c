from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deepbedmap_tf.data.cache import cache_directory, digest, file_sha256, written_beside
from deepbedmap_tf.errors import DataError


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("DEEPBEDMAP_CACHE_DIR")
    assert cache_directory() == Path.home() / ".cache" / "deepbedmap"


def test_fingerprints_follow_the_content(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "file"
    for content in (b"one", b"other", b"third"):
        path.write_bytes(content)
        for _ in range(2):
            assert file_sha256(path) == hashlib.sha256(content).hexdigest()
    # A memory that is damaged or can't be written is no reason to stop.
    (tmp_path / "cache" / "fingerprints.json").write_text("{", encoding="utf-8")
    assert file_sha256(path) == hashlib.sha256(b"third").hexdigest()
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(path))
    assert file_sha256(path) == hashlib.sha256(b"third").hexdigest()
    with pytest.raises(DataError, match="cannot read"):
        file_sha256(tmp_path / "none")


def test_digests_do_not_depend_on_order():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_what_was_there_stays_until_the_new_is_complete(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), written_beside(path) as beside:
        beside.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]
    with written_beside(path) as beside:
        beside.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new" and list(tmp_path.iterdir()) == [path]


def test_folders_are_replaced_whole(tmp_path):
    folder = tmp_path / "store"
    for content in ("a", "b"):
        with written_beside(folder) as beside:
            beside.mkdir()
            (beside / content).write_text(content, encoding="utf-8")
    assert [each.name for each in folder.iterdir()] == ["b"] and list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    full = pytest.raises(DataError, match=r"cannot write .*free some space or choose another folder")
    with full, written_beside(tmp_path / "file" / "out.txt") as beside:
        beside.write_text("", encoding="utf-8")
