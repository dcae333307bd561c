"""What is there of each product, and the list that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepbedmap_tf.data.catalog import PARTIAL, Product, ProductFile, load_catalogue
from deepbedmap_tf.data.checksums import checksum_like, expected_checksum

State = Literal["present", "partial", "missing", "on request", "by hand", "superseded", "wrong checksum"]


@dataclass(frozen=True)
class ProductState:
    """What is there of a product.

    Attributes
    ----------
    product
        Which.
    state
        In one word, that of its worst file.
    files
        State of each file by name.
    bytes
        On disk; None when nothing is there.
    download
        Bytes to download, of all files; None where one of them is not known.
    """

    product: Product
    state: State
    files: dict[str, State]
    bytes: int | None
    download: int | None = None


SizeOf = Callable[[Product, ProductFile], int | None]


def product_states(
    keys: Sequence[str] = (), verify: bool = False, size_of: SizeOf | None = None
) -> Iterator[ProductState]:
    """Tell what is there of some products, of all by default.

    Parameters
    ----------
    keys
        Of products.
    verify
        Compare the checksums of what is there; takes as long as reading the files.
    size_of
        Tells the size of a download that is not on record; asked for products of which nothing is on disk.
    """
    catalogue = load_catalogue()
    for product in [catalogue.product(key) for key in keys] or catalogue.products:
        if product.superseded_by is not None and not product.folder.exists():
            yield ProductState(product, "superseded", {}, None)
            continue
        files = {file.name: _file_state(product, file, verify) for file in product.files}
        found = placed_files(product)
        states: set[State] = set(files.values()) or {"present" if found else "by hand"}
        names = {name for file in product.files for name in (file.made_name, file.downloaded_name + PARTIAL)}
        size = sum(_size(path) for path in [*(product.folder / name for name in names), *found])
        files |= {path.name: "present" for path in found}
        download = None if size else _download_size(product, size_of)
        yield ProductState(product, _worst(states), files, size or None, download)


def product_table(states: Iterable[ProductState], files: bool = False) -> str:
    """Lay out products with state, size, licence and citation, three lines each, and their files where wanted."""
    states = list(states)
    width = max((len(each.product.key) for each in states), default=0)
    lines = [f"{'product':{width}}  {'state':14}  {'size':>12}  what"]
    for each in states:
        product = each.product
        what = [product.title, product.location]
        what += [f"{product.resolution:g} m"] if product.resolution else []
        what += ["Earthdata login"] if product.login else []
        what += [f"use {product.superseded_by}"] if product.superseded_by else []
        lines += [
            f"{product.key:{width}}  {each.state:14}  {_size_text(each):>12}  {', '.join(what)}",
            f"{'':{width}}  licence: {_said(product.licence, product.licence_source)}; data: {product.page}",
            f"{'':{width}}  cite: {_said(product.citation)}; literature: {product.doi_literature or product.page}",
        ]
        lines += [f"{'':{width}}  {state}: {name}" for name, state in each.files.items()] if files else []
    return "\n".join(lines)


def _said(words: str | None, source: str | None = None) -> str:
    return "not on record" if words is None else f"{words} (says {source})" if source else words


def _file_state(product: Product, file: ProductFile, verify: bool) -> State:
    path, made = product.folder / file.name, product.folder / file.made_name
    if made.exists():
        expected = expected_checksum(product, file)
        if verify and path.is_file() and expected is not None and checksum_like(path, expected) != expected:
            return "wrong checksum"
        return "present"
    downloaded = product.folder / file.downloaded_name
    if downloaded.exists() or downloaded.with_name(downloaded.name + PARTIAL).exists():
        return "partial"
    return "on request" if file.url is None else "missing"


def _worst(states: set[State]) -> State:
    if len(states) > 1 and "present" in states and states <= {"present", "missing", "on request"}:
        return "partial"
    order: tuple[State, ...] = ("wrong checksum", "partial", "missing", "on request", "by hand", "present")
    return next(state for state in order if state in states)


def placed_files(product: Product) -> list[Path]:
    """Further files that a person has put into a product's folder."""
    if not product.further_files or not product.folder.is_dir():
        return []
    known = {each.downloaded_name for each in product.files} | {each.name for each in product.files}
    return sorted(
        path
        for path in product.folder.iterdir()
        if path.is_file() and path.name.partition(PARTIAL)[0] not in known and not path.name.startswith(".")
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.exists() else 0


def _download_size(product: Product, size_of: SizeOf | None) -> int | None:
    total = 0
    for file in product.files:
        size = file.bytes
        if size is None and size_of is not None:
            size = size_of(product, file)
        if size is None:
            return None
        total += size
    return total or None


def _size_text(state: ProductState) -> str:
    known = state.download if state.bytes is None else state.bytes
    if known is None:
        return "not on record"
    size: float = known
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
