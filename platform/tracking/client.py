"""The mlflow package with our settings, and clients of a store: nothing else of ours imports it but a model's own code.

It is imported on first use, for it takes seconds.
"""

import logging
import os
import threading
from typing import Any

from cpn.core.redact import redact

from ..base.new_database import made_once

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

        # MLflow prints a database error with its traceback, and raises it too. The caller reports it in one line.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        return mlflow


def connect(uri: str) -> Any:
    """Return a client of tracking store and registry at `uri`. A store of sqlite or PostgreSQL that is not there is
    made, once (base/new_database.py).
    """
    mlflow = mlflow_module()
    with made_once(uri, _make):
        return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make(uri: str) -> None:
    """Let MLflow make its tables at `uri`."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = SqlAlchemyStore
    store(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()


def one_line(error: Exception) -> str:
    """Return an error without its line breaks, its passwords and most of its length."""
    text = " ".join(redact(f"{type(error).__name__}: {error}").split())
    return text if len(text) <= 300 else text[:297] + "..."
