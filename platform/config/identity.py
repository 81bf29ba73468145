"""What makes the trials of a sweep comparable, and in which fields two sweeps of one name differ."""

from collections.abc import Mapping
from typing import Any

from cpn.config import METHOD_VERSION, run_identity
from cpn.core.contents import MARK, NAMED_WEIGHTS
from cpn.core.files import digest

from .sweep_spec import SweepSpec


def identity_of(spec: SweepSpec, fingerprint: str) -> dict[str, Any]:
    """Return base, space, search options, objective, data and method version, as plain JSON values.

    Not in it: budget, resources, pruning and tracking, where the data lies, and the settings of later stages: they
    change no trial's result.
    """
    options = spec.search_options
    changed = options.model_dump(mode="json", exclude_defaults=True)  # so that a new option leaves old studies alone
    return {
        "base": run_identity(spec.base_config),
        "search": {name: d.model_dump(by_alias=True, exclude_defaults=True) for name, d in spec.search.items()},
        "search_options": {"sampler": options.sampler, "seed": options.seed, **changed},
        "metric": spec.objective,
        "mode": "max",
        "data": fingerprint,
        "method_version": METHOD_VERSION,
    }


def as_begun(spec: SweepSpec, identity: Mapping[str, Any]) -> SweepSpec:
    """`spec` with the sampler that its study was begun with, by the study's identity, where the file names none: the
    default was another before.
    """
    options = spec.search_options
    sampler = identity.get("search_options", {}).get("sampler", options.sampler)
    if sampler == options.sampler or "sampler" in options.model_fields_set:
        return spec
    return spec.model_copy(update={"search_options": options.model_copy(update={"sampler": sampler})})


def known_by_content(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the contents of `new` where it has names: it was made before identities held contents.

    What lay behind the names was not recorded, so it is assumed unchanged. A file in the place of none, or of the
    pretrained proxy, stays a difference.
    """
    base = dict(old.get("base", {}))
    for name, content in new.get("base", {}).items():
        if not str(content).startswith(MARK) or str(base.get(name)).startswith(MARK):
            continue
        named = base.get(name) if name.endswith("weights") else base.get(name.removesuffix("_code"))
        if named is not None and named not in NAMED_WEIGHTS:
            base[name] = content
    return {**old, "base": base} if base else dict(old)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Describe the fields in which two identities differ, naming the first three; None if they are equal."""
    if digest(dict(old)) == digest(dict(new)):
        return None
    before, after = _flat(old), _flat(new)
    names = [name for name in {**before, **after} if before.get(name, ...) != after.get(name, ...)]
    shown = [f"{name} was {_shown(before, name)}, is {_shown(after, name)}" for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {prefix + name: item}
    return {name: list(item) if isinstance(item, tuple) else item for name, item in flat.items()}


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "absent"
