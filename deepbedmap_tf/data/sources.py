"""Which files a region's layers and picks come from, and their fingerprints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deepbedmap_tf.data.cache import file_sha256
from deepbedmap_tf.errors import ConfigError

TABLES = (".txt", ".csv", ".xyz", ".dat", ".asc")


def is_pattern(path: str) -> bool:
    """Tell whether a path of a region file stands for several files, as ``bedmap/*.csv`` does."""
    return any(character in path for character in "*?[")


def files_at(path: Path) -> list[Path]:
    """Files that a path stands for: itself, those that a pattern matches, or the tables in a folder, in order of name.

    Parameters
    ----------
    path
        May hold ``*``, ``?`` and ``[...]`` from some part on. A path that is no folder and no pattern comes back
        whether it is there or not.

    Returns
    -------
    list of pathlib.Path
        Empty when nothing matches.
    """
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file() and each.suffix.lower() in TABLES)
    if path.exists() or not is_pattern(str(path)):
        return [path]
    folder = _folder(path)
    found = folder.glob(path.relative_to(folder).as_posix())
    return sorted(each for each in found if each.is_file() and each.suffix != ".part")


def fingerprints(layers: Iterable[Any], resolve: Callable[[str], Path]) -> dict[str, str]:
    """Fingerprint every file that layers and picks of a region file are read from.

    Parameters
    ----------
    layers
        Settings with a ``path``, and further ones nested in ``geoid``, ``fallback``, ``surface``, ``add`` and
        ``subtract``; None is left out.
    resolve
        Turns a path of the region file into one of the file system.

    Returns
    -------
    dict
        Path of each file, written as the region file has it, to sha256. Of a folder or a pattern it is each of the
        files that `files_at` gives.
    """
    found: dict[str, str] = {}
    for path in sorted({path for layer in layers if layer is not None for path in _paths(layer)}):
        resolved = resolve(path)
        several = resolved.is_dir() or (is_pattern(path) and not resolved.exists())
        if not several:
            found[path] = file_sha256(resolved)
            continue
        folder = resolved if resolved.is_dir() else _folder(resolved)
        own = path.rstrip("/") if resolved.is_dir() else re.split(r"/?[^/]*[*?\[]", path, maxsplit=1)[0]
        for each in files_at(resolved):
            name = each.relative_to(folder).as_posix()
            found[f"{own}/{name}" if own else name] = file_sha256(each)
    return found


def _folder(pattern: Path) -> Path:
    """Folder that a pattern starts from."""
    # A folder may have a bracket in its name: what is there stands for itself.
    above = [each for each in pattern.parents if each.is_dir()]
    return above[0] if above else pattern.parent


def _paths(layer: Any) -> list[str]:
    further = [getattr(layer, key, None) for key in ("geoid", "fallback", "surface")]
    further += [each for key in ("add", "subtract") for each in getattr(layer, key, ())]
    nested = [path for each in further if each is not None and not isinstance(each, str) for path in _paths(each)]
    return [layer.path, *nested]


def path_within(folder: Path, path: str, region: str) -> Path:
    """Return a path of a region file if it stays in the folder that it starts from.

    A link in the folder is its owner's doing; a path out of it is the doing of whoever wrote the region file.

    Raises
    ------
    ConfigError
        For a path with ``..``, and an absolute one that is not in the folder.
    """
    relative = Path(path).expanduser()
    if ".." in relative.parts or (relative.is_absolute() and not relative.is_relative_to(folder.absolute())):
        raise ConfigError(
            f"path {path!r} of region {region} leaves {folder}; give a path within it, a link there, or another "
            "--data-dir"
        )
    return relative
