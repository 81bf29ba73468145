"""What happens to a trial, as the screen, the records and the clock are told of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from platform.base.terminal import TrialTable
from platform.config.identity import StudyIdentity
from platform.run.sweep_context import SweepContext
from platform.run.trial_listener import TrialListener
from platform.search.confirm import CAM_BASELINE
from platform.search.study import State, Study, TrialRow, open_list

import pytest

from cpn.core.files import write_bytes
from cpn.core.run_files import CHECKPOINTS, epoch_folder
from tests.platform.small_sweep import SmallSweep, recorded, said


@dataclass
class Told:
    """One waiting trial, and all who hear of it."""

    sweep: SweepContext
    study: Study
    row: TrialRow
    listener: TrialListener
    records: Path

    def kinds(self) -> list[str]:
        """The kinds of the trial's records."""
        return [event["kind"] for event in recorded(self.records) if event["uid"] == self.row.uid]


def told_of(small: SmallSweep, folder: Path, role: str) -> Iterator[Told]:
    study = open_list("small", f"sqlite:///{folder}/study.db", StudyIdentity())
    study.enqueue([{"values": {"patches.p_h": 0.25}, "seed": 7, "role": role}])
    row = study.ask()
    assert row is not None
    with small.context(folder / "records") as sweep:
        table = TrialTable(sweep.terminal, "search", 3, 2)
        yield Told(sweep, study, row, TrialListener(sweep, study, table), folder / "records")
    study.close()


@pytest.fixture
def told(small_once: SmallSweep, tmp_path: Path) -> Iterator[Told]:
    yield from told_of(small_once, tmp_path, "search")


def test_a_start_is_shown_timed_and_recorded(told: Told) -> None:
    told.listener.started(told.row.uid)
    assert f"  {told.row.uid}  started  " in said(told.sweep)
    (start,) = recorded(told.records, "start")
    assert (start["uid"], start["tags"]["run_key"]) == (told.row.uid, told.sweep.key(told.row))
    assert start["params"]["patches.p_h"] == "0.25" and told.row.uid in told.sweep.clock.trial_hours


def test_who_watches_hears_of_starts_epochs_and_ends(told: Told) -> None:
    heard: list[bool] = []
    told.sweep.changed = heard.append
    told.listener.started(told.row.uid)
    told.listener.reported(told.row.uid, {"epoch": 1, "loss_total": 0.5})
    told.study.tell(told.row.uid, State.FAIL, reason="x")
    told.listener.ended(told.row.uid)
    assert heard == [True, False, True]


def test_epochs_are_recorded_and_other_reports_are_not(told: Told) -> None:
    told.listener.reported(told.row.uid, {"superpixels": (1, 2)})
    told.listener.reported(told.row.uid, {"epoch": 1, "loss_total": 0.5, "miou_epoch": 40.0, "other": 1.0})
    told.listener.reported(told.row.uid, {"epoch": 2, "miou": 41.0, "loss_total": 0.4})
    told.listener.reported(told.row.uid, {"epoch": 2, "failed": "x"})
    (metrics,) = recorded(told.records, "metrics")
    assert (metrics["step"], metrics["values"]) == (1, {"loss_total": 0.5, "miou_epoch": 40.0})


def test_what_a_trial_draws_after_an_epoch_is_recorded_once(told: Told) -> None:
    told.listener.started(told.row.uid)
    folder = told.sweep.folder(told.row)
    for epoch in (1, 2, 1):  # the first one comes again after a resume
        write_bytes(epoch_folder(folder, epoch) / "a.png", b"")
        report = {"epoch": epoch, "time": 100.0 + epoch, "loss_total": 0.5}
        told.listener.reported(told.row.uid, report)
    first, second = recorded(told.records, "images")
    assert (first["step"], second["step"]) == (1, 2) and second["time"] == 102_000
    named = (told.records / first["images"]["cam/a"]).resolve()
    assert named == (epoch_folder(folder, 1) / "a.png").resolve()


def test_no_image_is_recorded_where_none_is_wanted(told: Told) -> None:
    tracking = told.sweep.spec.tracking.model_copy(update={"images": False})
    told.sweep.spec = told.sweep.spec.model_copy(update={"tracking": tracking})
    assert not told.sweep.setup(1).images and told.sweep.drawn_after_epochs() == []
    told.listener.started(told.row.uid)
    write_bytes(epoch_folder(told.sweep.folder(told.row), 3) / "a.png", b"")
    told.listener.reported(told.row.uid, {"epoch": 3, "time": 103.0, "loss_total": 0.5})
    assert "images" not in told.kinds()


def test_what_the_gpu_did_is_recorded_by_the_minute(told: Told) -> None:
    samples = [{"time": 60.0 * minute, "system/gpu_0_utilization_percentage": 90.0 + minute} for minute in (5, 6, 7)]
    told.listener.reported(told.row.uid, {"epoch": 1, "loss_total": 0.5, "minutes": samples[:2]})
    told.listener.reported(told.row.uid, {"epoch": 2, "miou": 41.0, "minutes": samples[1:]})
    reports = [event["points"] for event in recorded(told.records, "series")]
    key = "system/gpu_0_utilization_percentage"
    assert [[(step, time, values[key]) for step, values, time in points] for points in reports] == [
        [(5, 300_000, 95.0), (6, 360_000, 96.0)], [(7, 420_000, 97.0)],
    ], "a report is one record"  # fmt: skip


def test_a_note_is_a_warning(told: Told) -> None:
    told.listener.reported(told.row.uid, {"epoch": 1, "note": "read again"})
    assert said(told.sweep) == f"warning: {told.row.uid}: read again\n"


def test_a_trial_that_can_go_on_has_no_end(told: Told) -> None:
    assert told.sweep.claims.take(told.row.uid, "key")
    told.listener.started(told.row.uid)
    told.listener.ended(told.row.uid)
    assert "resumable" in said(told.sweep) and "end" not in told.kinds()
    assert told.row.uid not in told.sweep.claims._held, "another sweep may make the run"


def test_a_pruned_trial_loses_its_checkpoints(told: Told) -> None:
    checkpoints = told.sweep.folder(told.row) / CHECKPOINTS
    (checkpoints / "epoch_0001").mkdir(parents=True)
    told.study.tell(told.row.uid, State.PRUNED, reason="others were better")
    told.listener.started(told.row.uid)
    told.listener.ended(told.row.uid)
    assert not checkpoints.exists() and "pruned  others were better" in said(told.sweep)
    (end,) = recorded(told.records, "end")
    assert (end["uid"], end["status"]) == (told.row.uid, "FINISHED")


@pytest.mark.parametrize(("role", "best"), [("search", "best 50.0"), (CAM_BASELINE, "")], ids=["search", "baseline"])
def test_the_baseline_is_never_the_best(small_once: SmallSweep, tmp_path: Path, role: str, best: str) -> None:
    for told in told_of(small_once, tmp_path, role):
        told.study.tell(told.row.uid, State.COMPLETE, 50.0)
        told.listener.ended(told.row.uid)
        line = said(told.sweep).splitlines()[-1]
        assert "complete  miou 50.0" in line and ("best" in line) is bool(best) and best in line


def test_the_end_of_pruning_is_said_and_recorded(told: Told) -> None:
    told.listener.pruning_off("pruning is off")
    assert said(told.sweep) == "pruning is off\n"
    assert any("pruning is off" in str(event) for event in recorded(told.records))
