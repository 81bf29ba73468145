"""The database of studies: which one is meant, how it is connected to, and what its troubles are called."""

import sqlite3
from contextlib import closing
from pathlib import Path
from platform.search.study import State, open_study, read_study
from platform.search.study_store import (
    check_apart,
    check_study,
    check_whole,
    connect,
    cure_of,
    limits,
    reachable,
    shown,
    study_url,
)

import pytest
import sqlalchemy

from cpn.core.errors import InputError
from cpn.core.files import DamagedFile
from tests.platform.search.test_study import ask, make_spec, make_study


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:secret@127.0.0.1:1/x", "its Python driver is missing; pip install"),
        ("foo://me:secret@h/x", "the study database cannot be used"),
        ("sqlite:////proc/none/study.db", "check that its folder is writable and its disk not full"),
    ],
)
def test_a_database_that_is_down_is_one_line(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        open_study(make_spec(tmp_path), url, "f00d")
    assert said in str(error.value) and "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("hello, this is not a database at all" * 50)
    with pytest.raises(InputError, match="file is not a database"):
        make_study(tmp_path)


def test_the_url_is_of_spec_environment_or_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert study_url(make_spec(tmp_path)) == f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv("CPN_STUDY_URL", "postgresql://u:p@h/d")
    assert study_url(make_spec(tmp_path)) == "postgresql+psycopg2://u:p@h/d"
    assert study_url(make_spec(tmp_path, "tracking.study=sqlite:////x.db")) == "sqlite:////x.db"
    with pytest.raises(InputError, match="'nowhere' is no URL"):
        study_url(make_spec(tmp_path, "tracking.study=nowhere"))


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("postgresql+psycopg2://me@host/studies", {"connect_timeout", "tcp_user_timeout", "keepalives_idle"}),
        ("mysql+pymysql://me@host/studies", {"connect_timeout"}),
    ],
)
def test_no_connection_waits_for_ever(url: str, names: set[str]) -> None:
    found = limits(url)
    assert names <= set(found) and all(value > 0 for value in found.values())
    assert ("tcp_user_timeout" in found) == url.startswith("postgresql")


@pytest.mark.parametrize(
    ("url", "uri", "apart"),
    [
        ("sqlite:////a/b.db", "sqlite:////a/b.db", False),
        ("sqlite:////a/x/../b.db", "sqlite:////a/b.db", False),
        ("sqlite:////a/study.db", "sqlite:////a/b.db", True),
        ("postgresql+psycopg2://me:one@host/db", "postgresql://you:two@host:5432/db", False),
        ("postgresql+psycopg2://me@host/db", "postgresql://me@host/records", True),
        ("postgresql+psycopg2://me@host/db", "postgresql://me@host:5433/db", True),
        ("postgresql+psycopg2://me@host/db", "http://host:5432/db", True),
    ],
)
def test_studies_and_records_share_no_database(url: str, uri: str, apart: bool) -> None:
    if apart:
        return check_apart(url, uri)
    with pytest.raises(InputError, match="tracking.study: .* is the database of tracking.uri too.*a second") as refused:
        check_apart(url, uri)
    assert ":one@" not in str(refused.value)


def test_a_bucket_holds_no_database_file(tmp_path: Path) -> None:
    storage = {"storage": "s3://bucket/sweeps"}
    spec = make_spec(tmp_path, "resources.storage=s3://bucket/sweeps", "tracking.study=postgresql://u@h/d")
    assert study_url(spec) == "postgresql+psycopg2://u@h/d" and spec.resources.storage == storage["storage"]
    without = spec.model_copy(update={"tracking": spec.tracking.model_copy(update={"study": None})})
    with pytest.raises(InputError, match="tracking.study: s3://bucket/sweeps cannot hold a database file; set CPN_"):
        study_url(without)


