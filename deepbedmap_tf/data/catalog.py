"""The catalogue of public products: what they are, and where their files lie once they are fetched."""

from __future__ import annotations

import difflib
import logging
import os
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from deepbedmap_tf.config import Settings, read_yaml, validate
from deepbedmap_tf.data.cache import cache_directory
from deepbedmap_tf.data.sources import is_pattern
from deepbedmap_tf.errors import ConfigError, DataError

_LOGGER = logging.getLogger(__name__)

REFERENCE = "catalogue:"
PARTIAL = ".part"
_SHIPPED = Path(__file__).with_name("catalogue.yml")

# One part of a path: no separator, no drive, and not a dot in front, so that no name leads out of its folder.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]


class ProductFile(Settings):
    """One file of a product.

    Attributes
    ----------
    name
        Of the file in the product's folder.
    url
        Address; None for a file that its owner hands out on request.
    archive
        Name of the archive that the address gives, when the file lies within one.
    unpack
        The file is itself an archive, to be unpacked into a folder of its name without the ending.
    sha256, md5
        Checksum on public record; that of the file within the archive when there is an `archive`.
    bytes
        Size of what is downloaded.
    """

    name: Name
    url: str | None = None
    archive: Name | None = None
    unpack: bool = False
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    bytes: Annotated[int, Field(gt=0)] | None = None

    @property
    def checksum(self) -> str | None:
        """``sha256:...`` or ``md5:...``, the stronger of those on record."""
        if self.sha256 is not None:
            return f"sha256:{self.sha256}"
        return f"md5:{self.md5}" if self.md5 is not None else None

    @property
    def downloaded_name(self) -> str:
        """Name of what the address gives."""
        return self.archive or self.name

    @property
    def made_name(self) -> str:
        """Name of what is used: the file, or the folder it is unpacked into."""
        return self.name.split(".")[0] if self.unpack else self.name


class Product(Settings):
    """One product.

    Attributes
    ----------
    key
        Name by which it is fetched, and of its folder.
    title, kind, location, format
        What it is, in words.
    citation, citation_source
        Whom to cite, and where that was read; None where it is not on record.
    resolution
        Cell size, m; None for points and polygons.
    doi_dataset, doi_literature
        Addresses of the data set and of its publication.
    licence, licence_source
        Terms of use, and where they are stated; None where they are not on record.
    login
        ``earthdata`` for files behind NASA's login.
    owner, owner_source
        Whom to ask for files without an address, and where it is said that they hand them out.
    copies
        Page on which a copy of such files was seen; their checksums tell whether it is the same.
    superseded_by
        Product that holds the same at the present address.
    files, files_source
        Those with a known name, and where they are listed when that is not the public record.
    further_files
        Any other file in the product's folder belongs to it too: such are chosen on the data set's page.
    """

    key: Name
    title: str
    kind: Literal["bed_lowres", "bed_500m", "input", "picks"]
    location: str
    resolution: Annotated[float, Field(gt=0)] | None = None
    doi_dataset: str | None = None
    doi_literature: str | None = None
    citation: str | None = None
    citation_source: str | None = None
    licence: str | None = None
    licence_source: str | None = None
    login: Literal["earthdata"] | None = None
    owner: str | None = None
    owner_source: str | None = None
    copies: str | None = None
    superseded_by: Name | None = None
    format: str
    files: tuple[ProductFile, ...] = ()
    files_source: str | None = None
    further_files: bool = False

    @property
    def page(self) -> str:
        """Where a person reads on."""
        return self.doi_dataset or self.doi_literature or "its publication"

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return data_directory() / self.key


class Catalogue(Settings):
    """All products of a registry file."""

    products: tuple[Product, ...]

    @model_validator(mode="after")
    def _keys_are_unique_and_successors_exist(self) -> Catalogue:
        keys = [product.key for product in self.products]
        for product in self.products:
            if keys.count(product.key) > 1:
                raise ValueError(f"product {product.key} is there twice")
            if product.superseded_by is not None and product.superseded_by not in keys:
                raise ValueError(f"{product.key} is superseded by {product.superseded_by}, which is not there")
        return self

    def product(self, key: str) -> Product:
        """Product of this key.

        Raises
        ------
        ConfigError
            When there is none; similar keys are named.
        """
        for product in self.products:
            if product.key == key:
                return product
        keys = [product.key for product in self.products]
        folded = {each.casefold(): each for each in keys}
        close = [folded[each] for each in difflib.get_close_matches(key.casefold(), folded, n=3, cutoff=0.5)]
        known = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(keys)}"
        raise ConfigError(f"there is no product {key!r} in the catalogue; {known}")

    def current(self, key: str) -> Product:
        """Product of this key, or the one that has superseded it."""
        product = self.product(key)
        return product if product.superseded_by is None else self.current(product.superseded_by)


def data_directory() -> Path:
    """Folder of fetched products: ``$DEEPBEDMAP_DATA_DIR``, or ``data`` in the cache."""
    return Path(os.environ.get("DEEPBEDMAP_DATA_DIR") or cache_directory() / "data").expanduser()


def load_catalogue() -> Catalogue:
    """Read the registry shipped with the package, or the one that ``$DEEPBEDMAP_CATALOGUE`` names.

    Raises
    ------
    ConfigError
        For an unreadable file, an unknown key, or a name that could leave the data folder.
    """
    path = Path(os.environ.get("DEEPBEDMAP_CATALOGUE") or _SHIPPED).expanduser()
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"cannot read the catalogue {path}: {error.strerror}; check DEEPBEDMAP_CATALOGUE") from error


