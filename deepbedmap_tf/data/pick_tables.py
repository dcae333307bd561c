"""Text tables with a header, read so that no row is lost, shifted or made up in silence."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pandas as pd

from deepbedmap_tf.data.raster_formats import untagged_fills
from deepbedmap_tf.data.sources import TABLES, files_at
from deepbedmap_tf.errors import DataError

# Header lines of any survey's table end well before this one.
_HEADER_LINES = 60


@dataclass(frozen=True)
class Source:
    """A text file, or a member of an archive, that can be opened again and again."""

    name: str
    open: Callable[[], IO[bytes]]

    def head(self) -> list[str]:
        """First lines, without line ends."""
        with self.open() as stream:
            lines = list(islice(_lines(stream), _HEADER_LINES))
        return [line.decode("utf-8-sig", "replace") for line in lines]


@dataclass(frozen=True)
class Columns:
    """Columns that a format promises.

    Attributes
    ----------
    numbers, text
        Name in the result, and the spellings that a file may use.
    optional
        Those that may be absent; they are then missing from the result.
    coordinates
        Numbers that any value may stand in: a fill value in one of them alone is taken for a place.
    """

    numbers: Mapping[str, Sequence[str]]
    text: Mapping[str, Sequence[str]]
    optional: tuple[str, ...] = ()
    coordinates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """Where a table begins: number of lines before its data, names of its columns, what separates them."""

    lines: int
    words: tuple[str, ...]
    separator: str | None


def sources_of(path: Path) -> list[Source]:
    """Text files that a path stands for: itself, the members of a zip, or the files of a folder, in order of name.

    Raises
    ------
    DataError
        When there is none, or the archive is damaged.
    """
    if path.is_dir():
        files = files_at(path)
        if not files:
            raise DataError(f"folder {path} holds no text file of picks; check the path in the region file")
        return [Source(each.name, lambda each=each: each.open("rb")) for each in files]  # type: ignore[misc]
    if not path.is_file():
        raise DataError(f"picks file {path} does not exist; check the path in the region file, or pass --data-dir")
    if path.suffix.lower() != ".zip":
        return [Source(path.name, lambda: path.open("rb"))]
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(name for name in archive.namelist() if PurePosixPath(name).suffix.lower() in TABLES)
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read picks from {path}: {error}; the archive is damaged, get it again") from error
    if damaged or not members:
        problem = f"{damaged} in it is damaged" if damaged else "it holds no text file"
        raise DataError(f"cannot read picks from {path}: {problem}; get the archive again")
    return [Source(f"{path.name}/{name}", lambda name=name: _member(path, name)) for name in members]  # type: ignore[misc]


def _member(path: Path, name: str) -> IO[bytes]:
    # The archive stays open as long as the member is read from it.
    return zipfile.ZipFile(path).open(name)


def split(line: str, separator: str | None) -> list[str]:
    """Cut a line into its words."""
    return [word.strip() for word in line.split(separator)]


def find_header(source: Source, names: Sequence[Sequence[str]], separator: str | None = ",", mark: str = "#") -> Header:
    """Find the line that names the columns, wherever the header ends; upper and lower case are the same.

    Parameters
    ----------
    source
        The table.
    names
        Columns that must be there, each with its spellings.
    separator
        What separates columns, None for blanks. A header with tabs is separated by tabs.
    mark
        Character that begins lines of comment.

    Raises
    ------
    DataError
        When no line names all of them: the one that names most tells which is missing.
    """
    lines = source.head()
    if not any(line.strip() for line in lines):
        raise DataError(f"cannot read picks from {source.name}: it is empty; the file is damaged, get it again")
    best: tuple[int, tuple[str, ...]] = (-1, ())
    for number, line in enumerate(lines):
        own = "\t" if separator is None and "\t" in line.strip() else separator
        words = tuple(split(line.strip("\r\n " if own == "\t" else None).lstrip(mark + " "), own))
        folded = [word.casefold() for word in words]
        hits = sum(any(spelling.casefold() in folded for spelling in spellings) for spellings in names)
        if hits == len(names) and not line.startswith(mark):
            return Header(number + 1, words, own)
        if line.strip() and not line.startswith(mark) and hits > best[0]:
            best = (hits, words)
    folded = [word.casefold() for word in best[1]]
    missing = next((each[0] for each in names if not any(s.casefold() in folded for s in each)), names[0][0])
    raise DataError(
        f"{source.name} has no column {missing}; expected {', '.join(each[0] for each in names)}, "
        f"got {', '.join(best[1])[:200]}"
    )


def read_table(source: Source, header: Header, columns: Columns, missing: Sequence[str] = ()) -> pd.DataFrame:
    """Read the named columns of a table.

    Parameters
    ----------
    source, header
        The table and where it begins.
    columns
        What is wanted of it.
    missing
        Words that stand for a missing number, beside an empty field and ``nan``.

    Returns
    -------
    pandas.DataFrame
        Numbers as float64, NaN for fill values; text as it stands.

    Raises
    ------
    DataError
        For a row with more or fewer fields than the header has columns, or text where a number belongs.
    """
    rows = _require_whole(source, header)
    folded = [word.casefold() for word in header.words]
    places: dict[str, int] = {}
    for name, spellings in (*columns.numbers.items(), *columns.text.items()):
        found = [folded.index(each.casefold()) for each in spellings if each.casefold() in folded]
        if found:
            places[name] = found[0]
        elif name not in columns.optional:
            raise DataError(f"{source.name} has no column {spellings[0]}; got {', '.join(header.words)[:200]}")
    try:
        with source.open() as stream:
            # All columns are read: with `usecols` pandas would cut two merged lines down to the first in silence.
            table = pd.read_csv(
                stream,
                sep=header.separator or r"\s+",
                header=None,
                names=list(range(len(header.words))),
                skiprows=header.lines,
                index_col=False,
                dtype={places[name]: str for name in columns.text if name in places},
                na_values=list(missing),
                encoding="utf-8-sig",
                encoding_errors="replace",
                skipinitialspace=True,
                low_memory=False,
            )
    except (OSError, ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        cause = " ".join(str(error).split()).removeprefix("Error tokenizing data. ")
        raise DataError(f"cannot read picks from {source.name}: {cause}; the file is damaged, get it again") from error
    if len(table) != rows:
        raise DataError(
            f"cannot read picks from {source.name}: {rows} lines of data hold {len(table)} rows, for quotation marks "
            "that are opened and not closed swallow lines; take them out"
        )
    result = pd.DataFrame(index=table.index)
    for name, place in places.items():
        column = table[place]
        if name in columns.text:
            result[name] = [str(each).strip() for each in column.fillna("").to_list()]
        else:
            result[name] = _numbers(column, header.words[place], source, header, name in columns.coordinates)
    if columns.coordinates:
        nowhere = np.all([untagged_fills(result[name].to_numpy()) for name in columns.coordinates], axis=0)
        result.loc[nowhere, list(columns.coordinates)] = np.nan
    return result


def _numbers(column: pd.Series, word: str, source: Source, header: Header, place: bool) -> pd.Series:
    values = pd.to_numeric(column, errors="coerce")
    wrong = values.isna() & column.notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong.to_numpy())[0])
        raise DataError(
            f"{source.name}, line {_line_of(source, header, row)}: {word} is {column.iloc[row]!r}, expected a number; "
            "correct or delete that line"
        )
    values = values.astype(np.float64)
    return values.mask(np.isinf(values) if place else untagged_fills(values.to_numpy()))


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    # Old tables end their lines by a carriage return alone.
    for line in stream:
        yield from line.splitlines()


def _data_lines(source: Source, header: Header) -> Iterator[tuple[int, bytes]]:
    with source.open() as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if number > header.lines and line.strip():
                yield number, line


def _line_of(source: Source, header: Header, row: int) -> int:
    return next((number for i, (number, _) in enumerate(_data_lines(source, header)) if i == row), 0)


def _require_whole(source: Source, header: Header) -> int:
    """Refuse a row with too many or too few fields: pandas would take what is cut off for values that are missing.

    Returns the number of rows.
    """
    expected, separator = len(header.words), (header.separator or "").encode()
    short: tuple[int, int] | None = None
    rows = 0
    for row, (number, line) in enumerate(_data_lines(source, header), start=1):
        if short is not None:
            break
        rows = row
        if separator:
            saw = line.count(separator) + 1 if b'"' not in line else _quoted_fields(line, separator)
        else:
            saw = len(line.split())
        if saw > expected:
            raise DataError(
                f"{source.name}: Expected {expected} fields in line {number}, saw {saw}; lines are merged there, "
                "get the file again"
            )
        short = (number, saw) if saw < expected else None
    else:
        if short is not None:
            raise DataError(
                f"{source.name} is cut off: its last line has {short[1]} fields, expected {expected}; get it again"
            )
        return rows
    raise DataError(
        f"{source.name}: Expected {expected} fields in line {short[0]}, saw {short[1]}; the file is damaged, "
        "get it again"
    )


def _quoted_fields(line: bytes, separator: bytes) -> int:
    """Count the fields of a line in which a separator may stand between quotation marks."""
    text = [line.decode("utf-8", "replace")]
    try:
        return len(next(csv.reader(text, delimiter=separator.decode(), skipinitialspace=True)))
    except csv.Error:
        return 0
