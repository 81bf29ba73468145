"""The evaluation pass for each threshold: by hand, and against the histogram."""

import numpy as np

from benchmarks.method.beta_curve import CLASSES, PRESENT, mebibytes, one_pass_each, picture
from cpn.scoring.metrics import BETAS, curve_counts


def test_four_pixels_by_hand() -> None:
    # Class 8 has .9 and .3, class 15 has .1 and .5; the truth is 8 and 8. Below .3 both pixels leave the background.
    maps = np.array([[[0.9, 0.3]], [[0.1, 0.5]]], np.float32)
    counts = one_pass_each(maps, np.array([[8, 8]], np.uint8))
    low, middle, high = (BETAS.index(beta) for beta in (0.2, 0.6, 1.0))
    assert counts[low, :, [0, 8, 15]].tolist() == [[0, 0, 0], [1, 1, 2], [0, 1, 0]]
    assert counts[middle, :, [0, 8, 15]].tolist() == [[0, 1, 0], [1, 1, 2], [0, 0, 0]]
    assert counts[high, :, [0, 8, 15]].tolist() == [[0, 2, 0], [0, 0, 2], [0, 0, 0]]


def test_the_histogram_counts_the_same() -> None:
    maps, truth = picture(2, 50, 75)
    assert maps.min() == 0 and maps.max() == 1 and set(np.unique(truth)) == {0, *PRESENT, 255}
    expected = one_pass_each(maps, truth)
    np.testing.assert_array_equal(curve_counts(maps, np.array(PRESENT), truth, CLASSES), expected)


def test_memory_is_what_is_held_at_once() -> None:
    assert 7.9 < mebibytes(lambda: np.ones(2**20)) < 8.2
    assert mebibytes(lambda: [np.ones(2**17).sum() for _ in range(8)]) < 2.2
