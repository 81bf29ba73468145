"""The bootstrap over images: how far a number of a list would move, had other images of the kind been scored."""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
"""Of the intervals that `interval` gives."""


def resample_weights(images: int, seed: int, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Draw N images with replacement, `resamples` times: how often each is drawn, float64 (R, N).

    Equal for equal `seed` and N, so that two methods are scored on the same draws.
    """
    drawn = np.random.default_rng(seed).integers(images, size=(resamples, images))
    numbered = drawn + images * np.arange(resamples)[:, None]  # one count over all draws; a multinomial is slow
    return np.bincount(numbered.ravel(), minlength=resamples * images).reshape(resamples, images).astype(float)


def weighted_sums(counts: NDArray[np.integer], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the counts (N, ..., C) summed over images that count `weights` (R, N) times: float64 (R, ..., C).

    In float64 the sums of counts are exact, and many times faster than in int64.
    """
    summed: NDArray[np.float64] = (weights @ counts.reshape(len(counts), -1)).reshape(len(weights), *counts.shape[1:])
    return summed


def interval(value: float, drawn: NDArray[np.floating], images: int) -> tuple[float, float] | None:
    """Return the bounds of a number at LEVEL, given its resamples (R,): value +- t(.975, N - 1) s sqrt(N / (N - 1)).

    s is the standard deviation of the resamples, and a bootstrap of N images spreads like the N - 1 that are free. The
    interval is centred on the number itself, for the resamples are not: a class of few images is missing in some of
    them and counts as 0 there. None of a single image, which says nothing about another.
    """
    from scipy import stats

    if images < 2:
        return None
    spread = float(np.std(drawn)) * np.sqrt(images / (images - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, images - 1)) * float(spread)
    return value - half, value + half
