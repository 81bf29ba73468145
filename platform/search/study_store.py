"""The database of studies: where it is, connecting to it, and what its troubles are called."""

import os
import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cpn.core.errors import InputError, brief_words
from cpn.core.files import DamagedFile, check_place
from cpn.core.plain_file import refuse_impossible
from cpn.core.redact import redact

from ..base import paths
from ..base.network_disk import check_host
from ..base.new_database import made_once
from ..base.tracking_uri import check_sqlite, sqlite_path, store_uri, with_driver

if TYPE_CHECKING:
    from ..config.sweep_spec import SweepSpec  # which brings torch: `status` has no use for it

URL_VARIABLE = "CPN_STUDY_URL"
DAMAGED = (
    "file is not a database", "disk image is malformed", "malformed database", "no such table", "no such column",
    "unable to open database file: is damaged", "Can't locate revision", "integrity",
)  # fmt: skip
"""Messages of sqlite about a damaged file."""


COMES_BACK = (
    "its trials come back from its records, finished runs are taken over and marked as reused, and pruned and failed "
    "trials run again"
)
"""What the next start of a sweep does about a study that is lost, or an older copy (run/recalled_trials.py)."""


def shown(url: str) -> str:
    """Return a study's database for people: its file, or its URL without a password."""
    return url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else redact(url)


def cure_of(url: str) -> str:
    """Return what mends a damaged database of studies."""
    if not url.startswith("sqlite:///"):
        return "put the database back from a backup, or start anew: --set name=NEW takes over all finished runs"
    path = shlex.quote(shown(url))
    return (
        f"put it back from a copy, or move it away (mv {path} {path}.damaged; rm -f {path}-wal {path}-shm) and give "
        f"the sweep's command again: {COMES_BACK}"
    )


CONNECT_S = 5
"""Seconds to wait for a connection."""
SILENT_S = 30
"""Seconds after which a PostgreSQL server that says nothing, a machine that vanished, counts as gone: without a limit a
query waits for as long as the system does, which is hours.
"""


_CHECKED: set[str] = set()
"""Databases whose tables this process has seen to be those of this Optuna: each look reads all its migrations."""


def study_url(spec: "SweepSpec") -> str:
    """Return the database of a sweep: `tracking.study`, else the environment's CPN_STUDY_URL, else sqlite in
    `resources.storage`.
    """
    url = spec.tracking.study or os.environ.get(URL_VARIABLE)
    if url is None and "://" in spec.resources.storage:
        raise InputError(
            f"tracking.study: {spec.resources.storage} cannot hold a database file; set {URL_VARIABLE}, for example to "
            "postgresql://USER@HOST/DATABASE"
        )
    if url is None:
        return f"sqlite:///{paths.storage(spec.resources.storage).study}"
    if "://" not in url:
        raise InputError(f"tracking.study: {url!r} is no URL; write sqlite:///FILE or postgresql://USER@HOST/DATABASE")
    if (path := sqlite_path(url)) is not None:
        refuse_impossible(path.absolute(), "tracking.study")
    return with_driver(url)


def check_apart(url: str, uri: str | None) -> None:
    """Raise InputError where the studies at `url` and the records at `uri` are to share one database: Optuna and MLflow
    keep their versions in tables of one name, so each takes the other's for its own of another version.
    """
    if _place(url) == _place(store_uri(uri)):
        raise InputError(
            f"tracking.study: {shown(url)} is the database of tracking.uri too, and tables of studies and of MLflow "
            "do not go together; make a second database, and name it there"
        )


def _place(url: str) -> tuple[str | int | None, ...]:
    """Return what tells a database from others: its file, or its server and name."""
    if (path := sqlite_path(url)) is not None:
        return (str(path.resolve()),)
    try:
        parts = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):  # no URL, or a port that is no number: who opens it says so
        return (url,)
    name = parts.get_backend_name()
    return name, parts.host, parts.port or (5432 if name == "postgresql" else None), parts.database


def check_study(url: str) -> None:
    """Raise InputError unless the database answers, or its sqlite file can be written or made. Makes nothing."""
    path = sqlite_path(url)
    if path is not None:
        check_host(path)
    if path is not None and not path.parent.exists():
        check_place(path.parent, "tracking.study")
    elif path is not None:
        check_sqlite(path, url, "tracking.study", cure_of(url))
        check_whole(path, url)
    else:
        with reachable(url), _with_driver(url):
            engine = sqlalchemy.create_engine(url, connect_args=limits(url))
            engine.connect().close()
            engine.dispose()


