"""What records do in a real MLflow store, and the rows that are read back."""

from collections.abc import Callable
from pathlib import Path
from platform.tracking import recorder as tracking
from platform.tracking import store as module
from platform.tracking.client import connect
from platform.tracking.read import read_runs
from platform.tracking.recorder import Recorder
from platform.tracking.store import run_names, run_row, run_rows
from types import SimpleNamespace
from typing import Any

import pytest

from tests.platform.tracking.test_recorder import rows


def test_a_value_is_kept_once_per_step_unless_revised(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    recorder.start("trial", name="trial")
    recorder.metrics("trial", 4, {"miou": 0.25, "loss": 1.0})
    recorder.close(60)
    recorder = Recorder(tmp_path / "records", uri, "patch")  # another process: what was told comes from the spool
    recorder.metrics("trial", 4, {"miou": 0.75, "lr": 0.1})
    recorder.metrics("trial", 5, {"miou": 0.5}, time=1.0)
    recorder.metrics("trial", 5, {"miou": 0.75}, time=2.0, revise=True)
    recorder.close(60)
    found = [(key, step, value) for key, step, value, _ in rows(uri)["trial"]["metrics"]]
    assert found == [("loss", 4, "1.0"), ("lr", 4, "0.1"), ("miou", 4, "0.25"), ("miou", 5, "0.5"), ("miou", 5, "0.75")]
    assert read_runs(uri, "patch")[0].metrics["miou"] == 0.75


def test_a_series_is_one_request_and_told_once(
    tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, requests = new_store("store"), []
    recorder = Recorder(tmp_path / "records", uri, "patch")
    recorder.start("trial", name="trial")
    recorder.flush(60)
    client = recorder._store.client  # type: ignore[union-attr]
    send = client.log_batch
    monkeypatch.setattr(client, "log_batch", lambda *args, **rows: (requests.append(rows), send(*args, **rows)))
    many = [(step, {"load": float(step), "memory": 1.0}, 60.0 * step) for step in range(200)]
    recorder.series("trial", many)
    recorder.series("trial", [*many[-2:], (200, {"load": float("nan")}, 12_000.0)])
    recorder.series("trial", many)
    recorder.close(60)
    assert [len(rows["metrics"]) for rows in requests] == [400, 1]
    found = rows(uri)["trial"]["metrics"]
    assert len(found) == 401 and ("load", 7, "7.0", 420_000) in found and ("load", 200, "nan", 12_000_000) in found


def test_reconcile_ends_what_is_not_alive(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    recorder = Recorder(tmp_path / "records", uri, "patch")
    for uid in ("sweep", "gone", "done", "alive"):
        recorder.start(uid, name=uid, time=1000.0)
    recorder.end("done", "FAILED")
    recorder.start("pruned", name="pruned", time=1000.0)
    recorder.close(60)
    (tmp_path / "records/events.jsonl").unlink()
    recorder = Recorder(tmp_path / "records", uri, "patch")  # its own spool knows nothing of those runs
    recorder.reconcile({"sweep", "alive"}, {"pruned": "FINISHED"})
    recorder.start("later", name="later")
    recorder.close(60)
    statuses = {row.uid: row.status for row in read_runs(uri, "patch")}
    assert statuses == {
        "sweep": "RUNNING", "alive": "RUNNING", "later": "RUNNING",
        "gone": "KILLED", "done": "FAILED", "pruned": "FINISHED",
    }  # fmt: skip


def test_a_clock_that_was_put_back_leaves_nothing_running(
    tmp_path: Path, new_store: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, now = new_store("store"), [2_000_000.0]
    monkeypatch.setattr(tracking, "clock", SimpleNamespace(time=lambda: now[0]))
    killed = Recorder(tmp_path / "records", uri, "patch")
    killed.start("gone", name="gone")
    killed.metrics("gone", 1, {"miou": 3.0})
    killed.close(60)
    now[0] -= 86400.0
    recorder = Recorder(tmp_path / "records", uri, "patch")
    recorder.reconcile(set())
    recorder.close(60)
    (row,) = read_runs(uri, "patch")
    assert row.status == "KILLED" and row.ended is not None and row.ended >= row.started


def test_two_experiments_in_one_store_do_not_touch_each_other(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    one, two = Recorder(tmp_path / "one", uri, "one"), Recorder(tmp_path / "two", uri, "two")
    for recorder in (one, two):
        recorder.start("sweep", name="same uid")
        recorder.flush(60)
    one.reconcile(set())
    one.metrics("sweep", 0, {"miou": 0.5})
    assert (one.close(60), two.close(60)) == (0, 0)
    assert [(row.status, row.metrics) for row in read_runs(uri, "one")] == [("KILLED", {"miou": 0.5})]
    assert [(row.status, row.metrics) for row in read_runs(uri, "two")] == [("RUNNING", {})]


def test_names_come_from_the_database_or_not_at_all(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    uri = new_store("store")
    client = connect(uri)
    experiment = client.create_experiment("patch")
    ours = client.create_run(experiment, tags={"uid": "patch-0000"}).info.run_id
    client.create_run(experiment)  # somebody's, without a uid
    gone = client.create_run(experiment, tags={"uid": "patch-0001"}).info.run_id
    client.delete_run(gone)
    assert run_names(uri, experiment) == [("patch-0000", ours)]
    assert run_names(uri, "no number") is None and run_names("http://127.0.0.1:9", experiment) is None
    assert run_names(f"sqlite:///{tmp_path}/empty.db", "0") is None
    assert [row.run_id for row in run_rows(client, experiment)] == [ours]


class Pages:
    """A client whose runs come in pages of two, the newest first."""

    def __init__(self, count: int) -> None:
        self.runs = [made_run(n) for n in range(count)][::-1]
        self.asked: list[Any] = []

    def search_runs(self, experiments: list[str], only: str, view: int, max_results: int, page_token: Any) -> Any:
        self.asked.append((experiments, only, view, page_token))
        start = int(page_token or 0)
        page = PageList(self.runs[start : start + 2])
        page.token = str(start + 2) if start + 2 < len(self.runs) else None
        return page


class PageList(list[Any]):
    token: str | None = None


def made_run(number: int, **tags: str) -> Any:
    named = {"uid": f"patch-{number:04d}"} if number != 1 else {}
    info = SimpleNamespace(run_id=f"r{number}", run_name="a run", status="FINISHED", start_time=1000 * number,
                           end_time=2000 * number)  # fmt: skip
    return SimpleNamespace(
        info=info, data=SimpleNamespace(tags={**named, **tags}, params={"a": "1"}, metrics={"m": 2.0})
    )


def test_rows_of_all_pages_come_oldest_first() -> None:
    client = Pages(5)
    found = run_rows(client, "7", "attributes.status = 'RUNNING'")
    assert [row.run_id for row in found] == ["r0", "r2", "r3", "r4"], "one has no uid"
    assert client.asked == [(["7"], "attributes.status = 'RUNNING'", module.ACTIVE, t) for t in (None, "2", "4")]


def test_times_are_seconds_and_a_run_that_runs_has_no_end() -> None:
    row = run_row(made_run(3, parent_uid="patch.sweep"))
    assert (row.uid, row.parent, row.started, row.ended) == ("patch-0003", "patch.sweep", 3.0, 6.0)
    assert (row.params, row.metrics) == ({"a": "1"}, {"m": 2.0})
    resumed = made_run(3)
    resumed.info.status = "RUNNING"
    assert run_row(resumed).ended is None and run_row(resumed).parent is None
