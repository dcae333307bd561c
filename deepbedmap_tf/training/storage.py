"""Where a study is kept: an SQLite file for one machine, PostgreSQL for many; no password in an address."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepbedmap_tf.errors import ConfigError, TrainingError, without_passwords

if TYPE_CHECKING:
    import optuna
    from sqlalchemy import URL

LOGGER = logging.getLogger(__name__)

EXPECTED = "expected sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"
LOCK_TIMEOUT_SECONDS = 60


def with_driver(address: str) -> str:
    """Name the PostgreSQL driver that is installed, where an address leaves it open.

    Examples
    --------
    >>> with_driver("postgresql://me@host/db")
    'postgresql+psycopg2://me@host/db'
    >>> with_driver("sqlite:///study.db")
    'sqlite:///study.db'
    """
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", address)


def parse_address(address: str) -> URL:
    """Check the address of a storage.

    Raises
    ------
    ConfigError
        When it is no address of SQLite or PostgreSQL, or holds a password; the message does not repeat it.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(with_driver(address))
    except (ArgumentError, ValueError):
        # Not chained: the other message might repeat what came.
        raise ConfigError(f"the storage is no address of a database; {EXPECTED}") from None
    if url.password is not None or any("password" in key.lower() for key in url.query):
        raise ConfigError(
            "the storage's address holds a password, which process lists and shell histories show; leave it out and "
            "set PGPASSWORD, or keep it in ~/.pgpass"
        )
    if url.get_backend_name() not in ("sqlite", "postgresql") or not url.database or url.database == ":memory:":
        raise ConfigError(f"storage {address} can't be used; {EXPECTED}")
    return url


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Turn what a database refuses into one line.

    Raises
    ------
    TrainingError
        Naming the place, without a password, and what to do.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = " ".join(without_passwords(str(getattr(cause, "orig", None) or cause)).split())[:240]
        raise TrainingError(
            f"cannot use the storage {without_passwords(address)}: {reason}; see that the server runs and the database "
            "exists, and that PGPASSWORD or ~/.pgpass holds the password. Then start the same command again: the study "
            "goes on"
        ) from error


class Turnstile:
    """Let one worker at a time through, on one machine by a file beside SQLite's, on many by PostgreSQL.

    What must not be done twice goes within: making tables, a study and its MLflow run, and claiming a trial. A worker
    that dies lets go by dying.

    Parameters
    ----------
    url
        From `parse_address`.
    name
        Of the study.
    """

    def __init__(self, url: URL, name: str) -> None:
        self.url = url
        self.key = zlib.crc32(f"deepbedmap {name}".encode())
        self._open: Any = None

    def enter(self) -> None:
        """Wait for one's turn."""
        if self.url.get_backend_name() == "sqlite":
            path = Path(str(self.url.database))
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.with_name(f"{path.name}.lock").open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            self._open = file
            return
        import sqlalchemy

        engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
        connection = engine.connect()
        try:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": self.key})
        except BaseException:
            connection.close()
            raise
        self._open = connection

    def leave(self) -> None:
        """Let the next one through; once is enough, twice does no harm."""
        held, self._open = self._open, None
        if held is not None:
            with contextlib.suppress(Exception):
                # Closing the file or the connection releases the lock.
                held.close()

    def __enter__(self) -> Turnstile:
        self.enter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.leave()


def open_storage(url: URL, heartbeat_seconds: int, on_stale: Any) -> optuna.storages.RDBStorage:
    """Open a study's storage, making its tables where there are none. Call it within the turnstile.

    Parameters
    ----------
    url
        From `parse_address`.
    heartbeat_seconds
        How often a running trial says that it lives; one that was silent for three times as long is taken for dead.
    on_stale
        Called with the study and each dead trial.
    """
    import optuna

    if url.get_backend_name() == "sqlite":
        options: dict[str, Any] = {"connect_args": {"timeout": LOCK_TIMEOUT_SECONDS}}
    else:
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": LOCK_TIMEOUT_SECONDS}}
    with warnings.catch_warnings():
        # The heartbeat is called experimental; it has been there since 2021 and is what we want.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=options,
            heartbeat_interval=heartbeat_seconds,
            grace_period=3 * heartbeat_seconds,
            heartbeat_stale_trial_callback=on_stale,
        )
