"""What a new search may learn from finished trials of earlier sweeps (`search_options.warm_start`).

The trials are taken once, when the sweep is made, and kept in its study as an attribute: they are no trials of it, so
no budget counts them, no leaderboard ranks them and no pruning compares with them. A restart reads them back, whatever
has become of the earlier sweeps.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cpn.core.errors import InputError

from ..config.identity import StudyIdentity, difference, known_by_content
from ..config.space.domains import CURVE, ChoiceDomain, Drawn, Search, active, contains, drawn, ordered
from ..config.space.unit_cube import from_unit, to_unit

COMPARED = ("metric", "mode", "data", "method_version")
"""Fields of the identity that have to be equal, besides the base and the range of beta."""
MOST = 1000
"""Trials that are kept at most, spread evenly over their ranks, the best among them."""


@dataclass(frozen=True)
class Earlier:
    """A finished trial of another sweep, in terms of this search."""

    uid: str
    values: dict[str, Any]
    miou: float


def usable(
    name: str, other: StudyIdentity, trials: Iterable[Earlier], own: StudyIdentity, search: Search
) -> list[Earlier]:
    """Return the `trials` of sweep `name` that this search could have drawn. `other` and `own` are the sweeps'
    identities.

    Raises InputError when the sweeps are not comparable (the differing fields), when a name is searched there and fixed
    here, or when no trial lies in this search.
    """
    where = f"search_options.warm_start: {name}"
    differs = difference(_comparable(known_by_content(other, own), search), _comparable(own, search))
    if differs is not None:
        raise InputError(f"{where}: its trials say nothing here: {differs}; undo the change or drop it from the list")
    varied = [n for n, domain in other.search.items() if "curve" not in domain and n not in drawn(search)]
    if varied:
        raise InputError(f"{where}: {varied[0]} is searched there and fixed here; search it too or drop the sweep")
    complete = list(trials)
    translated = [
        earlier for earlier in (_here(trial, other.base, search) for trial in complete) if earlier is not None
    ]
    if not translated:
        raise InputError(f"{where}: none of its {len(complete)} complete trials lies in this search; drop it")
    return translated


def thinned(trials: Iterable[Earlier]) -> list[Earlier]:
    """At most MOST trials, best first."""
    ranked = sorted(trials, key=lambda trial: (-trial.miou, trial.uid))
    return ranked[:: max(1, math.ceil(len(ranked) / MOST))]


def _comparable(identity: StudyIdentity, search: Search) -> dict[str, Any]:
    base = {name: value for name, value in identity.base.items() if name not in drawn(search)}
    within = identity.search.get(CURVE, {}).get("within")  # the best beta of a narrower range is a lower value
    return {"base": base, "search": {CURVE: {"within": within}}, **{name: getattr(identity, name) for name in COMPARED}}


def _here(trial: Earlier, base: Mapping[str, Any], search: Search) -> Earlier | None:
    values: dict[str, Any] = {}
    for name in ordered(search):
        if active(name, search, values):
            value = trial.values.get(name, base[name])
            if not _drawable(drawn(search)[name], value):
                return None
            values[name] = value
    return Earlier(trial.uid, values, trial.miou)


def _drawable(domain: Drawn, value: Any) -> bool:
    if not contains(domain, value):
        return False
    return (
        isinstance(domain, ChoiceDomain)
        or domain.step is None
        or math.isclose(from_unit(domain, to_unit(domain, value)), value, abs_tol=1e-9)
    )
