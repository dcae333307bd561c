"""Checksums of fetched files: those on public record, and those of first copies recorded in the data folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from deepbedmap_tf.data.cache import file_sha256, written_beside
from deepbedmap_tf.data.catalog import Product, ProductFile, data_directory, on_request
from deepbedmap_tf.data.download import is_page
from deepbedmap_tf.errors import DataError

_LOGGER = logging.getLogger(__name__)
_RECORD = "checksums.json"


def expected_checksum(product: Product, file: ProductFile) -> str | None:
    """Give the checksum on public record, else that of the first copy, else None; ``sha256:...`` or ``md5:...``."""
    return file.checksum or _read_record().get(f"{product.key}/{file.name}")


def checksum_like(path: Path, like: str) -> str:
    """Compute a file's checksum by the algorithm of another checksum."""
    import pooch

    algorithm = like.partition(":")[0]
    # The sha256 of a file that hasn't changed is remembered.
    value = file_sha256(path) if algorithm == "sha256" else pooch.file_hash(str(path), alg=algorithm)
    return f"{algorithm}:{value}"


def verify(product: Product, file: ProductFile, path: Path) -> tuple[str, bool]:
    """Compare a file with the checksum that is expected, or record its own when there is none.

    Returns
    -------
    checksum : str
        What the file has.
    recorded : bool
        True when it was recorded just now.

    Raises
    ------
    DataError
        When they differ, or the file is a web page.
    """
    if _is_page(path):
        raise DataError(
            f"{path} is a web page (a login page saved as data?), not {file.name}; remove it and fetch anew"
        )
    expected = expected_checksum(product, file)
    if expected is None:
        got = f"sha256:{file_sha256(path)}"
        _record(product, file, got)
        _LOGGER.info(
            "%s: no checksum on public record; that of this first copy, %s, is recorded in %s and compared from now on",
            file.name,
            got,
            data_directory() / _RECORD,
        )
        return got, True
    got = checksum_like(path, expected)
    if got != expected:
        raise DataError(
            f"{path} has the checksum {got}, expected {expected}; remove or rename it, then "
            f"{f'run `deepbedmap fetch {product.key}`' if file.url else on_request(product)}"
        )
    return expected, False


def _is_page(path: Path) -> bool:
    with path.open("rb") as stream:
        return is_page(stream.read(256))


def _record(product: Product, file: ProductFile, checksum: str) -> None:
    path = data_directory() / _RECORD
    known = _read_record() | {f"{product.key}/{file.name}": checksum}
    with written_beside(path) as beside:
        beside.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _read_record() -> dict[str, str]:
    path = data_directory() / _RECORD
    try:
        known: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise DataError(f"{path} is damaged; remove it to record the checksums of what is there anew")
    return known
