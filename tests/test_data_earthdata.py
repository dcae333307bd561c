from __future__ import annotations

import contextlib
import logging
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import DEEPBEDMAP, ROOT
from download_server import (
    BASIC,
    CONTENT,
    PASSWORD,
    TOKEN,
    USER,
    Item,
    Servers,
    WriteCatalogue,
    product,
    running_servers,
)

from deepbedmap_tf.data.earthdata import find_credentials
from deepbedmap_tf.data.fetching import fetch
from deepbedmap_tf.errors import DataError

pytest_plugins = ["download_fixtures"]


def authorise(how: str, monkeypatch: pytest.MonkeyPatch, netrc: Path) -> Callable[[str], tuple[str, str]] | None:
    if how == "environment":
        monkeypatch.setenv("EARTHDATA_USERNAME", USER)
        monkeypatch.setenv("EARTHDATA_PASSWORD", PASSWORD)
    elif how == "netrc":
        netrc.write_text(
            f'machine 127.0.0.1 login spy password wrong\nmachine localhost login {USER} password "{PASSWORD}"\n'
        )
    return (lambda _: (USER, PASSWORD)) if how == "prompt" else None


@pytest.mark.parametrize("how", ["environment", "netrc", "prompt"])
def test_a_password_goes_to_the_login_host_alone(
    one: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    one.item.login = True
    one.offer(login="earthdata")
    ask = authorise(how, monkeypatch, tmp_path / "netrc")
    with caplog.at_level(logging.DEBUG):
        one.fetch(ask=ask)
    assert one.path.read_bytes() == CONTENT
    assert one.servers.sent_to(one.servers.login) == [BASIC] and not one.servers.sent_to(one.servers.data)
    assert not any(secret in caplog.text for secret in (PASSWORD, BASIC, BASIC.split()[1]))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.suffix == ".json")
    assert PASSWORD.encode() not in kept


def test_a_prompt_hides_the_password(one: SimpleNamespace) -> None:
    one.item.login = True
    one.offer(login="earthdata")
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DEEPBEDMAP, "fetch", "Made"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = ""

    def read_until(text: str) -> None:
        nonlocal shown
        # A terminal whose other end is closed reads as an error.
        with contextlib.suppress(OSError):
            while text not in shown and (piece := os.read(control, 4096)):
                shown += piece.decode()

    read_until("user name: ")
    os.write(control, f"{USER}\n".encode())
    read_until("password: ")
    # Characters that arrive before the terminal stops echoing would show.
    while termios.tcgetattr(control)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(control, f"{PASSWORD}\n".encode())
    read_until("no such text")
    os.close(control)
    assert process.wait(timeout=60) == 0, shown
    assert one.path.read_bytes() == CONTENT and "localhost wants a login" in shown and PASSWORD not in shown


def test_one_login_serves_many_files(servers: Servers, catalogue: WriteCatalogue) -> None:
    files = []
    for name in ("a.nc", "b.nc"):
        servers.items[name] = Item(CONTENT, login=True)
        files.append({"name": name, "url": servers.url(name)})
    catalogue(product("Made", *files, login="earthdata"))
    asked: list[str] = []

    def ask(host: str) -> tuple[str, str]:
        asked.append(host)
        return USER, PASSWORD

    assert len(list(fetch(["Made"], ask=ask))) == 2
    assert asked == ["localhost"] and len(servers.sent_to(servers.login)) == 1


def test_a_token_goes_to_the_products_own_host(one: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    one.item.login = True
    one.offer(login="earthdata")
    one.fetch()
    assert one.servers.sent_to(one.servers.data) == [f"Bearer {TOKEN}"] and not one.servers.sent_to(one.servers.login)
    # Neither to a host that it redirects to, nor to that of a product that needs no login.
    with running_servers() as others:
        others.items["signed"] = Item(CONTENT)
        one.item.redirect = f"{others.data}/signed"
        one.path.unlink()
        one.fetch()
        assert others.asked("signed") and not others.sent_to(others.data)
    one.path.unlink()
    one.item.login, one.item.redirect = False, None
    one.offer()
    one.servers.requests.clear()
    one.fetch()
    assert not one.servers.sent_to(one.servers.data)


def test_a_resumed_download_logs_in_again(
    one: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authorise("environment", monkeypatch, tmp_path)
    one.item.login, one.item.cut_after = True, [100_000]
    one.offer(login="earthdata")
    with pytest.raises(DataError, match="cut off"):
        one.fetch(attempts=1)
    one.fetch()
    assert one.path.read_bytes() == CONTENT and one.servers.requests[-1].status == 206


def test_a_missing_or_wrong_login_is_one_line(one: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    one.item.login = True
    one.offer(login="earthdata")
    with pytest.raises(DataError, match=r"needs a NASA Earthdata login .*EARTHDATA_USERNAME.*netrc; or place a.nc at"):
        one.fetch()
    monkeypatch.setenv("EARTHDATA_USERNAME", USER)
    with pytest.raises(DataError, match="EARTHDATA_PASSWORD is not"):
        one.fetch()
    monkeypatch.setenv("EARTHDATA_PASSWORD", "not it")
    with pytest.raises(DataError, match=r"login from the environment was refused \(status 401\)") as refused:
        one.fetch()
    assert "not it" not in str(refused.value)
    one.offer()
    with pytest.raises(DataError, match="unexpectedly asks for a login"):
        one.fetch()


def test_a_damaged_netrc_does_not_show_its_passwords(
    servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "netrc").write_text("machine localhost login ada pasword s3cret-word\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1, is no valid .netrc") as damaged:
        find_credentials()
    assert "s3cret" not in str(damaged.value) and damaged.value.__suppress_context__
    (tmp_path / "netrc").write_text("machine localhost login ada password s3cret-word\n", encoding="utf-8")
    assert "s3cret" not in repr(find_credentials())


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/a.nc"])
def test_redirections_stay_on_the_web(one: SimpleNamespace, where: str) -> None:
    one.item.redirect = where
    with pytest.raises(DataError, match="something else than http"):
        one.fetch()
    one.item.redirect = one.servers.url("a.nc")
    with pytest.raises(DataError, match="redirects in a circle"):
        one.fetch()
