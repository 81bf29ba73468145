"""Whole trainings that a search pays for until it has a good configuration: ours with pruning against stock without.

    python -m benchmarks search --only hours --json

Searches as in benchmarks/sweeps/search.py, one trial at a time. Ours stops trials early as a sweep does by default
(`pruning` of a search space file: half a schedule, with its audit arm), and has found a configuration once a trial of
it ran to its end: one that was stopped counts for nothing. A trial costs the share of its epochs that it trained, so a
whole one costs 1; scoring, which a stopped trial is spared, costs nothing here. Ray's OptunaSearch as it comes stops
nothing. `hours_ratio` is ours to stock, of geometric means over seeds.

What a trial shows before its end: on `surrogate` and `landscapes` a form that is assumed (`at_epoch` of
benchmarks/sweeps/surrogate.py); on a table of real scores what the nearest point of the table showed.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from platform.search.study import State
from typing import Any

import numpy as np

from benchmarks.sweeps.search import CAP, FAMILIES, Problem, geometric_ratio, objective, stock
from benchmarks.sweeps.simulate import simulate, simulated_spec, simulated_study


def hours_over_families(families: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Compare on each family, and over all of them; printed."""
    result: dict[str, Any] = {}
    every: dict[str, list[float]] = {"ours": [], "stock": []}
    for family in families:
        spent: dict[str, list[float]] = {"ours": [], "stock": []}
        print(f"\n{family}: whole trainings", flush=True)
        for seed in seeds:
            problem = FAMILIES[family](seed)
            spent["ours"].append(ours_with_pruning(problem, seed))
            spent["stock"].append(stock(problem, seed))
            print(f"seed {seed}: ours {spent['ours'][-1]:.1f}, stock {spent['stock'][-1]:.0f}", flush=True)
        result[f"hours_{family}"] = spent
        result |= compared(f"{family}_hours_ratio", spent)
        for name in every:
            every[name] += spent[name]
    return result | compared("hours_ratio", every)


def compared(name: str, spent: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return the ratio of ours to stock under `name`, with its interval; printed with the medians of both."""
    ratio, low, high = geometric_ratio(spent["ours"], spent["stock"])
    medians = ", ".join(f"median of {searcher} {np.median(whole):g}" for searcher, whole in spent.items())
    print(f"{name}: {ratio:.3f} [{low:.3f}, {high:.3f}], {len(spent['ours'])} searches; {medians}", flush=True)
    return {name: ratio, f"{name}_interval": [low, high]}


def ours_with_pruning(problem: Problem, seed: int) -> float:
    """Whole trainings of a sweep of ours until a good configuration has run to its end; CAP trials are given up."""
    scored = objective(problem, seed)
    good: dict[int, bool] = {}
    spent: list[float] = []
    reached: list[str] = []

    def watched(values: Mapping[str, Any], number: int) -> tuple[list[float], float]:
        good[number] = problem.good(values)
        return scored(values, number)

    with tempfile.TemporaryDirectory() as folder:
        base = {**problem.base, "train": {"epochs": problem.epochs}}
        spec = simulated_spec(Path(folder), problem.search, base, CAP, seed)
        study = simulated_study(spec)

        def ended(uid: str) -> None:
            row = study.row(uid)
            spent.append(row.epochs / problem.epochs)
            if row.state is State.COMPLETE and good[row.number]:
                reached.append(uid)

        simulate(study, spec, watched, over=lambda: bool(reached), ended=ended)
        study.close()
    return float(np.sum(spent)) if reached else float(CAP)
