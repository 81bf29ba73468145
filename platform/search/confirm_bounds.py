"""What is said beside the verdict: the interval of each confirmed mean and of its difference to the reference, how the
winner stands against cam_baseline, and which confirm runs failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from cpn.config.train import Objective

from .confirm import CAM_BASELINE, LEAST_IMAGES, LEAST_SEEDS, Confirmed, bootstrap, interval, own_seeds_share
from .race import LEVEL, Rule
from .study import State, TrialRow

NAMES: dict[Objective, str] = {
    "cpn": "CPN",
    "seam": "SEAM",
    "classification": "the winner",
    "pair_classification": "the winner",
}
"""What the winner's objective is called."""


@dataclass(frozen=True)
class Bounds:
    """Intervals of a configuration that ran again, low and high end in mIoU points; None where there are none."""

    mean: tuple[float, float] | None = None
    """Of its confirmed mean, at 95 %."""
    difference: tuple[float, float] | None = None
    """Of its difference to the reference, at the verdict's level."""


def mean_interval(one: Confirmed, everything: Sequence[Confirmed], seed: int) -> tuple[float, float] | None:
    """Return the bounds at 95 % of a configuration's mean mIoU in percent, for other seeds and other images; None where
    nothing ran twice.

        mean +- t(1 - .05 / 2, f) sqrt(S + I),   S = s^2 / n

    with s^2, f and the n seeds as in `confirm.interval`, and I the variance of this mean over the N images: that of its
    bootstrap without what the seeds put there, times N / (N - 1). Two means are compared by their difference alone:
    their images are the same, which these bounds don't know.
    """
    seed_freedom, images = sum(len(c.mious) - 1 for c in everything), len(one.counts[0])
    if seed_freedom == 0 or images < LEAST_IMAGES:
        return None
    squares = sum(float(np.sum((np.array(c.mious) - c.mean) ** 2)) for c in everything)
    of_seeds = squares / seed_freedom / len(one.mious)
    drawn = bootstrap(one, seed)
    of_images = max(0.0, float(np.var(drawn.mean(axis=0))) - own_seeds_share(drawn)) * images / (images - 1)
    freedom = float(seed_freedom)
    if of_images > 0:
        freedom = (of_seeds + of_images) ** 2 / (of_seeds**2 / seed_freedom + of_images**2 / (images - 1))
    half = float(special.stdtrit(freedom, 1 - LEVEL / 2) * np.sqrt(of_seeds + of_images))
    return one.mean - half, one.mean + half


def bounds(
    reference: Confirmed | None, everything: Sequence[Confirmed], seed: int, rule: Rule | None = None
) -> dict[str, Bounds]:
    """By uid the bounds of the mean, and of the difference to the reference at the verdict's level (`interval`), where
    both have seeds enough.
    """
    by_uid: dict[str, Bounds] = {}
    others = sum(c is not reference for c in everything)
    for one in everything:
        mean, apart = mean_interval(one, everything, seed), None
        if reference is not None and one is not reference and len(one.counts[0]) >= LEAST_IMAGES:
            if min(len(c.mious) for c in (reference, one)) >= LEAST_SEEDS:
                apart = interval(reference, one, everything, others, seed, rule)
        by_uid[one.uid] = Bounds(mean, apart)
    return by_uid


def against_baseline(
    winner: Confirmed | None,
    baseline: Confirmed | None,
    everything: Sequence[Confirmed],
    objective: Objective,
    seed: int,
) -> str:
    """`CPN against cam_baseline: +12.6 [10.4, 14.8]`, or why there is no interval, or nothing to compare.

    Both ran again with fresh seeds on the confirm images; the bounds are the verdict's (`confirm.interval`) for one
    comparison. `everything` ran again too and tells the spread over seeds.
    """
    heading = f"{NAMES[objective]} against cam_baseline"
    if baseline is None:
        return f"{heading}: not compared, no run of cam_baseline finished"
    if winner is None:
        return f"{heading}: not compared, the winner did not run again (confirm.top_k)"
    difference = f"{heading}: {winner.mean - baseline.mean:+.1f}"
    fewest = min(len(winner.mious), len(baseline.mious))
    if fewest < LEAST_SEEDS:
        return f"{difference}, not tested: {fewest} fresh seed{'s' * (fewest > 1)}, {LEAST_SEEDS} are needed"
    if len(winner.counts[0]) < LEAST_IMAGES:
        return f"{difference}, not tested: a single confirm image"
    low, high = interval(baseline, winner, [*everything, baseline], 1, seed)
    shown = "" if low > 0 else ", no gain shown" if high > 0 else ", it is worse"
    return f"{difference} [{low:.1f}, {high:.1f}]{shown}"


def failed_words(runs: Sequence[TrialRow]) -> str | None:
    """Return which confirm runs failed, and why, in one line; None where none did."""
    failed = [run for run in runs if run.state is State.FAIL]
    if not failed:
        return None
    named = "; ".join(f"{run.uid} ({run.confirms}, seed {run.seed}): {run.reason}" for run in failed[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    baseline = [run.state for run in runs if run.role == CAM_BASELINE]
    alone = "" if State.COMPLETE in baseline or State.FAIL not in baseline else "; no cam_baseline to compare with"
    return f"{len(failed)} of {len(runs)} confirm runs failed: {named}{more}{alone}"
