"""The budget: each limit alone says why the search ends, hours add up over restarts, and no trial's hours are lost."""

from pathlib import Path
from platform.base.yaml_files import dump_yaml
from platform.config.sections import Budget
from platform.config.spec import load_spec
from platform.config.sweep_spec import SweepSpec
from platform.plan import budget
from platform.plan.budget import Clock, Limits, account, out_of_hours, reached
from platform.search.study import State, TrialRow
from types import SimpleNamespace
from typing import Any

import pytest

from cpn.core.files import read_json, write_json


def row(number: int, miou: float | None, state: State = State.COMPLETE) -> TrialRow:
    return TrialRow(number, f"s-{number}", state, {}, 0, "search", miou)


def rows(*mious: float | None) -> list[TrialRow]:
    """Finished trials in order; None is a failed one."""
    return [row(i, m, State.COMPLETE if m is not None else State.FAIL) for i, m in enumerate(mious)]


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The budget's clock."""
    made = Time()
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=made))
    return made


def test_without_limits_nothing_ends_the_search() -> None:
    assert reached(Budget(), rows(50.0, 40.0, 30.0)) is None and out_of_hours(Budget(), 1e6, 1e6) is None
    assert reached(Budget(trials=1), rows(50.0, 40.0)) is None  # the searcher counts trials


@pytest.mark.parametrize(
    ("limits", "trials", "said"),
    [
        ({"failures": 2}, rows(50.0, None, 40.0, None), "budget.failures: 2 trials failed"),
        ({"target_miou": 60}, rows(50.0, 60.0, 55.0), "budget.target_miou: 60.0 is reached"),
        ({"plateau_trials": 2}, rows(50.0, 55.0, 54.0, 55.0), "budget.plateau_trials: 2 trials without a new best"),
    ],
)
def test_each_limit_ends_the_search(limits: dict[str, Any], trials: list[TrialRow], said: str) -> None:
    assert reached(Budget(**limits), trials) == said


def test_hours_end_the_search() -> None:
    wall, gpu = Budget(wall_hours=2), Budget(gpu_hours=3)
    assert out_of_hours(wall, 2.0, 0.0) == "budget.wall_hours: 2.00 hours have passed"
    assert out_of_hours(gpu, 0.0, 3.0) == "budget.gpu_hours: 3.00 GPU-hours are used"
    assert out_of_hours(wall, 1.99, 9e9) is None and out_of_hours(gpu, 9e9, 2.99) is None


@pytest.mark.parametrize(
    ("limits", "trials"),
    [
        ({"failures": 2}, rows(50.0, None, 40.0)),
        ({"target_miou": 60}, rows(50.0, 59.9)),
        ({"plateau_trials": 2}, rows(50.0, 49.0, 55.0, 54.0)),
        ({"plateau_trials": 2}, rows(50.0, None, None, 40.0)),
        ({"plateau_trials": 1, "target_miou": 2}, rows(None)),
    ],
)
def test_before_its_limit_the_search_goes_on(limits: dict[str, Any], trials: list[TrialRow]) -> None:
    assert reached(Budget(**limits), trials) is None


def test_trials_are_taken_in_their_own_order() -> None:
    trials = rows(50.0, 49.0, 48.0)
    assert reached(Budget(plateau_trials=2), trials[::-1]) == "budget.plateau_trials: 2 trials without a new best"


def test_hours_add_up_over_two_starts(tmp_path: Path, time: Time) -> None:
    path = tmp_path / "sweep" / "clock.json"
    first = Clock(path)
    time.now += 900  # nothing to do yet
    first.go()
    time.now += 3600
    assert first.hours == pytest.approx(1)
    first.go()
    first.save()
    time.now += 1800  # killed here: what passed since the last save is lost
    time.now = 5.0  # a monotonic clock starts anywhere
    idle = Clock(path)
    time.now += 7200
    idle.save()
    second = Clock(path)
    second.go()
    assert second.hours == pytest.approx(1)
    time.now += 7200
    second.save()
    second.save()
    assert second.hours == pytest.approx(3) and read_json(path)["seconds"] == pytest.approx(3 * 3600)


def test_every_trial_s_hours_are_kept(tmp_path: Path, time: Time) -> None:
    """One that ended, one that was told twice to begin, one that a kill cut off and that went on later."""
    path = tmp_path / "clock.json"
    first = Clock(path)
    first.began("a")
    time.now += 1800
    first.began("b")
    first.began("a")
    time.now += 1800
    first.ended("a")
    first.ended("a")
    time.now += 1800
    assert first.trial_hours == pytest.approx({"a": 1.0, "b": 1.0})
    first.save()
    time.now = 5.0
    second = Clock(path)
    assert second.trial_hours == pytest.approx({"a": 1.0, "b": 1.0})
    second.began("b")
    time.now += 900
    assert second.trial_hours == pytest.approx({"a": 1.0, "b": 1.25})
    second.ended("b")
    time.now += 900
    assert second.trial_hours == pytest.approx({"a": 1.0, "b": 1.25})


def test_a_clock_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "clock.json", {"seconds": 7200})
    clock = Clock(tmp_path / "clock.json")
    assert clock.hours == pytest.approx(2, abs=1e-3) and clock.trial_hours == {}


OTHERS = ("[]", "null", "5", "{}", '{"seconds": "x"}', '{"seconds": true}', '{"seconds": -1}', '{"seconds": NaN}',
          '{"seconds": 1, "trials": [1]}', '{"seconds": 1, "trials": {"a-0000": null}}')  # fmt: skip


