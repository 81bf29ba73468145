"""Random landscapes over the space of search_spaces/patch.yaml, to search on: what helps on one surrogate alone shows.

Every landscape is a draw of its own. For each kind of patches, a function of the names that exist there: a draw of a
Gaussian process (random Fourier features, Rahimi and Recht 2007) over their coordinates in the unit cube. How fast it
changes along a name is drawn too, so that few names matter much, and the kinds differ in their optima and by an offset.
SHAPES take turns: as it is; with a plateau, where all below the median is equal; and nearly flat.

The optimum is sought with the function itself, by many random points and by steps around the best of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from platform.base.yaml_files import load_yaml
from platform.config.space import domains
from platform.config.space.domains import ChoiceDomain
from platform.config.space.unit_cube import to_unit
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES = ("smooth", "plateau", "flat")
SPREAD = {"smooth": 2.0, "plateau": 2.0, "flat": 0.5}
"""Standard deviation of a landscape in mIoU."""
LEVEL, OFFSET = 55.0, 1.0
"""Mean mIoU, and the standard deviation of the offset of a kind."""
LENGTH = 1.5
"""Median length scale along a name, of which a landscape spans one: as smooth as lets random draws find it at all."""
FEATURES = 200
POINTS, BEST, STEPS = 20_000, 50, 30
KIND = "patches.kind"

Floats = NDArray[np.float64]


def space() -> dict[str, Any]:
    """What patch.yaml searches, but for beta, which costs no trial."""
    path = Path(__file__).parents[2] / "search_spaces" / "patch.yaml"
    search: dict[str, Any] = load_yaml(path)["search"]
    return {name: domain for name, domain in search.items() if name != "cam.beta"}


@dataclass(frozen=True)
class Branch:
    """The function of one kind: its names, and w, b, a, c of c + sum of a cos(w x + b)."""

    names: tuple[str, ...]
    frequencies: Floats
    phases: Floats
    weights: Floats
    offset: float

    def at(self, points: Floats) -> Floats:
        """Values (N,) at coordinates (N, names)."""
        return self.offset + np.cos(points @ self.frequencies + self.phases) @ self.weights


class Landscape:
    """The landscape of a seed; `true_miou` is what a trial would score without noise, `optimum` the best of it."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 21])
        self.search, self.shape = space(), SHAPES[seed % len(SHAPES)]
        self._domains = domains.drawn(domains.parse_search(self.search))
        self._branches = {kind: self._drawn(kind, rng) for kind in self.search[KIND]["choice"]}
        sample = {
            kind: possible(self._domains, branch.names, rng.random((POINTS, len(branch.names))))
            for kind, branch in self._branches.items()
        }
        every = np.concatenate([self._branches[kind].at(points) for kind, points in sample.items()])
        self._floor = float(np.median(every)) if self.shape == "plateau" else -np.inf
        self.optimum = max(
            highest(self._branches[kind].at, self._domains, self._branches[kind].names, points, rng)
            for kind, points in sample.items()
        )

    def true_miou(self, values: Mapping[str, Any]) -> float:
        """The mIoU in percent of a drawn configuration, without the names that do not exist in it."""
        branch = self._branches[values[KIND]]
        point = np.array([[to_unit(self._domains[name], values[name]) for name in branch.names]])
        return max(float(branch.at(point)[0]), self._floor)

    def _drawn(self, kind: str, rng: np.random.Generator) -> Branch:
        names = tuple(n for n, d in self.search.items() if n != KIND and d.get("when", {KIND: kind})[KIND] == kind)
        lengths = LENGTH * np.exp(rng.normal(0, 0.7, len(names)))
        spread = SPREAD[self.shape]
        return Branch(
            names,
            rng.standard_normal((len(names), FEATURES)) / lengths[:, None],
            rng.uniform(0, 2 * np.pi, FEATURES),
            spread * (2 / FEATURES) ** 0.5 * rng.standard_normal(FEATURES),
            LEVEL + OFFSET * spread / 2 * float(rng.standard_normal()),
        )


def possible(drawn: Mapping[str, Any], names: Sequence[str], points: Floats) -> Floats:
    """The nearest coordinates (N, names) that a choice has; those of numbers as they are, within the cube."""
    points = np.clip(points, 0, 1)
    for i, name in enumerate(names):
        domain = drawn[name]
        if isinstance(domain, ChoiceDomain):
            count = len(domain.choice)
            points[:, i] = (np.minimum(np.floor(points[:, i] * count), count - 1) + 0.5) / count
    return points


def highest(
    at: Callable[[Floats], Floats],
    drawn: Mapping[str, Any],
    names: Sequence[str],
    points: Floats,
    rng: np.random.Generator,
) -> float:
    """The best value that `at` has at the points (N, names), and at steps around the best of them."""
    best = points[np.argsort(at(points))[-BEST:]]
    for step in range(STEPS):
        moved = np.repeat(best, 20, axis=0)
        moved = possible(drawn, names, moved + rng.normal(0, 0.1 * 0.85**step, moved.shape))
        both = np.concatenate([best, moved])
        best = both[np.argsort(at(both))[-BEST:]]
    return float(at(best[-1:])[0])
