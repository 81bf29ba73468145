"""What a search costs, in trials and in its own time: simulated sweeps with the product's Searcher, pruner and study.

    python -m benchmarks search --json

Trials to a good configuration, on two families: the surrogate of the published points (benchmarks/sweeps/surrogate.py,
committed before anything was compared on it), and random conditional landscapes over the space of patch.yaml, another
for each seed (benchmarks/sweeps/landscapes.py). Counted is how many trials are drawn until one is within 0.3 mIoU of
the optimum, noise left out; a trial only sees its noisy score. Compared are our default, independent random draws, and
Ray's OptunaSearch as it comes (TPE with Optuna's defaults, the same conditional space written as a function). Ours
counts its first trial, the reference, which is the worst corner of the surrogate and any point of a landscape. Every
trial runs to its end. A search that has not got there after CAP trials counts as CAP; ratios are of geometric means
over seeds, with a bootstrap interval. `stock_ratio` is ours to stock over all seeds of the families, `not_found` the
share of ours that CAP ends.

The default was chosen on the seeds from TUNING_SEED on, and on no others: the seeds from 0 on are for the table.

The same in GPU-hours, with pruning: benchmarks/sweeps/hours.py (`--only hours`).
Whether more trials are worth their price, and what a budget finds: benchmarks/sweeps/stopping.py (`--only worth`).
Several trials at a time against one: `--only parallel`.
Against Optuna's GPSampler: benchmarks/sweeps/gp_sampler.py (`--only gp_sampler`).

Own time: one sweep with the sampler `random` and pruning, one CPU-second counted as one, nothing trained. One draw, by
each sampler that learns: after such sweeps of 100 and 1,000 trials (`--only draw`).
"""

import argparse
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from platform.config.sections import SearchOptions
from platform.config.space import domains
from platform.config.space.unit_cube import from_unit
from platform.config.spec_checks import LEARNING
from platform.search import distributions
from platform.search.samplers import build_sampler
from platform.search.study import State
from typing import Any

import numpy as np
import optuna
import psutil
from numpy.typing import NDArray

from benchmarks.sweeps import surrogate, tables
from benchmarks.sweeps.landscapes import Landscape
from benchmarks.sweeps.simulate import simulate, simulated_spec, simulated_study

WITHIN = 0.3
"""mIoU points from the optimum that count as found."""
CAP = 400
"""Trials after which a model-based search is given up; random draws are cheap and go on to RANDOM_CAP."""
RANDOM_CAP = 20_000
EPOCHS = 4
RESAMPLES = 10_000
TUNING_SEED = 1000
"""The first of the seeds that searchers are changed on."""
SHORT = (100, 1000)
"""Trials of the sweeps that a draw is measured after."""
SHORT_SWEEP = 72
"""Trials of the sweeps that say what more is worth: about what a sweep of patch.yaml has."""
AT_ONCE = (1, 2, 4)
PARTS = ("trials", "hours", "worth", "parallel", "gp_sampler", "time", "draw")


