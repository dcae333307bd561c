"""Unpacking zip and tar archives from the net, which may hold names that lead out of the folder."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import DataError

_CHUNK = 1 << 20


# A drive letter, a backslash or a zero byte.
_FOREIGN = re.compile(r"^[A-Za-z]:|[\\\0]")
# zipfile says RuntimeError for an encrypted member.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
)
_Kind = Literal["file", "folder", "other"]


@dataclass(frozen=True)
class _Member:
    name: str
    kind: _Kind
    size: int
    open: Callable[[], IO[bytes] | None]

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.name).parts


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a whole archive into a folder of its own.

    Parameters
    ----------
    archive
        Zip, or tar with any compression.
    folder
        Appears only when everything is unpacked.

    Raises
    ------
    DataError
        When it is damaged, encrypted or no archive; when a name in it is absolute or leads out of the folder; when it
        holds a link or a device; when the disk is too small. Nothing is left behind then.
    """
    with _reading(archive) as members, written_beside(folder) as beside:
        beside.mkdir()
        _check_space(members, archive, folder.parent)
        for member in members:
            path = beside.joinpath(*member.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(member, path)
    return folder


def unpack_file(archive: Path, path: Path) -> Path:
    """Unpack the file called as `path` is, with those that differ in the ending alone, to beside `path`.

    Raises
    ------
    DataError
        As for `unpack`, and when the archive holds no such file, or two of them.
    """
    with _reading(archive) as everything:
        members = [each for each in everything if each.parts[-1].startswith(f"{path.stem}.")]
        named = [each.parts[-1] for each in members]
        if named.count(path.name) != 1 or len(set(named)) != len(named):
            raise DataError(f"{archive} holds {path.name} {named.count(path.name)} times, expected once; fetch it anew")
        _check_space(members, archive, path.parent)
        # The one that is asked for comes last: once it is there, so are the others.
        for member in sorted(members, key=lambda each: each.parts[-1] == path.name):
            with written_beside(path.with_name(member.parts[-1])) as beside:
                _copy(member, beside)
    return path


@contextmanager
def _reading(archive: Path) -> Iterator[list[_Member]]:
    """Open an archive and give its files, each checked."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened_zip:
                yield list(_checked(_in_zip(opened_zip), archive))
        else:
            with tarfile.open(archive) as opened_tar:
                yield list(_checked(_in_tar(opened_tar), archive))
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot unpack {archive}: {reason}; remove it and fetch it anew") from error


def _in_zip(opened: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in opened.infolist():
        mode = stat.S_IFMT(entry.external_attr >> 16)
        kind: _Kind = "folder" if entry.is_dir() else "file" if mode in (0, stat.S_IFREG) else "other"
        # The name before zipfile cuts it at a zero byte.
        yield _Member(entry.orig_filename, kind, entry.file_size, partial(opened.open, entry))


def _in_tar(opened: tarfile.TarFile) -> Iterator[_Member]:
    for entry in opened.getmembers():
        kind: _Kind = "folder" if entry.isdir() else "file" if entry.isreg() else "other"
        yield _Member(entry.name, kind, entry.size, partial(opened.extractfile, entry))


def _checked(members: Iterator[_Member], archive: Path) -> Iterator[_Member]:
    """Files alone; folders are made as the files need them."""
    seen: set[tuple[str, ...]] = set()
    for member in members:
        if member.kind == "other":
            raise DataError(
                f"{archive} holds a link or device, {member.name!r}; it was not unpacked, ask where it comes from"
            )
        if member.name.startswith("/") or ".." in member.parts or _FOREIGN.search(member.name):
            raise DataError(f"{archive} holds {member.name!r}, a name out of its folder; it was not unpacked")
        if member.kind == "file":
            if member.parts in seen or not member.parts:
                raise DataError(f"{archive} holds {member.name!r} twice or without a name; it was not unpacked")
            seen.add(member.parts)
            yield member


def _check_space(members: list[_Member], archive: Path, folder: Path) -> None:
    needed, free = sum(each.size for each in members), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"no space to unpack {archive}: it needs {needed:,} bytes, {free:,} are free; free some space, or set "
            "DEEPBEDMAP_DATA_DIR to a folder on another disk"
        )


def _copy(member: _Member, path: Path) -> None:
    stream = member.open()
    if stream is None:
        raise DataError(f"cannot read {member.name} in the archive; remove it and fetch it anew")
    with stream, path.open("wb") as out:
        shutil.copyfileobj(stream, out, _CHUNK)
