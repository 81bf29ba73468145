"""A search as a cube: configurations as rows of coordinates in [0, 1], and which rows are possible."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .domains import ChoiceDomain, Drawn, IntDomain, Search, active, allowed, drawn, ordered
from .unit_cube import from_unit, to_unit

IDLE = 0.5
"""The coordinate of a name that does not exist in a configuration."""

Floats = NDArray[np.float64]


class Cube:
    """The names of a search as axes, in the order in which they are drawn."""

    def __init__(self, search: Search) -> None:
        self._search = drawn(search)
        self.names = ordered(search)
        domains = [self._search[name] for name in self.names]
        self.choices = {i: len(d.choice) for i, d in enumerate(domains) if isinstance(d, ChoiceDomain)}
        """Axis of a choice -> how many values it has."""
        self._evenly = {i: count for i, d in enumerate(domains) if (count := _count(d)) is not None}
        self._log_ints = {i: d.ends for i, d in enumerate(domains) if isinstance(d, IntDomain) and d.log}
        self._unordered = [i for i, d in enumerate(domains) if isinstance(d, ChoiceDomain) and not _ordered(d)]
        self._conditions = [
            (i, self.names.index(parent), [to_unit(self._search[parent], v) for v in allowed(self._search[parent], w)])
            for i, domain in enumerate(domains)
            for parent, w in (domain.when or {}).items()
        ]

    @property
    def conditional(self) -> list[int]:
        """The axes of names that do not exist in every configuration."""
        return sorted({axis for axis, _, _ in self._conditions})

    def point(self, values: Mapping[str, Any]) -> Floats:
        """Return the row (names,) of a configuration, of plain values or as Optuna stores them."""
        return np.array([to_unit(self._search[n], values[n]) if n in values else IDLE for n in self.names])

    def values(self, point: Floats) -> dict[str, Any]:
        """Return the configuration of a row."""
        values: dict[str, Any] = {}
        for name, coordinate in zip(self.names, point, strict=True):
            if active(name, self._search, values):
                values[name] = from_unit(self._search[name], float(coordinate))
        return values

    def possible(self, points: Floats) -> Floats:
        """Return rows (N, names) moved to the coordinates of the values they stand for; IDLE where a name does not
        exist.
        """
        points = points.copy()
        for axis, count in self._evenly.items():
            points[:, axis] = (np.minimum(np.floor(points[:, axis] * count), count - 1) + 0.5) / count
        for axis, (low, high) in self._log_ints.items():
            bottom, length = np.log(low - 0.5), np.log(high + 0.5) - np.log(low - 0.5)
            whole = np.clip(np.round(np.exp(bottom + points[:, axis] * length)), low, high)
            points[:, axis] = (np.log(whole) - bottom) / length
        exists = np.ones(points.shape, dtype=bool)
        for axis, parent, wanted in self._conditions:
            exists[:, axis] &= exists[:, parent] & np.isclose(points[:, [parent]], wanted, atol=1e-6).any(axis=1)
        return np.where(exists, points, IDLE)

    def features(self, points: Floats) -> Floats:
        """Return rows as a model sees them: a choice without an order has an axis of 0 and 1 for each of its values."""
        columns = [np.delete(points, self._unordered, axis=1)]
        for axis in self._unordered:
            count = self.choices[axis]
            columns.append(np.isclose(points[:, [axis]], (np.arange(count) + 0.5) / count).astype(float))
        return np.hstack(columns)


def _count(domain: Drawn) -> int | None:
    """Return how many values share an axis evenly; None where it is continuous, or an int's in the logarithm."""
    if isinstance(domain, ChoiceDomain):
        return len(domain.choice)
    step = domain.step or (1 if isinstance(domain, IntDomain) else None)
    return None if step is None or domain.log else round((domain.ends[1] - domain.ends[0]) / step) + 1


def _ordered(domain: ChoiceDomain) -> bool:
    """Return whether a model may call neighbours in the list alike: two values, or numbers that rise or fall."""
    values = [value if isinstance(value, list) else [value] for value in domain.choice]
    if len(values) <= 2:
        return True
    if any(isinstance(part, bool) or not isinstance(part, int | float) for value in values for part in value):
        return False
    return values in (sorted(values), sorted(values, reverse=True))
