"""What a table says beside the confirmed means: the interval of each, and of its difference to the reference."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from .confirm import LEAST_IMAGES, LEAST_SEEDS, LEVEL, Confirmed, bootstrap, interval, own_seeds_share

Bounds = dict[str, list[float] | None]


def mean_interval(one: Confirmed, everything: Sequence[Confirmed], seed: int) -> tuple[float, float] | None:
    """Bounds at 95 % of a configuration's mean mIoU in percent, for other seeds and other images; None where nothing
    ran twice.

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
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom) * np.sqrt(of_seeds + of_images))
    return one.mean - half, one.mean + half


def bounds(reference: Confirmed | None, everything: Sequence[Confirmed], seed: int) -> dict[str, Bounds]:
    """By uid the bounds of the mean, and of the difference to the reference at the verdict's level, where both have
    seeds enough.
    """
    found: dict[str, Bounds] = {}
    others = sum(c is not reference for c in everything)
    for one in everything:
        mean, apart = mean_interval(one, everything, seed), None
        if reference is not None and one is not reference and len(one.counts[0]) >= LEAST_IMAGES:
            if min(len(c.mious) for c in (reference, one)) >= LEAST_SEEDS:
                apart = interval(reference, one, everything, others, seed)
        found[one.uid] = {"mean": list(mean) if mean else None, "difference": list(apart) if apart else None}
    return found
