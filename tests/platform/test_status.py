"""What `status` says about sweeps that were started, killed, refused or finished; it only reads."""

import gc
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from platform import status as command
from platform.base.lock import driving, read_driver
from platform.base.paths import Storage, storage
from platform.base.yaml_files import dump_yaml
from platform.reports.sweep_status import status
from platform.search.study_store import connect
from platform.status import main
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from cpn.core.errors import InputError, WorkError
from cpn.core.files import write_json
from tests.conftest import CHECKOUT

COMMAND = "python -m platform.sweep s.yaml"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    return storage(str(tmp_path / "sweeps"))


def make_study(store: Storage, name: str, states: list[tuple[str, float | None]]) -> None:
    """A study with trials in these states and with these values."""
    database = connect(f"sqlite:///{store.study}", create=True)
    study = optuna.create_study(study_name=name, storage=database, direction="maximize")
    study.set_user_attr("identity", {"metric": "miou"})
    for state, value in states:
        study.add_trial(create_trial(state=TrialState[state], value=value))


def make(store: Storage, name: str, **spec: Any) -> None:
    """A sweep that was started and has come to its end."""
    paths = store.sweep(name)
    with driving(paths, name, COMMAND):
        dump_yaml(paths.spec, {"name": name, **spec})


STATES = [
    ("COMPLETE", 40.0),
    ("COMPLETE", 55.5),
    ("PRUNED", 99.0),
    ("FAIL", None),
    ("RUNNING", None),
    ("WAITING", None),
]


def test_trials_are_counted_and_a_pruned_one_is_never_the_best(store: Storage) -> None:
    make_study(store, "patch", STATES)
    make_study(store, "patch.confirm", [("COMPLETE", 1.0), ("COMPLETE", 2.0), ("WAITING", None)])
    make(store, "patch", budget={"trials": 8})
    found = status(store, "patch")
    assert (found.complete, found.pruned, found.failed, found.unfinished, found.budget) == (2, 1, 1, 2, 8)
    assert (found.best, found.best_uid, found.confirm_runs) == (55.5, "patch-0001", 2)
    assert (found.state, found.champion, found.notes) == ("finished", None, [])


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


def test_without_a_record_the_summary_says_whether_it_is_finished(store: Storage) -> None:
    """A sweep of an earlier version."""
    make_study(store, "patch", [])
    store.sweep("patch").root.mkdir()
    store.sweep("patch").lock.write_text("4711")
    assert status(store, "patch").state == "stopped"
    write_json(store.sweep("patch").summary, {"winner": "patch-0000", "verdict": "not tested"})
    assert status(store, "patch").state == "finished"


def test_one_sweep_in_trouble_hides_no_other(
    store: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(store, "good", [("COMPLETE", 40.0)])
    make(store, "good")
    make(store, "none")
    make(store, "masked", tracking={"study": "postgresql://me:***@db/studies"})
    make(store, "bad")
    store.sweep("bad").spec.write_text("\tname: x")
    assert main(["--storage", str(store.root), "--json"]) == 0
    found = {row["sweep"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(found) == ["bad", "good", "masked", "none"]
    assert (found["good"]["best"], found["none"]["complete"]) == (40.0, 0)
    assert found["bad"]["complete"] is None and "a tab indents this line" in found["bad"]["notes"][0]
    assert "set CPN_STUDY_URL to the whole of postgresql://me:***@db/studies" in found["masked"]["notes"][0]
    monkeypatch.setenv("CPN_STUDY_URL", f"sqlite:///{store.study}")
    assert status(store, "masked").complete == 0


def test_the_table(store: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(store, "patch", STATES)
    with driving(store.sweep("patch"), "patch", COMMAND) as held:
        dump_yaml(store.sweep("patch").spec, {"name": "patch", "budget": {"trials": 8}})
        main(["patch", "--storage", str(store.root)])
        running = capsys.readouterr().out
        held.code = 130
    main(["patch", "--storage", str(store.root)])
    stopped = capsys.readouterr().out
    assert "2 complete, 1 pruned, 1 failed, 2 unfinished of 8" in running and "miou 55.5 (patch-0001)" in running
    assert f"to stop it: python -m platform.stop patch --storage {store.root}" in running
    assert stopped.splitlines()[-1] == f"next: {COMMAND}"


def test_nothing_there(store: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="^--storage: .*sweeps is no folder; run a sweep first"):
        main(["--storage", str(store.root)])
    store.cache.mkdir(parents=True)
    assert main(["--storage", str(store.root)]) == 0
    assert "no sweep in" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"^other: no such sweep in .* \(there are: none\)"):
        main(["other", "--storage", str(store.root)])


def test_it_reads_only(store: Storage) -> None:
    make_study(store, "patch", STATES)
    make(store, "patch")
    gc.collect()  # a connection that is closed only now would still move SQLite's journal into the file
    files = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file() and "study.db-" not in p.name}
    status(store, "patch")
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file() and "study.db-" not in p.name} == files


def test_it_starts_without_the_heavy_packages() -> None:
    code = (
        f"import sys, {command.__name__}, platform.search.study_store; "
        "import platform.base.terminal, platform.base.yaml_files; "
        + ("print([name for name in ('torch', 'ray', 'mlflow', 'scipy') if name in sys.modules])")
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
