"""Trials to a good configuration: ours against Optuna's own GPSampler, both given up after 150.

    python -m benchmarks search --only gp_sampler --seeds 10 --json

Searches as in benchmarks/sweeps/search.py. GPSampler is used as it comes, with the same conditional space: it models
the names that every trial has and draws the others at random. One that has not got there after CAP trials counts as
CAP, on either side. `gp_sampler_ratio` is ours to GPSampler, of geometric means over seeds.
"""

import warnings
from collections.abc import Sequence
from platform.config.space import domains
from platform.search import distributions
from typing import Any

import numpy as np
import optuna

from benchmarks.sweeps.search import FAMILIES, Problem, geometric_ratio, objective, ours

CAP = 150
"""Trials after which both are given up: GPSampler's own time grows with their cube."""


def against_gp_sampler(families: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Compare on each family, and over all of them; printed."""
    result: dict[str, Any] = {}
    every: dict[str, list[float]] = {"ours": [], "gp_sampler": []}
    for family in families:
        counts: dict[str, list[float]] = {"ours": [], "gp_sampler": []}
        print(f"\n{family}: trials, at most {CAP}", flush=True)
        for seed in seeds:
            problem = FAMILIES[family](seed)
            counts["ours"].append(min(ours(problem, seed), CAP))
            counts["gp_sampler"].append(gp_sampler(problem, seed))
            print(f"seed {seed}: ours {counts['ours'][-1]}, GPSampler {counts['gp_sampler'][-1]}", flush=True)
        result |= {f"gp_sampler_{family}": counts} | compared(f"{family}_gp_sampler_ratio", counts)
        for name in every:
            every[name] += counts[name]
    return result | compared("gp_sampler_ratio", every)


def compared(name: str, counts: dict[str, list[float]]) -> dict[str, Any]:
    """Return the ratio of ours to GPSampler under `name`, with its interval; printed with medians and misses."""
    ratio, low, high = geometric_ratio(counts["ours"], counts["gp_sampler"])
    words = ", ".join(
        f"{searcher}: median {np.median(trials):g}, {sum(n >= CAP for n in trials)} of {len(trials)} not found"
        for searcher, trials in counts.items()
    )
    print(f"{name}: {ratio:.3f} [{low:.3f}, {high:.3f}]; {words}", flush=True)
    return {name: ratio, f"{name}_interval": [low, high]}


def gp_sampler(problem: Problem, seed: int) -> int:
    """Trials of Optuna's GPSampler, as it comes, until one is good enough."""
    search = domains.parse_search(problem.search)
    scored = objective(problem, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GPSampler(seed=seed))
    for number in range(CAP):
        trial = study.ask()
        distributions.draw(trial, search)
        values = distributions.decode_params(trial.params, search)
        if problem.good(values):
            return number + 1
        study.tell(trial, scored(values, number)[1])
    return CAP
