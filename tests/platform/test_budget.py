"""The budget: each limit alone says why the search ends, and hours add up over restarts."""

from pathlib import Path
from platform import budget
from platform.budget import Clock, reached, stopper
from platform.spec import Budget
from platform.study import State, TrialRow
from types import SimpleNamespace
from typing import Any

import pytest

from cpn.files import read_json


def row(number: int, miou: float | None, state: State = State.COMPLETE, seconds: float = 0.0) -> TrialRow:
    return TrialRow(number, f"s-{number}", state, {}, 0, "search", miou, attrs={"seconds": seconds})


def rows(*mious: float | None) -> list[TrialRow]:
    """Finished trials in order; None is a failed one."""
    return [row(i, m, State.COMPLETE if m is not None else State.FAIL) for i, m in enumerate(mious)]


def test_without_limits_nothing_ends_the_search() -> None:
    assert reached(Budget(), rows(50.0, 40.0, 30.0), hours=1e6, gpus_per_trial=8) is None
    assert reached(Budget(trials=1), rows(50.0, 40.0), hours=0, gpus_per_trial=0) is None  # the searcher counts trials


@pytest.mark.parametrize(
    ("limits", "trials", "hours", "said"),
    [
        ({"failures": 2}, rows(50.0, None, 40.0, None), 0.0, "budget.failures: 2 trials failed"),
        ({"wall_hours": 2}, [], 2.0, "budget.wall_hours: 2.00 hours have passed"),
        ({"gpu_hours": 3}, [row(0, 1.0, seconds=1800), row(1, None, State.FAIL, seconds=900)], 0.0,
         "budget.gpu_hours: 3.00 GPU-hours are used"),
        ({"target_miou": 60}, rows(50.0, 60.0, 55.0), 0.0, "budget.target_miou: 60.0 is reached"),
        ({"plateau_trials": 2}, rows(50.0, 55.0, 54.0, 55.0), 0.0,
         "budget.plateau_trials: 2 trials without a new best"),
    ],
)  # fmt: skip
def test_each_limit_ends_the_search(limits: dict[str, Any], trials: list[TrialRow], hours: float, said: str) -> None:
    assert reached(Budget(**limits), trials, hours, gpus_per_trial=4) == said


@pytest.mark.parametrize(
    ("limits", "trials", "hours"),
    [
        ({"failures": 2}, rows(50.0, None, 40.0), 0.0),
        ({"wall_hours": 2}, [], 1.99),
        ({"gpu_hours": 3}, [row(0, 1.0, seconds=1800), row(1, None, State.RUNNING, seconds=9e9)], 0.0),
        ({"target_miou": 60}, rows(50.0, 59.9), 0.0),
        ({"plateau_trials": 2}, rows(50.0, 49.0, 55.0, 54.0), 0.0),
        ({"plateau_trials": 2}, rows(50.0, None, None, 40.0), 0.0),
        ({"plateau_trials": 1, "target_miou": 1}, rows(None), 0.0),
    ],
)
def test_before_its_limit_the_search_goes_on(limits: dict[str, Any], trials: list[TrialRow], hours: float) -> None:
    assert reached(Budget(**limits), trials, hours, gpus_per_trial=4) is None


def test_trials_are_taken_in_their_own_order() -> None:
    trials = rows(50.0, 49.0, 48.0)
    assert reached(Budget(plateau_trials=2), trials[::-1], 0, 1) == "budget.plateau_trials: 2 trials without a new best"


def test_hours_add_up_over_two_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: now[0]))
    path = tmp_path / "sweep" / "clock.json"
    first = Clock(path)
    now[0] += 3600
    assert first.hours == pytest.approx(1)
    first.save()
    now[0] += 1800  # killed here: what passed since the last save is lost
    now[0] = 5.0  # a monotonic clock starts anywhere
    second = Clock(path)
    assert second.hours == pytest.approx(1)
    now[0] += 7200
    second.save()
    second.save()
    assert second.hours == pytest.approx(3) and read_json(path) == {"seconds": pytest.approx(3 * 3600)}


def test_the_reason_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    held = rows(50.0)
    stop = stopper(Budget(target_miou=60), lambda: held, Clock(tmp_path / "clock.json"), 1, said.append)
    assert not stop() and said == []
    held.append(row(1, 61.0))
    assert stop() and stop() and said == ["no new trials: budget.target_miou: 61.0 is reached"]