def product_path(key: str, file: str | None = None) -> Path:
    """Where a file of a product lies, whether it is there or not.

    Parameters
    ----------
    key
        Of the product; one that is superseded leads to its successor, unless the file lies in its own folder.
    file
        Name of the file, or of one within an unpacked archive (``folder/name``). By default the product's only
        file, or the .shp of a shapefile.

    Raises
    ------
    ConfigError
        For an unknown product or file, or a path that leaves the product's folder.
    """
    catalogue = load_catalogue()
    product = catalogue.product(key)
    path = product.folder.joinpath(*_parts(product, file))
    return path if path.exists() or product.superseded_by is None else product_path(product.superseded_by, file)


def resolve(reference: str) -> Path:
    """Turn ``catalogue:KEY/FILE``, as a region file has it, into the path of a file that is there.

    FILE may be a pattern such as ``*.csv``: it comes back behind the product's folder, in which at least one file
    matches it. Files of the catalogue that match it and are not there are counted in the log.

    Raises
    ------
    ConfigError
        For an unknown product or file.
    DataError
        When the file, or a part of its shapefile, is absent: the message says how to get it.
    """
    key, _, file = reference.removeprefix(REFERENCE).partition("/")
    if is_pattern(file):
        return _resolve_pattern(load_catalogue().current(key), file)
    path = product_path(key, file or None)
    product = load_catalogue().current(key)
    siblings = [each for each in product.files if path.suffix == ".shp" and Path(each.name).stem == path.stem]
    for wanted in dict.fromkeys([path, *(path.with_name(each.name) for each in siblings)]):
        if not wanted.exists():
            raise DataError(f"{reference} is not there{_how_to_get(product, wanted)}")
    return path


def by_hand(product: Product, file: ProductFile) -> str:
    """Say which file to place where, and how to know that it is the right one."""
    path = product.folder / file.name
    checksum = f" ({file.checksum.replace(':', ' ')})" if file.checksum else " (no checksum on public record)"
    return f"place {file.name} at {path}{checksum}"


def on_request(product: Product) -> str:
    """Say whom to ask for the files of a product that has no addresses."""
    if product.further_files:
        return f"choose files on {product.page} and place them in {product.folder}"
    said = ", ".join(each for each in (product.citation, product.page) if each)
    copies = f", or look for a copy on {product.copies}," if product.copies else ""
    return f"ask {product.owner or 'the authors'} ({said}){copies}"


def _resolve_pattern(product: Product, pattern: str) -> Path:
    if "/" in pattern or "\\" in pattern or pattern.startswith("."):
        raise ConfigError(
            f"{REFERENCE}{product.key}/{pattern} names a folder; expected a pattern of file names alone, such as *.csv"
        )
    known = [each.made_name for each in product.files if fnmatchcase(each.made_name, pattern)]
    if not known and not product.further_files:
        raise ConfigError(f"product {product.key} has no file that matches {pattern!r}; it has {_some(product)}")
    there = {path.name for path in product.folder.glob(pattern) if path.is_file()}
    if not there:
        get = f"run `deepbedmap fetch {product.key}`" if known else on_request(product)
        raise DataError(
            f"no file of {REFERENCE}{product.key}/{pattern} is there: {get}, or place files in {product.folder}"
        )
    if absent := len(set(known) - there):
        _say_absent(product.key, pattern, absent, len(known))
    return product.folder / pattern


@lru_cache(maxsize=64)
def _say_absent(key: str, pattern: str, absent: int, known: int) -> None:
    # Once: a path is resolved again for every fingerprint and every reading.
    _LOGGER.warning(
        "%s/%s: %d of the %d files of the catalogue are not there and not used", key, pattern, absent, known
    )


def _how_to_get(product: Product, path: Path) -> str:
    files = {each.made_name: each for each in product.files}
    file = files.get(path.relative_to(product.folder).parts[0])
    if file is None:
        return f": {on_request(product)}"
    if file.url is None:
        return f": {on_request(product)} and {by_hand(product, file)}"
    if path.name != file.made_name and (product.folder / file.made_name).is_dir():
        return f": the archive holds no such file; look in {product.folder / file.made_name}"
    begun = path.with_name(file.downloaded_name + PARTIAL).exists()
    return (
        f"{', only a part of it' if begun else ''}: run `deepbedmap fetch {product.key}`, or {by_hand(product, file)}"
    )


def _parts(product: Product, file: str | None) -> tuple[str, ...]:
    names = [each.made_name for each in product.files]
    if file is None:
        main = [name for name in names if name.endswith(".shp")] or names
        if len(main) != 1:
            raise ConfigError(
                f"product {product.key} has several files; name one: {REFERENCE}{product.key}/FILE, or picks by a "
                f"pattern: {REFERENCE}{product.key}/*.csv"
            )
        return (main[0],)
    parts = PurePosixPath(file).parts
    if file.startswith("/") or "\\" in file or not parts or any(part.startswith("..") for part in parts):
        raise ConfigError(f"{REFERENCE}{product.key}/{file} leaves the product's folder; name a file within it")
    unpacked = [each.made_name for each in product.files if each.unpack]
    known = parts[0] in names or product.further_files
    if not known or (len(parts) > 1 and parts[0] not in unpacked):
        within = f", and what lies in {' and '.join(unpacked)}" if unpacked else ""
        raise ConfigError(f"product {product.key} has no file {file!r}; it has {_some(product)}{within}")
    return parts


def _some(product: Product) -> str:
    names = [each.made_name for each in product.files]
    return f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"


@lru_cache(maxsize=8)
def _read(path: Path, modified: int) -> Catalogue:
    catalogue: Catalogue = validate(Catalogue, read_yaml(path), str(path))
    return catalogue
