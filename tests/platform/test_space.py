"""Domains, conditions, the reference in Optuna's terms, and samplers that a restart does not disturb."""

from platform import domains, space
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpn.errors import InputError

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
    assert list(space.draw(optuna.trial.FixedTrial({**rest, **fixed}), SEARCH)) == names


def test_a_list_is_text_in_optuna_and_a_list_everywhere_else() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(20):
        trial = study.ask()
        values = space.draw(trial, SEARCH)
        if "patches.K" in values:
            assert values["patches.K"] == [int(part) for part in trial.params["patches.K"].split(",")]
            seen.add(trial.params["patches.K"])
        assert space.decode_params(trial.params, SEARCH) == values
    assert seen == {"4,7", "56,112"}


@given(seed=st.integers(0, 2**31))
def test_every_draw_lies_in_its_domain(seed: int) -> None:
    values = space.draw(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask(), SEARCH)
    for name, value in values.items():
        domain = SEARCH[name]
        assert not isinstance(domain, domains.CurveDomain) and domains.contains(domain, value)


def test_the_reference_is_the_base_restricted_to_active_names() -> None:
    assert space.reference_values(SEARCH, BASE) == {
        "patches.kind": "superpixel",
        "patches.S_N": 200,
        "patches.p_h": 0.5,
    }
    grid = space.reference_values(SEARCH, {**BASE, "patches.kind": "grid"})
    assert grid == {"patches.kind": "grid", "patches.K": [56, 112], "patches.p_h": 0.5, "loss.alpha": 1}


def test_optuna_is_told_the_nearest_possible_reference() -> None:
    values = {"patches.kind": "voronoi", "patches.S_N": 3, "patches.p_h": 0.77, "patches.K": [56, 112]}
    told = {name: value for name, (value, _) in space.reference_params(SEARCH, values).items()}
    assert told == {"patches.S_N": 5, "patches.p_h": pytest.approx(0.5), "patches.K": "56,112"}
    inside = space.reference_params(SEARCH, {"patches.p_h": 0.27})
    assert inside["patches.p_h"][0] == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "gp"])
def test_a_seeded_sampler_draws_on_after_a_restart(name: str) -> None:
    flat = domains.parse_search({"x": {"float": [0, 1]}, "y": {"choice": ["a", "b"]}})

    def run(restart_at: int | None) -> list[dict[str, Any]]:
        storage = optuna.storages.InMemoryStorage()
        optuna.create_study(study_name="s", storage=storage, direction="maximize")
        drawn = []
        for number in range(14):
            if number in (0, restart_at):
                study = optuna.load_study(study_name="s", storage=storage, sampler=space.SeededSampler(name, 7))
            trial = study.ask()
            drawn.append(space.draw(trial, flat))
            study.tell(trial, drawn[-1]["x"])
        return drawn

    through, restarted = run(None), run(12)
    assert through == restarted
    assert len({row["x"] for row in through}) > 10  # gp may go to the same end of the range twice


def test_an_unknown_sampler_and_a_missing_package_are_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'anneal' is unknown; take tpe"):
        space.SeededSampler("anneal", 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="cmaes is not installed; pip install cmaes"):
        space.SeededSampler("cmaes", 0)
