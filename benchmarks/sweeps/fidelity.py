"""What a cheap look at a configuration says of its whole run, and what it costs; from a table of real scores.

    python -m benchmarks fidelity --family scenes --half first

Looks are each epoch of the whole run (mIoU at one scale, which costs the share of the epochs), and its cheap forms: a
shorter schedule with its own end, fewer images, smaller crops (benchmarks/sweeps/tables.py). For each look, over the
points that have it: Spearman's correlation with the whole run's mIoU at seed 0, with a bootstrap interval over points;
the standard deviation of the whole run's mIoU about the straight line in the look's; and the cost in whole runs (median
of CPU seconds). The look `another seed` is a whole run again; unlike the others it does not share the luck of seed 0.

Then what successive halving (`pruning`) would have done to these runs as trials in random order, ORDERS times, without
an audit arm: the epochs that were trained as a share of all, how often the best run was stopped, and how much lower the
best of the others is, mean. A search that learns crowds where scores are good, where a rule has a harder choice: random
orders flatter all rules alike. Nothing is trained here.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from platform.search import pruning
from platform.search.pruning_audit import spearman
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.sweeps import tables
from benchmarks.sweeps.tables import TABLES, WHOLE, Row
from cpn.core.errors import InputError

LEAST = 8
"""Points that a look needs."""
RESAMPLES = 2000
ANOTHER_SEED = "another seed"
ORDERS = 200
RULES = ((0.67, 2.0), (0.5, 2.0), (0.5, 1.5), (0.5, 3.0), (0.33, 2.0))
"""Grace (share of the schedule at the first look) and reduction (one in so many runs on); 0.5 and 2 are the default."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """What one kind of look says of whole runs."""

    name: str
    points: int
    correlation: float
    low: float
    high: float
    deviation: float
    """Of the whole run's mIoU about the straight line in the look's."""
    cost: float
    """In whole runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--family", choices=tables.FAMILIES, default="scenes", help="(%(default)s)")
    parser.add_argument(
        "--half", choices=("first", "second", "both"), default="first", help="of the points (%(default)s)"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Print a row for each look; `--quick` changes nothing, for nothing is trained."""
    rows = tables.read_rows(TABLES / f"{options.family}.jsonl")
    if options.half != "both":
        rows = [row for row in rows if tables.first_half(row.point) == (options.half == "first")]
    looks = all_looks(rows)
    if not looks:
        raise InputError(
            f"--family {options.family}: its table has no look at {LEAST} points of this half; "
            f"python -m benchmarks tables --family {options.family}"
        )
    print("| look | points | Spearman | deviation, mIoU | cost |\n|---|---|---|---|---|")
    for look in looks:
        print(
            f"| {look.name} | {look.points} | {look.correlation:.2f} [{look.low:.2f}, {look.high:.2f}] "
            f"| {look.deviation:.2f} | {look.cost:.2f} |"
        )
    whole = [row for row in rows if row.fidelity == WHOLE and row.seed == 0]
    print("\n| rule | epochs trained | best run stopped | lost, mIoU |\n|---|---|---|---|")
    for grace, reduction in RULES:
        outcomes = [outcome(grace, reduction, in_order(whole, order)) for order in range(ORDERS)]
        trained, lost = np.mean(outcomes, axis=0)
        stopped = np.mean([below > 0 for _, below in outcomes])
        rule = f"from {grace:.0%} of the schedule on, one in {reduction:g}"
        print(f"| {rule} | {trained:.2f} | {100 * stopped:.0f} % | {lost:.2f} |", flush=True)
    return {
        "family": options.family,
        "half": options.half,
        **{f"correlation, {look.name}": round(look.correlation, 3) for look in looks},
    }


def all_looks(rows: Sequence[Row]) -> list[Look]:
    """Each look that LEAST points have: epochs in order, the cheap forms, another seed."""
    whole = {row.point: row for row in rows if row.fidelity == WHOLE and row.seed == 0}
    if not whole:
        return []
    epochs = len(next(iter(whole.values())).epochs)
    looks: dict[str, tuple[dict[int, float], float | None]] = {
        f"epoch {k} of {epochs}": ({point: row.epochs[k - 1] for point, row in whole.items()}, k / epochs)
        for k in range(1, epochs + 1)
    }
    for form in dict.fromkeys(row.fidelity for row in rows if row.fidelity != WHOLE):
        looks[form.replace("_", " ")] = {row.point: row.miou for row in rows if row.fidelity == form}, None
    looks[ANOTHER_SEED] = {row.point: row.miou for row in rows if row.fidelity == WHOLE and row.seed == 1}, None
    seconds = {
        name: {
            row.point: row.cpu_seconds
            for row in rows
            if (ANOTHER_SEED if row.seed else row.fidelity.replace("_", " ")) == name
        }
        for name in looks
    }
    return [
        measured(name, scores, whole, seconds[name] if share is None else share)
        for name, (scores, share) in looks.items()
        if len(scores.keys() & whole.keys()) >= LEAST
    ]


def measured(
    name: str, scores: Mapping[int, float], whole: Mapping[int, Row], cost: Mapping[int, float] | float
) -> Look:
    """One look at all points that have it; `cost` in CPU seconds by point, or a share of a whole run."""
    points = sorted(scores.keys() & whole.keys())
    early: Floats = np.array([scores[point] for point in points])
    late: Floats = np.array([whole[point].miou for point in points])
    drawn = np.random.default_rng(0).integers(len(points), size=(RESAMPLES, len(points)))
    low, high = np.nanpercentile([correlated(early[some], late[some]) for some in drawn], [2.5, 97.5])
    errors = late - np.polyval(np.polyfit(early, late, 1), early)
    if not isinstance(cost, float):
        cost = float(np.median([cost[point] / whole[point].cpu_seconds for point in points]))
    deviation = float(np.sqrt(np.square(errors).sum() / (len(points) - 2)))
    return Look(name, len(points), correlated(early, late), float(low), float(high), deviation, cost)


def correlated(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation; nan where all of one are equal."""
    correlation = spearman(first, second, np.ones(len(first)))
    return float("nan") if correlation is None else correlation


def in_order(rows: Sequence[Row], number: int) -> list[Row]:
    """The rows in a random order of that number."""
    return [rows[i] for i in np.random.default_rng(number).permutation(len(rows))]


def outcome(grace: float, reduction: float, rows: Sequence[Row]) -> tuple[float, float]:
    """Share of the epochs that were trained, and how far below the best the best run not stopped lies, mIoU."""
    epochs = len(rows[0].epochs)
    rungs = pruning.rungs(epochs, grace, reduction)
    seen: dict[float, list[float]] = {share: [] for share in rungs}
    whole: list[float] = []
    trained = 0
    for number, row in enumerate(rows):
        for share, epoch in rungs.items():
            value = row.epochs[epoch - 1]
            decision = pruning.decide(value, seen[share], number=number, seed=0, reduction=reduction, audit=0.0)
            seen[share].append(value)
            if decision is pruning.Decision.PRUNE:
                trained += epoch
                break
        else:
            trained += epochs
            whole.append(row.miou)
    return trained / (epochs * len(rows)), max(row.miou for row in rows) - max(whole)
