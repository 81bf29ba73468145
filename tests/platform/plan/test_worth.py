"""Whether more is worth its price: when the search ends, what it says, and that it stays ended."""

from pathlib import Path
from platform.config.sweep_spec import SweepSpec
from platform.plan.budget import Clock
from platform.plan.estimate import estimate
from platform.plan.worth import IN_A_ROW, LEAST, LOOK_AHEAD, Worth, gain_words
from platform.search.study import State, TrialRow
from platform.search.trial_row import WORTH
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.platform.search.test_study import make_spec, make_study


class Trials:
    """A study of which a test says what its next trials are expected to gain."""

    def __init__(self, gain: float | None = 0.0) -> None:
        self.gain, self.kept, self.asked = gain, dict[str, Any](), list[int]()
        self.made: list[TrialRow] = []

    def end(self, count: int = 1, state: State = State.COMPLETE) -> None:
        """Trials that end."""
        for _ in range(count):
            number = len(self.made)
            self.made.append(TrialRow(number, f"s-{number}", state, {}, 0, "search", 50.0))

    def rows(self) -> list[TrialRow]:
        return self.made

    def expected_gain(self, draws: int) -> float | None:
        self.asked.append(draws)
        return self.gain

    def remembered(self, name: str) -> dict[str, Any]:
        return dict(self.kept.get(name, {}))

    def remember(self, name: str, value: Any) -> None:
        self.kept[name] = dict(value)


def spec_with(folder: Path, least: float | None = 0.01, **resources: Any) -> SweepSpec:
    changes = {"budget": {"trials": 60, "min_gain_per_gpu_hour": least}, "resources": resources}
    return make_spec(folder, **changes)


def worth(folder: Path, trials: Trials, least: float | None = 0.01, hours: float = 2.0, **resources: Any) -> Worth:
    said: list[str] = []
    clock = SimpleNamespace(trial_hours={row.uid: hours for row in trials.made})
    made = Worth(spec_with(folder, least, **resources), cast(Any, trials), cast(Clock, clock), said.append)
    made.said, made.clock = said, clock  # type: ignore[attr-defined]
    return made


def ask_until(made: Worth, trials: Trials, most: int) -> int | None:
    """How many more trials end before it is enough."""
    for more in range(most):
        if made.enough():
            return more
        trials.end()
    return None


def test_without_the_key_nothing_is_asked_or_kept(tmp_path: Path) -> None:
    trials = Trials()
    trials.end(50)
    made = worth(tmp_path, trials, least=None)
    assert not made.enough() and trials.asked == [] and trials.kept == {} and made.limit(60) == 60


def test_it_ends_after_enough_whole_trials_and_looks(tmp_path: Path) -> None:
    trials = Trials(gain=0.1)  # 2 hours a trial: 0.16 would be worth it
    trials.end(LEAST - 1)
    made = worth(tmp_path, trials)
    assert ask_until(made, trials, 20) == IN_A_ROW
    assert trials.asked == [LOOK_AHEAD] * IN_A_ROW and made.enough() and len(trials.asked) == IN_A_ROW
    assert made.words == "another 16 GPU-hours are expected to gain 0.10 mIoU: stopping"
    assert made.said == [f"{made.words} (budget.min_gain_per_gpu_hour: 0.01)"]  # type: ignore[attr-defined]


def test_a_gain_that_pays_goes_on(tmp_path: Path) -> None:
    trials = Trials(gain=0.2)
    trials.end(LEAST)
    made = worth(tmp_path, trials)
    assert ask_until(made, trials, 20) is None


def test_one_look_that_pays_starts_the_count_again(tmp_path: Path) -> None:
    trials = Trials()
    trials.end(LEAST)
    made = worth(tmp_path, trials)
    for gain in [0.0] * (IN_A_ROW - 1) + [1.0] + [0.0] * (IN_A_ROW - 1):
        trials.gain = gain
        assert not made.enough()
        trials.end()
    assert made.enough()


def test_without_another_end_it_is_the_same_look(tmp_path: Path) -> None:
    trials = Trials()
    trials.end(LEAST)
    made = worth(tmp_path, trials)
    assert not any(made.enough() for _ in range(3 * IN_A_ROW)) and len(trials.asked) == 1


@pytest.mark.parametrize("state", [State.PRUNED, State.FAIL])
def test_only_whole_trials_count(tmp_path: Path, state: State) -> None:
    trials = Trials()
    trials.end(LEAST - 1)
    trials.end(30, state)
    made = worth(tmp_path, trials)
    assert not made.enough() and trials.asked == []


def test_what_waits_is_run_first(tmp_path: Path) -> None:
    trials = Trials()
    trials.end(40)
    trials.end(1, State.WAITING)
    assert not worth(tmp_path, trials).enough() and trials.asked == []


def test_a_sampler_that_expects_nothing_never_ends_it(tmp_path: Path) -> None:
    trials = Trials(gain=None)
    trials.end(LEAST)
    assert ask_until(worth(tmp_path, trials), trials, 10) is None


def test_a_restart_counts_on_and_stays_ended(tmp_path: Path) -> None:
    trials = Trials()
    trials.end(LEAST)
    for _ in range(IN_A_ROW - 1):
        assert not worth(tmp_path, trials).enough()
        trials.end()
    assert worth(tmp_path, trials).enough()
    trials.gain = 9.0
    again = worth(tmp_path, trials)
    assert again.enough() and not again.lifted and again.limit(60) == len(trials.made)
    assert again.said == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("least", [0.001, None])
def test_another_limit_lets_it_go_on(tmp_path: Path, least: float | None) -> None:
    trials = Trials()
    trials.end(LEAST + IN_A_ROW)
    trials.kept[WORTH] = {"least": 0.01, "ended": LEAST, "low": 3, "words": "another 8: stopping"}
    made = worth(tmp_path, trials, least=least)
    assert made.lifted and made.words is None and made.limit(60) == 60 and not made.enough()
    assert trials.remembered(WORTH).get("words") is None
    assert not worth(tmp_path, trials, least=least).lifted


def test_the_price_is_measured_else_the_plan_s(tmp_path: Path) -> None:
    trials = Trials()
    made = worth(tmp_path, trials)
    assert made.hours_per_trial() == pytest.approx(estimate(spec_with(tmp_path)).hours_per_trial)
    trials.end(3)
    trials.end(1, State.RUNNING)
    made = worth(tmp_path, trials, workers=2)
    made.clock.trial_hours |= {"s-1": 5.0, "s-2": 0.0, "s-3": 100.0}  # type: ignore[attr-defined]
    assert made.hours_per_trial() == pytest.approx(2 * (2 + 5) / 2)  # s-2 was reused, s-3 runs


def test_on_the_cpu_hours_of_trials_count(tmp_path: Path) -> None:
    trials = Trials(gain=0.001)
    trials.end(LEAST)
    made = worth(tmp_path, trials, hours=0.05, gpus_per_worker=0)
    assert ask_until(made, trials, 9) == IN_A_ROW - 1
    assert made.words == ("another 0.4 hours of trials on the CPU are expected to gain less than 0.01 mIoU: stopping")


def test_the_words_name_what_is_searched_for() -> None:
    assert gain_words(0.047, 455.2, "GPU-hours", "mask_free") == (
        "another 455 GPU-hours are expected to gain 0.05 mask_free: stopping"
    )


def test_the_study_keeps_it(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.remember(WORTH, {"least": 0.01, "words": "enough"})
    again = make_study(tmp_path)
    clock = Clock(tmp_path / "clock.json")
    assert Worth(spec_with(tmp_path), again, clock, print).words == "enough"
