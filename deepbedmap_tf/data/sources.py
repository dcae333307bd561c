"""Which files a region's layers come from, and their fingerprints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deepbedmap_tf.data.cache import digest, file_sha256


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
        Path as the region file has it, to sha256 (of the names and fingerprints of its files, for a folder).
    """
    paths = sorted({path for layer in layers if layer is not None for path in _paths(layer)})
    return {path: _fingerprint(resolve(path)) for path in paths}


def _fingerprint(path: Path) -> str:
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return str(digest({each.relative_to(path).as_posix(): file_sha256(each) for each in files}))
    return file_sha256(path)


def _paths(layer: Any) -> list[str]:
    further = [getattr(layer, key, None) for key in ("geoid", "fallback", "surface")]
    further += [each for key in ("add", "subtract") for each in getattr(layer, key, ())]
    nested = [path for each in further if each is not None and not isinstance(each, str) for path in _paths(each)]
    return [layer.path, *nested]
