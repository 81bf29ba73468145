"""What a search pays for: stopped trials by their share, and a good one that was stopped is not found."""

from collections.abc import Mapping
from dataclasses import replace
from platform.config.sections import Pruning
from platform.search.pruning import audited
from typing import Any

import pytest

from benchmarks.sweeps.hours import compared, ours_with_pruning
from benchmarks.sweeps.search import CAP, published


def test_a_whole_trial_costs_one() -> None:
    """Whatever is drawn is good, so that the reference, the first trial, ends the search."""
    assert ours_with_pruning(replace(published(0), true_miou=lambda values: 60.0), 0) == 1


@pytest.mark.parametrize("number", [12, 13])
def test_stopped_trials_cost_their_share_and_find_nothing(number: int) -> None:
    """Good are trials from 12 on. Each shows less than all before it, but for trial `number`, the first good one
    that is not stopped.
    """
    begun: list[int] = []

    def shown(values: Mapping[str, Any], final: float, noise: Any) -> list[float]:
        return [99.0 if begun[-1] == number else 50.0 - begun[-1]] * 4

    def score(values: Mapping[str, Any]) -> float:
        if not begun or len(begun) == 2 * begun[-1] + 2:  # asked twice about each trial
            begun.append(begun[-1] + 1 if begun else 0)
        else:
            begun.append(begun[-1])
        return 60.0 if begun[-1] >= 12 else 0.0

    problem = replace(published(0), true_miou=score, optimum=60.0, noise=0.0, shown=shown)
    stopped = sum(not audited(trial, 0, Pruning().audit) for trial in range(8, number))
    assert 3 <= stopped and ours_with_pruning(problem, 0) == number + 1 - stopped / 2


def test_ratios_are_geometric(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = compared("hours_ratio", {"ours": [2.0, 8.0], "stock": [4.0, CAP]})
    assert numbers["hours_ratio"] == pytest.approx((0.5 * 8 / CAP) ** 0.5)
    assert "2 searches; median of ours 5, median of stock 202" in capsys.readouterr().out
