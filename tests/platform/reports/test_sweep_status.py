"""What a sweep's record, study and summary say about its state; they are only read."""

import gc
import time
from dataclasses import asdict, replace
from pathlib import Path
from platform.base.lock import driving, read_driver
from platform.base.paths import Storage, storage
from platform.base.yaml_files import dump_yaml
from platform.reports.sweep_status import first_files, status, sweep_names
from platform.search.trial_row import WORTH

import optuna
import pytest

from cpn.core.errors import WorkError
from cpn.core.files import write_json
from tests.platform.made_sweep import make_sweep
from tests.platform.test_status import COMMAND, STATES, make, make_study


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    return storage(str(tmp_path / "sweeps"))


def test_trials_are_counted_and_a_pruned_one_is_never_the_best(store: Storage) -> None:
    make_study(store, "patch", STATES)
    make_study(store, "patch.confirm", [("COMPLETE", 1.0), ("COMPLETE", 2.0), ("WAITING", None)])
    make(store, "patch", budget={"trials": 8})
    found = status(store, "patch")
    assert (found.complete, found.pruned, found.failed, found.unfinished, found.budget) == (2, 1, 1, 2, 8)
    assert (found.best, found.best_uid, found.confirm_runs) == (55.5, "patch-0001", 2)
    assert (found.state, found.champion) == ("finished", None)
    (note,) = found.notes
    assert "summary.json: is missing, though the sweep has finished" in note


def test_that_the_search_ended_early_is_told(store: Storage) -> None:
    make_study(store, "patch", STATES)
    make(store, "patch")
    assert status(store, "patch").stopped is None
    study = optuna.load_study(study_name="patch", storage=f"sqlite:///{store.study}")
    study.set_user_attr(WORTH, {"words": "another 8 GPU-hours: stopping"})
    assert status(store, "patch").stopped == "another 8 GPU-hours: stopping"


def test_of_equal_trials_the_earlier_is_the_best(store: Storage) -> None:
    make_study(store, "patch", [("COMPLETE", 50.0), ("COMPLETE", 50.0)])
    make(store, "patch")
    assert status(store, "patch").best_uid == "patch-0000"


@pytest.mark.parametrize(
    ("when", "better", "champion"),
    [("always", False, "patch-0001"), ("better", False, None), ("better", True, "patch-0001")],
)
def test_the_champion_is_what_was_promoted(store: Storage, when: str, better: bool, champion: str | None) -> None:
    make_study(store, "patch", [])
    make(store, "patch", promote={"when": when})
    write_json(store.sweep("patch").summary, {"winner": "patch-0001", "better": better, "verdict": "not tested"})
    assert (status(store, "patch").champion, status(store, "patch").verdict) == (champion, "not tested")


def test_running_stopped_killed_failed(store: Storage) -> None:
    make_study(store, "patch", [])
    paths = store.sweep("patch")
    with driving(paths, "patch", COMMAND):
        assert status(store, "patch").state == "running"
        me = read_driver(paths)
        assert me is not None
        write_json(paths.driver, asdict(replace(me, host="elsewhere")))
        assert status(store, "patch").state == "running"
        assert status(store, "patch").notes == ["as its record says; elsewhere cannot be looked at from here"]
        write_json(paths.driver, asdict(replace(me, ticks=me.ticks - 1)))
        assert status(store, "patch").state == "stopped"
        assert status(store, "patch").notes == [f"process {me.pid} on {me.host} was killed"]
    with pytest.raises(WorkError), driving(paths, "patch", COMMAND):
        raise WorkError("no trial finished")
    assert (status(store, "patch").state, status(store, "patch").notes) == ("failed", ["no trial finished"])


def test_without_a_record_the_summary_tells_the_state(store: Storage) -> None:
    """A sweep of an earlier version."""
    make_study(store, "patch", [])
    store.sweep("patch").root.mkdir()
    store.sweep("patch").lock.write_text("4711")
    assert status(store, "patch").state == "stopped"
    write_json(store.sweep("patch").summary, {"winner": "patch-0000", "verdict": "not tested"})
    assert status(store, "patch").state == "finished"


def test_it_reads_only(store: Storage) -> None:
    make_study(store, "patch", STATES)
    make(store, "patch")
    gc.collect()  # a connection that is closed only now would still move SQLite's journal into the file
    files = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file() and "study.db-" not in p.name}
    status(store, "patch")
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file() and "study.db-" not in p.name} == files


def test_a_running_sweep_tells_how_far_it_is(store: Storage) -> None:
    make_study(store, "patch", [])
    paths = store.sweep("patch")
    progress = {"phase": "confirm", "done": 3, "runs": 9, "left": 600.0, "at": time.time() - 100}
    with driving(paths, "patch", COMMAND):
        dump_yaml(paths.spec, {"name": "patch", "resources": {"workers": 2}})
        write_json(paths.clock, {"seconds": 99.0, "trials": {"patch-0000": 3600.0}, "progress": progress})
        found = status(store, "patch")
    assert (found.phase, found.phase_done, found.phase_runs) == ("confirm", 3, 9)
    assert (found.hours, found.hours_unit) == (2.0, "GPU-hours")
    assert found.seconds_left is not None and found.seconds_left <= 500.0, "it has fallen since"
    ended = status(store, "patch")
    assert (ended.phase, ended.seconds_left, ended.hours) == (None, None, 2.0)


def test_damaged_hours_are_a_note(store: Storage) -> None:
    make_study(store, "patch", [])
    make(store, "patch")
    store.sweep("patch").clock.write_text("{")
    found = status(store, "patch")
    assert found.hours is None and "clock.json" in "".join(found.notes)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_sweep_is_known_by_each_of_its_first_files(tmp_path: Path, lost: int) -> None:
    store = make_sweep(tmp_path, "known", 1)
    first_files(store.sweep("known"))[lost].unlink()
    assert sweep_names(store) == ["known"]
    for file in first_files(store.sweep("known")):
        file.unlink(missing_ok=True)
    assert sweep_names(store) == []
