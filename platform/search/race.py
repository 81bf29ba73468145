"""A race of the best trials against the reference: which runs with fresh seeds come next, and how sure the end is.

In place of equal shares, each round of runs goes where it can still change the verdict: to the candidate that is ahead,
to the next one in the order of the search while none is ahead, and to the reference, which every difference holds. It
ends when the verdict is sure, when nothing can change it any more, or with its last run.

All is decided by the results of the rounds before, so a race that was killed goes on as it would have. The arrays hold
B races with A arms, the reference first and the candidates in the order of the search: a sweep is one race, and
`level` plays many in which nothing is better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

LEVEL = 0.05
"""At most this share of races in which nothing is better ends with something that is called better."""
LEAST_SEEDS = 3
"""Fewer runs of a configuration say nothing about its spread."""
ROUND = 2
"""Runs that are chosen at a time. One at a time finds hardly more, and keeps a second worker idle."""
EARLY = 0.006
"""Chance of an error, divided by the number of rounds, at which a race ends before its last run."""
AHEAD = 0.5
"""A candidate holds the next ones back while it is ahead of the reference by so many standard deviations of a run."""
KNOWN = 4
"""Degrees of freedom from which on the standard deviation of a run counts as known; before, being ahead is enough."""
SHRINK = 1
"""Runs with the reference's mean that each candidate's lead is averaged with: a first lucky one is not yet a lead."""
RACES = 40_000
"""Simulated races behind a level: a standard error of 2 % of it."""
LEAST_RATIO, STEP, STEPS = 0.01, 4.0, 7
"""Ratios of the variances of images and seeds for which there is a level: the first, what each next one is multiplied
by, and how many; the last is 41, where seeds no longer count.
"""

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Arms:
    """What is known of the arms: how many runs (B, A), their sum and the sum of their squares."""

    runs: Floats
    sums: Floats
    squares: Floats

    @classmethod
    def of(cls, results: Sequence[Sequence[float]]) -> "Arms":
        """Return one race, by the results of each arm."""
        middle = float(np.mean([value for own in results for value in own] or [0.0]))  # keeps the squares small
        runs, sums, squares = ([sum((v - middle) ** power for v in own) for own in results] for power in (0, 1, 2))
        return cls(np.array([runs], float), np.array([sums], float), np.array([squares], float))

    def after(self, arm: Numbers, value: Floats, racing: Flags) -> "Arms":
        """With one more run of `arm` (B,) in the races that go on."""
        taken = (np.arange(self.runs.shape[1]) == arm[:, None]) & racing[:, None]
        added = np.where(taken, value[:, None], 0.0)
        return Arms(self.runs + taken, self.sums + added, self.squares + added**2)

    @property
    def means(self) -> Floats:
        """(B, A), zero where nothing ran."""
        return self.sums / np.maximum(self.runs, 1)

    @property
    def variance(self) -> tuple[Floats, Floats]:
        """The variance of a run, pooled over the arms, and its degrees of freedom: (B,) each."""
        freedom = np.maximum(self.runs - 1, 0).sum(axis=1)
        within = (self.squares - self.sums * self.means).sum(axis=1)
        return np.maximum(within, 0) / np.maximum(freedom, 1), freedom


def next_arms(arms: Arms, left: int, closed: Flags | None = None) -> list[Numbers]:
    """Return the arms (B,) of the next round, one after the other; -1 where no run can change the verdict any more.

    `left` runs are allowed; `closed` (B, A) are arms that do not run again. Within the round a run is expected to
    repeat its arm's mean.
    """
    closed = np.zeros(arms.runs.shape, bool) if closed is None else closed
    variance, freedom = arms.variance
    ahead = np.where(freedom >= KNOWN, AHEAD * np.sqrt(variance), 0.0)
    everyone, arms_in_turn = np.ones(len(arms.runs), bool), []
    for chosen in range(min(ROUND, left)):
        arm = next_arm(arms, left - chosen, ahead, closed)
        arms_in_turn.append(arm)
        at = np.maximum(arm, 0)[:, None]
        ran = np.take_along_axis(arms.runs, at, 1)[:, 0] > 0
        expected = np.where(ran, np.take_along_axis(arms.means, at, 1)[:, 0], arms.means[:, 0])
        arms = arms.after(arm, expected, everyone)
    return arms_in_turn


def next_arm(arms: Arms, left: int, ahead: Floats, closed: Flags) -> Numbers:
    """Return the arm (B,) of one run; `ahead` (B,) is the lead that holds back candidates that have not run."""
    runs, reference = arms.runs[:, 1:], arms.runs[:, :1]
    missing = np.maximum(0, LEAST_SEEDS - runs) + np.maximum(0, LEAST_SEEDS - reference)
    open_ = (missing <= left) & ~closed[:, 1:] & ~(closed[:, :1] & (reference < LEAST_SEEDS))
    seen = open_ & (runs > 0)
    lead = np.where(seen, (arms.sums[:, 1:] - runs * arms.means[:, :1]) / (runs + SHRINK), -np.inf)
    unseen = open_ & (runs == 0)
    look = unseen.any(axis=1) & (lead.max(axis=1) <= ahead)
    candidate = np.where(look, unseen.argmax(axis=1), lead.argmax(axis=1)) + 1
    own = np.take_along_axis(arms.runs, candidate[:, None], 1)[:, 0]
    arm = np.where((arms.runs[:, 0] < own) & ~closed[:, 0], 0, candidate)
    return np.where(open_.any(axis=1), arm, -1)


def error(arms: Arms, images: float = 0.0) -> Floats:
    """Return the chance (B,) that the best candidate seems so much better while it is not, if it were the only one.

    The best mean among those with LEAST_SEEDS runs; `images` is the variance of a difference that is owed to images.
    1 where nothing can be said yet.
    """
    means, (variance, freedom) = arms.means, arms.variance
    tested = (arms.runs[:, 1:] >= LEAST_SEEDS) & (arms.runs[:, :1] >= LEAST_SEEDS)
    best = np.where(tested, means[:, 1:], -np.inf).argmax(axis=1)[:, None] + 1
    own = np.maximum(np.take_along_axis(arms.runs, best, 1)[:, 0], 1)
    of_seeds = variance * (1 / own + 1 / np.maximum(arms.runs[:, 0], 1))
    spread = np.maximum(of_seeds + images, np.finfo(float).tiny)
    t = (np.take_along_axis(means, best, 1)[:, 0] - means[:, 0]) / np.sqrt(spread)
    welch = np.maximum(freedom, 1) * (spread / np.maximum(of_seeds, 1e-9 * spread)) ** 2
    return np.where(tested.any(axis=1) & (freedom > 0), special.stdtr(welch, -t), 1.0)


def early(limit: int) -> float:
    """Return the chance of an error at which a race over `limit` runs ends before them."""
    return EARLY / -(-limit // ROUND)


def level(compared: int, limit: int, ratio: float) -> float:
    """Return the chance of an error at the end of a race up to which something is called better: by chance it is
    passed, or `early` before the end, in a part LEVEL of races of `compared` candidates over `limit` runs in which
    nothing is.

    `ratio` is the variance of a difference over images by that of one run over seeds. Normal noise; simulated.
    """
    step = 0
    while step < STEPS - 1 and LEAST_RATIO * STEP**step < ratio:
        step += 1
    return simulated_level(min(compared, limit), limit, LEAST_RATIO * STEP**step)


@dataclass(frozen=True)
class Rule:
    """How sure a race of `compared` candidates over `limit` runs has to be to call something better: `early`, to end
    before its last run, or at its end.
    """

    compared: int
    limit: int
    early: bool = False

    def chance(self, ratio: float) -> float:
        """Return the chance of an error up to which it does; `ratio` as in `level`."""
        return early(self.limit) if self.early else level(self.compared, self.limit, ratio)


@lru_cache(maxsize=64)
def simulated_level(compared: int, limit: int, ratio: float) -> float:
    """`level` for one of the ratios."""
    rng = np.random.default_rng([compared, limit])
    tastes = rng.normal(0, (ratio / 2) ** 0.5, (RACES, compared + 1))
    arms, racing = first_arms(tastes, rng), np.ones(RACES, bool)
    for begun in range(0, limit, ROUND):
        picked = next_arms(arms, limit - begun)
        for arm in picked:
            value = np.take_along_axis(tastes, np.maximum(arm, 0)[:, None], 1)[:, 0] + rng.standard_normal(RACES)
            arms = arms.after(arm, value, racing)
        racing &= error(arms, ratio) >= early(limit)
    return float(np.quantile(error(arms, ratio), LEVEL))


def first_arms(tastes: Floats, rng: np.random.Generator) -> Arms:
    """Races at their start: the reference has run once, in the search."""
    nothing = np.zeros(tastes.shape)
    everyone = np.ones(len(tastes), bool)
    value = tastes[:, 0] + rng.standard_normal(len(tastes))
    return Arms(nothing, nothing, nothing).after(np.zeros(len(tastes), np.int64), value, everyone)