def check_whole(path: Path, url: str) -> None:
    """Raise DamagedFile unless sqlite finds the file whole (its own quick check)."""
    if not path.exists() or not path.stat().st_size:
        return
    with reachable(url):
        engine = sqlalchemy.create_engine(url, connect_args={"timeout": 60}, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            reports = [str(row[0]) for row in connection.execute(sqlalchemy.text("PRAGMA quick_check"))]
    if reports != ["ok"]:
        raise DamagedFile(shown(url), cure_of(url), reports[0])


def connect(url: str, create: bool) -> optuna.storages.RDBStorage:
    """Connect; a database that does not answer within seconds is an error, a busy sqlite file is waited for."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sqlite = url.startswith("sqlite:///")
    if sqlite:
        path = url.removeprefix("sqlite:///")
        if create:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        elif not os.path.exists(path):
            raise InputError(
                f"{path}: no such study database; run a sweep first, or check resources.storage; if it was lost, give "
                f"the sweep's command again: {COMES_BACK}"
            )
        check_host(Path(path))
        if os.path.exists(path) and url not in _CHECKED:
            check_tables(Path(path), url)
    options = {"timeout": 60} if sqlite else limits(url)
    kwargs: dict[str, Any] = {"connect_args": options} if sqlite else {"connect_args": options, "pool_pre_ping": True}
    try:
        with _with_driver(url), made_once(url, _make):
            storage = optuna.storages.RDBStorage(url, engine_kwargs=kwargs, skip_compatibility_check=url in _CHECKED)
    except AssertionError as error:  # a table of Optuna's without its row
        raise DamagedFile(shown(url), cure_of(url), error or "its tables are not whole") from None
    except RuntimeError as error:  # tables of another Optuna
        raise InputError(
            f"tracking.study: {url}: {' '.join(str(error).split())} Or it is MLflow's: give the studies a database of "
            "their own"
        ) from None
    _CHECKED.add(url)
    if sqlite:
        # A write-ahead log lets `status` read while the driver writes. NORMAL may lose the last commits when the
        # machine loses power, never when a process is killed, and never breaks the file: the lost trials run again.
        sqlalchemy.event.listen(storage.engine, "connect", _pragmas)
        storage.engine.dispose()
    return storage


def _make(url: str) -> None:
    """Let Optuna make its tables at `url`."""
    optuna.storages.RDBStorage(url).engine.dispose()


def limits(url: str) -> dict[str, int]:
    """Options of a connection to a database server: nothing waits for ever."""
    if not url.startswith("postgresql"):
        return {"connect_timeout": CONNECT_S}
    probes = {"keepalives_idle": SILENT_S // 3, "keepalives_interval": SILENT_S // 6, "keepalives_count": 4}
    return {"connect_timeout": CONNECT_S, "tcp_user_timeout": 1000 * SILENT_S, **probes}


@contextmanager
def _with_driver(url: str) -> Iterator[None]:
    """Say which package a database needs."""
    try:
        yield
    except ImportError:
        raise InputError(f"tracking.study: {url}: its Python driver is missing; pip install psycopg2-binary") from None


def _pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn the errors of a database into an InputError of one line with its URL."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        message = " ".join(str(getattr(cause, "orig", None) or cause).split())
        if any(words in message for words in DAMAGED):
            raise DamagedFile(shown(url), cure_of(url), message) from None
        # sqlite calls a full disk an I/O error where it cannot map its index of the write-ahead log.
        file = url.startswith("sqlite")
        cure = "check that its folder is writable and its disk not full" if file else "start it or check the URL"
        raise InputError(f"tracking.study: {url}: the study database cannot be used ({message}); {cure}") from None


@contextmanager
def understood(url: str) -> Iterator[None]:
    """Turn what Optuna raises for a row that it did not write (a state, a number, a JSON text) into a DamagedFile."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise DamagedFile(shown(url), cure_of(url), f"a row is not one of Optuna's: {brief_words(error)}") from error


def check_direction(
    directions: Sequence[optuna.study.StudyDirection], attributes: Mapping[str, Any], name: str, url: str
) -> None:
    """Raise InputError unless a study maximises one value: DamagedFile where its `attributes` say that a sweep made it,
    as each of ours does.
    """
    if list(directions) == [optuna.study.StudyDirection.MAXIMIZE]:
        return
    if "identity" in attributes:
        words = ", ".join(direction.name for direction in directions) or "none"
        raise DamagedFile(shown(url), cure_of(url), f"the direction of {name} is {words} and was MAXIMIZE")
    raise InputError(f"{url}: study {name!r} minimises, miou is maximised; take another name: --set name=NEW")


def check_tables(path: Path, url: str) -> None:
    """Raise DamagedFile where an sqlite file has some of Optuna's tables and lacks others: Optuna would make those
    anew, and what they held would be lost without a word. A schema of another version is Optuna's to judge.
    """
    from optuna.storages._rdb.models import SCHEMA_VERSION, BaseModel

    wanted, empty = {*BaseModel.metadata.tables, "alembic_version"}, ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)) as database:
            there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for name, column in (("version_info", "schema_version"), ("alembic_version", "version_num")):
                rows = database.execute(f"SELECT {column} FROM {name}").fetchall() if name in there else [()]
                if name == "version_info" and rows not in ([], [()], [(SCHEMA_VERSION,)]):
                    return
                empty = empty if rows else name
    except sqlite3.DatabaseError:  # busy, or damaged otherwise: who reads it next says so
        return
    if not there & wanted - {"alembic_version"}:  # new, or another program's
        return
    if lacks := sorted(wanted - there):
        raise DamagedFile(shown(url), cure_of(url), f"it has no table {lacks[0]}")
    if empty:
        raise DamagedFile(shown(url), cure_of(url), f"its table {empty} is empty")


def study_names(url: str) -> list[str]:
    """Return all studies in a database."""
    with reachable(url), understood(url):
        return sorted(optuna.get_all_study_names(storage=connect(url, create=False)))


def existing_studies(url: str) -> set[str]:
    """Return the names of the studies in a database; none where its file is not there yet, which is not made."""
    path = sqlite_path(url)
    if path is not None and not (path.exists() and path.stat().st_size):
        return set()
    return set(study_names(url))
