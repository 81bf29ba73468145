"""Which trials are open, which runs are taken over, and what a start makes good. On Ray: tests/test_smoke.py."""

from pathlib import Path
from platform.cluster.interruption import Interruption
from platform.config.identity import StudyIdentity
from platform.config.sections import Pruning
from platform.run import trial_loop
from platform.run.sweep_context import SweepContext
from platform.run.trial_listener import TrialListener
from platform.run.trial_loop import find_reusable_run, has_open_trials, reconcile, report_interruption
from platform.search.study import State, Study, open_list, read_study
from platform.tracking.recorder import Recorder

import pytest

from cpn.core.errors import InputError
from cpn.core.files import read_json, write_json
from cpn.core.run_files import RESULT
from tests.platform.small_sweep import SmallSweep, recorded, said


def test_trials_are_open_until_all_have_ended(tmp_path: Path) -> None:
    study = open_list("s", f"sqlite:///{tmp_path}/study.db", StudyIdentity())
    assert not has_open_trials(study, None) and has_open_trials(study, 1)
    study.enqueue([{"values": {}, "seed": 0, "role": "search"}])
    assert has_open_trials(study, None), "it waits"
    row = study.ask()
    assert row is not None and has_open_trials(study, 1), "it runs"
    study.tell(row.uid, State.FAIL, reason="x")
    assert not has_open_trials(study, None) and not has_open_trials(study, 1) and has_open_trials(study, 2)


def test_a_finished_run_is_taken_as_it_is(small_once: SmallSweep, tmp_path: Path) -> None:
    row = small_once.row("small-0001")
    with small_once.context(tmp_path) as sweep:
        found = find_reusable_run(sweep, row)
        assert find_reusable_run(sweep, small_once.row("small-0006")) is None
    key = small_once.folder(row).name
    assert found is not None and (found["run_key"], found["reused_from"], found["seconds"]) == (key, key, 0.0)
    assert (found["epoch"], found["miou"], found["beta"], found["reports"]) == (1, 61.0, 0.5, {})


def test_epochs_of_a_reused_run_are_reports(small_once: SmallSweep, tmp_path: Path) -> None:
    row = small_once.row("small-0001")
    path = small_once.folder(row) / RESULT
    before = read_json(path)
    history = [{"epoch": 1, "miou_epoch": 40.0}, {"epoch": 2, "miou_epoch": None}, {"epoch": 3, "miou_epoch": 42.0}]
    write_json(path, {**before, "history": history})
    try:
        with small_once.context(tmp_path) as sweep:
            found = find_reusable_run(sweep, row)
    finally:
        write_json(path, before)
    assert found is not None and (found["epoch"], found["reports"]) == (3, {1: 40.0, 3: 42.0})


def test_a_run_without_the_objective_is_refused(small_once: SmallSweep, tmp_path: Path) -> None:
    with small_once.context(tmp_path, objective="mask_free") as sweep:
        with pytest.raises(InputError, match="an earlier version left mask_free out of this run; delete the folder"):
            find_reusable_run(sweep, small_once.row("small-0001"))


def test_ends_that_a_kill_swallowed_are_recorded(small_once: SmallSweep, tmp_path: Path) -> None:
    trials = read_study("small", f"sqlite:///{small_once.store.study}")
    with small_once.context(tmp_path / "records") as sweep:
        recorder = sweep.records._recorder
        assert isinstance(recorder, Recorder)
        recorder.start("small-0000", name="x")
        recorder.end("small-0000", "FINISHED")
        reconcile(sweep, recorder, trials)
        ends = {event["uid"]: event["status"] for event in recorded(tmp_path / "records", "end")}
        (last,) = recorded(tmp_path / "records", "reconcile")
    assert ends == {**{f"small-000{n}": "FINISHED" for n in range(5)}, "small-0005": "FAILED"}
    starts = [event["uid"] for event in recorded(tmp_path / "records", "start")]
    assert starts.count("small-0000") == 1, "its end had been said"
    assert last["alive"] == ["small-0006", "small.sweep"]


@pytest.mark.parametrize(("signal", "code"), [(15, 143), (2, 130), (None, 130)], ids=str)
def test_a_signal_gives_its_exit_code(small_once: SmallSweep, tmp_path: Path, signal: int | None, code: int) -> None:
    interruption = Interruption()
    interruption.signal = signal
    with small_once.context(tmp_path) as sweep:
        assert report_interruption(sweep.terminal, interruption, "the command") == code
        assert said(sweep) == "stopped; every trial can go on: the command\n"


def test_the_end_of_a_search_leaves_confirm_runs_and_stages(
    small_once: SmallSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(trials: Study, setup: object, *, listener: TrialListener, **_: object) -> None:
        row = trials.ask()
        assert row is not None
        listener.started(row.uid)
        listener.reported(row.uid, {"epoch": 1, "miou_epoch": 40.0, "loss_total": 1.0})
        trials.tell(row.uid, State.COMPLETE, 50.0)
        listener.ended(row.uid)

    monkeypatch.setattr(trial_loop, "run_trials", run)
    monkeypatch.setattr(SweepContext, "cluster", lambda self: [{"CPU": 2.0}])
    study = open_list("small", f"sqlite:///{tmp_path}/study.db", StudyIdentity())
    study.enqueue([{"values": {"patches.p_h": 0.25}, "seed": 7, "role": "search"}])
    with small_once.context(tmp_path / "records") as sweep:
        trial_loop.run_open_trials(sweep, study, "small: search", 1, Pruning(kind="none"), None)
        assert "1 of 1 trials, sweep about" in said(sweep)
        told = read_json(sweep.paths.clock)["progress"]
    assert (told["phase"], told["done"], told["runs"]) == ("search", 1, 1) and told["left"] > 0
