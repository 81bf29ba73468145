"""One driver for each study, wherever it runs.

The sweep's folder has a lock of its own (platform/base/lock.py), which two drivers with different folders do not share.
So the study is locked as well: in PostgreSQL by an advisory lock, which the server lets go when the connection ends,
however it ends; beside an sqlite file by a lock file, which the system lets go. Nothing has to time out.
"""

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from cpn.core.errors import InputError
from cpn.core.redact import redact

from ..base.network_disk import one_host
from ..base.tracking_uri import sqlite_path
from .study_store import limits, reachable

WAIT_S = 5.0
"""A killed driver's connection takes a moment to end at the server."""
LOOK_S = 10.0
"""Seconds between two looks whether the connection that holds the lock still stands."""
KEEPALIVE = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""The server lets the lock of a machine that vanished go after a minute, not after hours."""


@contextmanager
def only_driver(name: str, url: str, own: Path, lost: Callable[[str], None]) -> Iterator[None]:
    """Keep other drivers of the study `name` out while the block runs; `own` is the sqlite file that needs no lock.

    `lost` hears, in a line, when another driver took the study while the database was away. Raises InputError when
    another one has it, or another host uses the sqlite file.
    """
    path = sqlite_path(url)
    if path is not None:
        with one_host(path), _beside(path, name) if path != own else _nothing():
            yield
    elif url.startswith("postgresql"):
        lock = _Advisory(name, url, lost)
        try:
            lock.take()
            yield
        finally:
            lock.close()
    else:
        yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _beside(path: Path, name: str) -> Iterator[None]:
    """Hold a lock file beside an sqlite file, one for each study."""
    lock = path.with_name(f"{path.name}.{name}.lock")
    try:
        held = FileLock(lock, blocking=False, fallback_to_soft=False).acquire()
    except Timeout:
        raise InputError(taken(name, f"sqlite:///{path}", lock.read_text("utf-8"))) from None
    with held:
        lock.write_text(whoami(), "utf-8")
        yield


class _Advisory:
    """An advisory lock of PostgreSQL on a connection of its own, taken again when that was lost."""

    def __init__(self, name: str, url: str, lost: Callable[[str], None]) -> None:
        self._name, self._url, self._lost = name, url, lost
        self._key = int.from_bytes(hashlib.sha256(f"cpn study {name}".encode()).digest()[:8], "big", signed=True)
        options = {**limits(url), "application_name": f"cpn {name} {whoami()}"[:63], "options": KEEPALIVE}
        self._engine = sqlalchemy.create_engine(url, connect_args=options, poolclass=sqlalchemy.pool.NullPool)
        self._connection: sqlalchemy.Connection | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="study lock", daemon=True)

    def take(self) -> None:
        """Take the lock, or say who has it."""
        with reachable(self._url):
            end = time.monotonic() + WAIT_S
            while not self._try():
                if time.monotonic() > end:
                    raise InputError(taken(self._name, self._url, self._holder()))
                time.sleep(0.2)
        self._thread.start()

    def close(self) -> None:
        """Let it go."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(WAIT_S)
        if self._thread.is_alive():  # it waits for a server that is silent; the lock goes with this process
            return
        self._drop()
        self._engine.dispose()

    def _try(self) -> bool:
        query = sqlalchemy.text("select pg_try_advisory_lock(:k)")
        return bool(self._connected().execute(query, {"k": self._key}).scalar())

    def _connected(self) -> sqlalchemy.Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        return self._connection

    def _holder(self) -> str:
        """Return who holds the lock: its connection's application name has host and process."""
        query = sqlalchemy.text(
            "select application_name from pg_stat_activity join pg_locks using (pid) where granted and "
            "locktype = 'advisory' and ((classid::bigint << 32) | objid::bigint) = :k"
        )
        application = self._connected().execute(query, {"k": self._key}).scalar()
        return str(application or "").removeprefix(f"cpn {self._name} ")

    def _watch(self) -> None:
        """Look after the connection; one that broke is made anew with the lock, or the driver hears that it is lost."""
        while not self._ended.wait(LOOK_S):
            try:
                if self._connection is None and not self._try():
                    self._lost(taken(self._name, redact(self._url), self._holder()))
                    return
                self._connected().execute(sqlalchemy.text("select 1"))
            except SQLAlchemyError:
                self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            try:
                self._connection.invalidate()
                self._connection.close()
            except SQLAlchemyError:
                pass  # it is gone, which is what was wanted
            self._connection = None


def overtaken(say: Callable[[str], None], line: str) -> None:
    """Stop a driver that lost its study, as on SIGTERM, after printing `line`."""
    say(line)
    os.kill(os.getpid(), signal.SIGTERM)


def whoami() -> str:
    """Describe this process to people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def taken(name: str, where: str, holder: str) -> str:
    """Return the message for the second driver of a study."""
    who = f" ({holder})" if holder.strip() else ""
    return (
        f"sweep {name!r} is already running{who}, by its study in {where}; wait for it, stop it there: "
        f"python -m platform.stop {name}, or take another name: --set name=NEW"
    )
