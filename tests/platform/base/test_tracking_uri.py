"""Where records go: which store is meant, what is wrong with it, and what of it may be shown."""

import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from platform.base.tracking_uri import (
    check_sqlite,
    check_store,
    check_whole,
    sqlite_path,
    store_uri,
    ui_command,
    with_driver,
)

import pytest

from cpn.core.errors import InputError


@pytest.fixture
def listening() -> Iterator[int]:
    """A port at which connections are taken."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_mlflows_own_variable_names_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://records:5000")
    assert store_uri(None) == "http://records:5000" and store_uri("sqlite:////a.db") == "sqlite:////a.db"
    assert ui_command(None) == "# the MLflow UI is at http://records:5000"


def test_the_printed_command_names_the_store() -> None:
    assert ui_command("sqlite:////data/my runs/mlflow.db").endswith(
        "-m platform.ui --uri 'sqlite:////data/my runs/mlflow.db'"
    )


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sqlite:////proc/mlflow.db", "cannot be written"),
        ("sqlite:///FOLDER/text", "is no sqlite file"),
        ("sqlite:///FOLDER", "is a folder"),
        ("sqlite:///FOLDER/text/mlflow.db", "cannot be written"),
        ("sqlite:///FOLDER/absent/mlflow.db", "cannot be written"),
        ("file://FOLDER/mlruns", "is no store"),
        ("mlruns", "is no store"),
        ("http://", "names no host"),
        ("http://host:port", "host:port"),
        ("postgresql+nodriver://h/db", "pip install nodriver"),
    ],
)
def test_a_store_that_cannot_work_is_refused_in_one_line(uri: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a text file")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as refusal:
        check_store(uri.replace("FOLDER", str(tmp_path)))
    message = str(refusal.value)
    assert message.startswith("tracking.uri: ") and words in message and "\n" not in message
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_works_is_accepted(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_store(None) is None
    assert check_store(f"sqlite:///{migrated}") is None
    assert not list(tmp_path.iterdir())
    assert ui_command(None).endswith("-m platform.ui"), "the store of the folder one is in needs no name"
    assert ui_command(None, "/#/x").endswith("-m platform.ui   # then http://127.0.0.1:5000/#/x")
    assert ui_command("http://host:5000/", "/#/x") == "# the MLflow UI is at http://host:5000/#/x"
    assert ui_command(f"sqlite:///{migrated}").endswith(f"-m platform.ui --uri sqlite:///{migrated}")


def revisions() -> tuple[str, str]:
    """The installed MLflow's first and last version of its tables."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    script = ScriptDirectory.from_config(_get_alembic_config("sqlite:///:memory:"))
    return str(script.get_base()), str(script.get_current_head())


@pytest.mark.parametrize(
    ("version", "says"),
    [("first", "an earlier MLflow"), ("last", None), ("0123456789ab", "a later MLflow than"), (None, None)],
)
def test_a_database_of_another_mlflow_is_refused_with_a_cure(
    tmp_path: Path, version: str | None, says: str | None
) -> None:
    """Otherwise each record would be refused, with the sweep going on."""
    first, last = revisions()
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("create table alembic_version (version_num varchar(32))")
        if version is not None:
            database.execute(
                "insert into alembic_version values (?)", [{"first": first, "last": last}.get(version, version)]
            )
    if says is None:
        check_store(f"sqlite:///{file}")
        return
    with pytest.raises(InputError, match=says) as refused:
        check_store(f"sqlite:///{file}")
    assert str(file) in str(refused.value) and "\n" not in str(refused.value)


def test_a_server_that_is_away_is_a_warning_and_no_error(listening: int) -> None:
    assert check_store(f"http://me:hunter2@127.0.0.1:{listening}") is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    warning = check_store(f"http://me:hunter2@127.0.0.1:{port}", "--uri")
    assert warning is not None and warning.startswith(f"--uri: http://me:***@127.0.0.1:{port} does not answer (")
    assert warning.endswith("; records are kept and follow later") and "hunter2" not in warning


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("postgresql://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("postgres://u@h/d", "postgresql+psycopg2://u@h/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("mysql://u@h/postgresql", "mysql://u@h/postgresql"),
        ("sqlite:////a.db", "sqlite:////a.db"),
    ],
)
def test_postgres_is_asked_for_by_the_package_that_we_install(url: str, asked: str) -> None:
    assert with_driver(url) == asked and with_driver(asked) == asked


def test_a_relative_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri("sqlite:///records/a.db") == f"sqlite:///{tmp_path}/records/a.db"
    assert sqlite_path("sqlite:////a.db") == Path("/a.db") and sqlite_path("http://host/a.db") is None


def test_a_password_of_the_store_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ui_command("postgresql://me:hunter2@db/mlflow")
    assert command.endswith('-m platform.ui --uri "$MLFLOW_BACKEND_STORE_URI"') and "hunter2" not in command
    assert ui_command("http://me:hunter2@host:5000") == "# the MLflow UI is at http://me:***@host:5000"


def test_a_damaged_file_of_our_own_has_a_cure_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.write_bytes(b"SQLite format 2\0")
    with pytest.raises(InputError, match="study: shown is no sqlite file, or a damaged one; .*, or call a doctor"):
        check_sqlite(path, "shown", "study", "call a doctor")
    path.write_bytes(b"")
    check_sqlite(path, "shown", "study")
    assert path.read_bytes() == b""


def changed_inside(path: Path) -> None:
    """Another byte at the start of each page but the first, where sqlite keeps a page's kind."""
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 4096):
        data[page] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        changed_inside,
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
    ],
    ids=["inside", "half", "zeros"],
)
def test_a_damaged_file_of_records_is_one_line_with_its_cure(
    damage: Callable[[Path], object], migrated: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(migrated, tmp_path / "a b.db"))
    check_whole(path, "tracking.uri")
    damage(path)
    with pytest.raises(InputError) as read:
        check_whole(path, "tracking.uri")
    with pytest.raises(InputError) as refused:
        check_store(f"sqlite:///{path}")
    for said in map(str, (read.value, refused.value)):
        assert said.startswith(f"tracking.uri: {'sqlite:///' * ('no sqlite file' in said)}{path}") and "\n" not in said
        assert f"(mv '{path}' '{path}'.damaged; rm -f '{path}'-wal '{path}'-shm)" in said
        assert "give the sweep's command again, of each sweep in it" in said
    path.write_bytes(b"")
    check_whole(path, "tracking.uri")
    check_whole(tmp_path / "absent.db", "tracking.uri")
