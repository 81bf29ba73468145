"""A table of real scores as something to search on: between its points a Gaussian process stands in for training.

One process for each kind of patches, over the coordinates of the names that exist there (scikit-learn's, Matern 5/2
with a length for each name and a noise of its own), through the means over seeds. `error` is the
root mean square error of leaving each point out; `noise` is the standard deviation over seeds, from the points that ran
twice.
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from platform.config.space import domains
from platform.config.space.unit_cube import to_unit
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from benchmarks.sweeps import tables
from benchmarks.sweeps.landscapes import KIND, POINTS, highest, possible
from benchmarks.sweeps.tables import TABLES, WHOLE, Row
from cpn.core.errors import InputError

LEAST = 20
"""Points of a half that a replay needs."""

Floats = NDArray[np.float64]


class Replay:
    """Scores between the points of a table; `optimum` is the best of them, in mIoU."""

    def __init__(self, rows: Sequence[Row], search: Mapping[str, Any]) -> None:
        self.search = dict(search)
        parsed = domains.parse_search(search)
        self._domains = domains.drawn(parsed)
        whole = [row for row in rows if row.fidelity == WHOLE]
        self.points = len({row.point for row in whole})
        self.noise = seed_noise(whole)
        self._names: dict[str, list[str]] = {}
        self._fits: dict[str, GaussianProcessRegressor] = {}
        missed: list[float] = []
        rng, best = np.random.default_rng(0), []
        for kind in search[KIND]["choice"]:
            own = [row for row in whole if row.values[KIND] == kind]
            names = [n for n in domains.ordered(parsed) if n != KIND and domains.active(n, parsed, {KIND: kind})]
            self._names[kind] = names
            at, scores = self._means(own, names)
            self._fits[kind] = fitted(at, scores)
            missed += list(left_out(self._fits[kind], scores))
            random = possible(self._domains, names, rng.random((POINTS, len(names))))
            best.append(highest(lambda points, k=kind: self._at(k, points), self._domains, names, random, rng))  # type: ignore[misc]
        self.optimum = max(best)
        self.epochs = len(whole[0].epochs)
        self._whole = whole
        self.error = float(np.sqrt(np.mean(np.square(missed))))
        self.spread = float(np.std([row.miou for row in whole]))

    def true_miou(self, values: Mapping[str, Any]) -> float:
        """The mIoU in percent of a drawn configuration, without the names that do not exist in it."""
        names = self._names[values[KIND]]
        return float(self._at(values[KIND], np.array([[to_unit(self._domains[n], values[n]) for n in names]]))[0])

    def shown(self, values: Mapping[str, Any], final: float, noise: np.random.Generator) -> list[float]:
        """What a trial that ends at `final` shows after each epoch, in mIoU: what a run of the nearest point showed,
        moved by the difference of their ends.
        """
        names = self._names[values[KIND]]
        at = np.array([to_unit(self._domains[n], values[n]) for n in names])
        rows = [row for row in self._whole if row.values[KIND] == values[KIND]]
        points = np.array([[to_unit(self._domains[n], row.values[n]) for n in names] for row in rows])
        far = np.square(points - at).sum(axis=1)
        near = [row for row, distance in zip(rows, far, strict=True) if distance == far.min()]
        row = near[int(noise.integers(len(near)))]
        return [epoch + final - row.miou for epoch in row.epochs]

    def _at(self, kind: str, points: Floats) -> Floats:
        predictions: Floats = self._fits[kind].predict(points)
        return predictions

    def _means(self, rows: Sequence[Row], names: Sequence[str]) -> tuple[Floats, Floats]:
        """Coordinates (N, names) and mean scores (N,) of the points."""
        by_point: dict[int, list[Row]] = {}
        for row in rows:
            by_point.setdefault(row.point, []).append(row)
        at = [[to_unit(self._domains[n], same[0].values[n]) for n in names] for same in by_point.values()]
        return np.array(at), np.array([np.mean([row.miou for row in same]) for same in by_point.values()])


def fitted(at: Floats, scores: Floats) -> GaussianProcessRegressor:
    """The process through scores (N,) at coordinates (N, names), its lengths and noise by maximum likelihood."""
    lengths = Matern([0.5] * at.shape[1], (0.05, 20.0), nu=2.5)
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * lengths + WhiteKernel(0.2, (1e-3, 2.0))
    fit = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=4, random_state=0)
    with warnings.catch_warnings():
        # A length at its upper end is a name that does not matter, which is an answer.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit.fit(at, scores)


def left_out(fit: GaussianProcessRegressor, scores: Floats) -> Floats:
    """Leave-one-out errors of the fit (Rasmussen and Williams 2006, eq. 5.12): score less what the others predict."""
    inverse = np.linalg.inv(fit.L_ @ fit.L_.T)
    errors: Floats = (fit.alpha_ / np.diag(inverse)) * scores.std()
    return errors


def seed_noise(rows: Sequence[Row]) -> float:
    """Standard deviation over seeds, pooled over the points that have two; in mIoU."""
    scores: dict[int, dict[int, float]] = {}
    for row in rows:
        scores.setdefault(row.point, {})[row.seed] = row.miou
    pairs = [list(by_seed.values()) for by_seed in scores.values() if len(by_seed) > 1]
    if not pairs:
        raise InputError("the table has no point with two seeds, so its noise is not known; go on with it")
    return float(np.sqrt(np.mean([np.var(pair, ddof=1) for pair in pairs])))


@cache
def replay(family: str, first_half: bool) -> Replay:
    """The committed table of a family, of one half of its points. InputError while too few of them have been run."""
    rows = [row for row in tables.read_rows(TABLES / f"{family}.jsonl") if tables.first_half(row.point) == first_half]
    points = len({row.point for row in rows if row.fidelity == WHOLE})
    if points < LEAST:
        raise InputError(
            f"--family {family}: its table has {points} points in this half and needs {LEAST}; "
            f"python -m benchmarks tables --family {family}"
        )
    search = tables.search_of(family)
    return Replay(rows, search)
