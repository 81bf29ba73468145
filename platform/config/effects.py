"""Which names of the method do something only beside certain values of others, for what a search may vary, or --set
gives.

A name that nothing reads in any trial costs a search its trials: they differ by luck alone, and the report ranks them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cpn.config import to_dotted

from .space.domains import ChoiceDomain, CurveDomain, Search, allowed, encode
from .sweep_spec import SweepSpec

_SUPERPIXELS: Mapping[str, tuple[Any, ...]] = {"patches.kind": ("superpixel",)}
_PAIRS: tuple[str, ...] = ("cpn", "pair_classification")
_MAPS: Mapping[str, tuple[Any, ...]] = {"train.objective": ("cpn", "seam")}
_CPN: Mapping[str, tuple[Any, ...]] = {"train.objective": ("cpn",)}
_AFFINITY: Mapping[str, tuple[Any, ...]] = {"random_walk.kind": ("affinity",)}
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
    **{f"random_walk.{name}": _AFFINITY for name in ("alpha", "beta", "logt", "radius", "crf")},
}
"""For each name the values of others beside which it is read, by cpn/data/patches.py, cpn/models/network.py,
cpn/training/cam_training.py and cpn/stages/stage_manifest.py; names that are read in any case are not here."""
SECTIONS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "patches": {"train.objective": _PAIRS},
    "affinity": _AFFINITY,
    "irn": {"random_walk.kind": ("irn",)},
}
"""The same for all names of a section."""


def effect_warnings(spec: SweepSpec) -> list[str]:
    """List what a sweep searches, and --set gave it, without effect, a line each. A table's rows differ in more."""
    base = to_dotted(spec.base_config)
    set_lines = [] if spec.table is not None else set_without_effect(spec.set_names, spec.search, base)
    return without_effect(spec.search, base) + set_lines


def without_effect(search: Search, base: Mapping[str, Any]) -> list[str]:
    """Name what is searched and read by no trial, each in one line with the cure. `base` holds the base configuration's
    dotted values.
    """
    lines = []
    for name in search:
        if (cause := _against(name, search, base)) is not None:
            other, possible, wanted = cause
            lines.append(
                f"search.{name}: has no effect while {other} is {possible}, so its trials differ by luck; "
                f"drop it, or let {other} be {wanted}"
            )
    return lines


def set_without_effect(names: Iterable[str], search: Search, base: Mapping[str, Any]) -> list[str]:
    """Name the values of `--set` that no run reads, each in one line with the cure; `base` holds them already.

    What a file says is let be: an exported configuration has every value in it.
    """
    lines = []
    for name in names:
        if name not in search and (cause := _against(name, search, base)) is not None:
            other, possible, wanted = cause
            lines.append(f"--set {name}: has no effect while {other} is {possible}; drop it, or let it be {wanted}")
    return lines


def _against(name: str, search: Search, base: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Find the first name that keeps `name` from being read, its values, and those beside which it is; None if none."""
    needs = {**NEEDS.get(name, {}), **SECTIONS.get(name.partition(".")[0], {})}
    for other, wanted in needs.items():
        possible = _possible(name, other, search, base)
        if possible is not None and not {encode(value) for value in possible} & {encode(v) for v in wanted}:
            return other, _shown(possible), _shown(wanted)
    if name == "irn.weights" and base["irn.backbone"] is None:  # then network.weights lie under both
        return "irn.backbone", "null", "the backbone that they belong to"
    return None


def _possible(name: str, other: str, search: Search, base: Mapping[str, Any]) -> list[Any] | None:
    """Return the values that `other` can have in a trial in which `name` is drawn; None where they are not listed."""
    above, domain = search.get(other), search.get(name)
    if above is None:
        return [base[other]]
    when = {} if domain is None or isinstance(domain, CurveDomain) else domain.when or {}
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
