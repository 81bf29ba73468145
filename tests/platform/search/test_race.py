"""Which runs a race makes, and how often it calls something better that is not."""

from platform.search import race
from platform.search.race import Arms, error, first_arms, level, next_arms

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats


def picked(results: list[list[float]], left: int = 12, closed: list[int] | None = None) -> list[int]:
    shut = np.isin(np.arange(len(results)), closed or [])[None]
    return [int(arm[0]) for arm in next_arms(Arms.of(results), left, shut)]


def test_arms_know_means_and_the_pooled_variance() -> None:
    arms = Arms.of([[50.0, 52.0], [51.0, 53.0, 55.0], []])
    variance, freedom = arms.variance
    assert arms.runs.tolist() == [[2, 3, 0]]
    assert variance == pytest.approx([(2 + 8) / 3]) and freedom.tolist() == [3]
    more = arms.after(np.array([2]), np.array([1.5]), np.array([True]))
    assert more.runs.tolist() == [[2, 3, 1]] and more.means[0, 2] == 1.5
    assert arms.after(np.array([2]), np.array([1.5]), np.array([False])).runs.tolist() == [[2, 3, 0]]
    assert arms.after(np.array([-1]), np.array([1.5]), np.array([True])).runs.tolist() == [[2, 3, 0]]


def test_it_begins_with_the_best_of_the_search() -> None:
    assert picked([[50.0], [], [], []]) == [1, 2]


@pytest.mark.parametrize(
    ("results", "next_ones"),
    [
        pytest.param([[50.0], [53.0], [], []], [1, 0], id="ahead: again, then the reference"),
        pytest.param([[50.0], [53.0, 53.5], [49.0], []], [0, 1], id="the reference has fewer"),
        pytest.param([[50.0], [49.0], [], []], [2, 3], id="behind: the next ones"),
        pytest.param([[50.0], [49.0], [48.0], [47.0]], [1, 0], id="all behind: the one that is so least"),
        pytest.param([[50.0, 52.0, 48.0], [50.5, 49.0, 52.0], []], [2, 1], id="not far enough ahead"),
        pytest.param([[50.0, 50.2, 49.8], [50.5, 50.4, 50.6], []], [1, 0], id="far enough ahead of small noise"),
    ],
)
def test_runs_go_where_the_verdict_can_change(results: list[list[float]], next_ones: list[int]) -> None:
    assert picked(results) == next_ones


def test_nothing_is_begun_that_cannot_be_finished() -> None:
    """A candidate needs three runs, and so does the reference."""
    results = [[50.0, 51.0, 49.0], [48.0], []]
    assert picked(results, left=3) == [2, 2]
    assert picked(results, left=2) == [1, 1]
    assert picked(results, left=1) == [-1] and picked(results, left=0) == []


def test_an_arm_that_is_closed_does_not_run() -> None:
    assert picked([[50.0], [53.0], [], []], closed=[1]) == [2, 3]
    assert picked([[50.0, 51.0, 49.0], [53.0] * 3], closed=[0]) == [1, 1]
    assert picked([[50.0], [53.0]], closed=[0]) == [-1, -1], "a reference that is never tested"


def test_the_chance_of_an_error_is_students() -> None:
    """The best mean of those with three runs; s^2 is pooled over all, Welch's degrees of freedom with images."""
    results = [[50.0, 51.0, 52.0], [53.0, 54.0, 55.0, 54.0], [60.0, 60.0]]
    pooled, freedom = (2 + 2 + 0) / 6, 6
    of_seeds = pooled * (1 / 4 + 1 / 3)
    assert error(Arms.of(results)) == pytest.approx(stats.t.sf(3 / of_seeds**0.5, freedom))
    welch = freedom * ((of_seeds + 0.5) / of_seeds) ** 2
    assert error(Arms.of(results), 0.5) == pytest.approx(stats.t.sf(3 / (of_seeds + 0.5) ** 0.5, welch))
    assert error(Arms.of([[50.0, 51.0, 52.0], [60.0, 60.0]])) == 1


def test_equal_runs_are_no_error() -> None:
    assert error(Arms.of([[50.0] * 3, [50.1] * 3])) == pytest.approx(0) and error(Arms.of([[50.0] * 3] * 2)) == 0.5


RACES = 8000


def ends(gains: NDArray[np.float64], limit: int, ratio: float, seed: int) -> tuple[NDArray[np.int64], float]:
    """Which arm each race calls better, 0 for none, and the mean number of runs; `gains` in deviations of a run."""
    rng = np.random.default_rng(seed)
    true = gains + rng.normal(0, (ratio / 2) ** 0.5, (RACES, len(gains)))
    arms, racing, runs = first_arms(true, rng), np.ones(RACES, bool), 0.0
    for begun in range(0, limit, race.ROUND):
        for arm in next_arms(arms, limit - begun):
            value = true[np.arange(RACES), np.maximum(arm, 0)] + rng.standard_normal(RACES)
            arms, runs = arms.after(arm, value, racing), runs + float((racing & (arm >= 0)).mean())
        racing &= error(arms, ratio) >= race.early(limit)
    tested = np.where(arms.runs[:, 1:] >= race.LEAST_SEEDS, arms.means[:, 1:], -np.inf)
    shown = error(arms, ratio) < level(len(gains) - 1, limit, ratio)
    return np.where(shown, tested.argmax(axis=1) + 1, 0), runs


WORSE = [0.0, 0.0, -1.0, -9.0, 0.0, -9.0]
"""Candidates that are as good as the reference among some that are worse."""


@pytest.mark.parametrize(
    ("gains", "limit", "ratio"),
    [
        pytest.param([0.0] * 2, 6, 0.0, id="one candidate"),
        pytest.param([0.0] * 6, 12, 0.0, id="five"),
        pytest.param([0.0] * 6, 12, 1.0, id="five and images"),
        pytest.param(WORSE, 12, 0.0, id="some are worse"),
        pytest.param(WORSE, 12, 1.0, id="some are worse and images"),
    ],
)
def test_few_false_winners(gains: list[float], limit: int, ratio: float) -> None:
    """At most 5 percent, and three standard errors of this simulation and of the one behind the level on top."""
    called, _ = ends(np.array(gains), limit, ratio, 1)
    assert (called > 0).mean() <= 0.05 + 3 * (0.05 * 0.95 * (1 / RACES + 1 / race.RACES)) ** 0.5


def test_a_better_one_is_found_and_soon() -> None:
    gains = np.zeros(6)
    gains[2] = 3.0
    called, runs = ends(gains, 12, 0.0, 2)
    assert (called == 2).mean() > 0.93 and runs < 11
    assert (called > 0).mean() - (called == 2).mean() < 0.01
    assert (ends(gains, 20, 0.0, 2)[0] == 2).mean() > 0.96


def test_more_candidates_have_to_be_surer() -> None:
    levels = [level(compared, 12, 0.0) for compared in (1, 2, 5)]
    assert 0.045 < levels[0] <= 0.052 and levels[0] > levels[1] > levels[2] > 0.02
    assert level(5, 12, 1e9) == level(5, 12, float("inf")) < 0.05
