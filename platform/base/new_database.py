"""One process makes the tables of a new database, also when several start at the same moment.

Optuna and MLflow make theirs in place and without a lock: of two sweeps that start together on a new database one fails
at the other's half-made tables, and in sqlite a kill leaves tables that no later start can complete.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cpn.core.errors import InputError
from cpn.core.redact import redact

from .tracking_uri import sqlite_path

MAKING_S = 120
"""Seconds to wait for another process that makes the same tables."""
CONNECT_S = 5
_LOCK = 0x63706E_7461626C
"""Key of the advisory lock in a PostgreSQL database; such a lock holds in its own database alone."""
_OPENED: set[str] = set()
"""PostgreSQL databases that this process has opened: their tables are there."""


@contextmanager
def made_once(url: str, make: Callable[[str], None]) -> Iterator[None]:
    """Let the block open the database at `url`, whose tables no other process makes meanwhile.

    An sqlite file that is not there, or is empty, is made before, whole or absent: `make` gets the URL of a temporary
    file that becomes it. In PostgreSQL the block holds an advisory lock, which ends with its connection. Other
    databases have no such lock. Raises InputError when another process takes longer than MAKING_S.
    """
    path = sqlite_path(url)
    if path is not None and "?" not in url:
        _make_file(path.resolve(), make)
    if url.startswith("postgresql") and url not in _OPENED:
        with _alone_in(url):
            yield
        _OPENED.add(url)
    else:
        yield


def _make_file(path: Path, make: Callable[[str], None]) -> None:
    if _has_content(path):
        return
    lock = path.with_name(f"{path.name}.lock")
    try:
        with FileLock(lock, timeout=MAKING_S):
            if not _has_content(path):
                _make_whole(path, make)
            lock.unlink(missing_ok=True)  # a process that waits for the lock checks again, and finds the database
    except Timeout:
        raise InputError(_taken(str(path))) from None


def _make_whole(path: Path, make: Callable[[str], None]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        make(f"sqlite:///{temporary}")
        for ending in ("-wal", "-shm"):  # of a file that was deleted: sqlite would take its pages for the new one's
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
        os.replace(temporary, path)
    finally:
        for left in (temporary, temporary.with_name(f"{temporary.name}-journal")):
            left.unlink(missing_ok=True)


def _has_content(path: Path) -> bool:
    """Return whether there is a database: an empty file is none."""
    return path.exists() and path.stat().st_size > 0


@contextmanager
def _alone_in(url: str) -> Iterator[None]:
    """Hold the lock of a PostgreSQL database. Without an answer nothing is held: who opens it next says what is
    wrong.
    """
    import sqlalchemy  # commands that open no database do without
    from sqlalchemy.exc import SQLAlchemyError

    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": CONNECT_S}, poolclass=sqlalchemy.NullPool)
    connection: Any = None
    try:
        try:
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            end = time.monotonic() + MAKING_S
            while not connection.execute(sqlalchemy.text("select pg_try_advisory_lock(:k)"), {"k": _LOCK}).scalar():
                if time.monotonic() > end:
                    raise InputError(_taken(redact(url)))
                time.sleep(0.1)
        except SQLAlchemyError:
            pass
        yield
    finally:
        if connection is not None:
            connection.close()
        engine.dispose()


def _taken(shown: str) -> str:
    return f"{shown}: another process has been making its tables for {MAKING_S} s; wait for it or end it, then again"
