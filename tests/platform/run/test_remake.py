"""Runs whose files are damaged or gone are found, and made again. Ray's part of it stands in this process."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from platform.base.paths import Storage
from platform.run import sweep_context, trial_loop
from platform.run.remake import READ, lost_runs, remake
from platform.run.sweep_context import SweepContext
from platform.search.study import State, Study, TrialRow, read_study
from typing import Any

import pytest

from cpn.core.errors import WorkError
from cpn.core.run_files import COUNTS, MODEL, RESULT
from tests.platform.small_sweep import SmallSweep, said


@pytest.fixture
def sweep(small_once: SmallSweep, tmp_path: Path) -> Iterator[SweepContext]:
    """A copy of the small sweep, to be damaged."""
    shutil.copytree(small_once.store.root, tmp_path / "sweeps")
    with small_once.context(tmp_path / "records", Storage(tmp_path / "sweeps")) as sweep:
        yield sweep


def row_of(small: SmallSweep, uid: str = "small-0003") -> TrialRow:
    return small.row(uid)


@pytest.mark.parametrize("name", [RESULT, MODEL, COUNTS])
def test_a_run_that_lacks_a_file_is_lost(small_once: SmallSweep, sweep: SweepContext, name: str) -> None:
    assert lost_runs(sweep, small_once.rows, None) == []
    row = row_of(small_once)
    (sweep.folder(row) / name).unlink()
    assert lost_runs(sweep, small_once.rows, None) == [row] == lost_runs(sweep, [row], None)
    line = f"warning: {row.uid}: {sweep.folder(row) / name} is missing or damaged; it is made again\n"
    assert said(sweep).count(line) == 1


def test_only_files_that_are_read_count(small_once: SmallSweep, sweep: SweepContext) -> None:
    """The network of a confirm run may have been let go of."""
    row = row_of(small_once)
    (sweep.folder(row) / MODEL).unlink()
    assert lost_runs(sweep, [row], READ) == []
    (sweep.folder(row) / COUNTS).write_bytes(b"other")
    assert lost_runs(sweep, [row], READ) == [row]


@pytest.fixture
def ray_is(monkeypatch: pytest.MonkeyPatch, sweep: SweepContext) -> Callable[[float, Callable[[TrialRow], None]], None]:
    """Put one in the place of Tune that ends each open trial with a value, after it has made its files."""

    def stand_in(value: float, make: Callable[[TrialRow], None]) -> None:
        def run_trials(study: Study, setup: Any, **_: Any) -> None:
            while (row := study.ask()) is not None:
                make(row)
                study.tell(row.uid, State.COMPLETE, value)

        monkeypatch.setattr(sweep_context, "ray_cluster", lambda *_: nullcontext([{"CPU": 1.0}]))
        monkeypatch.setattr(trial_loop, "run_trials", run_trials)

    return stand_in


def damaged(small: SmallSweep, sweep: SweepContext) -> tuple[TrialRow, str, Study, Callable[[TrialRow], None]]:
    """A row without its counts, the study, and what puts them back."""
    row, url = row_of(small), f"sqlite:///{sweep.store.study}"
    path = sweep.folder(row) / COUNTS
    content = path.read_bytes()
    path.unlink()
    return row, url, read_study("small", url), lambda _: path.write_bytes(content) and None


@pytest.mark.parametrize(("value", "warned"), [(39.0, False), (39.00001, False), (40.0, True)], ids=str)
def test_what_is_made_again_is_compared(
    small_once: SmallSweep, sweep: SweepContext, ray_is: Any, value: float, warned: bool
) -> None:
    row, url, trials, put_back = damaged(small_once, sweep)
    ray_is(value, put_back)
    assert remake(sweep, url, trials, [row])
    line = f"{row.uid}: made again, it has {value:.4f} where the study has 39.0000 (another machine?)"
    assert (line in said(sweep)) is warned
    (again,) = read_study("small.again", url).rows()
    assert (again.values, again.seed, again.role) == (row.values, row.seed, "again")
    assert (again.attrs["of"], again.attrs["before"]) == (row.uid, 0)
    assert read_study("small", url).row(row.uid).miou == 39.0, "the study keeps what it has"


def test_what_is_lost_twice_is_made_twice(small_once: SmallSweep, sweep: SweepContext, ray_is: Any) -> None:
    row, url, trials, put_back = damaged(small_once, sweep)
    ray_is(39.0, put_back)
    remake(sweep, url, trials, [row])
    remake(sweep, url, trials, [row])
    assert [entry.attrs["before"] for entry in read_study("small.again", url).rows()] == [0, 1]


def test_what_cannot_be_made_again_is_an_error(small_once: SmallSweep, sweep: SweepContext, ray_is: Any) -> None:
    row, url, trials, _ = damaged(small_once, sweep)
    ray_is(39.0, lambda row: None)
    with pytest.raises(WorkError, match="could not be made again .*; start anew: --set name=NEW"):
        remake(sweep, url, trials, [row])


def test_a_signal_leaves_it_for_the_next_start(small_once: SmallSweep, sweep: SweepContext, ray_is: Any) -> None:
    row, url, trials, _ = damaged(small_once, sweep)

    def interrupted(_: TrialRow) -> None:
        sweep.interruption.signal = 15

    ray_is(39.0, interrupted)
    assert not remake(sweep, url, trials, [row])
