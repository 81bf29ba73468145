"""The usual ways of the walk: loops that find pairs, a dense matrix that is squared."""

import numpy as np

from benchmarks.method.random_walk import BETA, LOGT, RADIUS, affinities, dense_walk, looped_pairs
from cpn.propagation.random_walk import pair_indices, transition, walk

HEIGHT, WIDTH = 12, 15


def test_loops_name_the_pairs_that_indices_name() -> None:
    sources, targets = pair_indices(HEIGHT, WIDTH, RADIUS)
    assert looped_pairs(HEIGHT, WIDTH) == (sources.tolist(), targets.tolist())
    assert len(targets) == 34  # offsets of radius 5 on one side


def test_squaring_comes_to_the_walk_and_keeps_the_mass() -> None:
    pairs, (sources, targets) = affinities(HEIGHT, WIDTH), pair_indices(HEIGHT, WIDTH, RADIUS)
    scores = np.random.default_rng(0).random((2, HEIGHT, WIDTH))
    walked = dense_walk(scores, pairs, sources, targets)
    ours = walk(scores, transition(pairs, HEIGHT, WIDTH, RADIUS, BETA), 2**LOGT)
    assert np.abs(walked - ours).max() < 1e-5 and np.abs(walked - scores).max() > 0.1
    flat = dense_walk(np.ones((1, HEIGHT, WIDTH)), pairs, sources, targets)
    np.testing.assert_allclose(flat, 1, atol=1e-5)  # every column sums to 1
