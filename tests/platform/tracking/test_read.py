"""What commands beside the driver read in a store: they make nothing, and a store that is away is one line."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from platform.tracking import read
from platform.tracking.client import connect
from platform.tracking.in_mlflow.saved_views import LEADERBOARD, TAG
from platform.tracking.origin import ORIGIN
from platform.tracking.read import newest_in_file, newest_sweep, read_aliases, read_model_state, read_run, read_runs
from platform.tracking.recorder import Recorder
from typing import Any

import pytest

from cpn.core.errors import InputError, WorkError
from cpn.core.files import DamagedFile
from tests.platform.tracking.test_recorder import tell_a_sweep

MODEL = "cpn-patch"
VIEW_TAG = f"{TAG}{LEADERBOARD}"


@pytest.fixture
def uri(new_store: Callable[[str], str]) -> str:
    return new_store("store")


def test_what_an_alias_points_at(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    tell_a_sweep(recorder, tmp_path)
    recorder.close(60)
    found = read_aliases(uri, "champion")
    assert list(found) == ["cpn"]
    assert (found["cpn"]["uid"], found["cpn"]["version"], found["cpn"]["miou"]) == ("trial-1", "2", "0.6")
    assert read_aliases(uri, "nobody") == {}
    with pytest.raises(InputError, match="--uri: .*absent.db: no records here"):
        read_aliases(f"sqlite:///{tmp_path}/absent.db", "champion")
    assert not (tmp_path / "absent.db").exists()


def test_nothing_is_read_where_nothing_is(tmp_path: Path, uri: str) -> None:
    assert read_model_state(uri, MODEL) is None and read_run(uri, "0" * 32) is None
    absent = f"sqlite:///{tmp_path}/absent.db"
    assert read_model_state(absent, MODEL) is None and read_run(absent, "0" * 32) is None
    assert not (tmp_path / "absent.db").exists()


READS: dict[str, Callable[[str], Any]] = {
    "runs": lambda uri: read_runs(uri, "patch"),
    "aliases": lambda uri: read_aliases(uri, "champion"),
    "model": lambda uri: read_model_state(uri, MODEL),
    "run": lambda uri: read_run(uri, "0" * 32),
}


@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_a_damaged_store_is_one_line_and_an_empty_one_stays(read: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript("create table a (b); insert into a values (1)")
    path.write_bytes(path.read_bytes()[:4096] + bytes(4096))
    with pytest.raises(DamagedFile, match=r"tracking.uri: .*store.db: is damaged \(.*\); put it back .*mv .*store.db"):
        read(f"sqlite:///{path}")
    path.write_bytes(b"")
    with suppress(InputError):  # aliases have to be known before anything is deleted
        assert not read(f"sqlite:///{path}")
    assert path.read_bytes() == b"", "no tables are made"


def test_runs_are_read_of_ones_own_experiment_alone(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(uri)
    experiment = client.create_experiment("patch", tags={ORIGIN: "mine"})
    run = client.create_run(experiment, tags={"uid": "patch-0000"}).info.run_id
    other = client.create_run(experiment).info.run_id
    assert [row.uid for row in read_runs(uri, "patch")] == ["patch-0000"]
    assert [row.uid for row in read_runs(uri, "patch", "mine")] == ["patch-0000"]
    assert read_runs(uri, "patch", "another's") == [] and read_runs(uri, "nothing") == []
    found = read_run(uri, run)
    assert found is not None and found.uid == "patch-0000"
    assert read_run(uri, other) is None, "it is none of ours"
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert read_runs(None, "patch") == [] and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "read",
    [
        lambda uri: read_runs(uri, "patch"),
        lambda uri: read_aliases(uri, "champion"),
        lambda uri: read_model_state(uri, MODEL),
        lambda uri: read_run(uri, "0" * 32),
    ],
    ids=["runs", "aliases", "model", "run"],
)
def test_a_store_that_is_away_is_one_line(read: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(WorkError) as refused:
        read("http://me:hunter2@127.0.0.1:9")
    line = str(refused.value)
    assert line.startswith("tracking.uri: http://me:***@127.0.0.1:9: ") and "hunter2" not in line and "\n" not in line


def test_the_newest_sweep_is_found_without_mlflow(
    new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = new_store("views")
    client = connect(uri)
    assert newest_sweep(uri) is None
    for name in ("first", "second"):
        client.create_experiment(name, tags={VIEW_TAG: "{}"})
    client.create_experiment("somebody else's")

    def refused(*_: Any) -> None:
        raise AssertionError("MLflow takes seconds to import")

    monkeypatch.setattr(read, "mlflow_module", refused)
    found = newest_sweep(uri)
    assert found is not None and found[0] == "second"
    monkeypatch.undo()
    assert newest_in_file(tmp_path / "none.db") is None
