"""report.html while a sweep runs: there from the start, new as trials end, reloaded, and never in the sweep's way."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from platform.base.terminal import WARNING
from platform.config.identity import StudyIdentity
from platform.run.sweep_context import SweepContext
from platform.search.study import Study, open_list, read_study
from platform.sweeps import live_report as module
from platform.sweeps.live_report import LiveReport
from types import SimpleNamespace

import pytest

from tests.platform.small_sweep import SmallSweep, said


@dataclass
class Live:
    """A live report of the small sweep, or of one without trials, and what it handed on."""

    sweep: SweepContext
    studies: list[Study]
    files: list[Path] = field(default_factory=list)

    def report(self) -> LiveReport:
        return LiveReport(self.sweep, *self.studies, "the command", None, self.files.append)


@pytest.fixture(params=["small", "empty"])
def live(request: pytest.FixtureRequest, small_once: SmallSweep, tmp_path: Path) -> Iterator[Live]:
    url = f"sqlite:///{small_once.store.study}"
    names = ["small", "small.confirm"]
    studies = (
        [read_study(name, url) for name in names]
        if request.param == "small"
        else [open_list(name, f"sqlite:///{tmp_path}/study.db", StudyIdentity()) for name in names]
    )
    with small_once.context(tmp_path / "records") as sweep:
        sweep.paths = type(sweep.paths)(tmp_path / "small")
        yield Live(sweep, studies)
    for study in studies:
        study.close()


def test_the_page_is_there_from_the_start_and_reloads_itself(live: Live) -> None:
    report = live.report()
    report.write_if_due(True)
    report.close()
    (page,) = live.files
    text = page.read_text(encoding="utf-8")
    assert page == live.sweep.paths.report and WARNING not in said(live.sweep)
    assert '<meta http-equiv="refresh" content="60">' in text and "no verdict yet" in text


@pytest.mark.parametrize("live", ["small"], indirect=True)
class TestPace:
    """When a report is written again, and what stops none."""

    def test_a_young_report_is_left(self, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "write_report", lambda found, folder: [folder / "report.html"])
        report = live.report()
        report.write_if_due(True)
        report._thread.join()
        report.write_if_due(True)
        assert len(live.files) == 1
        report._next = time.monotonic()
        report.write_if_due(True)
        report.close()
        report.write_if_due(True)
        assert len(live.files) == 2, "a minute later, and none after the end"

    def test_what_came_too_early_is_written_after_an_epoch(self, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "write_report", lambda found, folder: [folder / "report.html"])
        report = live.report()

        def written(news: bool, due: bool) -> int:
            report._next = time.monotonic() + (0 if due else 1000)
            report.write_if_due(news)
            if report._thread.is_alive():
                report._thread.join()
            return len(live.files)

        assert written(news=False, due=True) == 0
        assert written(news=True, due=True) == 1
        assert written(news=True, due=False) == 1
        assert written(news=False, due=True) == 2, "after an epoch, what came too early"
        assert written(news=False, due=True) == 2

    def test_a_busy_machine_does_not_stretch_the_pace(self, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        wall, processor = iter([0.0, 0.0, 900.0]), iter([0.0, 2.0])
        clocks = SimpleNamespace(monotonic=lambda: next(wall), thread_time=lambda: next(processor))
        monkeypatch.setattr(module, "time", clocks)
        monkeypatch.setattr(module, "write_report", lambda found, folder: [folder / "report.html"])
        report = live.report()
        report.write_if_due(True)
        report._thread.join()
        assert report._next == 900 + module.SHARE * 2

    def test_what_goes_wrong_is_a_warning(self, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(module, "write_report", broken)
        report = live.report()
        report.write_if_due(True)
        report.close()
        assert "warning: the report of the running sweep was not written (no space left)" in said(live.sweep)
