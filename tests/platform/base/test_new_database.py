"""Two processes that open one new database in the same moment: of records and of studies, in sqlite and PostgreSQL."""

import multiprocessing
import threading
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from platform.base import new_database
from platform.base.new_database import made_once
from platform.search import study_store
from platform.tracking import client

import pytest

from benchmarks.services.postgres import Postgres
from cpn.core.errors import InputError


def _open_at_once(barrier: Barrier, records: list[str], studies: list[str], answers: "Queue[str]") -> None:
    client.mlflow_module()
    for url in [*records, *studies]:
        barrier.wait(60)
        try:
            if url in records:
                answers.put(client.connect(url).get_experiment("0").name)
            else:
                answers.put(str(study_store.connect(url, create=True).get_all_studies()))
        except Exception as error:  # whatever MLflow, Optuna and the database raise: it goes to the test
            answers.put(client.one_line(error))


def both_open(records: list[str], studies: list[str]) -> None:
    """Two processes open each of these in the same moment, and find it empty and whole."""
    start = multiprocessing.get_context("spawn")
    barrier, answers = start.Barrier(2), start.Queue()
    given = (barrier, records, studies, answers)
    both = [start.Process(target=_open_at_once, args=given, daemon=True) for _ in range(2)]
    for process in both:
        process.start()
    found = [answers.get(timeout=100) for _ in range(2 * len([*records, *studies]))]
    assert found == ["Default"] * 2 * len(records) + ["[]"] * 2 * len(studies)
    for process in both:
        process.join(60)


def test_two_processes_make_one_new_file_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("absent.db", "empty.db", "study.db", "empty_study.db")]
    for empty in (paths[1], paths[3]):
        empty.touch()
    urls = [f"sqlite:///{path}" for path in paths]
    both_open(urls[:2], urls[2:])
    left = {path.name for path in tmp_path.iterdir()} - {path.name for path in paths}
    assert all(name.endswith(("-wal", "-shm")) for name in left), "neither a lock nor a temporary file stays"


@pytest.mark.cluster
def test_two_processes_open_one_new_postgres_at_once(postgres_server: Postgres) -> None:
    both_open(
        [postgres_server.database(f"records{n}") for n in range(2)],
        [postgres_server.database(f"studies{n}") for n in range(3)],
    )


@pytest.mark.cluster
def test_a_postgres_is_waited_for_and_opened_once(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres_server.database("waited")
    monkeypatch.setattr(new_database, "MAKING_S", 0.5)

    def second() -> None:
        with pytest.raises(InputError, match="another process has been making its tables") as refused:
            with made_once(url, unheard):
                pass
        assert postgres_server.password not in str(refused.value)

    with made_once(url, unheard):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        postgres_server.kill()
    with made_once(url, unheard):  # opened before, so the server, which is down, is not asked
        pass
    with made_once(url + "other", unheard):  # nothing is said here: opening it will fail
        pass


def unheard(url: str) -> None:
    raise AssertionError(url)
