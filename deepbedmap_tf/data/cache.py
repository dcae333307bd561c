"""The folder of things that can be made again, and fingerprints of files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deepbedmap_tf.errors import DataError

_FINGERPRINTS = "fingerprints.json"


def cache_directory() -> Path:
    """Folder of the cache: ``$DEEPBEDMAP_CACHE_DIR``, or ``~/.cache/deepbedmap``."""
    return Path(os.environ.get("DEEPBEDMAP_CACHE_DIR") or Path.home() / ".cache" / "deepbedmap").expanduser()


def digest(content: Any) -> str:
    """Hash of anything that JSON can hold, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hash of a file's content, remembered in the cache by path, size and time of change.

    Raises
    ------
    DataError
        When the file can't be read.
    """
    try:
        status = path.stat()
        key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
        known = _read_fingerprints()
        if key not in known:
            with path.open("rb") as stream:
                known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
            _write_fingerprints(known)
        return known[key]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path in the region file") from error


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; renamed to `path` at the end, removed after an error.

    Works for a file and for a folder; what stood at `path` before stays until the new one is complete.

    Raises
    ------
    DataError
        When the disk refuses, for example because it is full.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        if path.is_dir():
            replaced = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            path.rename(replaced)
            beside.rename(path)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            beside.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            with suppress(OSError):
                beside.unlink()


def _read_fingerprints() -> dict[str, str]:
    try:
        content = json.loads((cache_directory() / _FINGERPRINTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_fingerprints(known: dict[str, str]) -> None:
    # Only a memory: where the cache can't be written, files are hashed anew each time.
    try:
        with written_beside(cache_directory() / _FINGERPRINTS) as beside:
            beside.write_text(json.dumps(known, indent=0), encoding="utf-8")
    except DataError:
        return
