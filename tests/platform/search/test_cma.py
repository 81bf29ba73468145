"""CMA-ES rebuilt from finished trials: it finds an optimum, and knows nothing that the trials do not say."""

from platform.search.cma import Ended, propose

import numpy as np
import pytest

TARGET = np.array([0.8, 0.3, 0.6])


def search(trials: int, failing: int | None = None) -> list[Ended]:
    ended: list[Ended] = []
    for number in range(trials):
        generation, point = propose(3, ended, [], 5, number)
        if failing is None or number % failing:
            ended.append(Ended(generation, point, (True, -float(((point - TARGET) ** 2).sum()))))
    return ended


def test_it_closes_in_on_the_optimum() -> None:
    ended = search(150)
    assert all(((0 <= trial.point) & (trial.point <= 1)).all() for trial in ended)
    late = np.mean([np.abs(trial.point - TARGET).max() for trial in ended[-15:]])
    assert late < 0.03
    assert ended[-1].generation == 149 // 7  # 4 + floor(3 ln 3) trials a generation


def test_a_failed_trial_is_replaced_within_its_generation() -> None:
    ended = search(60, failing=4)
    assert [trial.generation for trial in ended] == [i // 7 for i in range(len(ended))]


def test_a_pruned_trial_ranks_below_every_finished_one() -> None:
    _, cloud = zip(*(propose(3, [], [], 5, number) for number in range(7)), strict=True)
    honest = [Ended(0, point, (i < 4, float(i))) for i, point in enumerate(cloud)]
    lucky = [Ended(0, point, (i < 4, float(i) + (100 if i >= 4 else 0))) for i, point in enumerate(cloud)]
    naive = [Ended(0, point, (True, float(i))) for i, point in enumerate(cloud)]
    assert (propose(3, honest, [], 5, 7)[1] == propose(3, lucky, [], 5, 7)[1]).all()
    assert (propose(3, honest, [], 5, 7)[1] != propose(3, naive, [], 5, 7)[1]).any()


def test_trials_of_a_generation_draw_differently() -> None:
    points = [propose(3, [], [], 5, number) for number in range(9)]
    assert {generation for generation, _ in points} == {0}
    assert len({tuple(point) for _, point in points}) == 9
    assert (propose(3, [], [], 6, 0)[1] != points[0][1]).any()


def test_it_starts_where_earlier_sweeps_were_best() -> None:
    rng = np.random.default_rng(0)
    history = [(point, -float(((point - TARGET) ** 2).sum())) for point in rng.random((200, 3))]
    points = np.array([propose(3, [], history, 5, number)[1] for number in range(30)])
    assert points.mean(axis=0) == pytest.approx(TARGET, abs=0.1)
    one = np.array([propose(3, [], [(TARGET, 1.0)], 5, number)[1] for number in range(30)])
    assert one.mean(axis=0) == pytest.approx(TARGET, abs=0.1)


def test_it_looks_elsewhere_once_it_has_narrowed_to_a_point() -> None:
    """Every trial at the same place: the package's own criterion ends that, and the next draw starts from another."""

    def spread(generations: int) -> float:
        ended = [Ended(i // 4, np.array([0.5]), (True, 0.0)) for i in range(4 * generations)]
        draws = [propose(1, ended, [], 0, number) for number in range(8)]
        assert {generation for generation, _ in draws} == {generations}
        return float(np.std([point[0] for _, point in draws]))

    widths = [spread(generations) for generations in (1, 20, 40, 60, 80, 100, 120)]
    narrow = int(np.argmin(widths))
    assert widths[narrow] < 1e-6 and max(widths[narrow:]) > 0.01
