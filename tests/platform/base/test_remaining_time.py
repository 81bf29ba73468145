"""One remaining time: the price at first, running epochs after, the later phases in it, and no growth in silence."""

from platform.base import remaining_time as module
from platform.base.remaining_time import CONFIRM, SEARCH, PhaseProgress, Priced, RemainingTime, RunPrice
from types import SimpleNamespace

import pytest

PRICE = RunPrice(start=10.0, epoch=20.0, end=30.0, epochs=3)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, to be set."""
    at = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: at[0], time=lambda: at[0] + 1e9))
    return at


def sweep(at_once: int = 1) -> RemainingTime:
    """Four trials and two confirm runs of 100 s, two stages."""
    return RemainingTime({SEARCH: Priced(4, 100.0), CONFIRM: Priced(2, 100.0)}, {"cam": 5.0, "deeplab": 15.0}, at_once)


def test_the_price_of_everything_comes_first(now: list[float]) -> None:
    left = sweep()
    assert left.left() is None
    left.begin(SEARCH, 4)
    assert left.left() == 620.0
    now[0] += 100
    assert left.left() == 520.0, "it falls by the clock"


def test_running_epochs_correct_the_price_of_all_that_follows(now: list[float]) -> None:
    left = sweep()
    left.begin(SEARCH, 4)
    left.started("s-0000", PRICE)
    assert left.left() == 620.0 and left.run_left("s-0000") == 100.0
    now[0] += 60  # priced at 30
    left.reported("s-0000", 1)
    assert left.run_left("s-0000") == 140.0 and left.left() == 2 * (70 + 300 + 200 + 20)
    now[0] += 10
    assert left.run_left("s-0000") == 130.0 and left.left() == 1170.0


def test_before_the_first_report_earlier_starts_say_the_pace(now: list[float]) -> None:
    left = sweep()
    left.pace = 3.0
    left.begin(SEARCH, 4, done=2)
    assert left.left() == 3 * (200 + 200 + 20)
    left.started("s-0002", PRICE)
    now[0] += 60  # priced at 30: twice as long, and no longer three times
    left.reported("s-0002", 1)
    assert left.left() == 2 * (70 + 100 + 200 + 20)


def test_in_silence_it_falls_to_what_comes_later(now: list[float]) -> None:
    left = sweep()
    left.begin(SEARCH, 4)
    left.started("s-0000", PRICE)
    seen = []
    for _ in range(30):
        seen.append(left.left())
        now[0] += 50
    assert seen == sorted(seen, key=lambda value: -(value or 0)) and seen[-1] == 220.0


def test_pruned_trials_shorten_the_search_alone(now: list[float]) -> None:
    left = sweep()
    left.begin(SEARCH, 4)
    left.started("s-0000", PRICE)
    now[0] += 50
    left.reported("s-0000", 2)  # at the price: half of the run
    left.ended("s-0000", whole=False)
    assert left.left() == 3 * 50 + 200 + 20


def test_a_resumed_run_counts_what_is_new(now: list[float]) -> None:
    left = sweep()
    left.begin(SEARCH, 4, done=3)
    left.started("s-0003", PRICE, epoch=2)
    left.reported("s-0003", 1)
    now[0] += 20
    left.reported("s-0003", 3)
    assert left.run_left("s-0003") == 30.0 and left.left() == 30 + 220


def test_a_reused_run_is_done_and_a_resumable_one_is_not(now: list[float]) -> None:
    left = sweep()
    left.begin(SEARCH, 4)
    left.started("s-0000", PRICE)
    left.ended("s-0000", whole=False, counts=False)
    assert (left.snapshot().done, left.left()) == (0, 620.0)
    left.ended("s-0001", whole=True)
    assert (left.snapshot().done, left.left()) == (1, 520.0)


def test_runs_at_once_share_the_time(now: list[float]) -> None:
    left = sweep(at_once=2)
    left.begin(SEARCH, 4)
    assert left.left() == 200 + 100 + 20
    left.begin(SEARCH, 4, done=3)
    left.started("s-0003", PRICE)
    assert left.left() == 100 + 100 + 20


def test_stages_fall_as_they_go_and_are_counted_once(now: list[float]) -> None:
    left = sweep()
    left.begin(CONFIRM, 2, done=2)
    assert left.left() == 20.0
    left.stage("cam", 0.0)
    assert left.left() == 20.0 and left.snapshot().phase == "cam"
    now[0] += 4
    left.stage("cam", 0.5)
    assert left.left() == 4 + 15
    left.stage("cam", 1.0)
    left.stage("crf", 0.0)  # without a price
    assert left.left() == 15.0
    now[0] += 10
    left.stage("crf", 0.25)
    assert left.left() == 30 + 15
    left.stage("crf", 1.0)
    left.stage("deeplab", 1.0)
    assert left.left() == 0.0


def test_without_a_price_the_first_report_is_awaited(now: list[float]) -> None:
    left = RemainingTime({SEARCH: Priced(4, 0.0)}, known=False)
    left.begin(SEARCH, 4)
    left.started("s-0000", RunPrice(0.0, 1.0, 0.0, 2))
    assert left.left() is None and left.run_left("s-0000") is None
    now[0] += 30
    left.reported("s-0000", 1)
    assert left.run_left("s-0000") == 30.0 and left.left() == 30 + 3 * 60


def test_without_a_number_of_trials_the_hours_count(now: list[float]) -> None:
    left = RemainingTime({SEARCH: Priced(None, 100.0), CONFIRM: Priced(2, 100.0)})
    left.begin(SEARCH)
    assert left.left() is None
    left.most = 500.0
    left.begin(SEARCH)
    now[0] += 100
    left.started("s-0000", PRICE)
    assert left.left() == 400 + 200


def test_another_process_learns_how_far_it_is(now: list[float]) -> None:
    left = sweep()
    left.begin(SEARCH, 4, done=1)
    assert left.snapshot() == PhaseProgress(phase="search", done=1, runs=4, left=520.0, at=1000.0 + 1e9)
