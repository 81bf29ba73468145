"""Ends that come too early, by hand and in small simulated sweeps; a sweep that ended so stays ended."""

import argparse
from pathlib import Path
from platform.plan.budget import Clock
from platform.plan.simulated_searches import SimulatedSearches
from platform.plan.worth import IN_A_ROW, LEAST, LOOK_AHEAD, Worth
from platform.search.study import State, Study
from typing import Any

import numpy as np
import pytest

from benchmarks.sweeps import search, stopping
from benchmarks.sweeps.search import FAMILIES, objective
from benchmarks.sweeps.simulate import simulate, simulated_spec, simulated_study
from benchmarks.sweeps.stopping import budget_table, come_to, is_false, searched
from cpn.core.files import read_json

SEARCH: dict[str, Any] = {"patches.p_h": {"float": [0.1, 0.5]}}
BASE: dict[str, Any] = {"patches": {"p_h": 0.1, "draw": "bernoulli"}}


def test_what_is_confirmed_is_what_was_come_to() -> None:
    scores, true = np.array([1.0, 9, 8, 7, 6, 5, 0]), np.array([0.5, 3, 1, 1, 1, 9, 10])
    assert come_to(scores, true).tolist() == [0.5, 3, 3, 3, 3, 9, 9]  # the last is never among the five best


def test_an_end_is_false_where_going_on_would_have_paid() -> None:
    found = np.concatenate([np.zeros(10), np.ones(20)])
    assert is_false(found, 10, 1 / LOOK_AHEAD - 0.01) and not is_false(found, 10, 1 / LOOK_AHEAD + 0.01)
    late = np.concatenate([np.zeros(25), np.ones(5)])
    assert is_false(late, 10, 0.06) and not is_false(late, 10, 0.07)  # sixteen trials for one point
    assert not is_false(late, 30 - LOOK_AHEAD + 1, 0.001), "fewer are left than it looks ahead"


def test_a_simulated_search_ends_where_the_sweep_would(tmp_path: Path) -> None:
    found, stops = searched(FAMILIES["surrogate"](0), 0, LEAST + IN_A_ROW + 4)
    assert len(found) == LEAST + IN_A_ROW + 4 and set(stops) == set(stopping.LIMITS)
    ends = [stop for stop in stops.values() if stop is not None]
    assert all(stop >= LEAST + IN_A_ROW - 1 for stop in ends)
    assert ends == sorted(ends), "a lower limit ends it later"


def test_the_tables_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    curve = np.concatenate([np.full(20, 50.0), np.full(4, 51.0)])
    stops = dict.fromkeys(stopping.LIMITS) | {0.02: 10, 0.1: 20}
    monkeypatch.setattr(stopping, "searched", lambda problem, seed, trials: (curve, stops))
    options = argparse.Namespace(
        quick=True,
        seeds=2,
        first_seed=0,
        trials=1,
        only="worth",
        family="surrogate",
        write=tmp_path / "simulated_searches.json",
    )
    result = search.run(options)
    assert (result["false_stop_rate"], result["sweeps"]) == (1.0, 2)
    assert result["trials_saved"] == pytest.approx(1 - 10 / 24)
    of = next(row for row in result["stops"] if row["limit"] == 0.1 and row["family"] == "all")
    assert (of["ended"], of["false"], of["lost"]) == (2, 0, 1.0)
    kept = SimulatedSearches.model_validate(read_json(tmp_path / "simulated_searches.json", "-"))
    assert kept.searches == 2 and [row.trials for row in kept.budgets] == [8, 16, 24]
    assert kept.budgets[0].median == pytest.approx(57.43 - 50, abs=0.01)
    assert "| 0.02 | all | 2 of 2 | 2 | 58 % | 1.00 |" in capsys.readouterr().out


def test_what_a_budget_finds_by_hand() -> None:
    gaps = [np.full(16, gap) for gap in (0.1, 0.2, 1.0)]
    table = budget_table(gaps, ["a"], range(3))
    assert [(row.trials, row.median) for row in table.budgets] == [(8, 0.2), (16, 0.2)]
    assert table.budgets[0].most == pytest.approx(0.84)


@pytest.fixture
def flat() -> Any:
    """A search in which nothing is to be gained."""
    return objective(search.Problem(SEARCH, BASE, lambda values: 50.0, 50.0), 3)


def test_a_sweep_that_ended_early_stays_ended(tmp_path: Path, flat: Any) -> None:
    """Until the limit is changed; trials that ran when it ended come to their end."""

    def started(least: float | None) -> tuple[Study, list[str]]:
        budget = {"trials": 60, "min_gain_per_gpu_hour": least}
        spec = simulated_spec(tmp_path, SEARCH, BASE, 60, budget=budget, pruning={"kind": "none"})
        study, said = simulated_study(spec), list[str]()
        clock = Clock(tmp_path / "clock.json")
        clock.at_least(0, study.rows())
        worth = Worth(spec, study, clock, said.append)
        simulate(study, spec, lambda values, n: ([], flat(values, n)[1]), concurrent=2, enough=worth.enough)
        return study, said

    study, said = started(1000.0)
    ended = study.rows()
    assert LEAST + IN_A_ROW <= len(ended) < 40 and all(row.state is State.COMPLETE for row in ended)
    assert len(said) == 1 and " GPU-hours are expected to gain " in said[0] and said[0].endswith("hour: 1000)")
    again, said = started(1000.0)
    assert again.rows() == ended and said == []
    lifted, said = started(None)
    assert len(lifted.rows()) == 60 and lifted.rows()[: len(ended)] == ended and said == []
