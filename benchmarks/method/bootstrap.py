"""The bootstrap over images of the confirm step: one matrix product over all resamples, against a loop over them.

    python -m benchmarks bootstrap --json

Confusion counts of 1,464 images and 21 classes are redrawn 10,000 times (quick: 500). Both draw the same images.
`equal`: mIoU of every resample is the same to 1e-9.
"""

import argparse
from typing import Any
from unittest.mock import patch

from benchmarks.comparison import Comparison, take_turns

IMAGES, CLASSES = 1464, 21


def looped(counts: Any, resamples: int, seed: int) -> Any:
    """mIoU in percent of each resample, one after the other."""
    import numpy as np

    from cpn.scoring.metrics import miou

    drawn = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    return np.array([100 * miou(counts[images].sum(axis=0)) for images in drawn])


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare."""
    from platform.search import confirm

    import numpy as np

    resamples = 500 if options.quick else 10_000
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4000, (IMAGES, CLASSES)) * (rng.random((IMAGES, CLASSES)) < 0.12)
    hits = (true * rng.uniform(0.4, 0.9, true.shape)).astype(np.int64)
    counts = np.stack([hits, hits + rng.integers(0, 900, true.shape), true], axis=1)
    configuration = confirm.Confirmed("c", {}, [0.0], [counts])
    with patch.object(confirm, "RESAMPLES", resamples):
        difference = float(np.abs(confirm.bootstrap(configuration, 3)[0] - looped(counts, resamples, 3)).max())
        ours, other = take_turns(
            lambda: confirm.bootstrap(configuration, 3), lambda: looped(counts, resamples, 3), 3 if options.quick else 1
        )
    more = {"resamples": resamples, "largest_difference": difference}
    return Comparison(ours, other, "CPU s", difference < 1e-9, None, more).result()
