"""Domains, conditions, the reference in Optuna's terms, and samplers that a restart does not disturb."""

from platform.config.space import domains
from platform.search import distributions
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

SEARCH = domains.parse_search(
    {
        "patches.S_N": {"int": [5, 8000], "log": True, "when": {"patches.kind": "superpixel"}},
        "patches.K": {"choice": [[4, 7], [56, 112]], "when": {"patches.kind": ["grid"]}},
        "patches.kind": {"choice": ["superpixel", "grid"]},
        "patches.p_h": {"float": [0.1, 0.5], "step": 0.1},
        "loss.alpha": {"choice": [1, 2, None], "when": {"patches.K": [56, 112]}},
        "cam.beta": {"curve": True},
    }
)
BASE = {"patches.kind": "superpixel", "patches.S_N": 200, "patches.K": [56, 112], "patches.p_h": 0.5, "loss.alpha": 1}


def test_a_parent_is_drawn_before_its_children() -> None:
    assert domains.ordered(SEARCH) == ["patches.kind", "patches.S_N", "patches.K", "patches.p_h", "loss.alpha"]


@pytest.mark.parametrize(
    ("fixed", "names"),
    [
        ({"patches.kind": "superpixel"}, ["patches.kind", "patches.S_N", "patches.p_h"]),
        ({"patches.kind": "grid", "patches.K": "4,7"}, ["patches.kind", "patches.K", "patches.p_h"]),
        ({"patches.kind": "grid", "patches.K": "56,112"}, ["patches.kind", "patches.K", "patches.p_h", "loss.alpha"]),
    ],
)
def test_only_names_whose_conditions_hold_are_drawn(fixed: dict[str, Any], names: list[str]) -> None:
    rest = {"patches.S_N": 10, "patches.p_h": 0.3, "loss.alpha": None}
    assert list(distributions.draw(optuna.trial.FixedTrial({**rest, **fixed}), SEARCH)) == names


def test_a_list_is_text_in_optuna_and_a_list_everywhere_else() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        values = distributions.draw(trial, SEARCH)
        if "patches.K" in values:
            assert values["patches.K"] == [int(part) for part in trial.params["patches.K"].split(",")]
            seen.add(trial.params["patches.K"])
        assert distributions.decode_params(trial.params, SEARCH) == values
    assert seen == {"4,7", "56,112"}


@given(seed=st.integers(0, 2**31))
def test_every_draw_lies_in_its_domain(seed: int) -> None:
    values = distributions.draw(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask(), SEARCH)
    for name, value in values.items():
        domain = SEARCH[name]
        assert not isinstance(domain, domains.CurveDomain) and domains.contains(domain, value)


def test_the_reference_is_the_base_restricted_to_active_names() -> None:
    assert domains.values_of_base(SEARCH, BASE) == {
        "patches.kind": "superpixel",
        "patches.S_N": 200,
        "patches.p_h": 0.5,
    }
    grid = domains.values_of_base(SEARCH, {**BASE, "patches.kind": "grid"})
    assert grid == {"patches.kind": "grid", "patches.K": [56, 112], "patches.p_h": 0.5, "loss.alpha": 1}


def test_optuna_is_told_the_nearest_possible_reference() -> None:
    values = {"patches.kind": "voronoi", "patches.S_N": 3, "patches.p_h": 0.77, "patches.K": [56, 112]}
    told = {name: value for name, (value, _) in distributions.told_params(SEARCH, values).items()}
    assert told == {"patches.S_N": 5, "patches.p_h": pytest.approx(0.5), "patches.K": "56,112"}
    inside = distributions.told_params(SEARCH, {"patches.p_h": 0.27})
    assert inside["patches.p_h"][0] == pytest.approx(0.3)
