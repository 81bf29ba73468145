"""Samplers by name: they draw from the space, conditions included, learn where they say so, and survive a restart."""

import logging
from platform.config.sections import SearchOptions
from platform.config.space import domains, grid
from platform.search import distributions
from platform.search.samplers import build_sampler
from typing import Any

import optuna
import pytest

FLAT = domains.parse_search({"x": {"float": [0, 1]}, "n": {"int": [1, 100], "log": True}, "y": {"choice": ["a", "b"]}})
NESTED = domains.parse_search(
    {
        "kind": {"choice": ["superpixel", "grid"]},
        "S_N": {"int": [5, 8000], "log": True, "when": {"kind": "superpixel"}},
        "K": {"choice": [[4, 7], [56, 112]], "when": {"kind": "grid"}},
        "p": {"float": [0.1, 0.5], "step": 0.1},
        "beta": {"curve": True},
    }
)
GRIDDED = domains.parse_search(
    {"x": {"float": [0, 1], "step": 0.1}, "kind": {"choice": ["a", "b"]}, "n": {"int": [1, 3], "when": {"kind": "a"}}}
)
NAMES = ["tpe", "random", "qmc", "cmaes", "gp", "grid"]


def score(values: dict[str, Any]) -> float:
    return float(values.get("x", 0)) - 0.1 * (values.get("y") == "b") + float(values.get("p", 0))


def drawn(
    name: str, search: domains.Search, trials: int, restarts: tuple[int, ...] = (), parallel: int = 1, **options: Any
) -> list[dict[str, Any]]:
    """The values of `trials` trials, the first among them drawn too, with `parallel` under way at a time."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage, direction="maximize")
    found: list[dict[str, Any]] = []
    open_trials: list[optuna.Trial] = []
    for number in range(trials):
        if number == 0 or number in restarts:
            sampler = build_sampler(SearchOptions(sampler=name, seed=7, **options), search, {})
            study = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
        open_trials.append(study.ask())
        found.append(distributions.draw(open_trials[-1], search))
        if len(open_trials) == parallel:
            done = open_trials.pop(0)
            values = distributions.decode_params(done.params, search)
            if number % 5 == 4:
                done.report(score(values), 1)
                study.tell(done, state=optuna.trial.TrialState.PRUNED)
            elif number % 7 == 6:
                study.tell(done, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(done, score(values))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_changes_no_draw(name: str) -> None:
    search = GRIDDED if name == "grid" else NESTED
    trials = 15 if name == "gp" else 22  # it takes seconds; enough for three draws of the model
    assert drawn(name, search, trials, restarts=(3, 13, 14, 20)) == drawn(name, search, trials)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gp"])  # gp may go to one end of a range twice
def test_no_draw_is_repeated(name: str) -> None:
    search = GRIDDED if name == "grid" else FLAT
    found = drawn(name, search, 20, restarts=(7,))
    assert len({str(values.get("x", 0)) + str(values) for values in found}) == 20


@pytest.mark.parametrize("name", NAMES)
def test_conditional_names_lie_in_their_domains(name: str, caplog: pytest.LogCaptureFixture) -> None:
    search = GRIDDED if name == "grid" else NESTED
    with caplog.at_level(logging.WARNING, "optuna"):
        found = drawn(name, search, 16, parallel=3)
    for values in found:
        active = [n for n in domains.ordered(search) if domains.active(n, search, values)]
        assert list(values) == active
        assert all(domains.contains(search[n], value) for n, value in values.items())  # type: ignore[arg-type]
    assert len({str(values.get("kind")) for values in found}) == 2
    assert caplog.text == ""


def test_the_grid_is_walked_in_its_order() -> None:
    points = grid.points(GRIDDED, {}, 7)
    study = optuna.create_study(sampler=build_sampler(SearchOptions(sampler="grid", seed=7), GRIDDED, {}))
    study.add_trial(optuna.trial.create_trial(value=0.0))  # the reference, number 0
    assert [distributions.draw(study.ask(), GRIDDED) for _ in points] == points


def test_qmc_fills_the_space_more_evenly_than_chance() -> None:
    def emptiest(name: str) -> int:
        cells = [(int(8 * values["x"]), int(8 * u)) for values in drawn(name, SQUARE, 64) for u in [values["z"]]]
        return 64 - len(set(cells))

    assert emptiest("qmc") < emptiest("random") / 2


SQUARE = domains.parse_search({"x": {"float": [0, 0.999]}, "z": {"float": [0, 0.999]}})


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_those_that_learn_do(name: str) -> None:
    trials = {"tpe": 45, "gp": 25, "cmaes": 90}[name]

    def late_mean(sampler: str) -> float:
        late = drawn(sampler, FLAT, trials)[-10:]
        return float(sum(values["x"] for values in late) / len(late))

    assert late_mean(name) > 0.8 > late_mean("random") + 0.1


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_the_history_of_other_sweeps_is_learned_from(name: str) -> None:
    def first(history: list[Any]) -> float:
        options = SearchOptions(sampler=name, seed=3)
        study = optuna.create_study(direction="maximize", sampler=build_sampler(options, FLAT, {}, history))
        found = []
        for _ in range(6):
            trial = study.ask()
            found.append(distributions.draw(trial, FLAT)["x"])
            study.tell(trial, 0.0 if name != "gp" else found[-1])
        return sum(found) / len(found)

    history = []
    for i in range(40):
        told = distributions.told_params(FLAT, {"x": i / 40, "n": 1 + i % 7, "y": "a"})
        history.append(
            optuna.trial.create_trial(
                value=i / 40,
                params={n: value for n, (value, _) in told.items()},
                distributions={n: distribution for n, (_, distribution) in told.items()},
            )
        )
    assert first(history) > 0.75 and first([]) < 0.75


def test_gp_models_the_space_with_the_reference_outside() -> None:
    """Optuna's own would drop a name that one trial lacks, for ever and silently."""
    storage = optuna.storages.InMemoryStorage()
    sampler = build_sampler(SearchOptions(sampler="gp"), FLAT, {})
    study = optuna.create_study(direction="maximize", storage=storage, sampler=sampler)
    told = distributions.told_params(FLAT, {"x": 0.1, "n": 3, "y": "not listed"})
    study.add_trial(
        optuna.trial.create_trial(
            value=0.0,
            params={n: value for n, (value, _) in told.items()},
            distributions={n: distribution for n, (_, distribution) in told.items()},
        )
    )
    for _ in range(11):
        trial = study.ask()
        distributions.draw(trial, FLAT)
        study.tell(trial, trial.params["x"])
    assert set(study.sampler.infer_relative_search_space(study, study.ask()._cached_frozen_trial)) == {"x", "n", "y"}
