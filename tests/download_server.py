"""A web server on loopback that misbehaves as data servers do, a login server beside it, and made-up products."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTENT = bytes(range(256)) * 1200
WriteCatalogue = Callable[..., Path]
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Earthdata Login</title></head><body>Username</body></html>"
USER, PASSWORD, TOKEN = "ada", "correct horse", "tok-123"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Item:
    """What an address gives, and how.

    After `cut_after` bytes the connection ends, for each number in turn, or hangs with `stall`; `status` answers with
    these first; `login` wants a cookie of the login server; `redirect` sends elsewhere.
    """

    content: bytes
    ranges: bool = True
    etag: bool = True
    age: float | None = None
    content_type: str = "application/octet-stream"
    cut_after: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    stall: bool = False
    login: bool = False
    redirect: str | None = None

    @property
    def mark(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


@dataclass
class Request:
    host: str
    path: str
    headers: dict[str, str]
    status: int


@dataclass
class Servers:
    """The two servers: what they offer, what they were asked, and where they are."""

    data: str = ""
    login: str = ""
    items: dict[str, Item] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.data}/{name}"

    def asked(self, name: str) -> list[Request]:
        return [request for request in self.requests if request.path == f"/{name}"]

    def sent_to(self, base: str) -> list[str]:
        """What the server at `base` was sent as Authorization."""
        sent = [request.headers.get("authorization") for request in self.requests if request.host == base]
        return [each for each in sent if each is not None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    servers: Servers
    base: str

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lowered = {key.lower(): value for key, value in self.headers.items()}
        self.servers.requests.append(Request(self.base, self.path, lowered, status))
        self.send_response_only(status)
        self.send_header("Date", formatdate(usegmt=True))
        for key, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def page(self, status: int = 200) -> None:
        self.answer(status, PAGE, Content_Type="text/html; charset=utf-8")


class DataHandler(_Handler):
    def do_GET(self) -> None:
        name = self.path.lstrip("/").partition("?")[0]
        if name.startswith("logged-in/"):
            back = name.removeprefix("logged-in")
            return self.answer(302, Location=back, Set_Cookie="session=yes; Path=/")
        item = self.servers.items.get(name)
        if item is None:
            return self.page(404)
        if item.status:
            return self.page(item.status.pop(0))
        if item.redirect is not None:
            return self.answer(302, Location=item.redirect)
        token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if item.login and not token and "session=yes" not in self.headers.get("Cookie", ""):
            return self.answer(303, Location=f"{self.servers.login}/oauth/authorize?back=/logged-in/{name}")
        return self.send(item)

    def send(self, item: Item) -> None:
        headers = {"Content_Type": item.content_type}
        headers |= {"ETag": item.mark} if item.etag else {}
        modified = formatdate(1_500_000_000, usegmt=True) if item.age is None else None
        headers |= {"Last_Modified": modified} if modified and not item.etag and item.ranges else {}
        start, total = 0, len(item.content)
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if item.ranges and wanted and condition in (item.mark, modified):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= total:
                return self.answer(416, Content_Range=f"bytes */{total}", **headers)
            headers["Content_Range"] = f"bytes {start}-{total - 1}/{total}"
        body = item.content[start:]
        cut = item.cut_after.pop(0) if item.cut_after else len(body)
        self.answer(206 if start else 200, body[:cut], Content_Length=str(len(body)), **headers)
        if cut < len(body):
            self.wfile.flush()
            while item.stall:
                time.sleep(0.02)
            self.close_connection = True
        return None


class LoginHandler(_Handler):
    def do_GET(self) -> None:
        path, _, back = self.path.partition("?back=")
        sent = self.headers.get("Authorization")
        if path != "/oauth/authorize" or sent is None:
            return self.page()
        if sent not in (BASIC, f"Bearer {TOKEN}"):
            return self.page(401)
        return self.answer(302, Location=f"{self.servers.data}{back}?code=secret-code")


@contextmanager
def running_servers() -> Iterator[Servers]:
    servers = Servers()
    running = []
    for attribute, host, handler in (("data", "127.0.0.1", DataHandler), ("login", "localhost", LoginHandler)):
        bound = type(handler.__name__, (handler,), {"servers": servers})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        server.daemon_threads = True
        # A client that is interrupted is no fault of the server.
        server.handle_error = lambda *_: None
        base = f"http://{host}:{server.server_port}"
        bound.base = base
        setattr(servers, attribute, base)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
    try:
        yield servers
    finally:
        for server in running:
            server.shutdown()
            server.server_close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def product(key: str, *files: dict[str, Any], **settings: Any) -> dict[str, Any]:
    base = {"title": key, "kind": "input", "location": "Antarctica", "citation": f"{key} et al.", "format": "bytes"}
    return {"key": key, **base, "doi_dataset": f"https://doi.org/10.0/{key}", **settings, "files": list(files)}
