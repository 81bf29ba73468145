"""A Gaussian process over the unit cube: what noisy scores say about points that nobody has tried, and which is next.

Matern 5/2 with a length scale for each axis, a signal and a noise variance, all six to ten of them the most probable
ones given weak priors (Rasmussen and Williams 2006, chapters 2 and 5). Own code because a draw has
100 ms: scikit-learn's, which the tests hold it against, takes 95 ms for the fit alone, with as many steps, this 16 ms.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

from ..config.space.points import IDLE, Cube

STEPS = 15
"""Iterations of the fit."""
PRIORS = ((0.0, 1.0), (0.0, 1.0), (math.log(0.1), 1.5))
"""Mean and standard deviation of the logarithms of a length scale, the signal variance and the noise variance."""
BOUNDS = ((-4.0, 4.0), (-3.0, 3.0), (math.log(1e-3), 1.0))

FITTED = 100
"""Scores that the parameters are fitted to, at most: the best half, and others drawn at random."""
EXPLORE_EVERY, OPTIMISM = 3, 4.0
"""Every third trial goes to the highest mean plus 4 standard deviations: no part of the space is left for good."""
ANYWHERE, BEST, AROUND = 500, 5, 20
"""Random candidates; points around which more are drawn; how many around each."""
WIDTHS = (0.1, 0.05, 0.02, 0.01)
"""How far around, step by step."""
IMAGINED = 512
"""Sets of scores that an expected gain is the mean over."""
DOUBT = 0.5
"""Logarithm by which length scales are shortened where a gain is expected: the most probable ones are often too long,
and a model that is too sure of itself would end a search too early.
"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """What `points` (N, D) with `scores` (N,) of mean 0 and variance 1 say, under the logarithms of the parameters."""

    points: Floats
    scores: Floats
    logs: Floats
    """D length scales, signal variance, noise variance."""
    lower: Floats
    """Cholesky factor of the covariance of the scores."""
    weights: Floats

    @classmethod
    def of(cls, points: Floats, scores: Floats, logs: Floats) -> "Posterior":
        """Return the posterior without a fit."""
        covariance = _covariance(points, points, logs)
        covariance[np.diag_indices(len(points))] += math.exp(logs[-1])
        lower = cholesky(covariance, lower=True)
        return cls(points, scores, logs, lower, cho_solve((lower, True), scores))

    def at(self, points: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (M,) of the score without noise at `points` (M, D)."""
        between = _covariance(self.points, points, self.logs)
        known = solve_triangular(self.lower, between, lower=True)
        variance = math.exp(self.logs[-2]) - (known**2).sum(axis=0)
        return between.T @ self.weights, np.sqrt(np.maximum(variance, 1e-10))

    def known_of(self, points: Floats) -> Floats:
        """Return what is known of `points` (M, D), as columns (N, M): products of two are what their scores share of
        it.
        """
        return np.asarray(solve_triangular(self.lower, _covariance(self.points, points, self.logs), lower=True))


def fit(points: Floats, scores: Floats) -> Floats:
    """Return the logarithms of the most probable parameters (D + 2,) for scores of mean 0 and variance 1."""
    axes = points.shape[1]
    squares = (points[:, None, :] - points[None]) ** 2
    each = [0] * axes + [1, 2]
    mean, spread = np.array(PRIORS)[each].T
    optimum = minimize(
        _loss,
        mean,
        (squares, scores, mean, spread),
        jac=True,
        method="L-BFGS-B",
        bounds=[BOUNDS[i] for i in each],
        options={"maxiter": STEPS},
    )
    return np.asarray(optimum.x, dtype=np.float64)


