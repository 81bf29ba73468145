"""The corners of a search: the configurations at the ends of those domains on which the cost of a trial depends."""

from collections.abc import Mapping, Sequence
from typing import Any

from cpn.config import Config, with_values

from .space.domains import ChoiceDomain, Drawn, active, allowed, drawn, ordered
from .sweep_spec import SweepSpec

COSTLY = (
    "data.crop", "train.batch_size", "train.epochs", "train.objective", "train.precision", "train.optimizer",
    "network.backbone", "network.pcm", "network.prcm", "network.stage3_channels", "network.stage4_channels",
    "network.correlation_channels", "cam.scales", "cam.flip",
)  # fmt: skip
"""The names that change what a trial computes or holds. More of a number always costs more."""

MAPPED = (
    "data.crop",
    "data.long_side",
    "train.objective",
    "patches.kind",
    "patches.slic_on",
    "patches.S_N",
    "patches.S_N_range",
)
"""The names that decide which superpixel maps a trial reads."""


def extreme_values(spec: SweepSpec, names: Sequence[str] = COSTLY, low_ends: bool = False) -> list[dict[str, Any]]:
    """List the dotted values of every corner in `names`: each choice, the high end of each
    number, only where conditions hold.

    With `low_ends` the low end of each number as well.

    A name that decides whether one of `names` exists takes its ends and each value that a condition wants. A search
    without any of them has one corner, the base as it stands.
    """
    search = drawn(spec.search)
    needed = _needed(search, names)
    corners: list[dict[str, Any]] = [{}]
    for name in ordered(search):
        if name in needed:
            corners = [
                {**corner, **extra}
                for corner in corners
                for extra in (
                    [{name: v} for v in _values(name, search, low_ends)] if active(name, search, corner) else [{}]
                )
            ]
    return corners


def extreme_config(spec: SweepSpec, corner: dict[str, Any]) -> Config:
    """Return the configuration of a corner. Raises InputError where its values do not go together."""
    return with_values(spec.base_config, corner, "a corner of the search")


def _needed(search: Mapping[str, Drawn], names: Sequence[str]) -> set[str]:
    """Return the searched ones of `names`, and those that decide whether they exist."""
    needed = {name for name in search if name in names}
    for name in reversed(ordered(search)):  # what decides comes before what it decides on
        if name in needed:
            needed |= set(search[name].when or {})
    return needed


def _values(name: str, search: Mapping[str, Drawn], low_ends: bool) -> list[Any]:
    """Return the values of a name that corners take."""
    domain = search[name]
    if isinstance(domain, ChoiceDomain):
        return list(domain.choice)
    wanted = [
        v for other in search.values() if name in (other.when or {}) for v in allowed(domain, (other.when or {})[name])
    ]
    return list(dict.fromkeys([*wanted, *(domain.ends if wanted or low_ends else domain.ends[1:])]))
