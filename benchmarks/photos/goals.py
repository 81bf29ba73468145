"""The goals of the topic `photographs` beside what was reached: paired differences with two intervals, and a verdict.

A difference is taken between runs of one seed on the same images, and two things vary it. Other seeds: Student's t
over the differences of the seeds. Other images: the bootstrap of `platform.search.confirm`, both sides on the same
draws, the mean over seeds in each draw. Each interval holds 95 %; neither holds what the other varies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.95
BOOTSTRAP_SEED = 0

Interval = tuple[float, float]
Verdict = Literal["met", "missed", "undecided", "not run"]


@dataclass(frozen=True)
class Scored:
    """Counts of one reading of a network on the same images, by training seed."""

    counts: "Mapping[int, Sequence[NDArray[np.int64]]]"
    """Seed -> counts (N, 3, C) of each image, one array for each init of that seed."""


@dataclass(frozen=True)
class Difference:
    """Of two systems in mIoU points."""

    by_seed: tuple[float, ...]
    images: Interval
    """The interval over images."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.by_seed) / len(self.by_seed)

    @property
    def seeds(self) -> Interval | None:
        """The interval over seeds; None for a single one."""
        return t_interval(self.by_seed)


@dataclass(frozen=True)
class Goal:
    """One line of the table. `value` None: what it takes was not run, or `why` says what failed."""

    name: str
    bound: float
    value: float | None
    seeds: Interval | None = None
    images: Interval | None = None
    without_0: bool = False
    """Both intervals have to be without 0."""
    at_most: bool = False
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        """`undecided`: the mean is as wanted, but an interval holds 0, or there is none of seeds."""
        if self.value is None:
            return "missed" if self.why else "not run"
        if (self.value > self.bound) if self.at_most else (self.value < self.bound):
            return "missed"
        if self.without_0 and any(interval is None or interval[0] <= 0 for interval in (self.seeds, self.images)):
            return "undecided"
        return "met"

    def row(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "goal": self.name,
            "wanted": f"{'<=' if self.at_most else '>='} {self.bound:g}",
            "reached": self.value,
            "seeds": None if self.seeds is None else list(self.seeds),
            "images": None if self.images is None else list(self.images),
            "verdict": self.verdict,
            **({"why": self.why} if self.why else {}),
        }


def t_interval(values: Sequence[float]) -> Interval | None:
    """Two-sided interval of Student's t for the mean; None for fewer than two values."""
    from scipy import stats

    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * deviation / math.sqrt(count)
    return mean - half, mean + half


def difference(of: Scored, reference: Scored) -> Difference | None:
    """`of` minus `reference` in percent over the seeds that both have; None without one.

    Inits of one seed are averaged. The images must be the same on both sides.
    """
    import numpy as np

    seeds = sorted(of.counts.keys() & reference.counts.keys())
    if not seeds:
        return None
    mious = [tuple(mean_miou(side.counts[seed]) for seed in seeds) for side in (of, reference)]
    draws = [np.mean([drawn(side.counts[seed]) for seed in seeds], axis=0) for side in (of, reference)]
    low, high = np.quantile(draws[0] - draws[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(tuple(a - b for a, b in zip(*mious, strict=True)), (float(low), float(high)))


def mean_miou(inits: "Sequence[NDArray[np.int64]]") -> float:
    """MIoU in percent of counts (N, 3, C), the mean over inits."""
    from cpn.scoring.metrics import miou

    return sum(100 * float(miou(counts.sum(axis=0))) for counts in inits) / len(inits)


def drawn(inits: "Sequence[NDArray[np.int64]]") -> "NDArray[np.float64]":
    """Compute the mIoU in percent, the mean over inits, in each draw of the bootstrap: (RESAMPLES,)."""
    from platform.search.confirm import Confirmed, bootstrap

    means: NDArray[np.float64] = bootstrap(Confirmed("", {}, [], list(inits)), BOOTSTRAP_SEED).mean(axis=0)
    return means


def goal(name: str, bound: float, of: Scored | None, reference: Scored | None, **more: Any) -> Goal:
    """Compare a difference with its goal."""
    gain = None if of is None or reference is None else difference(of, reference)
    if gain is None:
        return Goal(name, bound, None, **more)
    return Goal(name, bound, gain.mean, gain.seeds, gain.images, **more)


def table(goals: Sequence[Goal]) -> str:
    """Markdown."""
    lines = ["| goal | wanted | reached | over seeds | over images | |", "|---" * 6 + "|"]
    for line in goals:
        row = line.row()
        cells = [row["goal"], row["wanted"], "-" if line.value is None else f"{line.value:{_sign(line)}.1f}"]
        cells += [_shown(line.seeds), _shown(line.images), line.verdict + (f": {line.why}" if line.why else "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _sign(line: Goal) -> str:
    return "" if line.at_most else "+"


def _shown(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"
