"""Where records go: the store's URI, what is wrong with it, what of it may be shown, and the command to look at it."""

import importlib.util
import os
import re
import shlex
import socket
import sqlite3
import sys
import tempfile
from contextlib import closing
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from cpn.core.errors import InputError
from cpn.core.files import DamagedFile
from cpn.core.plain_file import folder_there
from cpn.core.redact import redact

_DATABASES = {"postgresql": ("psycopg2", 5432), "mysql": ("pymysql", 3306), "mssql": ("pyodbc", 1433)}
"""Scheme -> the Python package that SQLAlchemy uses by default, and the default port."""


URI_VARIABLE = "MLFLOW_TRACKING_URI"
"""What MLflow itself reads."""


def store_uri(uri: str | None) -> str:
    """Return the store's URI; None is the environment's MLFLOW_TRACKING_URI, or mlflow.db in the working directory. A
    relative sqlite path becomes absolute.
    """
    uri = with_driver(uri or os.environ.get(URI_VARIABLE) or "sqlite:///mlflow.db")
    path = sqlite_path(uri)
    return f"sqlite:///{path.absolute()}" if path is not None else uri


def with_driver(url: str) -> str:
    """Return a database's URL with the Python package that we ask for: left to itself, SQLAlchemy 2.1 takes another
    one.
    """
    scheme = url.partition("://")[0]
    return url.replace(scheme, "postgresql+psycopg2", 1) if scheme in ("postgresql", "postgres") else url


def check_store(uri: str | None, key: str = "tracking.uri") -> str | None:
    """Look at the store before any work. Returns a one-line warning if a server is away (records wait in the spool).

    Raises InputError for an unknown scheme, a missing database driver, and an sqlite file that cannot be written or is
    damaged.
    """
    uri = store_uri(uri)
    shown, scheme = redact(uri), uri.split(":", 1)[0].split("+")[0].lower()
    path = sqlite_path(uri)
    if path is not None:
        check_sqlite(path, shown, key)
        check_schema(path, shown, key)
        check_whole(path, key)
        return None
    if scheme in _DATABASES:
        module = uri.split(":", 1)[0].partition("+")[2] or _DATABASES[scheme][0]
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{key}: {shown} needs the Python package {module}; pip install {module}")
    elif scheme not in ("http", "https"):
        raise InputError(f"{key}: {shown} is no store; write sqlite:///FILE, http(s)://HOST:PORT or postgresql://")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # it quotes what stands where the port should be: part of a password that holds a slash
        raise InputError(f"{key}: {shown}: no port stands behind the host; write {scheme}://HOST:PORT") from None
    if not host:
        raise InputError(f"{key}: {shown} names no host; write {scheme}://HOST:PORT")
    port = port or {"http": 80, "https": 443}.get(scheme) or _DATABASES[scheme][1]
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError as error:
        return f"{key}: {shown} does not answer ({error}); records are kept and follow later"
    return None


UI_PORT = 5000
"""Where `platform.ui` listens unless told otherwise."""


def ui_command(uri: str | None, page: str = "") -> str:
    """Return the command that shows the store in a browser, on 127.0.0.1 only, and the address of a `page` behind that
    of the UI. A password stays in the environment.
    """
    uri = store_uri(uri)
    if uri.startswith(("http://", "https://")):
        return f"# the MLflow UI is at {redact(uri).rstrip('/') if page else redact(uri)}{page}"
    behind = f"   # then http://127.0.0.1:{UI_PORT}{page}" if page else ""
    return ui_start(uri) + behind


def ui_start(uri: str) -> str:
    """Return the command that serves the store at `uri`."""
    python = Path(sys.executable)
    shown = shlex.quote(str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python))
    if uri == store_uri(None):
        return f"{shown} -m platform.ui"
    store = shlex.quote(uri) if redact(uri) == uri else '"$MLFLOW_BACKEND_STORE_URI"'
    return f"{shown} -m platform.ui --uri {store}"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an sqlite URI, None for any other store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def check_schema(path: Path, shown: str, key: str) -> None:
    """InputError where another version of MLflow made the tables of an sqlite file: the installed one would refuse each
    record. What is no database of MLflow's, or a damaged one, is not judged here.
    """
    package = importlib.util.find_spec("mlflow")
    if package is None or package.origin is None or not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            rows = database.execute("select version_num from alembic_version").fetchall()
    except sqlite3.Error:
        return
    files = (Path(package.origin).parent / "store/db_migrations/versions").glob("*.py")
    texts = [file.read_text("utf-8") for file in files]
    known, older = (
        {name for text in texts for name in re.findall(rf"^{field} = [\"'](\w+)[\"']", text, re.MULTILINE)}
        for field in ("revision", "down_revision")
    )
    if not rows or rows[0][0] in known - older:
        return
    if rows[0][0] in known:
        cure = f"copy it, then: {shlex.quote(sys.executable)} -m mlflow db upgrade {shlex.quote(shown)}"
        raise InputError(f"{key}: {shown} was made by an earlier MLflow than the one that is installed; {cure}")
    raise InputError(
        f"{key}: {shown} was made by a later MLflow than the installed {metadata.version('mlflow')}; install that one, "
        "or give another file"
    )


def move_it(path: Path) -> str:
    """Return the cure for a damaged sqlite file of records."""
    name = shlex.quote(str(path))
    return (
        f"put it back from a copy, or move it away (mv {name} {name}.damaged; rm -f {name}-wal {name}-shm) and give "
        "the sweep's command again, of each sweep in it: records/events.jsonl in its folder has all, and is sent anew"
    )


RECORDED = {
    "alembic_version", "experiments", "experiment_tags", "runs", "tags", "params", "metrics", "latest_metrics",
    "registered_models", "registered_model_tags", "registered_model_aliases", "model_versions", "model_version_tags",
}  # fmt: skip
"""The tables of MLflow that records are written to."""


def check_whole(path: Path, key: str) -> None:
    """DamagedFile, behind the `key`, unless sqlite finds the pages of a file of records whole (its own quick check),
    and all tables are there where some are: MLflow would make the others anew, empty.

    One that is not there, or is empty, will be made. A busy one is taken as it is.
    """
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as database:
            reports = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
            there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if lacks := sorted(RECORDED - there) if there & RECORDED - {"alembic_version"} else []:
                reports = [f"it has no table {lacks[0]}"]
            elif there >= RECORDED and not database.execute("SELECT version_num FROM alembic_version").fetchall():
                reports = ["its table alembic_version is empty"]
    except sqlite3.OperationalError:
        return
    except sqlite3.DatabaseError as error:
        reports = [str(error)]
    if reports != ["ok"]:
        raise DamagedFile(f"{key}: {path}", move_it(path), reports[0])


def check_sqlite(path: Path, shown: str, key: str, mend: str | None = None) -> None:
    """InputError unless `path` is, or can become, an sqlite file that we can write; `mend` is the cure where it is our
    own and damaged.
    """
    cure = f"give another file, e.g. sqlite:////home/me/{path.name or 'records.db'}"
    if folder_there(path, key):
        raise InputError(f"{key}: {shown} is a folder; {cure}")
    try:
        if path.exists():
            with open(path, "r+b") as file:
                start = file.read(16)
                if start not in (b"", b"SQLite format 3\0"):
                    raise InputError(
                        f"{key}: {shown} is no sqlite file, or a damaged one; {cure}, or {mend or move_it(path)}"
                    )
        tempfile.TemporaryFile(dir=path.parent).close()  # sqlite's journal lies beside the file
    except OSError as error:
        raise InputError(f"{key}: {shown} cannot be written ({error.strerror}); {cure}") from error
