from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import DEEPBEDMAP, ROOT
from download_server import (
    CONTENT,
    PAGE,
    Item,
    sha256,
)

from deepbedmap_tf.data import download
from deepbedmap_tf.data.catalog import resolve
from deepbedmap_tf.data.fetching import Fetched
from deepbedmap_tf.data.product_states import product_states
from deepbedmap_tf.errors import DataError

pytest_plugins = ["download_fixtures"]


def test_a_file_is_fetched_once(one: SimpleNamespace) -> None:
    fetched = one.fetch()
    assert fetched == Fetched("Made", one.path, True, f"sha256:{sha256(CONTENT)}")
    assert one.path.read_bytes() == CONTENT and [each.name for each in one.path.parent.iterdir()] == ["a.nc"]
    assert one.fetch() == Fetched("Made", one.path, False, fetched.checksum)
    assert len(one.servers.asked("a.nc")) == 1
    assert resolve("catalogue:Made/a.nc") == resolve("catalogue:Made") == one.path


def test_a_download_that_is_cut_off_goes_on_by_itself(one: SimpleNamespace) -> None:
    one.item.cut_after = [100_000, 50_000]
    one.fetch()
    assert one.path.read_bytes() == CONTENT
    assert [each.headers.get("range") for each in one.servers.asked("a.nc")] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert [each.status for each in one.servers.asked("a.nc")] == [200, 206, 206]


@pytest.mark.parametrize("etag", [True, False], ids=["etag", "modified"])
def test_a_later_command_goes_on(one: SimpleNamespace, etag: bool) -> None:
    one.item.etag, one.item.cut_after = etag, [100_000]
    with pytest.raises(DataError, match=r"cut off at 100,000 of 307,200 bytes; 100,000 bytes are kept.* place a.nc at"):
        one.fetch(attempts=1)
    assert one.partial.read_bytes() == CONTENT[:100_000] and not one.path.exists()
    assert [each.state for each in product_states()] == ["partial"]
    with pytest.raises(DataError, match="only a part of it: run `deepbedmap fetch Made`"):
        resolve("catalogue:Made/a.nc")
    one.fetch()
    assert one.path.read_bytes() == CONTENT and not one.partial.exists()
    assert one.servers.asked("a.nc")[-1].headers["range"] == "bytes=100000-"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_changed_file_is_never_appended_to(one: SimpleNamespace, ranges: bool) -> None:
    one.item.cut_after = [100_000]
    with pytest.raises(DataError, match="cut off"):
        one.fetch(attempts=1)
    one.item.content, one.item.ranges = CONTENT[::-1], ranges
    one.offer()
    one.fetch(attempts=1)
    assert one.path.read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_the_condition_is_found_out(one: SimpleNamespace) -> None:
    """It sends the rest of another content: its ETag tells."""
    one.item.cut_after = [100_000]
    with pytest.raises(DataError, match="cut off"):
        one.fetch(attempts=1)
    old = one.item.mark
    one.item.content = CONTENT[::-1]
    one.offer()
    notes = one.partial.with_name("a.nc.part.json")
    saved = json.loads(notes.read_text(encoding="utf-8"))
    assert saved["mark"] == old
    one.servers.items["a.nc"] = Loose(CONTENT[::-1])
    one.fetch(attempts=1)
    assert one.path.read_bytes() == CONTENT[::-1]
    assert [each.status for each in one.servers.asked("a.nc")] == [200, 206, 200]


class Loose(Item):
    """Takes any condition for its own."""

    @property
    def mark(self) -> Any:
        return AnyMark(super().mark)


class AnyMark(str):
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)


def test_without_a_mark_the_download_begins_again(one: SimpleNamespace) -> None:
    one.item.etag = one.item.ranges = False
    one.item.cut_after = [100_000, 20_000]
    one.fetch()
    assert one.path.read_bytes() == CONTENT
    assert not any("range" in each.headers for each in one.servers.asked("a.nc"))


def test_a_complete_part_is_recognised(one: SimpleNamespace) -> None:
    one.item.cut_after = [100_000]
    with pytest.raises(DataError, match="cut off"):
        one.fetch(attempts=1)
    one.partial.write_bytes(CONTENT)
    one.fetch()
    assert one.path.read_bytes() == CONTENT and one.servers.asked("a.nc")[-1].status == 416


def test_passing_trouble_is_waited_out(one: SimpleNamespace) -> None:
    one.item.status = [503, 429]
    one.fetch()
    one.path.unlink()
    one.item.status = [503, 503, 503]
    with pytest.raises(DataError, match="not available now \\(status 503\\)"):
        one.fetch(attempts=3)
    assert not list(one.path.parent.iterdir())


@pytest.mark.parametrize(("status", "says"), [(404, "has no such file"), (403, "refuses access"), (401, "asks for")])
def test_a_refusal_says_what_to_place_where(one: SimpleNamespace, status: int, says: str) -> None:
    one.item.status = [status]
    with pytest.raises(DataError, match=says) as raised:
        one.fetch()
    assert f"place a.nc at {one.path} (sha256 {sha256(CONTENT)})" in str(raised.value)
    assert not list(one.path.parent.iterdir())


