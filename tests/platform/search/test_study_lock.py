"""One driver for each study, whatever folder it works in."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from platform.search import study_lock
from platform.search.study_lock import only_driver

import pytest

from benchmarks.services.postgres import Postgres
from cpn.core.errors import InputError

HOLDER = """
import sys
from pathlib import Path
from platform.search.study_lock import only_driver
from platform.search.study_store import limits

with only_driver("small", sys.argv[1], Path("elsewhere.db"), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def unheard(line: str) -> None:
    raise AssertionError(line)


def holder(url: str) -> "subprocess.Popen[str]":
    """Another driver of the study `small` that has it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


def test_a_second_driver_of_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    other = holder(url)
    try:
        with pytest.raises(InputError) as refused, only_driver("small", url, Path("own.db"), unheard):
            pass
        said = str(refused.value)
        assert f"sweep 'small' is already running (process {other.pid} on " in said and "--set name=NEW" in said
        with only_driver("another", url, Path("own.db"), unheard):
            pass
    finally:
        end(other)
    with only_driver("small", url, Path("own.db"), unheard):
        pass


def test_a_file_in_the_sweeps_storage_needs_no_second_lock(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with only_driver("small", f"sqlite:///{path}", path, unheard):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_a_second_driver_on_one_postgres_is_refused(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres_server.database("locks")
    other = holder(url)
    monkeypatch.setattr(study_lock, "WAIT_S", 0.5)
    try:
        with pytest.raises(InputError) as refused, only_driver("small", url, Path("own.db"), unheard):
            pass
        said = str(refused.value)
        assert f"sweep 'small' is already running (process {other.pid} on " in said
        assert postgres_server.password not in said and "***" in said
        with only_driver("another", url, Path("own.db"), unheard):
            pass
    finally:
        end(other)
    monkeypatch.setattr(study_lock, "WAIT_S", 5.0)
    with only_driver("small", url, Path("own.db"), unheard):
        pass


@pytest.mark.cluster
def test_the_lock_is_taken_again_when_the_database_was_away(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_lock, "LOOK_S", 0.2)
    monkeypatch.setattr(study_lock, "WAIT_S", 0.5)
    url = postgres_server.database("away")
    with only_driver("small", url, Path("own.db"), unheard):
        postgres_server.kill()
        time.sleep(1)
        postgres_server.start()
        time.sleep(1)  # ours comes first
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            try:
                with only_driver("small", url, Path("own.db"), unheard):
                    time.sleep(0.2)
            except InputError as error:
                assert f"process {os.getpid()} on" in str(error)
                return
    raise AssertionError("nobody holds the lock any more")


@pytest.mark.cluster
def test_who_lost_the_study_meanwhile_hears_of_it(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_lock, "LOOK_S", 2.0)  # the taker looks far oftener
    url, said, heard = postgres_server.database("lost"), [], threading.Event()

    def lost(line: str) -> None:
        said.append(line)
        heard.set()

    with only_driver("small", url, Path("own.db"), lost):
        taker = study_lock._Advisory("small", url, unheard)
        ours = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'cpn small%'"
        connection = postgres_server.connect()
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(ours)
        connection.close()
        while not taker._try():
            time.sleep(0.01)
        assert heard.wait(20), "the loss was not said"
        taker.close()
    assert f"sweep 'small' is already running (process {os.getpid()} on" in said[0]


def test_the_end_does_not_wait_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks after the lock hangs in a query: it ended the sweep, hours later."""
    monkeypatch.setattr(study_lock, "WAIT_S", 0.01)
    lock, never = (
        study_lock._Advisory("small", "postgresql+psycopg2://me@127.0.0.1:9/studies", unheard),
        threading.Event(),
    )
    lock._thread = threading.Thread(target=never.wait, daemon=True)
    lock._thread.start()
    lock.close()
    assert lock._thread.is_alive()
    never.set()
