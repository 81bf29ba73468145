"""What the command `status` prints of the sweeps of a storage folder."""

import json
from dataclasses import replace
from pathlib import Path
from platform.base.lock import driving
from platform.base.paths import Storage, storage
from platform.base.yaml_files import dump_yaml
from platform.reports.sweep_status import Status, status
from platform.search.study_store import connect
from platform.status import main, progress_words
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from cpn.core.errors import InputError

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
    assert found["bad"]["complete"] is None and "a tab stands in this line" in found["bad"]["notes"][0]
    assert "set CPN_STUDY_URL to the whole of postgresql://me:***@db/studies" in " ".join(found["masked"]["notes"])
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
    assert "2 complete, 1 pruned, 1 failed, 2 " in running and "unfinished of 8" in running
    assert "miou 55.5 (patch-0001)" in running
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


def test_how_far_a_running_sweep_is_is_one_line() -> None:
    row = Status("patch", "running", phase="search", phase_done=3, phase_runs=64, seconds_left=3723.0, hours=1.25)
    assert progress_words(row) == "patch: search, 3 of 64 runs, about 1:02:03 left; 1.25 GPU-hours so far"
    assert progress_words(replace(row, phase="deeplab", seconds_left=None)) == "patch: deeplab; 1.25 GPU-hours so far"
