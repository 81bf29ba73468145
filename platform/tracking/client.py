"""The mlflow package with our settings, and clients of a store: nothing else of ours imports it but a model's own code.

It is imported on first use, for it takes seconds.
"""

import os
import secrets
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock

from cpn.core.redact import redact

from ..base.tracking_uri import sqlite_path

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # its bars would stand amid the lines of the sweep
}
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines amid the live table for each run that ends
    "GIT_PYTHON_REFRESH": "quiet",
}
_lock = threading.Lock()
_MAKING = 120
"""Seconds to wait for another process that makes the same store."""


def mlflow_module() -> Any:
    """Return the mlflow package with our settings, imported on first use: it takes seconds. One thread imports at a
    time.
    """
    with _lock:
        os.environ.update(SETTINGS)
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow
        import mlflow.entities

        return mlflow


def connect(uri: str) -> Any:
    """Return a client of tracking store and registry at `uri`. An sqlite store that is not there is made."""
    mlflow, path = mlflow_module(), sqlite_path(uri)
    if path is not None and "?" not in uri:
        _make(path)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make(path: Path) -> None:
    """Make the sqlite file of a store unless it is there: once, and whole or absent.

    MLflow makes the tables in place and without a lock: of two sweeps that start together one fails at the other's
    half-made tables, and a kill leaves tables that no later start can complete.
    """
    if _has_content(path):
        return
    lock = path.with_name(f"{path.name}.lock")
    with FileLock(lock, timeout=_MAKING):
        if not _has_content(path):
            _make_whole(path)
        lock.unlink(missing_ok=True)  # a process that waits for the lock checks again, and finds the store


def _make_whole(path: Path) -> None:
    """Let MLflow make its tables in a temporary file, which then becomes `path`."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        store(f"sqlite:///{temporary}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()
        os.replace(temporary, path)
    finally:
        for left in (temporary, temporary.with_name(f"{temporary.name}-journal")):
            left.unlink(missing_ok=True)


def _has_content(path: Path) -> bool:
    """Return whether there is a store: an empty file is none."""
    return path.exists() and path.stat().st_size > 0


def one_line(error: Exception) -> str:
    """Return an error without its line breaks, its passwords and most of its length."""
    text = " ".join(redact(f"{type(error).__name__}: {error}").split())
    return text if len(text) <= 300 else text[:297] + "..."
