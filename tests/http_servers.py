"""Start the real servers on loopback, and end them with everything they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

MLFLOW = Path(sys.executable).with_name("mlflow")


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes
    ----------
    address
        ``http://127.0.0.1:PORT``.
    process
        The command; what listens may be a child of it.
    log
        File with what it says.
    """

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def listens_on(self) -> set[str]:
        """IP addresses on which it and its children accept connections."""
        parent = psutil.Process(self.process.pid)
        connections = [each for process in (parent, *parent.children(True)) for each in process.net_connections("inet")]
        return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    arguments: list[str], port: int, ready: str, folder: Path, environment: Mapping[str, str], patience: float = 300
) -> Iterator[Server]:
    """Run ``mlflow ARGUMENTS`` in a folder until it answers at the path `ready`."""
    address, log = f"http://127.0.0.1:{port}", folder / "server.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(MLFLOW), *arguments],
            cwd=folder,
            env={**os.environ, **environment, "PATH": path},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + patience
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"mlflow {' '.join(arguments)} did not start:\n{log.read_text()[-3000:]}")
            with suppress(requests.ConnectionError):
                if requests.get(address + ready, timeout=30).status_code == 200:
                    break
            time.sleep(0.5)
        yield Server(address, process, log)
    finally:
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, kind)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
                break
