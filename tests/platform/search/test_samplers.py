"""Samplers by name: they draw from the space, conditions included, learn where they say so, and survive a restart."""

import logging
from platform.config.sections import SearchOptions
from platform.config.space import domains, grid
from platform.search import distributions, samplers
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
NAMES = ["gp", "tpe", "random", "qmc", "grid"]


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
    assert drawn(name, search, 22, restarts=(3, 13, 14, 20)) == drawn(name, search, 22)


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", ["gp", "tpe"])
def test_those_that_learn_do(name: str) -> None:
    trials = {"tpe": 45, "gp": 25}[name]

    def late_mean(sampler: str) -> float:
        late = drawn(sampler, FLAT, trials)[-10:]
        return float(sum(values["x"] for values in late) / len(late))

    assert late_mean(name) > 0.8 > late_mean("random") + 0.1


@pytest.mark.parametrize("name", ["gp", "tpe"])
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


def trial_of(values: dict[str, Any], score: float | None, search: domains.Search = FLAT) -> optuna.trial.FrozenTrial:
    return distributions.told_trial(search, values, score)


def drawn_after(trials: list[optuna.trial.FrozenTrial], running: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """What gp draws after these trials, while `running` run."""
    study = optuna.create_study(direction="maximize", sampler=build_sampler(SearchOptions(sampler="gp"), FLAT, {}))
    study.add_trials(trials)
    for values in running:
        study.enqueue_trial(values)
        distributions.draw(study.ask(), FLAT)
    return distributions.draw(study.ask(), FLAT)


def peak(count: int) -> list[optuna.trial.FrozenTrial]:
    """Trials over the space whose score is best at x = 0.7."""
    xs = [(0.37 * i) % 1 for i in range(count)]
    return [trial_of({"x": x, "n": 1 + 7 * i, "y": "ab"[i % 2]}, -abs(x - 0.7)) for i, x in enumerate(xs)]


def test_gp_learns_with_a_reference_outside_the_space() -> None:
    """Optuna's own would drop a name that one trial lacks, for ever and silently."""
    outside = trial_of({"x": 0.1, "n": 3, "y": "not listed"}, 5.0)
    assert drawn_after([*peak(13), outside]) == drawn_after([*peak(13), outside])
    assert abs(drawn_after([outside, *peak(13)])["x"] - 0.7) < 0.2


def test_gp_draws_no_trial_beside_those_that_run() -> None:
    alone = drawn_after(peak(13))
    beside = drawn_after(peak(13), ({**alone},))
    assert beside != alone


def test_gp_learns_from_pruned_trials() -> None:
    """Those that are stopped say where not to look."""
    upper = [trial_of({"x": 0.5 + i / 40, "n": 1 + i, "y": "a"}, 1.0) for i in range(9)]
    for trial in upper:
        trial.intermediate_values = {1: 0.5}
    lower = [trial_of({"x": i / 20, "n": 1 + i, "y": "a"}, 0.0) for i in range(9)]
    for trial in lower:
        trial.state, trial.intermediate_values = optuna.trial.TrialState.PRUNED, {1: -9.0}
    assert drawn_after([*upper, *lower])["x"] > 0.45


def test_gp_starts_evenly() -> None:
    first = drawn("gp", SQUARE, 8)
    assert {int(2 * values["x"]) + 2 * int(2 * values["z"]) for values in first} == {0, 1, 2, 3}
    assert first == drawn("qmc", SQUARE, 8)


def test_gp_looks_at_no_more_trials_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    monkeypatch.setattr(samplers, "most_hopeful", lambda cube, points, *rest: counts.append(len(points)) or points[0])
    drawn_after([trial_of({"x": i / 400, "n": 3, "y": "a"}, 0.1) for i in range(400)])
    assert counts == [samplers.MOST_POINTS]
