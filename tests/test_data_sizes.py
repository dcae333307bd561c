"""Sizes of downloads, asked of a server on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import invoke
from download_server import CONTENT, PAGE, TOKEN, Item, Servers, WriteCatalogue, product, zipped

from deepbedmap_tf.cli import main
from deepbedmap_tf.data.product_states import product_states
from deepbedmap_tf.data.sizes import Sizes

pytest_plugins = ["download_fixtures"]


def sizes() -> dict[str, int | None]:
    asked = Sizes()
    found = {state.product.key: state.download for state in product_states(size_of=asked.of)}
    asked.close()
    return found


def test_servers_state_sizes_and_nothing_is_downloaded(
    servers: Servers, catalogue: WriteCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zipped(**{"b.tif": CONTENT})
    servers.items |= {"a.nc": Item(CONTENT), "b.zip": Item(packed), "c.nc": Item(CONTENT, login=True)}
    servers.items |= {"page.nc": Item(PAGE), "moved.nc": Item(b"", redirect="/a.nc")}
    file = {name: {"name": name, "url": servers.url(name)} for name in ("a.nc", "c.nc", "page.nc", "moved.nc", "none")}
    catalogue(
        product("Two", file["a.nc"], {"name": "b.tif", "url": servers.url("b.zip"), "archive": "b.zip"}),
        product("Moved", file["moved.nc"]),
        product("Login", file["c.nc"], login="earthdata"),
        product("Page", file["page.nc"]),
        product("Absent", file["a.nc"], file["none"]),
        product("Asked", {"name": "d.txt"}, owner="Jane Doe"),
        product("Away", {"name": "a.nc", "url": "http://127.0.0.1:9/a.nc"}),
        product("Former", {"name": "a.nc", "url": "ftp://127.0.0.1/a.nc"}),
        product("Recorded", {"name": "a.nc", "url": "http://127.0.0.1:9/a.nc", "bytes": 12}),
    )
    nothing = dict.fromkeys(("Login", "Page", "Absent", "Asked", "Away", "Former"))
    expected = {"Two": len(CONTENT) + len(packed), "Moved": len(CONTENT), **nothing, "Recorded": 12}
    assert sizes() == expected
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    assert sizes() == expected | {"Login": len(CONTENT)}
    assert not (tmp_path / "data").exists()
    listed = invoke(main, "fetch", "--list", "--sizes").output
    line = next(line for line in listed.splitlines() if line.startswith("Moved"))
    assert "missing" in line and "307 kB" in line
    servers.requests.clear()
    assert "not on record" in invoke(main, "fetch", "--list", "Moved").output and not servers.requests
