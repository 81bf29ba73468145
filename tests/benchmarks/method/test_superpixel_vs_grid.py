"""The arithmetic of the count of patches: medians over all crops, and the scale that is furthest off."""

import pytest

from benchmarks.method.superpixel_vs_grid import furthest, ratio_of_medians


def test_the_ratio_is_that_of_the_medians_over_all_crops() -> None:
    assert ratio_of_medians([([10, 20], [10, 10]), ([30], [40])]) == 20 / 10
    assert ratio_of_medians([([50, 1, 60], [100, 100, 1])]) == pytest.approx(0.5)


def test_the_furthest_scale_may_lie_below_or_above() -> None:
    assert furthest({448: ([11], [10]), 512: ([7], [10]), 768: ([12], [10])}) == (512, 0.7)
    assert furthest({448: ([14], [10]), 512: ([7], [10])}) == (448, 1.4)
