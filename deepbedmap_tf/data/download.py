"""Downloading one large file: it goes on where it was cut off, and never takes a web page for data."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepbedmap_tf.data.catalog import PARTIAL
from deepbedmap_tf.errors import DataError

if TYPE_CHECKING:
    import requests

Open = Callable[[str, dict[str, str]], "requests.Response"]
"""Opens an address with these headers, following redirections."""

_CHUNK = 1 << 20
# Enough to tell a web page.
_FIRST_BYTES = 512
# A modification time that close to the answer could belong to two contents (RFC 9110, section 8.8.2.2).
_SETTLED_SECONDS = 60
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSED = {
    401: "asks for a login",
    403: "refuses access; the account may not have approved the data centre's application yet",
    404: "has no such file; the address may have changed",
    410: "no longer has this file",
}


class _CutOffError(Exception):
    """The connection ended early; trying again may help, unless there never was one."""

    def __init__(self, message: str, never_connected: bool = False) -> None:
        super().__init__(message)
        self.never_connected = never_connected


def is_page(first_bytes: bytes, content_type: str = "") -> bool:
    r"""Tell whether what should be data is a web page, as login servers send it with status 200.

    Parameters
    ----------
    first_bytes
        Beginning of the content.
    content_type
        As the server states it; servers also call plain tables text/html, so it counts only with markup behind it.

    Examples
    --------
    >>> is_page(b"<!DOCTYPE html><html><title>Earthdata Login</title>"), is_page(b"CDF\x01")
    (True, False)
    """
    start = first_bytes.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return True
    return content_type.split(";")[0].strip().lower() in ("text/html", "application/xhtml+xml") and (
        not start or start.startswith(b"<")
    )


class ResumingDownloader:
    """A pooch downloader that keeps what it has in ``NAME.part`` until the file is complete.

    Beside it ``NAME.part.json`` remembers the address and the server's mark of that content (ETag, or a settled time
    of change). Only content with the same mark is ever appended to; otherwise the download begins again.

    Parameters
    ----------
    target
        Path of the complete file.
    open_address
        How to open the address.
    advice
        What to do without a network.
    progress
        Show a progress bar.
    attempts
        How often in a row a connection may end without bringing anything.
    wait
        Seconds before the second attempt; they double.
    """

    def __init__(
        self,
        target: Path,
        open_address: Open,
        advice: str,
        progress: bool = False,
        attempts: int = 4,
        wait: float = 1.0,
    ) -> None:
        self.target = target
        self.partial = target.with_name(target.name + PARTIAL)
        self.notes = target.with_name(f"{target.name}{PARTIAL}.json")
        self._open = open_address
        self._advice = advice
        self._progress = progress
        self._attempts = attempts
        self._wait = wait
        self._connected = False

    def __call__(self, url: str, output_file: str, pooch: Any = None, check_only: bool = False) -> None:
        """Download `url` to `output_file`.

        Raises
        ------
        DataError
            With what arrived so far kept, when the connection fails or the disk is full; or when the server refuses
            or sends a web page.
        """
        with self._locked():
            try:
                self._download(url)
                self.partial.replace(output_file)
            finally:
                if not self._size():
                    self.partial.unlink(missing_ok=True)
                    self.notes.unlink(missing_ok=True)

    def _download(self, url: str) -> None:
        failures = 0
        while True:
            before = self._size()
            try:
                return self._transfer(url)
            except _CutOffError as error:
                size = self._size()
                failures = 1 if size > before else failures + 1
                if failures >= self._attempts or error.never_connected:
                    kept = f"; {size:,} bytes are kept, the same command goes on from there" if size else ""
                    raise DataError(f"{error}{kept}; or download it elsewhere and {self._advice}") from None
                time.sleep(self._wait * 2 ** (failures - 1))

    def _transfer(self, url: str) -> None:
        import requests
        import urllib3

        size, known = self._size(), self._read_notes(url)
        headers = {"Accept-Encoding": "identity"}
        asked = bool(size and known.get("mark"))
        if asked:
            headers |= {"Range": f"bytes={size}-", "If-Range": known["mark"]}
        try:
            with self._open(url, headers) as response:
                self._connected = True
                goes_on = asked and self._goes_on(response, size, known)
                if goes_on and response.status_code == 416:
                    return  # Everything had arrived when the last attempt ended.
                if goes_on or response.status_code not in (206, 416):
                    self._check_status(response, url)
                    self._save(response, url, size if goes_on else 0)
                    return
            # A part of something else: what is there is of no use.
            self._empty()
        except requests.exceptions.SSLError:
            raise DataError(f"the certificate of {url} is not trusted; {self._by_hand}") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _CutOffError(f"no connection to {url} ({type(error).__name__})", not self._connected) from None
        if not asked:
            raise DataError(f"{url} answers with a part of the file unasked; {self._by_hand}")
        self._transfer(url)

    def _goes_on(self, response: requests.Response, size: int, known: dict[str, Any]) -> bool:
        """Tell whether the answer continues the content that is there."""
        unit, _, rest = response.headers.get("content-range", "").partition(" ")
        span, _, total = rest.partition("/")
        same_mark = response.headers.get("etag", known["mark"]) == known["mark"] or known[
            "mark"
        ] == response.headers.get("last-modified")
        same_total = total == "*" or known.get("total") in (None, _number(total))
        if unit != "bytes" or not (same_mark and same_total):
            return False
        if response.status_code == 416:
            return _number(total) == size
        return response.status_code == 206 and span.partition("-")[0] == str(size)

    def _check_status(self, response: requests.Response, url: str) -> None:
        status = response.status_code
        if status in _PASSING:
            raise _CutOffError(f"{url} is not available now (status {status})")
        if status not in (200, 206):
            raise DataError(f"{url} {_REFUSED.get(status, 'refuses')} (status {status}); {self._by_hand}")

    def _save(self, response: requests.Response, url: str, start: int) -> None:
        import urllib3
        from tqdm import tqdm

        plain = response.headers.get("content-encoding", "identity") == "identity"
        length = _number(response.headers.get("content-length", "")) if plain else None
        total = None if length is None else start + length
        pieces = _pieces(response)
        first = next(pieces, b"")
        if is_page(first, response.headers.get("content-type", "")):
            raise DataError(
                f"{url} answered with a web page instead of {self.target.name}, as a login or an error page; nothing "
                f"was saved, {self._by_hand}"
            )
        self._check_space(length or 0)
        broken = False
        # Without a buffer, what has arrived is on disk whatever happens next.
        with self.partial.open("r+b", buffering=0) as stream:
            stream.truncate(start)
            stream.seek(start)
            if not start:
                self._write_notes(url, _mark(response) if plain else None, total)
            with tqdm(
                total=total,
                initial=start,
                desc=self.target.name,
                unit="B",
                unit_scale=True,
                disable=not self._progress,
            ) as bar:
                try:
                    for piece in chain([first], pieces):
                        rest = memoryview(piece)
                        while rest:
                            rest = rest[stream.write(rest) :]
                        bar.update(len(piece))
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                        raise self._no_space(None) from error
                    raise
                except urllib3.exceptions.HTTPError:
                    broken = True
            size = stream.tell()
        if broken or (total is not None and size != total):
            whole = "" if total is None else f" of {total:,}"
            raise _CutOffError(f"the connection to {url} was cut off at {size:,}{whole} bytes")

    def _check_space(self, needed: int) -> None:
        if needed > shutil.disk_usage(self.partial.parent).free:
            raise self._no_space(needed)

    def _no_space(self, needed: int | None) -> DataError:
        free = shutil.disk_usage(self.partial.parent).free
        missing = "" if needed is None else f"{needed:,} bytes are still to come, "
        return DataError(
            f"no space for {self.target}: {missing}{free:,} are free; free some space, or set DEEPBEDMAP_DATA_DIR to a "
            "folder on another disk"
        )

    @property
    def _by_hand(self) -> str:
        return f"download it in a browser and {self._advice}"

    def _size(self) -> int:
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0

    def _empty(self) -> None:
        with self.partial.open("r+b") as stream:
            stream.truncate(0)
        self.notes.unlink(missing_ok=True)

    def _read_notes(self, url: str) -> dict[str, Any]:
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) and notes.get("url") == url else {}

    def _write_notes(self, url: str, mark: str | None, total: int | None) -> None:
        self.notes.write_text(json.dumps({"url": url, "mark": mark, "total": total}), encoding="utf-8")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.partial.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise DataError(f"another command is downloading {self.target}; wait for its end") from None
                # A network file system without locks: one download at a time is then up to the user.
            yield


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Content as it comes in: what arrived before a cut is not lost, as it is with requests' own iterator."""
    first = b""
    while piece := response.raw.read1(_CHUNK, decode_content=True):
        if len(first) >= _FIRST_BYTES:
            yield piece
            continue
        first += piece
        if len(first) >= _FIRST_BYTES:
            yield first
    if len(first) < _FIRST_BYTES:
        yield first


def _mark(response: requests.Response) -> str | None:
    """What identifies exactly this content on the server, None when nothing does."""
    etag = response.headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    modified = response.headers.get("last-modified", "")
    with contextlib.suppress(ValueError, TypeError, KeyError):
        age = parsedate_to_datetime(response.headers["date"]) - parsedate_to_datetime(modified)
        return modified if age.total_seconds() >= _SETTLED_SECONDS else None
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
