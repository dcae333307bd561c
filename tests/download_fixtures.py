"""Fixtures around the servers; test modules take them by ``pytest_plugins = ["download_fixtures"]``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from download_server import CONTENT, Item, Servers, WriteCatalogue, product, running_servers, sha256

from deepbedmap_tf.data.fetching import Fetched, fetch


@pytest.fixture(scope="module")
def all_servers() -> Iterator[Servers]:
    with running_servers() as servers:
        yield servers


@pytest.fixture
def servers(all_servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Servers:
    all_servers.items.clear()
    all_servers.requests.clear()
    for name in list(os.environ):
        if name.startswith("EARTHDATA_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DEEPBEDMAP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPBEDMAP_EARTHDATA_URL", all_servers.login)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return all_servers


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WriteCatalogue:
    def write(*products: dict[str, Any]) -> Path:
        path = tmp_path / "catalogue.yml"
        path.write_text(yaml.safe_dump({"products": list(products)}), encoding="utf-8")
        monkeypatch.setenv("DEEPBEDMAP_CATALOGUE", str(path))
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "Made"


@pytest.fixture
def one(servers: Servers, catalogue: WriteCatalogue, folder: Path) -> Iterator[SimpleNamespace]:
    """A product of one file, with the server that has it."""
    item = servers.items["a.nc"] = Item(CONTENT)

    def offer(**settings: Any) -> None:
        login = settings.pop("login", None)
        file = {"name": "a.nc", "url": servers.url("a.nc"), "sha256": sha256(item.content)} | settings
        catalogue(product("Made", file, login=login))

    def get(**options: Any) -> Fetched:
        (fetched,) = fetch(["Made"], **{"wait": 0.0} | options)
        return fetched

    offer()
    yield SimpleNamespace(
        item=item, servers=servers, offer=offer, fetch=get, path=folder / "a.nc", partial=folder / "a.nc.part"
    )