@pytest.mark.parametrize("content", OTHERS)
def test_what_holds_no_hours_is_said_and_counted_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "clock.json").write_text(content)
    said: list[str] = []
    clock = Clock(tmp_path / "clock.json", said.append)
    assert clock.hours == 0 and clock.trial_hours == {}
    assert len(said) == 1 and "clock.json: is damaged (it holds no hours); the sweep's next start counts" in said[0]


def test_the_reason_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    held = rows(50.0)
    limits = Limits(Budget(target_miou=60), lambda: held, Clock(tmp_path / "clock.json"), 1, said.append)
    assert not limits.over() and said == []
    held.append(row(1, 61.0))
    assert limits.over() and limits.over()
    assert said == ["the search ends here, trials under way stay resumable: budget.target_miou: 61.0 is reached"]


def test_results_are_looked_at_when_a_trial_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(budget, "reached", lambda limits, found: looks.append(len(found)))
    held = rows(50.0)
    limits = Limits(Budget(target_miou=60), lambda: held, Clock(tmp_path / "clock.json"), 1, lambda line: None)
    assert not limits.over() and not limits.over() and looks == [1]
    held.append(row(1, 55.0))
    assert not limits.over() and looks == [1, 2]


def test_without_hours_left_a_start_leaves_trials_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "clock.json", {"seconds": 7200, "trials": {"a": 3600}})
    said: list[str] = []
    limits = Limits(Budget(gpu_hours=4), lambda: rows(50.0), Clock(tmp_path / "clock.json"), 4, said.append)
    assert limits.over()
    assert said == ["the search ends here, trials under way stay resumable: budget.gpu_hours: 4.00 GPU-hours are used"]


@pytest.mark.parametrize("limit", [{"wall_hours": 5.0}, {"gpu_hours": 30.0}])
def test_the_overshoot_is_at_most_one_report_interval(tmp_path: Path, time: Time, limit: dict[str, float]) -> None:
    """Three trials at a time on 2 GPUs each, epochs of 0.3, 0.5 and 0.7 hours, 9 epochs a trial: simulated reports."""
    clock = Clock(tmp_path / "clock.json")
    clock.go()
    limits = Limits(Budget(**limit), lambda: [], clock, 2, lambda line: None)
    running = [{"uid": f"s-{i}", "every": every, "epoch": 0, "next": 0.0} for i, every in enumerate((0.3, 0.5, 0.7))]
    began, number, over = time.now, len(running), False
    for trial in running:
        clock.began(trial["uid"])
        trial["next"] = trial["every"]
    while not over:
        trial = min(running, key=lambda t: t["next"])
        time.now = began + 3600 * trial["next"]
        trial["epoch"] += 1
        trial["next"] += trial["every"]
        over = limits.over()
        if trial["epoch"] == 9 and not over:
            clock.ended(trial["uid"])
            assert not limits.over()
            trial |= {"uid": f"s-{number}", "epoch": 0}
            number += 1
            clock.began(trial["uid"])
    used = {"wall_hours": clock.hours, "gpu_hours": 2 * sum(clock.trial_hours.values())}
    for name, asked in limit.items():
        interval = 0.3 * (1 if name == "wall_hours" else 3 * 2)  # some trial reports at least that often
        assert asked <= used[name] <= asked + interval + 1e-9


def spec_on(folder: Path, *sets: str) -> SweepSpec:
    path = folder / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    dump_yaml(path, {"name": "s", "base": {"preset": "official"}, "search": search, "budget": {"trials": 4}})
    return load_spec(path, sets)


TRIALS = [row(0, 50.0), row(1, None, State.PRUNED), row(2, None, State.FAIL), row(3, None, State.RUNNING), row(4, 51.0)]
AGAIN = [TrialRow(0, "s.confirm-0", State.COMPLETE, {}, 0, "confirm", 50.0)]
HOURS = {"s-0": 4.0, "s-1": 2.0, "s-2": 0.5, "s-3": 1.0, "s.confirm-0": 3.0}  # s-4 was reused


def test_the_account_by_what_the_hours_went_to(tmp_path: Path) -> None:
    found = account(spec_on(tmp_path, "resources.workers=2", "budget.price_per_gpu_hour=1.5"), HOURS, TRIALS, AGAIN)
    assert found.unit == "GPU-hours"
    assert found.spent == {"useful": 8.0, "pruned": 4.0, "failed": 1.0, "unfinished": 2.0, "confirming": 6.0}
    assert (found.total, found.money) == (21.0, 31.5) and found.estimated > 21
    assert found.words == (
        "GPU-hours: useful 8.00, pruned 4.00, failed 1.00, unfinished 2.00, confirming 6.00; 21.00 in all, "
        f"{found.estimated:.2f} estimated without pruning; price 31.50"
    )


def test_on_the_cpu_the_account_is_in_hours_of_trials(tmp_path: Path) -> None:
    sets = ["resources.gpus_per_worker=0", "budget.price_per_gpu_hour=1.5"]
    found = account(spec_on(tmp_path, *sets), HOURS, TRIALS, AGAIN)
    assert (found.total, found.estimated, found.money) == (10.5, None, None)
    assert found.words.startswith("hours of trials on the CPU: useful 4.00, pruned 2.00")
