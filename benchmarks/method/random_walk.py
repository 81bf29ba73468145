"""A walk of 64 steps: a sparse matrix applied to the few present maps, against squaring the dense matrix six times.

    python -m benchmarks random_walk --json

500 x 375 pixels are 63 x 47 cells at stride 8: the dense matrix is 2961 x 2961 (33 MiB in float32, in which the usual
way works; ours is float64). Affinities are random with edges, radius 5, beta 8; maps are background and two classes.
`equal`: walked scores, which lie in [0, 1], differ by less than 1e-5. `pairs_ratio` is the same for the extraction of
the pairs: indices against a Python loop over cells and offsets, which name the same pairs.
"""

import argparse
from typing import Any

from benchmarks.comparison import Comparison, take_turns

RADIUS, BETA, LOGT = 5, 8.0, 6
TOLERANCE = 1e-5


def affinities(height: int, width: int) -> Any:
    """float32 (P, N) in [0, 1]: high within vertical stripes of ten cells, low across their edges."""
    import numpy as np

    from cpn.propagation.random_walk import pair_indices

    sources, targets = pair_indices(height, width, RADIUS)
    rng = np.random.default_rng(0)
    same = sources[None] % width // 10 == targets % width // 10
    return np.where(same, rng.uniform(0.8, 1.0, targets.shape), rng.uniform(0.1, 0.6, targets.shape)).astype(np.float32)


def looped_pairs(height: int, width: int) -> tuple[list[int], list[list[int]]]:
    """Sources and, offset by offset, targets, as plain loops find them."""
    sources = [
        y * width + x for y in range(height - RADIUS + 1) for x in range(RADIUS - 1, width - RADIUS + 1)
    ]  # all of whose offsets stay inside
    offsets = [(0, dx) for dx in range(1, RADIUS)]
    for dy in range(1, RADIUS):
        for dx in range(-RADIUS + 1, RADIUS):
            if dy * dy + dx * dx < RADIUS * RADIUS:
                offsets.append((dy, dx))
    return sources, [[s + dy * width + dx for s in sources] for dy, dx in offsets]


def dense_walk(scores: Any, pairs: Any, sources: Any, targets: Any) -> Any:
    """scores (K, h, w) T^(2^logt), T filled and squared, in float32."""
    import numpy as np
    import torch

    labels, height, width = scores.shape
    matrix = np.zeros((height * width, height * width), np.float32)
    powered = pairs**BETA
    for offset in range(len(targets)):
        matrix[sources, targets[offset]] = powered[offset]
        matrix[targets[offset], sources] = powered[offset]
    np.fill_diagonal(matrix, 1)
    step = torch.from_numpy(matrix / matrix.sum(axis=0, keepdims=True))
    for _ in range(LOGT):
        step = step @ step
    walked = torch.from_numpy(scores.reshape(labels, -1).astype(np.float32)) @ step
    return walked.numpy().reshape(scores.shape)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare at VOC's size; quick: once."""
    import numpy as np
    import torch

    from cpn.propagation.random_walk import pair_indices, transition, walk

    torch.set_num_threads(1)
    height, width = 47, 63
    pairs, (sources, targets) = affinities(height, width), pair_indices(height, width, RADIUS)
    scores = np.random.default_rng(1).random((3, height, width))
    looped = looped_pairs(height, width)
    same_pairs = looped[0] == sources.tolist() and looped[1] == targets.tolist()

    def ours() -> Any:
        return walk(scores, transition(pairs, height, width, RADIUS, BETA), 2**LOGT)

    difference = float(np.abs(ours() - dense_walk(scores, pairs, sources, targets)).max())
    fast, slow = take_turns(ours, lambda: dense_walk(scores, pairs, sources, targets), 1 if options.quick else 3)
    pairs_s, looped_s = take_turns(lambda: pair_indices(height, width, RADIUS), lambda: looped_pairs(height, width), 5)
    more = {"largest_difference": difference, "pairs_ratio": pairs_s / looped_s}
    return Comparison(fast, slow, "CPU s an image", same_pairs and difference < TOLERANCE, 1 / 50, more).result()
