"""The dense CRF over a list: processes, and the labels present only, against one process and all 21 labels.

    python -m benchmarks crf_pool --json

Smooth random maps of two classes at 250 x 188, in seconds of the clock, as several processes work; `free_cores` is what
the others on the machine left at the start. The ratio has two causes: `ratio_labels` tells in CPU seconds of one
process what leaving out absent labels brings, `ratio_processes` in seconds of the clock what `cores` processes bring to
one, both on the labels present. `thread_gain` is how many times faster two threads are than one (1: the CRF holds the
interpreter lock, which is why stages spread over processes). `equal`: the argmax is the same but for at most one pixel
in 10,000 (`pixels_apart`): an absent label keeps a trace of probability, which decides where two others are even.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.comparison import Comparison, take_turns

HEIGHT, WIDTH, CLASSES = 188, 250, 21


def scores(seed: int) -> tuple[Any, Any]:
    """An image uint8 (H, W, 3), and scores float32 (3, H, W) of background and two classes."""
    import numpy as np

    from benchmarks.method.beta_curve import PRESENT, picture
    from cpn.propagation.crf import with_background

    maps, truth = picture(seed, HEIGHT, WIDTH)
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (256, 3))
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: truth.shape[0], : truth.shape[1]] = colours[truth][:HEIGHT, :WIDTH]
    assert len(maps) == len(PRESENT)
    return image, with_background(maps, 4.0)


def labels_present(seed: int) -> Any:
    """The argmax as class indices, of the labels present."""
    import numpy as np

    from benchmarks.method.beta_curve import PRESENT
    from cpn.config.crf import CrfConfig
    from cpn.propagation.crf import dense_crf

    return np.array([0, *PRESENT])[dense_crf(*scores(seed), CrfConfig()).argmax(axis=0)]


def all_labels(seed: int) -> Any:
    """The argmax over all 21 labels, the absent ones with score 0."""
    import numpy as np

    from benchmarks.method.beta_curve import PRESENT
    from cpn.config.crf import CrfConfig
    from cpn.propagation.crf import dense_crf

    image, present_scores = scores(seed)
    full = np.zeros((CLASSES, *present_scores.shape[1:]), np.float32)
    full[[0, *PRESENT]] = present_scores
    return dense_crf(image, full, CrfConfig()).argmax(axis=0)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare over a small list."""
    import numpy as np

    pictures = 4 if options.quick else 12
    cores = len(os.sched_getaffinity(0))
    more: dict[str, Any] = {"cores": cores, "free_cores": max(0.0, cores - os.getloadavg()[0])}
    apart = sum(np.count_nonzero(labels_present(seed) != all_labels(seed)) for seed in range(pictures))
    more["pixels_apart"] = int(apart)
    present, every = take_turns(lambda: labels_present(0), lambda: all_labels(0), 3)
    more["ratio_labels"] = present / every
    with ThreadPoolExecutor(2) as threads:
        two, one = take_turns(
            lambda: list(threads.map(labels_present, range(2))), lambda: [labels_present(s) for s in range(2)], 2,
            time.perf_counter,
        )  # fmt: skip
    more["thread_gain"] = one / two
    with ProcessPoolExecutor(cores, get_context("spawn")) as processes:
        ours, other = take_turns(
            lambda: list(processes.map(labels_present, range(pictures))),
            lambda: [all_labels(seed) for seed in range(pictures)],
            1 if options.quick else 3,
            time.perf_counter,
        )
    began = time.perf_counter()
    for seed in range(pictures):
        labels_present(seed)
    more["ratio_processes"] = ours / (time.perf_counter() - began)
    equal = apart < 1e-4 * pictures * HEIGHT * WIDTH
    return Comparison(ours / pictures, other / pictures, "s an image", equal, None, more).result()
