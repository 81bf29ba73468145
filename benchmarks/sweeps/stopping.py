"""Whether a search that ends because more is not worth it ends too early, and what a number of trials finds.

    python -m benchmarks search --only worth --json

Simulated sweeps as in benchmarks/sweeps/search.py, each to its last trial; a trial costs one GPU-hour. Before each draw
platform/plan/worth.py is asked as a sweep asks it, once for each limit of LIMITS, and where it would have ended the
search is noted. What a search has come to is the best score without noise among the TOP best noisy ones: those that a
sweep confirms. An end is *false* where going on would have paid after all: where over some number of further trials, at
least as many as the rule looks ahead, it would have come up by more than the limit for each of them. Ends so late that
fewer were left are counted as right. `false_stop_rate` and `trials_saved` are of DEFAULT_LIMIT.

The same sweeps say what a budget finds. With `--write FILE` that table goes to a file; the plan of a sweep
(`--dry-run`) reads it from platform/plan/simulated_searches.json.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from platform.config.sweep_spec import SweepSpec
from platform.plan.simulated_searches import BUDGETS, DistanceAfter, SimulatedSearches
from platform.plan.worth import LOOK_AHEAD, Worth
from platform.search.study import Study, TrialRow
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.sweeps.search import FAMILIES, Problem, objective
from benchmarks.sweeps.simulate import simulate, simulated_spec, simulated_study
from cpn.core.files import write_json

LIMITS = (0.1, 0.05, 0.02, 0.01)
"""mIoU points for a trial of one GPU-hour."""
DEFAULT_LIMIT = 0.02
TOP = 5
"""Trials that a sweep confirms."""

Floats = NDArray[np.float64]


class Asked:
    """What Worth asks of a study and of a clock: the sweep's own trials at an hour each, and a memory of its own."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._gains: dict[int, float | None] = {}
        self._kept: dict[str, Any] = {}

    def beside(self) -> "Asked":
        """The same study with another memory; what is expected is worked out once."""
        other = Asked(self._study)
        other._gains = self._gains
        return other

    @property
    def trial_hours(self) -> dict[str, float]:
        return {row.uid: 1.0 for row in self.rows()}

    def rows(self) -> list[TrialRow]:
        return self._study.rows()

    def expected_gain(self, draws: int) -> float | None:
        number = len(self.rows())
        if number not in self._gains:
            self._gains[number] = self._study.expected_gain(draws)
        return self._gains[number]

    def remembered(self, name: str) -> dict[str, Any]:
        return self._kept

    def remember(self, name: str, value: Mapping[str, Any]) -> None:
        self._kept = dict(value)


def searched(problem: Problem, seed: int, trials: int) -> tuple[Floats, dict[float, int | None]]:
    """What a search has come to after each of its trials (N,), and after which one each limit would have ended it."""
    stops: dict[float, int | None] = dict.fromkeys(LIMITS)
    scored = objective(problem, seed)

    def trial(values: Mapping[str, Any], number: int) -> tuple[list[float], float]:
        return [], scored(values, number)[1]

    with tempfile.TemporaryDirectory() as folder:
        none = {"pruning": {"kind": "none"}}
        spec = simulated_spec(Path(folder), problem.search, problem.base, trials, seed, **none)
        study = simulated_study(spec)
        asked = Asked(study)
        rules = {limit: rule(spec, limit, asked.beside()) for limit in LIMITS}

        def noted() -> bool:
            for limit, worth in rules.items():
                if stops[limit] is None and worth.enough():
                    stops[limit] = len(study.rows())
            return False

        simulate(study, spec, trial, enough=noted)
        rows = study.rows()
        study.close()
    true = np.array([problem.true_miou(row.values) for row in rows])
    return come_to(np.array([row.miou for row in rows]), true), stops


def rule(spec: SweepSpec, limit: float, asked: Asked) -> Worth:
    """The product's rule with a limit, on simulated hours."""
    budget = spec.budget.model_copy(update={"min_gain_per_gpu_hour": limit})
    return Worth(spec.model_copy(update={"budget": budget}), cast(Study, asked), cast(Any, asked), lambda line: None)


def come_to(scores: Floats, true: Floats) -> Floats:
    """After each trial, the best of `true` (N,) among the TOP best `scores` (N,) so far."""
    return np.array([true[np.argsort(-scores[:n], kind="stable")[:TOP]].max() for n in range(1, len(scores) + 1)])