def test_checking_makes_nothing(tmp_path: Path) -> None:
    check_study(f"sqlite:///{tmp_path}/new/study.db")
    check_study(f"sqlite:///{tmp_path}/study.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_made_only_where_that_is_asked_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/study.db"
    with pytest.raises(InputError, match="new/study.db: no such study database; run a sweep first"):
        connect(url, create=False)
    assert not (tmp_path / "new").exists()
    storage = connect(url, create=True)
    with storage.engine.connect() as connection:
        modes = [
            connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")
        ]
    storage.engine.dispose()
    assert modes == ["wal", 1], "`status` reads while the driver writes"
    check_study(url)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [(4096, b"\xff" * 4), (36, b"\0\0\0\5")],
    ids=["a page that sqlite cannot read", "a count of free pages, which its check alone finds"],
)
def test_a_database_that_is_not_whole_is_damaged(tmp_path: Path, place: int, wrong: bytes) -> None:
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("create table t (x text)")
        database.executemany("insert into t values (?)", [("x" * 500,)] * 200)
    check_whole(path, f"sqlite:///{path}")
    data = bytearray(path.read_bytes())
    data[place : place + 4] = wrong
    path.write_bytes(data)
    with pytest.raises(DamagedFile) as refused:
        check_whole(path, f"sqlite:///{path}")
    assert str(path) in str(refused.value) and "finished runs are taken over" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        "update trials set state = 'WEIRD'",
        "update trials set number = null",
        "update trials set datetime_start = 'soon'",
        "update trial_values set value_type = 'WEIRD'",
        "update trial_user_attributes set value_json = '{'",
        "update trial_user_attributes set value_json = 'null'",
        "update trial_params set distribution_json = '{}'",
        "update trial_params set param_value = 'x'",
        "update study_user_attributes set value_json = '{'",
    ],
)
def test_a_row_that_optuna_did_not_write_is_damage(tmp_path: Path, change: str) -> None:
    study = make_study(tmp_path)
    study.tell(ask(study).uid, State.COMPLETE, 40.0)
    study.tell(ask(study).uid, State.COMPLETE, 41.0)
    name, url = study.name, study.url
    study.close()
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(change)
    with pytest.raises(DamagedFile, match="is damaged") as refused:
        read_study(name, url).rows()
    assert str(path) in str(refused.value) and "finished runs are taken over" in str(refused.value)


def test_an_absent_or_empty_file_is_whole(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    for name in ("study.db", "absent.db"):
        check_whole(tmp_path / name, f"sqlite:///{tmp_path / name}")


def test_a_url_is_shown_redacted_with_the_cure_of_its_kind() -> None:
    assert shown("sqlite:////data/study.db") == "/data/study.db"
    assert shown("postgresql://me:hunter2@host/d") == "postgresql://me:***@host/d"
    assert "mv '/my data/study.db' '/my data/study.db'.damaged" in cure_of("sqlite:////my data/study.db")
    assert cure_of("postgresql://host/d").startswith("put the database back from a backup")


def test_what_a_database_raises_is_one_line(tmp_path: Path) -> None:
    for error in (OSError("disk\nfull"), sqlalchemy.exc.OperationalError("select", {}, Exception("gone\naway"))):
        with pytest.raises(InputError) as refused, reachable("postgresql://me:hunter2@host/d"):
            raise error
        line = str(refused.value)
        assert line.startswith("tracking.study: postgresql://me:***@host/d: the study database cannot be used (")
        assert line.endswith("; start it or check the URL") and "\n" not in line
    with pytest.raises(InputError, match="writable and its disk not full$"), reachable("sqlite:////data/study.db"):
        raise sqlalchemy.exc.OperationalError("select", {}, Exception("disk I/O error"))
    with pytest.raises(DamagedFile), reachable("sqlite:////data/study.db"):
        raise sqlalchemy.exc.DatabaseError("select", {}, Exception("database disk image is malformed"))
    with pytest.raises(ZeroDivisionError), reachable("sqlite:////data/study.db"):
        raise ZeroDivisionError
