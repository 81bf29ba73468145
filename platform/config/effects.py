"""Which names of the method do something only beside certain values of others, for what a search may vary.

A name that nothing reads in any trial costs a search its trials: they differ by luck alone, and the report ranks them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .space.domains import ChoiceDomain, CurveDomain, Search, allowed, encode

_SUPERPIXELS: Mapping[str, tuple[Any, ...]] = {"patches.kind": ("superpixel",)}
_PAIRS: tuple[str, ...] = ("cpn", "pair_classification")
_MAPS: Mapping[str, tuple[Any, ...]] = {"train.objective": ("cpn", "seam")}
_CPN: Mapping[str, tuple[Any, ...]] = {"train.objective": ("cpn",)}
_UNIT: Mapping[str, tuple[Any, ...]] = {"network.x_scale": ("unit",)}
NEEDS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "patches.S_N": {**_SUPERPIXELS, "patches.S_N_range": (None,)},
    "patches.S_N_range": _SUPERPIXELS,
    "patches.slic_on": _SUPERPIXELS,
    "patches.draw": _SUPERPIXELS,
    "patches.K": {"patches.kind": ("grid",)},
    "network.x_image": _UNIT,
    "network.prcm_scale": {**_UNIT, "network.prcm": (True,)},
    "network.prcm_transposed": {"network.prcm": (True,)},
    "network.average_refined": {"network.pcm": (True,), "network.prcm": (True,)},
    "loss.w_cls": _MAPS,
    "loss.w_tcp": _MAPS,
    "loss.w_cpcr": _MAPS,
    "loss.tcp_refined": _CPN,
    "loss.tcp_refined_detach": {**_CPN, "loss.tcp_refined": (True,)},
}
"""For each name the values of others beside which it is read, by cpn/data/patches.py, cpn/models/network.py and
cpn/training/cam_training.py; names that are read in any case are not here."""


def without_effect(search: Search, base: Mapping[str, Any]) -> list[str]:
    """Name what is searched and read by no trial, each in one line with the cure. `base` holds the base configuration's
    dotted values.
    """
    lines = []
    for name in search:
        needs = dict(NEEDS.get(name, {}))
        if name.startswith("patches."):
            needs["train.objective"] = _PAIRS
        for other, wanted in needs.items():
            possible = _possible(name, other, search, base)
            if possible is not None and not {encode(value) for value in possible} & {encode(v) for v in wanted}:
                lines.append(
                    f"search.{name}: has no effect while {other} is {_shown(possible)}, so its trials differ by luck; "
                    f"drop it, or let {other} be {_shown(wanted)}"
                )
                break
    return lines


def _possible(name: str, other: str, search: Search, base: Mapping[str, Any]) -> list[Any] | None:
    """Return the values that `other` can have in a trial in which `name` is drawn; None where they are not listed."""
    above, domain = search.get(other), search[name]
    if above is None:
        return [base[other]]
    when = {} if isinstance(domain, CurveDomain) else domain.when or {}
    if other in when and not isinstance(above, CurveDomain):
        return allowed(above, when[other])
    if not isinstance(above, ChoiceDomain):
        return None
    return [*above.choice, *([base[other]] if above.when else [])]  # where it is not drawn, it has the base's value


def _shown(values: Sequence[Any]) -> str:
    """Return the values as YAML has them."""
    return " or ".join(_yaml_words(value) for value in values)


def _yaml_words(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value)