def is_false(bests: Floats, stop: int, limit: float) -> bool:
    """Whether going on after trial `stop` would have paid by more than `limit` a trial."""
    further = np.arange(LOOK_AHEAD, len(bests) - stop + 1)
    return bool(((bests[stop - 1 + further] - bests[stop - 1]) / further > limit).any())


def worth_of_more(families: Sequence[str], seeds: Sequence[int], trials: int, write: Path | None) -> dict[str, Any]:
    """The rates over all families and seeds, printed as tables; the numbers."""
    gaps: list[Floats] = []
    ends: list[tuple[str, Floats, dict[float, int | None]]] = []
    for seed in seeds:
        for family in families:
            problem = FAMILIES[family](seed)
            bests, stops = searched(problem, seed, trials)
            ends.append((family, bests, stops))
            gaps.append(problem.optimum - bests)
            ends_by_limit = ", ".join(f"{limit:g} {stop or 'never'}" for limit, stop in stops.items())
            print(
                f"{family}, seed {seed}: ends by limit: {ends_by_limit}; {gaps[-1][-1]:.2f} from the optimum",
                flush=True,
            )
    print(
        f"\n| limit, mIoU a GPU-hour | family | ended | false | trials saved of {trials} | mIoU lost | gained in the "
        f"next {LOOK_AHEAD} |\n|---|---|---|---|---|---|---|"
    )
    rows = []
    for limit in LIMITS:
        for family in (*families, "all"):
            rows.append(limit_row(limit, family, [end for end in ends if family in (end[0], "all")]))
    table = budget_table(gaps, families, seeds)
    if write is not None:
        write_json(write, table.model_dump(mode="json"))
    chosen = next(row for row in rows if row["limit"] == DEFAULT_LIMIT and row["family"] == "all")
    return {
        "false_stop_rate": chosen["false"] / max(1, chosen["ended"]),
        "trials_saved": chosen["saved"],
        "sweeps": len(ends),
        "first_seed": seeds[0],
        "stops": rows,
        "found": table.model_dump(mode="json"),
    }


def limit_row(limit: float, family: str, ends: Sequence[tuple[str, Floats, dict[float, int | None]]]) -> dict[str, Any]:
    """Print and return a row of the table: of sweeps that ended and of all."""
    stopped = [(bests, stop) for _, bests, stops in ends if (stop := stops[limit]) is not None]
    left = [1 - stop / len(bests) for bests, stop in stopped]
    later = [bests[min(stop - 1 + LOOK_AHEAD, len(bests) - 1)] - bests[stop - 1] for bests, stop in stopped]
    row = {
        "limit": limit,
        "family": family,
        "sweeps": len(ends),
        "ended": len(stopped),
        "false": sum(is_false(bests, stop, limit) for bests, stop in stopped),
        "saved": float(sum(left) / len(ends)),
        "lost": float(np.mean([bests[-1] - bests[stop - 1] for bests, stop in stopped])) if stopped else 0.0,
        "next": float(np.mean(later)) if later else 0.0,
    }
    print(
        f"| {limit:g} | {family} | {row['ended']} of {row['sweeps']} | {row['false']} | {100 * row['saved']:.0f} % "
        f"| {row['lost']:.2f} | {row['next']:.2f} |"
    )
    return row


def budget_table(gaps: Sequence[Floats], families: Sequence[str], seeds: Sequence[int]) -> SimulatedSearches:
    """What each budget came to, printed."""
    longest = min(map(len, gaps))
    rows = []
    print("\n| trials | from the optimum, median | 90 % | within 0.3 |\n|---|---|---|---|")
    for trials in [count for count in BUDGETS if count <= longest]:
        at = np.array([gap[trials - 1] for gap in gaps])
        median, most = np.percentile(at, [50, 90])
        rows.append(DistanceAfter(trials=trials, median=round(float(median), 2), most=round(float(most), 2)))
        print(f"| {trials} | {median:.2f} | {most:.2f} | {100 * (at <= 0.3).mean():.0f} % |")
    command = f"python -m benchmarks search --only worth --seeds {len(seeds)} --first-seed {seeds[0]}"
    return SimulatedSearches(command=command, families=tuple(families), searches=len(gaps), budgets=tuple(rows))
