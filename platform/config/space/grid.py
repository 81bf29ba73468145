"""The sampler `grid`: every combination of the searched values once, conditional names only where they exist."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from .domains import ChoiceDomain, Drawn, IntDomain, Search, active, drawn, ordered

MOST = 10_000
"""Points of a grid; more is a mistake in the file."""


def points(search: Search, reference: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Return all configurations but the reference, which runs anyway, in an order shuffled by `seed`: a budget that
    ends early has seen a fair part of the grid. Every domain has to be one that `problem` does not name.
    """
    others = [point for point in _combinations(search, ordered(search), {}) if point != reference]
    return [others[i] for i in np.random.default_rng(seed).permutation(len(others))]


def problem(search: Search) -> tuple[str, str] | None:
    """Return why there is no grid, as (searched name, problem and cure); or None."""
    for name, domain in drawn(search).items():
        if _values(domain) is None:
            step = "" if domain.log else "give it a step, or "  # type: ignore[union-attr]  # a choice has values
            return (
                name,
                f"the sampler grid takes single values, this range is continuous; {step}write {{choice: [...]}}",
            )
    if len(list(islice(_combinations(search, ordered(search), {}), MOST + 1))) > MOST:
        name, most = max(((n, len(_values(d) or ())) for n, d in drawn(search).items()), key=lambda pair: pair[1])
        return name, f"the grid has more than {MOST} points, {most} values of this name alone; write a step or choices"
    return None


def _combinations(search: Search, names: list[str], above: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not names:
        yield above
    elif not active(names[0], search, above):
        yield from _combinations(search, names[1:], above)
    else:
        for value in _values(drawn(search)[names[0]]) or ():
            yield from _combinations(search, names[1:], {**above, names[0]: value})


def _values(domain: Drawn) -> Sequence[Any] | None:
    """Return the values of a domain, or None when it is continuous."""
    if isinstance(domain, ChoiceDomain):
        return domain.choice
    if isinstance(domain, IntDomain):
        return range(domain.ends[0], domain.ends[1] + 1, domain.step or 1)
    low, high = domain.ends
    if domain.step is None:
        return [low] if low == high else None
    return [round(low + i * domain.step, 12) for i in range(round((high - low) / domain.step) + 1)]
