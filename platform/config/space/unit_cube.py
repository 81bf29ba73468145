"""Domains as coordinates: a number in [0, 1] for every value, evenly spread over what the domain calls even."""

import math
from typing import Any

from .domains import ChoiceDomain, Drawn, IntDomain, encode


def from_unit(domain: Drawn, u: float) -> Any:
    """Return the value at coordinate `u`; equal lengths of [0, 1] belong to the values of a choice, an int or a stepped
    float, and to equal ratios of a `log` domain.
    """
    if isinstance(domain, ChoiceDomain):
        return domain.choice[min(int(u * len(domain.choice)), len(domain.choice) - 1)]
    low, high = domain.ends
    step = domain.step or (1 if isinstance(domain, IntDomain) else None)
    if step is not None and not domain.log:
        steps = round((high - low) / step)
        value = low + min(int(u * (steps + 1)), steps) * step
        return value if isinstance(domain, IntDomain) else round(value, 12)
    if not domain.log:
        return min(max(low + u * (high - low), low), high)
    margin = 0.5 if isinstance(domain, IntDomain) else 0.0
    value = math.exp(math.log(low - margin) + u * (math.log(high + margin) - math.log(low - margin)))
    value = round(value) if isinstance(domain, IntDomain) else value
    return min(max(value, low), high)


def to_unit(domain: Drawn, value: Any) -> float:
    """Return the coordinate of a value of the domain: the middle of what `from_unit` maps to it."""
    if isinstance(domain, ChoiceDomain):
        stored = [encode(choice) for choice in domain.choice]
        return (stored.index(encode(value)) + 0.5) / len(stored)
    low, high = domain.ends
    step = domain.step or (1 if isinstance(domain, IntDomain) else None)
    if step is not None and not domain.log:
        steps = round((high - low) / step)
        return float((round((value - low) / step) + 0.5) / (steps + 1))
    if low == high:
        return 0.5
    if not domain.log:
        return float((value - low) / (high - low))
    margin = 0.5 if isinstance(domain, IntDomain) else 0.0
    place = (math.log(value) - math.log(low - margin)) / (math.log(high + margin) - math.log(low - margin))
    return float(place)
