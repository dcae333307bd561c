"""A PostgreSQL server for tests, with databases of its own and a password that must not be seen anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import ROOT

SCRIPT = ROOT / "scripts/postgres.sh"
MARKER = "marker-8c41f7-password"
USER = "deepbedmap"


@dataclass(frozen=True)
class Server:
    """Where it listens; its user's password is `MARKER`."""

    port: int

    def address(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> Any:
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, password=MARKER, dbname=database)
        connection.autocommit = True
        return connection

    def create(self, *databases: str) -> None:
        connection = self.connect()
        with connection.cursor() as cursor:
            for name in databases:
                cursor.execute(f"CREATE DATABASE {name}")
        connection.close()

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        connection = self.connect(database)
        with connection.cursor() as cursor:
            cursor.execute(statement)
            rows = cursor.fetchall()
        connection.close()
        return rows

    def dump(self, database: str) -> str:
        """Everything that is in a database, as text."""
        program = shutil.which("pg_dump") or str(Path(where()) / "pg_dump")
        return subprocess.run(
            [program, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database],
            env=os.environ | {"PGPASSWORD": MARKER},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip


def where() -> str:
    """Folder of the server's programs, or skip the test."""
    found = subprocess.run([str(SCRIPT), "where"], capture_output=True, text=True)
    if found.returncode != 0:
        pytest.skip("no PostgreSQL server is installed; make test-postgres installs it")
    return found.stdout.strip()


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Start a server on loopback, in a folder that goes with it."""
    where()
    # Not pytest's folder: the account that a server of root's runs under must be able to get there.
    folder = Path(tempfile.mkdtemp(prefix="deepbedmap-postgres-"))
    folder.chmod(0o755)
    data = folder / "server"
    started = subprocess.run(
        [str(SCRIPT), "start", str(data)], env=os.environ | {"PGPASSWORD": MARKER}, capture_output=True, text=True
    )
    assert started.returncode == 0, started.stderr
    try:
        yield Server(int(started.stdout))
    finally:
        subprocess.run([str(SCRIPT), "stop", str(data)], check=True)
        shutil.rmtree(folder)
