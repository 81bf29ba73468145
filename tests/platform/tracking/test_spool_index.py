"""What a spool has told about runs: answers like the whole file's, in little memory."""

import tracemalloc
from pathlib import Path
from platform.tracking import spool
from platform.tracking.spool import Spool
from platform.tracking.spool_index import AT_ONCE, SpoolIndex

import pytest

RUNS, EPOCHS, KEYS = 200, 8, 14


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of records, of which no disk has to be sure."""
    monkeypatch.setattr(spool.os, "fsync", lambda file: None)


def told(folder: Path) -> SpoolIndex:
    """The memory of the spool in a folder."""
    recall = SpoolIndex()
    recall.spool = Spool(folder, "store", recall.hear)
    return recall


def fill(recall: SpoolIndex, runs: int = RUNS) -> None:
    assert recall.spool is not None
    for number in range(runs):
        uid = f"patch-{number:04d}"
        recall.spool.append({"kind": "start", "uid": uid, "time": number})
        for step in range(EPOCHS):
            values = {f"loss_{key}": 0.5 for key in range(KEYS)}
            recall.spool.append({"kind": "metrics", "uid": uid, "time": number, "step": step, "values": values})
        recall.spool.append({"kind": "end", "uid": uid, "time": number})


def test_all_runs_are_answered_for_however_many_are_in_memory(tmp_path: Path) -> None:
    whole = {(step, f"loss_{key}") for step in range(EPOCHS) for key in range(KEYS)}
    recall = told(tmp_path)
    fill(recall, 3 * AT_ONCE)
    for recalled in (recall, None):
        if recalled is None:
            recall.spool.close()  # type: ignore[union-attr]
            recalled = told(tmp_path)
        for number in (0, 3 * AT_ONCE - 1, 7, 0):
            assert recalled.steps(f"patch-{number:04d}") == whole
        assert recalled.steps("unknown") == set() and recalled.latest == 3 * AT_ONCE - 1
        assert len(recalled.ended) == len(recalled.started) == 3 * AT_ONCE
    assert recalled.spool is not None
    recalled.spool.append({"kind": "start", "uid": "patch-0007", "time": 9})
    recalled.spool.append({"kind": "metrics", "uid": "patch-0007", "time": 9, "step": 99, "values": {"miou": 1.0}})
    assert "patch-0007" not in recalled.ended and recalled.steps("patch-0007") == whole | {(99, "miou")}


def test_a_run_costs_little_memory(tmp_path: Path) -> None:
    """It was 30 kB a trial."""
    recall = told(tmp_path)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    fill(recall)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / RUNS < 1500


def test_steps_of_a_series_are_known(tmp_path: Path) -> None:
    recall = told(tmp_path)
    assert recall.spool is not None
    assert recall.steps("a") == set()
    points = [[5, {"load": 1.0}, 300_000], [6, {"load": 2.0, "memory": 3.0}, 360_000]]
    recall.spool.append({"kind": "series", "uid": "a", "time": 360_000, "points": points})
    whole = {(5, "load"), (6, "load"), (6, "memory")}
    assert recall.steps("a") == whole
    recall.spool.close()
    assert told(tmp_path).steps("a") == whole