def test_without_network_the_message_says_what_to_place_where(one: SimpleNamespace) -> None:
    one.offer(url="http://127.0.0.1:9/a.nc")
    with pytest.raises(DataError, match=r"no connection to http://127.0.0.1:9/a.nc") as raised:
        one.fetch()
    assert f"place a.nc at {one.path} (sha256 {sha256(CONTENT)})" in str(raised.value)
    one.path.write_bytes(CONTENT)
    assert not one.fetch().downloaded


def test_a_wrong_checksum_is_refused(one: SimpleNamespace) -> None:
    one.offer(sha256="0" * 64)
    with pytest.raises(DataError, match=f"checksum {sha256(CONTENT)}, expected sha256:0000"):
        one.fetch()
    assert not list(one.path.parent.iterdir())
    one.path.write_bytes(b"placed by hand")
    with pytest.raises(DataError, match="remove or rename it"):
        one.fetch()
    assert one.path.read_bytes() == b"placed by hand"
    assert [each.state for each in product_states()] == ["present"]
    assert [each.state for each in product_states(verify=True)] == ["wrong checksum"]


def test_md5_is_compared_too(one: SimpleNamespace) -> None:
    one.offer(sha256=None, md5=hashlib.md5(CONTENT).hexdigest())
    assert one.fetch().checksum == f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    one.path.unlink()
    one.offer(sha256=None, md5="0" * 32)
    with pytest.raises(DataError, match="expected md5:0000"):
        one.fetch()


def test_a_first_copy_is_recorded_and_compared_ever_after(
    one: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    one.offer(sha256=None)
    with caplog.at_level(logging.INFO, "deepbedmap_tf"):
        assert one.fetch().recorded
    assert "no checksum on public record" in caplog.text and sha256(CONTENT) in caplog.text
    assert not one.fetch().recorded
    one.path.unlink()
    one.item.content = CONTENT[::-1]
    with pytest.raises(DataError, match=f"expected sha256:{sha256(CONTENT)}"):
        one.fetch()
    (one.path.parents[1] / "checksums.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"checksums.json is damaged; remove it"):
        one.fetch()


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_a_page_instead_of_data_is_refused(one: SimpleNamespace, content_type: str) -> None:
    one.item.content, one.item.content_type = PAGE, content_type
    one.offer(sha256=None)
    with pytest.raises(DataError, match=r"a web page instead of a.nc"):
        one.fetch()
    assert not list(one.path.parent.iterdir())
    one.path.write_bytes(PAGE)
    with pytest.raises(DataError, match="is a web page"):
        one.fetch()


def test_a_table_called_html_is_data(one: SimpleNamespace) -> None:
    one.item.content, one.item.content_type = b"x,y,z\n1,2,3\n", "text/html"
    one.offer()
    assert one.fetch().downloaded


def test_a_full_disk_is_one_line(one: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        DataError, match=r"no space for .*a.nc: 307,200 bytes are still to come, 1,000 are free"
    ) as full:
        one.fetch()
    assert "\n" not in str(full.value) and not list(one.path.parent.iterdir())


def test_a_disk_that_fills_up_keeps_what_arrived(one: SimpleNamespace) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(DataError, match=r"no space for .*a.nc: [0-9,]+ are free; free some space") as full:
            one.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(full.value) and one.partial.stat().st_size == 200_000
    one.fetch()
    assert one.path.read_bytes() == CONTENT and one.servers.asked("a.nc")[-1].headers["range"] == "bytes=200000-"


def test_the_bar_shows_the_file(one: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    one.fetch(progress=True)
    errors = capsys.readouterr().err
    assert "a.nc: 100%" in errors and "307k/307k" in errors


def test_a_folder_that_cannot_be_used_is_one_line(one: SimpleNamespace) -> None:
    one.path.parents[1].write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot use .*set DEEPBEDMAP_DATA_DIR to another"):
        one.fetch()


def test_two_commands_do_not_write_one_file(one: SimpleNamespace) -> None:
    import fcntl

    one.path.parent.mkdir(parents=True)
    with one.partial.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another command is downloading"):
            one.fetch()
    assert one.fetch().downloaded


def test_interrupting_keeps_what_arrived(one: SimpleNamespace) -> None:
    one.item.cut_after = [200_000]
    one.item.stall = True
    process = subprocess.Popen(
        [sys.executable, "-c", DEEPBEDMAP, "fetch", "Made"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        # A shell in the background starts its processes deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (one.partial.exists() and one.partial.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.strip().endswith("interrupted") and "Traceback" not in errors
    kept = one.partial.stat().st_size
    assert 0 < kept <= 200_000
    assert {each.name for each in one.partial.parent.iterdir()} == {"a.nc.part", "a.nc.part.json"}
    one.item.stall = False
    one.fetch()
    assert one.path.read_bytes() == CONTENT
    assert one.servers.asked("a.nc")[-1].headers["range"] == f"bytes={kept}-"