def _loss(logs: Floats, squares: Floats, scores: Floats, mean: Floats, spread: Floats) -> tuple[float, Floats]:
    """Negative logarithm of likelihood times priors, and its gradient."""
    axes, count = len(logs) - 2, len(scores)
    inverse, signal, noise = np.exp(-2 * logs[:axes]), math.exp(logs[axes]), math.exp(logs[axes + 1])
    far = np.sqrt(5 * (squares @ inverse))
    decay = np.exp(-far)
    covariance = signal * (1 + far + far**2 / 3) * decay
    try:
        lower = cholesky(covariance + noise * np.eye(count), lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(logs)
    precision = cho_solve((lower, True), np.eye(count))
    weights = precision @ scores
    loss = 0.5 * scores @ weights + np.log(np.diag(lower)).sum() + 0.5 * (((logs - mean) / spread) ** 2).sum()
    outer = precision - np.outer(weights, weights)
    slope = outer * (signal * 5 / 3 * (1 + far) * decay)
    by_axis = 0.5 * (slope.ravel() @ squares.reshape(-1, axes)) * inverse
    by_variance = [0.5 * (outer * covariance).sum(), 0.5 * np.trace(outer) * noise]
    return float(loss), np.concatenate([by_axis, by_variance]) + (logs - mean) / spread**2


def _covariance(one: Floats, other: Floats, logs: Floats) -> Floats:
    one, other = one * np.exp(-logs[:-2]), other * np.exp(-logs[:-2])
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    far = np.sqrt(5 * np.maximum(squares, 0))
    return np.asarray(math.exp(logs[-2]) * (1 + far + far**2 / 3) * np.exp(-far))


def most_hopeful(cube: Cube, points: Floats, scores: Floats, pending: Floats, seed: int, number: int) -> Floats:
    """Return the possible point (names,) of trial `number`: the one with the highest augmented expected improvement
    (Huang et al. 2006, which discounts what noise would hide); every third trial explores instead.

    `points` (N, names) have `scores` (N,); `pending` (M, names) have none, and are taken to score what is expected of
    them. A point that stands in either is not proposed again: its score would be the same.
    """
    rng = np.random.default_rng([seed, number])
    posterior = learned(cube, points, (scores - scores.mean()) / spread_of(scores), rng)
    logs = posterior.logs
    posterior, points = believing(cube, posterior, points, pending)
    means = posterior.at(cube.features(points))[0]
    best = float(means.max())
    top = points[np.argsort(-means, kind="stable")[:BEST]]
    taken = {row.tobytes() for row in np.round(points, 9)}

    def hope(candidates: Floats) -> Floats:
        mean, deviation = posterior.at(cube.features(candidates))
        repeated = [row.tobytes() in taken for row in np.round(candidates, 9)]
        worth = acquisition(number, mean, deviation, best, math.exp(logs[-1]))
        return np.where(repeated, -np.inf, worth)

    near = [around(cube, top, width, rng) for width in (WIDTHS[0], WIDTHS[-1])]
    candidates = np.concatenate([cube.possible(rng.random((ANYWHERE, len(cube.names)))), *near])
    hopes = hope(candidates)
    for width in WIDTHS:
        moved = around(cube, candidates[np.argsort(-hopes, kind="stable")[:BEST]], width, rng)
        candidates, hopes = np.concatenate([candidates, moved]), np.concatenate([hopes, hope(moved)])
    return np.asarray(candidates[np.argmax(hopes)])


def spread_of(scores: Floats) -> float:
    """Return the standard deviation of scores, or next to nothing where all are equal."""
    return max(float(scores.std()), 1e-6)


def learned(cube: Cube, points: Floats, scores: Floats, rng: np.random.Generator) -> Posterior:
    """Return the posterior of `points` with `scores` of mean 0 and variance 1, its parameters fitted to at most
    FITTED.
    """
    features = cube.features(points)
    some = np.arange(len(scores))
    if len(scores) > FITTED:
        ranked = np.argsort(-scores, kind="stable")
        some = np.concatenate([ranked[: FITTED // 2], rng.permutation(ranked[FITTED // 2 :])[: FITTED // 2]])
    return Posterior.of(features, scores, fit(features[some], scores[some]))


def believing(cube: Cube, posterior: Posterior, points: Floats, pending: Floats) -> tuple[Posterior, Floats]:
    """Return the posterior if every pending point scored what is expected of it, and all points."""
    if not len(pending):
        return posterior, points
    waiting = cube.features(pending)
    expected = np.concatenate([posterior.scores, posterior.at(waiting)[0]])
    known = Posterior.of(np.concatenate([posterior.points, waiting]), expected, posterior.logs)
    return known, np.concatenate([points, pending])


def acquisition(number: int, mean: Floats, deviation: Floats, best: float, noise: float) -> Floats:
    """Return what trial `number` maximises: every EXPLORE_EVERY-th explores."""
    if number % EXPLORE_EVERY == EXPLORE_EVERY - 1:
        return mean + OPTIMISM * deviation
    return improvement(mean, deviation, best, noise)


def improvement(mean: Floats, deviation: Floats, best: float, noise: float) -> Floats:
    """Logarithm of the augmented expected improvement over `best`, for a variance of the noise."""
    z = np.maximum((mean - best) / deviation, -20)
    expected = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) + z * ndtr(z)
    seen = 1 - math.sqrt(noise) / np.sqrt(deviation**2 + noise)
    worth = np.log(deviation) + np.log(np.maximum(expected, 1e-300)) + np.log(np.maximum(seen, 1e-300))
    return np.asarray(worth, dtype=np.float64)


def around(cube: Cube, points: Floats, width: float, rng: np.random.Generator) -> Floats:
    """AROUND possible points for each of `points`: some names moved by about `width`, now and then another choice."""
    moved = np.repeat(points, AROUND, axis=0)
    idle = moved == IDLE
    moved = moved + rng.normal(0, width, moved.shape) * (rng.random(moved.shape) < max(0.3, 2 / len(cube.names)))
    moved = 1 - np.abs(1 - np.abs(moved))  # what leaves the cube is mirrored back
    anew = np.zeros(moved.shape, dtype=bool)
    anew[:, list(cube.choices)] = rng.random((len(moved), len(cube.choices))) < 0.15
    anew[:, cube.conditional] |= idle[:, cube.conditional]  # another choice may let it exist, anywhere
    return cube.possible(np.clip(np.where(anew, rng.random(moved.shape), moved), 0, 1))


def expected_gain(
    cube: Cube, points: Floats, scores: Floats, pending: Floats, draws: int, seed: int, number: int
) -> float:
    """By how much `draws` more trials from `number` on are expected to raise the best expected score, in its unit.

    What is known counts by its mean, not by its noisy score. The trials go where they would, one after the other, each
    as if those before it had scored what is expected. Then IMAGINED sets of their noisy scores are drawn, and after
    each the best mean of all that was tried is looked at: the knowledge gradient of a batch (Wu and Frazier 2016).
    """
    rng = np.random.default_rng([seed, number])
    spread = spread_of(scores)
    posterior = learned(cube, points, (scores - scores.mean()) / spread, rng)
    logs = posterior.logs - np.where(np.arange(len(posterior.logs)) < len(posterior.logs) - 2, DOUBT, 0.0)
    posterior = Posterior.of(posterior.points, posterior.scores, logs)
    noise, before = math.exp(posterior.logs[-1]), float(posterior.at(cube.features(points))[0].max())
    posterior, taken = believing(cube, posterior, points, pending)
    top = taken[np.argsort(-posterior.at(cube.features(taken))[0], kind="stable")[:BEST]]
    near = [around(cube, top, width, rng) for width in (WIDTHS[0], WIDTHS[-1])]
    candidates = np.concatenate([cube.possible(rng.random((ANYWHERE, len(cube.names)))), *near])
    for width in WIDTHS[:2]:
        mean, deviation = posterior.at(cube.features(candidates))
        hopes = improvement(mean, deviation, before, noise)
        best = candidates[np.argsort(-hopes, kind="stable")[:BEST]]
        candidates = np.concatenate([candidates, around(cube, best, width, rng)])
    tried = {row.tobytes() for row in np.round(taken, 9)}
    candidates = np.array([row for row in candidates if np.round(row, 9).tobytes() not in tried])
    if not len(candidates):
        return 0.0
    features = cube.features(np.concatenate([points, candidates]))
    mean, deviation = posterior.at(features)
    known, variance = posterior.known_of(features), deviation**2
    counted = np.arange(len(features)) < len(points)
    moves = np.zeros((0, len(features)))
    for draw in range(min(draws, len(candidates))):
        worth = acquisition(number + draw, mean, np.sqrt(np.maximum(variance, 1e-10)), before, noise)
        picked = int(np.argmax(np.where(counted, -np.inf, worth)))
        shared = _covariance(features, features[[picked]], posterior.logs)[:, 0] - known.T @ known[:, picked]
        move = (shared - moves.T @ moves[:, picked]) / math.sqrt(max(variance[picked], 0.0) + noise)
        moves, variance = np.concatenate([moves, move[None]]), variance - move**2
        counted[picked] = True
    half = rng.standard_normal((IMAGINED // 2, len(moves)))
    after = mean[counted] + np.concatenate([half, -half]) @ moves[:, counted]
    return float(spread * (after.max(axis=1).mean() - before))
