"""The Gaussian process: scikit-learn's numbers, the gradient of its fit, and where it sends the next trial."""

import math
from platform.config.space.domains import parse_search
from platform.config.space.points import Cube
from platform.search import gaussian_process
from platform.search.gaussian_process import Posterior, around, expected_gain, fit, improvement, most_hopeful

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

RNG = np.random.default_rng(0)
POINTS = RNG.random((30, 3))
SCORES = np.sin(6 * POINTS[:, 0]) + POINTS[:, 1] + 0.1 * RNG.standard_normal(30)
SCORES = (SCORES - SCORES.mean()) / SCORES.std()
LOGS = np.array([-0.5, 0.2, 1.0, 0.3, -2.0])
CUBE = Cube(parse_search({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "kind": {"choice": ["a", "b"]}}))
NONE = np.zeros((0, 3))


def test_the_posterior_is_that_of_scikit_learn() -> None:
    kernel = ConstantKernel(math.exp(0.3)) * Matern(np.exp(LOGS[:3]), nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=math.exp(-2.0), optimizer=None).fit(POINTS, SCORES)
    asked = RNG.random((20, 3))
    mean, deviation = Posterior.of(POINTS, SCORES, LOGS).at(asked)
    expected, spread = theirs.predict(asked, return_std=True)
    assert np.allclose(mean, expected, atol=1e-8) and np.allclose(deviation, spread, atol=1e-6)


def test_the_gradient_of_the_fit_is_right() -> None:
    squares = (POINTS[:, None, :] - POINTS[None]) ** 2
    more = (squares, SCORES, np.full(5, 0.2), np.full(5, 0.8))
    wrong = check_grad(
        lambda logs: gaussian_process._loss(logs, *more)[0], lambda logs: gaussian_process._loss(logs, *more)[1], LOGS
    )
    assert wrong < 1e-3


def test_the_fit_tells_what_matters_from_what_does_not() -> None:
    first, second, third, _, noise = fit(POINTS, SCORES)
    assert first < second < third and noise < math.log(0.1)


def test_improvement_is_less_where_noise_would_hide_it() -> None:
    mean, deviation = np.array([0.5]), np.array([0.7])
    expected = -0.3 * norm.cdf(-0.3 / 0.7) + 0.7 * norm.pdf(-0.3 / 0.7)
    assert improvement(mean, deviation, 0.8, 1e-12)[0] == pytest.approx(math.log(expected), abs=1e-4)
    discount = 1 - 0.5 / math.sqrt(0.7**2 + 0.25)
    assert improvement(mean, deviation, 0.8, 0.25)[0] == pytest.approx(math.log(expected * discount))


def scored(count: int) -> tuple[np.ndarray, np.ndarray]:
    points = CUBE.possible(np.random.default_rng(1).random((count, 3)))
    return points, -np.abs(points[:, 0] - 0.3) - np.abs(points[:, 1] - 0.8) - 0.5 * (points[:, 2] > 0.5)


def test_it_goes_to_the_peak_and_explores_now_and_then() -> None:
    points, scores = scored(60)
    near = [most_hopeful(CUBE, points, scores, NONE, 0, number) for number in range(3)]
    assert all(np.abs(point - [0.3, 0.8, 0.25]).max() < 0.12 for point in near[:2])
    assert np.abs(near[2] - [0.3, 0.8, 0.25]).max() > 0.12


def test_more_scores_than_are_fitted_change_little() -> None:
    points, scores = scored(250)
    assert np.abs(most_hopeful(CUBE, points, scores, NONE, 0, 0) - [0.3, 0.8, 0.25]).max() < 0.1


def test_nothing_is_proposed_twice() -> None:
    cube = Cube(parse_search({"a": {"choice": [1, 2, 3]}, "n": {"int": [1, 3]}}))
    every = cube.possible(np.array([[a, n] for a in (0.1, 0.5, 0.9) for n in (0.1, 0.5, 0.9)]))
    for left in range(9):
        others = np.delete(every, left, axis=0)
        proposed = most_hopeful(cube, others[:6], np.arange(6.0), others[6:], 0, left)
        assert np.allclose(proposed, every[left])


def test_scores_that_are_all_equal_do_no_harm() -> None:
    points = scored(12)[0]
    assert ((most_hopeful(CUBE, points, np.full(12, 50.0), NONE, 0, 4) >= 0) & (points <= 1)).all()


def test_points_around_stay_in_the_cube_and_change_the_choice() -> None:
    moved = around(CUBE, np.array([[0.0, 1.0, 0.25]] * 5), 0.1, np.random.default_rng(0))
    assert ((moved >= 0) & (moved <= 1)).all() and set(moved[:, 2]) == {0.25, 0.75}
    assert (moved[:, 0] < 0.4).all()


def gain_of(points: np.ndarray, scores: np.ndarray, draws: int = 8, cube: Cube = CUBE, number: int = 40) -> float:
    return expected_gain(cube, points, scores, np.zeros((0, points.shape[1])), draws, 0, number)


def test_the_less_is_known_the_more_is_to_gain() -> None:
    gains = [gain_of(*scored(count)) for count in (8, 20, 80)]
    assert gains[0] > gains[1] > 2 * gains[2] > 0
    assert gains[0] < 1  # the peak is 0


def test_a_gain_is_in_the_unit_of_the_scores() -> None:
    points, scores = scored(12)
    assert gain_of(points, 50 + 10 * scores) == pytest.approx(10 * gain_of(points, scores), rel=1e-6)


def test_more_draws_gain_more_but_not_as_much_each() -> None:
    points, scores = scored(12)
    one, many = gain_of(points, scores, 1), gain_of(points, scores, 8)
    assert 0 < one < many < 8 * one


def test_noise_is_nothing_to_gain() -> None:
    """The best score of thirty equal configurations is two deviations above the mean, and none is better."""
    points = scored(30)[0]
    noise = np.random.default_rng(5).standard_normal(30)
    assert gain_of(points, noise) < 0.1 * (noise.max() - noise.mean())


def test_what_runs_leaves_less_to_gain() -> None:
    points, scores = scored(12)
    waiting = CUBE.possible(np.random.default_rng(2).random((12, 3)))
    assert expected_gain(CUBE, points, scores, waiting, 8, 0, 40) < gain_of(points, scores)


def test_where_all_is_tried_there_is_nothing_to_gain() -> None:
    cube = Cube(parse_search({"a": {"choice": [1, 2, 3]}, "n": {"int": [1, 3]}}))
    every = cube.possible(np.array([[a, n] for a in (0.1, 0.5, 0.9) for n in (0.1, 0.5, 0.9)]))
    assert gain_of(every, np.arange(9.0), cube=cube) == 0
