import math

import pytest

from cpn.config.crf import CrfConfig
from cpn.config.irn import IrnConfig
from cpn.config.random_walk import RandomWalkConfig
from cpn.propagation.walk_rule import (
    CUT,
    FACTORS,
    WalkChoice,
    alpha_of,
    beta_of,
    crf_alphas,
    far_words,
    power_of,
    walk_grid,
    walk_logt,
    walk_radius,
    with_choice,
)

OFFICIAL_CELLS = (47, 63)


@pytest.mark.parametrize(("beta", "alpha"), [(0.5, 1.0), (0.2, math.log(0.2) / math.log(0.8)), (0.9, 0.0457575)])
def test_the_exponent_of_a_threshold_by_hand(beta: float, alpha: float) -> None:
    assert alpha_of(beta) == pytest.approx(alpha, rel=1e-5)
    assert (1 - beta) ** alpha_of(beta) == pytest.approx(beta)


def test_the_released_exponents_are_a_beta_of_22() -> None:
    assert beta_of(6) == pytest.approx(0.2219, abs=1e-4) and alpha_of(beta_of(6)) == pytest.approx(6)
    low, high = crf_alphas(CrfConfig(alpha_low="auto", alpha_high="auto"), beta_of(6))
    assert (low, high) == (pytest.approx(4), pytest.approx(24))


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.46, 0.72, 0.98])
def test_there_and_back(beta: float) -> None:
    assert beta_of(alpha_of(beta)) == pytest.approx(beta)


def test_a_beta_at_the_ends_takes_the_nearest_exponent() -> None:
    assert alpha_of(0.0) == alpha_of(0.02) and alpha_of(1.2) == alpha_of(1.0) == alpha_of(0.98)


def test_the_crf_follows_beta_only_where_it_is_auto() -> None:
    assert crf_alphas(CrfConfig(), None) == (4, 24) == crf_alphas(CrfConfig(), 0.7)
    assert crf_alphas(CrfConfig(alpha_low="auto"), 0.5) == (pytest.approx(2 / 3), 24)
    assert crf_alphas(CrfConfig(alpha_high="auto"), 0.5) == (4, pytest.approx(4))
    with pytest.raises(ValueError, match=r"crf\.alpha_low"):
        crf_alphas(CrfConfig(alpha_low="auto"), None)


def test_the_reach_by_hand() -> None:
    """radius sqrt(steps) / side is 5 x 8 / 54.4 = .735 as released."""
    assert walk_logt(*OFFICIAL_CELLS, 5) == 6 and walk_radius(*OFFICIAL_CELLS) == 5
    assert walk_logt(16, 16, 3) == 4, "(.735 x 16 / 3)^2 = 15.4 steps"
    assert walk_logt(14, 20, 3) == 4, "(.735 x 16.7 / 3)^2 = 16.8 steps"
    assert walk_logt(188, 252, 5) == 10, "four times the side is sixteen times the steps"
    assert walk_logt(2, 2, 5) == 0, "less than a step is one step"


def test_the_radius_leaves_sources() -> None:
    assert walk_radius(14, 20) == 3, "at 4 there are 11 x 14 sources of 280 cells, at 3 12 x 16"
    assert walk_radius(16, 16) == 3 and walk_radius(3, 3) == 2


def test_what_is_a_number_is_not_tried() -> None:
    numbers = walk_grid(RandomWalkConfig(), None, [OFFICIAL_CELLS])
    assert numbers.pairs == [(6, 6)] and numbers.rule == WalkChoice(6, 6, 5)
    steps = walk_grid(RandomWalkConfig(logt="auto"), None, [OFFICIAL_CELLS])
    assert steps.pairs == [(6, logt) for logt in range(8)] and steps.rule == WalkChoice(6, 6, 5)
    alphas = walk_grid(RandomWalkConfig(alpha="auto"), 0.5, [OFFICIAL_CELLS])
    assert [alpha for alpha, _ in alphas.pairs] == pytest.approx([factor for factor in FACTORS])
    assert FACTORS[6] == 1 and FACTORS[0] * FACTORS[-1] == pytest.approx(1) and 2.8 < FACTORS[-1] < 2.9
    with pytest.raises(ValueError, match=r"random_walk\.alpha"):
        walk_grid(RandomWalkConfig(alpha="auto"), None, [OFFICIAL_CELLS])


def test_the_rule_speaks_of_the_median_image() -> None:
    every = RandomWalkConfig(alpha="auto", logt="auto", radius="auto")
    assert walk_grid(every, 0.5, [(100, 200), (16, 16), (4, 4)]).rule == WalkChoice(1.0, 4, 3)


def test_the_choice_becomes_the_section() -> None:
    made = with_choice(RandomWalkConfig(alpha="auto", logt="auto", beta=4, crf=True), WalkChoice(0.5, 2, 3))
    assert made == RandomWalkConfig(alpha=0.5, logt=2, radius=3, beta=4, crf=True)


def test_a_threshold_far_from_beta_is_one_line() -> None:
    walk, crf = RandomWalkConfig(), CrfConfig()
    assert far_words(walk, crf, 0.3) is None
    words = far_words(walk, crf, 0.46)
    assert words is not None and "\n" not in words
    assert "random_walk.alpha 6 (made for beta 0.22), crf.alpha_low 4 (made for beta 0.22)" in words
    assert "this run's beta is 0.46; with random_walk.alpha=auto, crf.alpha_low=auto, crf.alpha_high=auto they" in words
    auto = CrfConfig(alpha_low="auto", alpha_high="auto")
    assert far_words(RandomWalkConfig(alpha="auto"), auto, 0.46) is None
    assert (far_words(walk, auto, 0.46) or "").startswith("random_walk.alpha 6 (made for beta 0.22): this")
    assert far_words(RandomWalkConfig(kind="irn"), crf, 0.46) is None, "IRN reads none of them"


def test_the_power_of_irns_maps_puts_beta_where_irn_cuts() -> None:
    auto = IrnConfig(map_power="auto")
    for beta in (0.15, 0.5, 0.92):
        assert beta ** power_of(auto, beta) == pytest.approx(CUT)
    assert power_of(auto, 0.0) > 0 and math.isfinite(power_of(auto, 1.0))
    assert power_of(IrnConfig(map_power=2.0), None) == 2.0 and power_of(IrnConfig(), 0.9) == 1.0
    with pytest.raises(ValueError, match=r"irn\.map_power is auto"):
        power_of(auto, None)