@dataclass(frozen=True)
class Problem:
    """What is searched: the space and the reference of a sweep, a configuration's score without noise, and the best."""

    search: Mapping[str, Any]
    base: Mapping[str, Any]
    true_miou: Callable[[Mapping[str, Any]], float]
    optimum: float
    noise: float = surrogate.SEED_NOISE
    """Standard deviation of what a trial sees of its score."""
    epochs: int = EPOCHS
    shown: Callable[[Mapping[str, Any], float, np.random.Generator], list[float]] | None = None
    """Values, the score that is seen at the end, and noise -> what the trial shows after each epoch; None: the form of
    the surrogate.
    """

    note: str = ""
    """What is known of it, for the page."""

    def good(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration is within WITHIN of the optimum, noise left out."""
        return self.true_miou(values) >= self.optimum - WITHIN


def published(seed: int) -> Problem:
    """The surrogate, the same for every seed."""
    return Problem(surrogate.SEARCH, surrogate.BASE, surrogate.true_miou, surrogate.OPTIMUM)


def landscape(seed: int) -> Problem:
    """The random landscape of a seed; the reference is the paper's setting."""
    drawn = Landscape(seed)
    return Problem(drawn.search, {"patches": {"draw": "bernoulli"}}, drawn.true_miou, drawn.optimum)


def real(table: str, first_half: bool) -> Callable[[int], Problem]:
    """A table of real scores, the same for every seed; the reference is that of the file that is searched."""

    def problem(seed: int) -> Problem:
        from benchmarks.sweeps.replay import replay

        scores = replay(table, first_half)
        base = {
            "preset": ["official", "photos" if table == "photographs" else "scenes"],
            "patches": {"draw": "bernoulli"},
        }
        note = (
            f"{scores.points} points, error of a point left out {scores.error:.1f} mIoU, noise {scores.noise:.1f} mIoU"
        )
        return Problem(
            scores.search, base, scores.true_miou, scores.optimum, scores.noise, scores.epochs, scores.shown, note
        )

    return problem


SIMULATED: dict[str, Callable[[int], Problem]] = {"surrogate": published, "landscapes": landscape}
"""What is compared unless one family is asked for."""

FAMILIES = SIMULATED | {
    f"{table}-{half}": real(table, half == "first") for table in tables.FAMILIES for half in ("first", "second")
}
"""And the halves of the tables: searchers are chosen on the first; the second is read once, for the last table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this topic."""
    parser.add_argument("--seeds", type=int, default=50, help="searches of each kind (default: 50)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--trials", type=int, default=10_000, help="trials of the one long sweep (default: 10000)")
    parser.add_argument("--only", choices=PARTS, help="one of the parts")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="one family (surrogate and landscapes)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="with --only worth: keep what a budget finds")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that are wanted, printed as tables; the numbers."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds, trials = (2, 400) if options.quick else (options.seeds, options.trials)
    chosen = range(options.first_seed, options.first_seed + seeds)
    families = [options.family] if options.family else list(SIMULATED)
    numbers: dict[str, Any] = {}
    if options.only in (None, "trials"):
        numbers |= over_families(families, chosen)
    if options.only in (None, "hours"):
        from benchmarks.sweeps.hours import hours_over_families

        numbers |= hours_over_families(families, chosen)
    if options.only == "worth":
        from benchmarks.sweeps.stopping import worth_of_more

        numbers |= worth_of_more(families, chosen, 24 if options.quick else SHORT_SWEEP, options.write)
    if options.only == "parallel":
        numbers["parallel"] = trials_at_a_time(families, chosen)
    if options.only == "gp_sampler":
        from benchmarks.sweeps.gp_sampler import against_gp_sampler

        numbers |= against_gp_sampler(families, chosen)
    if options.only in (None, "draw"):
        numbers["ask_ms"] = draw_time(SHORT[:1] if options.quick else SHORT)
    if options.only in (None, "time"):
        numbers |= own_time(trials)
    return numbers


def over_families(families: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The comparison on each family, and ours to stock over all of them."""
    by_family = {family: trials_to_optimum(family, seeds) for family in families}
    counts = {
        name: [count for comparison in by_family.values() for count in comparison["counts"][name]]
        for name in ("ours", "stock")
    }
    ratio, low, high = geometric_ratio(counts["ours"], counts["stock"])
    missed = sum(count >= CAP for count in counts["ours"]) / len(counts["ours"])
    print(f"\nall families: ours / stock: {ratio:.3f} [{low:.3f}, {high:.3f}], not found {100 * missed:.1f} %")
    return {"stock_ratio": ratio, "stock_ratio_interval": [low, high], "not_found": missed, "families": by_family}


def trials_to_optimum(family: str, seeds: Sequence[int]) -> dict[str, Any]:
    """The comparison on one family, printed; counts by searcher and the ratios of ours to the others."""
    searchers: dict[str, Callable[[Problem, int], int]] = {"ours": ours, "random": random_draws, "stock": stock}
    counts: dict[str, list[int]] = {name: [] for name in searchers}
    print(f"\n{family} {FAMILIES[family](seeds[0]).note}".rstrip(), flush=True)
    for seed in seeds:
        problem = FAMILIES[family](seed)
        for name, searcher in searchers.items():
            counts[name].append(searcher(problem, seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {trials[-1]}" for name, trials in counts.items()), flush=True)
    print(f"\n| searcher | median trials to within {WITHIN} | 10 % | 90 % | not found |\n|---|---|---|---|---|")
    for name, trials in counts.items():
        low, median, high = np.percentile(trials, [10, 50, 90])
        cap = RANDOM_CAP if name == "random" else CAP
        print(f"| {name} | {median:.0f} | {low:.0f} | {high:.0f} | {sum(n >= cap for n in trials)} of {len(seeds)} |")
    result: dict[str, Any] = {"seeds": len(seeds), "first_seed": seeds[0], "counts": counts}
    for name in ("random", "stock"):
        ratio, low, high = geometric_ratio(counts["ours"], counts[name])
        result |= {f"ours_to_{name}": ratio, f"ours_to_{name}_interval": [low, high]}
        print(f"ours / {name}: {ratio:.3f} [{low:.3f}, {high:.3f}]")
    return result


def objective(problem: Problem, seed: int) -> Callable[[Mapping[str, Any], int], tuple[list[float], float]]:
    """The problem with the noise of one seed: a trial's noise depends on its number alone."""

    def trial(values: Mapping[str, Any], number: int) -> tuple[list[float], float]:
        noise = np.random.default_rng([seed, number])
        final = problem.true_miou(values) + problem.noise * float(noise.standard_normal())
        if problem.shown is not None:
            return problem.shown(values, final, noise), final
        return [surrogate.at_epoch(final, epoch, EPOCHS, noise) for epoch in range(1, EPOCHS + 1)], final

    return trial


def trials_at_a_time(families: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Trials that are drawn until one is good enough, with several under way at a time against one; printed."""
    result: dict[str, Any] = {}
    for family in families:
        counts: dict[int, list[int]] = {at_once: [] for at_once in AT_ONCE}
        for seed in seeds:
            problem = FAMILIES[family](seed)
            for at_once, trials in counts.items():
                trials.append(ours(problem, seed, at_once))
            print(f"{family}, seed {seed}: " + ", ".join(f"{n} at a time {trials[-1]}" for n, trials in counts.items()))
        print(f"\n| {family}: at a time | median trials to within {WITHIN} | to one at a time |\n|---|---|---|")
        for at_once, trials in counts.items():
            ratio, low, high = geometric_ratio(trials, counts[1])
            result |= {f"{family}_{at_once}": trials, f"{family}_{at_once}_ratio": [ratio, low, high]}
            print(f"| {at_once} | {np.median(trials):.0f} | {ratio:.2f} [{low:.2f}, {high:.2f}] |", flush=True)
    return result


def ours(problem: Problem, seed: int, at_once: int = 1) -> int:
    """Trials of a sweep of ours until one is good enough."""
    reached: list[int] = []
    scored = objective(problem, seed)

    def watched(values: Mapping[str, Any], number: int) -> tuple[list[float], float]:
        if problem.good(values):
            reached.append(number + 1)
        return [], scored(values, number)[1]

    with tempfile.TemporaryDirectory() as folder:
        spec = simulated_spec(Path(folder), problem.search, problem.base, CAP, seed, pruning={"kind": "none"})
        study = simulated_study(spec)
        simulate(study, spec, watched, concurrent=at_once, over=lambda: bool(reached))
        study.close()
    return reached[0] if reached else CAP


def random_draws(problem: Problem, seed: int) -> int:
    """Independent draws, as the sampler `random` makes them, until one is good enough."""
    search = domains.parse_search(problem.search)
    rng = np.random.default_rng([seed, 1])
    for number in range(1, RANDOM_CAP):
        values: dict[str, Any] = {}
        for name in domains.ordered(search):
            if domains.active(name, search, values):
                values[name] = from_unit(domains.drawn(search)[name], float(rng.random()))
        if problem.good(values):
            return number
    return RANDOM_CAP


def stock(problem: Problem, seed: int) -> int:
    """Trials of Ray's OptunaSearch, as it comes, until one is good enough."""
    from ray.tune.search.optuna import OptunaSearch

    search = domains.parse_search(problem.search)

    def define(trial: optuna.Trial) -> dict[str, Any]:
        distributions.draw(trial, search)
        return {}

    searcher = OptunaSearch(define, metric="miou", mode="max", seed=seed)
    scored = objective(problem, seed)
    for number in range(CAP):
        drawn = searcher.suggest(str(number))
        values = distributions.decode_params(drawn, search)
        if problem.good(values):
            return number + 1
        searcher.on_trial_complete(str(number), {"miou": scored(values, number)[1], "training_iteration": EPOCHS})
    return CAP


def geometric_ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of ours over theirs, and its 95 % bootstrap interval over seeds."""
    logs: NDArray[np.float64] = np.log(ours) - np.log(theirs)
    drawn = np.random.default_rng(0).integers(len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.percentile(logs[drawn].mean(axis=1), [2.5, 97.5])
    return math.exp(logs.mean()), math.exp(low), math.exp(high)


def draw_time(lengths: Sequence[int]) -> dict[str, float]:
    """CPU milliseconds of one draw by each sampler that learns, after sweeps of these numbers of trials; printed."""
    asks: dict[str, float] = {}
    for trials in lengths:
        with tempfile.TemporaryDirectory() as folder:
            long_sweep(Path(folder), trials, lambda uid: None)
            for sampler in LEARNING:
                name = f"{sampler} after {trials}"
                asks[name] = ask_ms(Path(folder) / "study.db", SearchOptions(sampler=sampler))
                print(f"one draw by {name}: {asks[name]:.0f} ms", flush=True)
    return asks


def own_time(trials: int) -> dict[str, Any]:
    """One long sweep; printed."""
    tenth = trials // 10
    with tempfile.TemporaryDirectory() as folder:
        # Imports and caches, for which only the first trials would pay.
        long_sweep(Path(folder), SHORT[0], lambda uid: None)
    stamps: list[float] = []
    memory: list[float] = []

    def ended(uid: str) -> None:
        stamps.append(time.process_time())
        if len(stamps) % tenth == 0:
            memory.append(rss_mib())
            print(f"{len(stamps)} of {trials} trials, {memory[-1]:.0f} MiB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        states = long_sweep(Path(folder), trials, ended)
        database = Path(folder) / "study.db"
        rows, size = table_rows(database), database.stat().st_size
        first = 1000 * (stamps[tenth - 1] - began) / tenth
        last = 1000 * (stamps[-1] - stamps[-tenth - 1]) / tenth
        result: dict[str, Any] = {
            "trials": trials,
            "ms_per_trial_first_tenth": first,
            "ms_per_trial_last_tenth": last,
            "last_to_first": last / first,
            "rows_per_trial": rows / trials,
            "bytes_on_disk_per_trial": size / trials,
            "mib_first_tenth": memory[0],
            "mib_end": memory[-1],
        }
        ends = ", ".join(f"{n} {state.value}" for state, n in states.items() if n)
        print(
            f"ended: {ends}\nown CPU time a trial: first {tenth} {first:.1f} ms, last {tenth} {last:.1f} ms, "
            f"ratio {last / first:.2f}\n{rows / trials:.1f} rows and {size / trials:.0f} bytes of database a trial; "
            f"{memory[0]:.0f} MiB after the first {tenth}, {memory[-1]:.0f} MiB at the end"
        )
    return result


def long_sweep(folder: Path, trials: int, ended: Callable[[str], None]) -> dict[State, int]:
    """A sweep with the sampler `random` and pruning, four trials at a time; how its trials ended."""
    base = {**surrogate.BASE, "train": {"epochs": EPOCHS}}
    options = {"search_options": {"sampler": "random"}, "pruning": {"kind": "asha"}}
    spec = simulated_spec(folder, surrogate.SEARCH, base, trials, **options)
    study = simulated_study(spec)
    simulate(study, spec, objective(published(0), 0), concurrent=4, ended=ended)
    states = study.counts()
    study.close()
    return states


def ask_ms(database: Path, options: SearchOptions, draws: int = 5) -> float:
    """CPU milliseconds of one draw over the finished trials of a study, the reading of the study left out."""
    search = domains.parse_search(surrogate.SEARCH)
    study = optuna.load_study(
        study_name="simulated", storage=f"sqlite:///{database}", sampler=build_sampler(options, search, {})
    )
    study.get_trials(deepcopy=False)
    taken = []
    for _ in range(draws):
        began = time.process_time()
        trial = study.ask()
        distributions.draw(trial, search)
        taken.append(time.process_time() - began)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return 1000 * float(np.median(taken))


def table_rows(database: Path) -> int:
    """Rows of all tables."""
    with sqlite3.connect(database) as connection:
        tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        return sum(connection.execute(f'select count(*) from "{table}"').fetchone()[0] for table in tables)


def rss_mib() -> float:
    """Resident memory of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20
