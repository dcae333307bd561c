from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from download_server import zipped

from deepbedmap_tf.data.archives import unpack, unpack_file
from deepbedmap_tf.errors import DataError

CONTENT = bytes(range(256)) * 1200


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """Write a zip or tar by the ending of its name."""
    if path.suffix == ".zip":
        path.write_bytes(zipped(**members))
        return path
    with tarfile.open(path, "w:" + path.suffix.removeprefix(".").replace("tar", "")) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_archives_are_unpacked_whole(tmp_path: Path, kind: str) -> None:
    archive = packed(tmp_path / f"a.{kind}", {"./sub/b.csv": CONTENT, "readme": b"x"})
    folder = tmp_path / "folder"
    for _ in range(2):
        assert unpack(archive, folder) == folder
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert files == {"sub/b.csv": CONTENT, "readme": b"x"}
        (folder / "old").write_text("of the last time", encoding="utf-8")


def test_one_file_comes_with_those_of_its_name(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "a.zip", {"s/b.tif": CONTENT, "s/b.tfw": b"w", "s/bc.tif": b"no", "c.tif": b"1", "d/c.tif": b"2"}
    )
    (tmp_path / "out").mkdir()
    unpack_file(archive, tmp_path / "out" / "b.tif")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.tfw", "b.tif"]
    for name, times in (("x.tif", 0), ("c.tif", 2)):
        with pytest.raises(DataError, match=f"holds {name} {times} times, expected once"):
            unpack_file(archive, tmp_path / "out" / name)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil", "C:/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_archives_cannot_write_elsewhere(tmp_path: Path, name: str, kind: str) -> None:
    archive = packed(tmp_path / f"archive.{kind}", {"good": b"good", name: b"evil"})
    with pytest.raises(DataError, match="a name out of its folder"):
        unpack(archive, tmp_path / "out" / "folder")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("innocent")
        entry.type, entry.linkname = kind, "/etc"
        tar.addfile(entry)
        tar.addfile(tarfile.TarInfo("innocent/evil"))
    with pytest.raises(DataError, match="a link or device, 'innocent'"):
        unpack(archive, tmp_path / "folder")
    with zipfile.ZipFile(archive.with_suffix(".zip"), "w") as zip_file:
        link = zipfile.ZipInfo("innocent")
        link.external_attr = 0o120777 << 16
        zip_file.writestr(link, "/etc")
    with pytest.raises(DataError, match="a link or device, 'innocent'"):
        unpack(archive.with_suffix(".zip"), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_damaged_archives_leave_nothing(tmp_path: Path) -> None:
    good = zipped(a=CONTENT, b=CONTENT)
    flipped = bytearray(good)
    flipped[len(CONTENT) // 2] ^= 0xFF
    for content in (good[: len(good) // 2], bytes(flipped), b"no archive at all", zipped(a=b"1") + b"x" * 70_000):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot unpack .*fetch it anew"):
            unpack(tmp_path / "a.zip", tmp_path / "folder")
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
