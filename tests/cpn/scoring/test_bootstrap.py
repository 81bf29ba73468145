"""The bootstrap over images: its draws, the sums over them, and the interval."""

import numpy as np
import pytest
from scipy import stats

from cpn.scoring.bootstrap import interval, resample_weights, weighted_sums


def test_every_draw_holds_n_images_and_a_seed_repeats_it() -> None:
    weights = resample_weights(7, 3, 50)
    assert weights.shape == (50, 7) and (weights.sum(axis=1) == 7).all()
    assert np.array_equal(weights, resample_weights(7, 3, 50))
    assert not np.array_equal(weights, resample_weights(7, 4, 50))
    assert len(np.unique(weights, axis=0)) > 40


def test_weighted_sums_are_those_of_the_images_drawn() -> None:
    counts = np.arange(3 * 2 * 4).reshape(3, 2, 4)
    summed = weighted_sums(counts, np.array([[1.0, 1, 1], [0, 3, 0]]))
    assert np.array_equal(summed, [counts.sum(axis=0), 3 * counts[1]])


def test_the_interval_of_a_mean_is_that_of_students_t() -> None:
    values = np.random.default_rng(0).normal(50, 4, 30)
    drawn = resample_weights(30, 0, 20_000) @ values / 30
    low, high = interval(float(values.mean()), drawn, 30) or (0, 0)
    wanted = stats.t.interval(0.95, 29, values.mean(), values.std(ddof=1) / np.sqrt(30))
    assert (low, high) == pytest.approx(wanted, abs=0.02)


def test_a_single_image_has_no_interval() -> None:
    assert interval(50.0, np.full(10, 50.0), 1) is None
