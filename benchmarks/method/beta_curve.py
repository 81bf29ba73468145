"""Counts of an image at all 61 betas: one histogram against one evaluation pass for each threshold.

    python -m benchmarks beta_curve --json

The usual way is the released evaluation's: for each threshold the argmax over [beta, maps], then for each class its
true positives, predicted and true pixels. `equal`: all counts are the same integers. Maps are smooth random ones of two
classes at VOC's usual 500 x 375. `ours_mib` and `other_mib` are what either allocates at most for one. From
one image to the next a run keeps the counts of each, which the bootstrap over images reads: 61 x 3 x C numbers.
"""

import argparse
import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks.comparison import Comparison, take_turns

CLASSES = 21
PRESENT = (8, 15)


def picture(seed: int, height: int = 375, width: int = 500) -> tuple[Any, Any]:
    """Maps float32 (2, H, W) in [0, 1] and a truth uint8 (H, W) with ignored pixels."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    maps = np.stack([gaussian_filter(rng.random((height, width)), 12) for _ in PRESENT])
    maps -= maps.min(axis=(1, 2), keepdims=True)
    maps /= maps.max(axis=(1, 2), keepdims=True)
    truth = np.array([0, *PRESENT, 255], np.uint8)[rng.integers(0, 4, (height // 25, width // 25))]
    return maps.astype(np.float32), truth.repeat(25, axis=0).repeat(25, axis=1)


def one_pass_each(maps: Any, truth: Any) -> Any:
    """int64 (61, 3, C), threshold by threshold and class by class."""
    import numpy as np

    from cpn.scoring.metrics import BETAS

    counts = np.zeros((len(BETAS), 3, CLASSES), np.int64)
    valid = truth != 255
    labels = np.array([0, *PRESENT])
    for at, beta in enumerate(BETAS):
        background = np.full((1, *truth.shape), beta, np.float32)
        predicted = labels[np.concatenate([background, maps]).argmax(axis=0)]
        for c in range(CLASSES):
            counts[at, 0, c] = np.sum((predicted == c) & (truth == c) & valid)
            counts[at, 1, c] = np.sum((predicted == c) & valid)
            counts[at, 2, c] = np.sum((truth == c) & valid)
    return counts


def mebibytes(work: Callable[[], Any]) -> float:
    """What `work` holds at most, by Python's allocator, which numpy uses."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare on a few images."""
    import numpy as np

    from cpn.scoring.metrics import curve_counts

    present = np.array(PRESENT)
    pictures = [picture(seed) for seed in range(2 if options.quick else 6)]
    equal = all(
        np.array_equal(curve_counts(maps, present, truth, CLASSES), one_pass_each(maps, truth))
        for maps, truth in pictures
    )
    maps, truth = pictures[0]
    ours, other = take_turns(
        lambda: curve_counts(maps, present, truth, CLASSES),
        lambda: one_pass_each(maps, truth),
        3 if options.quick else 7,
    )
    more = {
        "ours_mib": mebibytes(lambda: curve_counts(maps, present, truth, CLASSES)),
        "other_mib": mebibytes(lambda: one_pass_each(maps, truth)),
    }
    return Comparison(ours, other, "CPU s an image", equal, 1 / 50, more).result()
