"""Fetching products into the data folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap_tf.data.archives import unpack, unpack_file
from deepbedmap_tf.data.catalog import (
    Catalogue,
    Product,
    ProductFile,
    by_hand,
    data_directory,
    load_catalogue,
    on_request,
)
from deepbedmap_tf.data.checksums import expected_checksum, verify
from deepbedmap_tf.data.download import ResumingDownloader
from deepbedmap_tf.data.product_states import placed_files
from deepbedmap_tf.errors import ConfigError, DataError

if TYPE_CHECKING:
    from deepbedmap_tf.data.earthdata import Ask, Opener

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """A file that is there now.

    Attributes
    ----------
    product
        Its key.
    path
        The file, or the folder it was unpacked into.
    downloaded
        False when it was there before.
    checksum
        What it was compared with, ``sha256:...`` or ``md5:...``; None for files the catalogue doesn't name.
    recorded
        The checksum is not on public record: it is that of the first copy, recorded just now.
    """

    product: str
    path: Path
    downloaded: bool
    checksum: str | None
    recorded: bool = False


def fetch(
    keys: Sequence[str], progress: bool = False, ask: Ask | None = None, attempts: int = 4, wait: float = 1.0
) -> Iterator[Fetched]:
    """Download what is missing of some products and check what is there.

    Parameters
    ----------
    keys
        Of products, or ``KEY/FILE`` for one file; a superseded product leads to its successor.
    progress
        Show progress bars.
    ask
        Asks a person for user name and password of a host, when a server wants a login that is neither in the
        environment nor in .netrc.
    attempts, wait
        See `ResumingDownloader`.

    Yields
    ------
    Fetched
        Each file as soon as it is there.

    Raises
    ------
    ConfigError
        For an unknown product, before anything is downloaded.
    DataError
        When a download fails (what arrived is kept), a checksum is wrong, the disk is full, or a file has to be asked
        for; the message says what to do.
    """
    from deepbedmap_tf.data.earthdata import Opener

    catalogue = load_catalogue()
    chosen = [_choose(catalogue, key) for key in dict.fromkeys(keys)]
    opener = Opener(ask)
    try:
        for product, files in chosen:
            with _writing():
                yield from _fetch_product(product, files, opener, progress, attempts, wait)
    finally:
        opener.close()


def _choose(catalogue: Catalogue, key: str) -> tuple[Product, tuple[ProductFile, ...]]:
    """Product and those of its files that ``KEY`` or ``KEY/FILE`` means."""
    name, _, only = key.partition("/")
    product = catalogue.current(name)
    if product.key != name:
        _LOGGER.info("%s is superseded by %s, which holds the same: fetching that", name, product.key)
    files = tuple(file for file in product.files if only in ("", file.name))
    if only and not files:
        raise ConfigError(
            f"product {product.key} has no file {only!r}; `deepbedmap fetch --list {product.key}` shows its files"
        )
    return product, files


def _fetch_product(
    product: Product, files: tuple[ProductFile, ...], opener: Opener, progress: bool, attempts: int, wait: float
) -> Iterator[Fetched]:
    further = placed_files(product) if files == product.files else []
    if not files and not further:
        raise DataError(f"{product.key} has no addresses: {on_request(product)}")
    yield from (Fetched(product.key, path, False, None) for path in further)
    absent = []
    for file in files:
        path = product.folder / file.name
        if file.url is None and not path.exists():
            absent.append(file)
        elif (product.folder / file.made_name).exists() or path.exists():
            yield _check_present(product, file)
        else:
            yield _download(product, file, opener, progress, attempts, wait)
    if absent:
        names = ", ".join(file.name for file in absent[1:])
        also = f", and likewise {names}" if names else ""
        raise DataError(
            f"{product.key} is handed out on request: {on_request(product)} and {by_hand(product, absent[0])}{also}"
        )


def _check_present(product: Product, file: ProductFile) -> Fetched:
    path, made = product.folder / file.name, product.folder / file.made_name
    if not path.exists():
        return Fetched(product.key, made, False, None)
    checksum, recorded = verify(product, file, path)
    if file.unpack and not made.exists():
        unpack(path, made)
    return Fetched(product.key, made, False, checksum, recorded)


def _download(
    product: Product, file: ProductFile, opener: Opener, progress: bool, attempts: int, wait: float
) -> Fetched:
    import pooch

    assert file.url is not None
    advice = by_hand(product, file)
    if not file.url.startswith(("http://", "https://")):
        raise DataError(f"{file.url} is not served over http; download it by other means and {advice}")
    product.folder.mkdir(parents=True, exist_ok=True)
    name, path = file.downloaded_name, product.folder / file.name
    expected = None if file.archive else expected_checksum(product, file)
    downloader = ResumingDownloader(
        product.folder / name,
        partial(opener.open, login=product.login is not None, advice=advice),
        advice,
        progress,
        attempts,
        wait,
    )
    store = pooch.create(
        path=product.folder, base_url="", registry={name: expected}, urls={name: file.url}, allow_updates=False
    )
    if not (product.folder / name).exists():
        try:
            with _quiet(pooch.get_logger()):
                store.fetch(name, downloader=downloader)
        except ValueError as error:
            got = str(error).partition("but got ")[2].partition(".")[0]
            raise DataError(
                f"{file.url} gave {name} with the checksum {got}, expected {expected}; it was deleted, fetch it anew, "
                f"or {advice}"
            ) from error
    if file.archive:
        archive = product.folder / file.archive
        unpack_file(archive, path)
        archive.unlink()
    try:
        checksum, recorded = verify(product, file, path)
    except DataError:
        path.unlink()
        raise
    if file.unpack:
        unpack(path, product.folder / file.made_name)
    return Fetched(product.key, product.folder / file.made_name, True, checksum, recorded)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or data_directory()
        raise DataError(
            f"cannot use {where}: {error.strerror or error}; free some space, or set DEEPBEDMAP_DATA_DIR to another "
            "folder"
        ) from error
