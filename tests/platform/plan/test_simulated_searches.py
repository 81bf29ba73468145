"""What a budget finds in simulation, as the plan says it: from the table that the benchmark wrote."""

from pathlib import Path
from platform.plan.estimate import estimate
from platform.plan.simulated_searches import BUDGETS, TABLE, DistanceAfter, SimulatedSearches, expectation
from typing import Any

import pytest

from cpn.core.files import read_json, write_json
from tests.platform.search.test_study import make_spec


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = tuple(DistanceAfter(trials=n, median=32 / n, most=64 / n) for n in (8, 16, 32))
    made = SimulatedSearches(command="python -m benchmarks x", families=("a",), searches=20, budgets=rows)
    path = tmp_path / "simulated_searches.json"
    write_json(path, made.model_dump(mode="json"))
    return path


def words(folder: Path, table: Path, budget: dict[str, Any], **changes: Any) -> str | None:
    spec = make_spec(folder, budget=budget, **changes)
    return expectation(spec, estimate(spec), table)


def test_a_budget_of_the_table(tmp_path: Path, table: Path) -> None:
    assert words(tmp_path, table, {"trials": 16}) == (
        "to expect: 16 trials, which came within 2 mIoU of the best there was in half of 20 simulated searches, within "
        "4 in nine of ten (python -m benchmarks x)"
    )


def test_a_budget_between_rows_is_the_lower_one(tmp_path: Path, table: Path) -> None:
    said = words(tmp_path, table, {"trials": 31})
    assert said is not None and said.startswith(
        "to expect: 31 trials, at least as good as 16 trials, which came within"
    )


def test_hours_are_trials_at_the_plan_s_price(tmp_path: Path, table: Path) -> None:
    price = estimate(make_spec(tmp_path)).hours_per_trial or 0.0
    said = words(tmp_path, table, {"trials": 500, "gpu_hours": 8.5 * price})
    assert said is not None and said.startswith("to expect: 8 trials, which")


def test_nothing_is_said_of_what_was_not_simulated(tmp_path: Path, table: Path) -> None:
    assert words(tmp_path, table, {"trials": 16}, search_options={"sampler": "tpe"}) is None
    assert words(tmp_path, table, {"trials": 4}) is None
    assert words(tmp_path, table, {"wall_hours": 4}) is None


def test_the_table_that_is_shipped_is_the_benchmark_s() -> None:
    shipped = SimulatedSearches.model_validate(read_json(TABLE, "-"))
    assert shipped.command.startswith("python -m benchmarks search --only worth ") and shipped.searches >= 10
    assert [row.trials for row in shipped.budgets] == list(BUDGETS[: len(shipped.budgets)])
    assert all(0 <= row.median <= row.most for row in shipped.budgets)
