"""What makes the trials of a sweep comparable, and in which fields two sweeps of one name differ."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cpn.config import METHOD_VERSION, run_identity
from cpn.core.contents import MARK, NAMED_WEIGHTS
from cpn.core.errors import InputError
from cpn.core.files import digest

from .sweep_spec import SweepSpec


class StudyIdentity(BaseModel):
    """Base, space, search options, objective, data and method version, as a study keeps them.

    Not in it: budget, resources, pruning and tracking, where the data lies, and the settings of later stages: they
    change no trial's result. A list of runs that belongs to no search has none of the fields; studies of earlier
    versions lack some, or have others besides, which count as they stand.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    base: dict[str, Any] = {}
    """Dotted name -> value, weights and own code by their content."""
    search: dict[str, dict[str, Any]] = {}
    """Dotted name -> domain as in the YAML file."""
    search_options: dict[str, Any] = {}
    metric: str = "miou"
    """What the study maximises: the specification's `objective`."""
    mode: str = "max"
    data: str = ""
    """Fingerprint of the packed data."""
    method_version: int | str | None = None

    @classmethod
    def read(cls, content: Any, where: str) -> Self:
        """Read it from a study's attribute. InputError, naming the study `where`, for anything else."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            name = ".".join(map(str, error.errors()[0]["loc"])) or "it"
            raise InputError(
                f"{where}: its attribute identity is damaged ({name}: {error.errors()[0]['msg']}); "
                "take another name: --set name=NEW"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are set, as the study keeps them."""
        return self.model_dump(mode="json", exclude_unset=True)


def identity_of(spec: SweepSpec, fingerprint: str) -> StudyIdentity:
    """Return the identity of a sweep on the data with this fingerprint."""
    options = spec.search_options
    changed = options.model_dump(mode="json", exclude_defaults=True)  # so that a new option leaves old studies alone
    return StudyIdentity(
        base=run_identity(spec.base_config),
        search={name: d.model_dump(by_alias=True, exclude_defaults=True) for name, d in spec.search.items()},
        search_options={"sampler": options.sampler, "seed": options.seed, **changed},
        metric=spec.objective,
        mode="max",
        data=fingerprint,
        method_version=METHOD_VERSION,
    )


def as_begun(spec: SweepSpec, identity: StudyIdentity) -> SweepSpec:
    """`spec` with the sampler that its study was begun with, by the study's identity, where the file names none: the
    default was another before.
    """
    options = spec.search_options
    sampler = identity.search_options.get("sampler", options.sampler)
    if sampler == options.sampler or "sampler" in options.model_fields_set:
        return spec
    return spec.model_copy(update={"search_options": options.model_copy(update={"sampler": sampler})})


def known_by_content(old: StudyIdentity, new: StudyIdentity) -> StudyIdentity:
    """`old` with the contents of `new` where it has names: it was made before identities held contents.

    What lay behind the names was not recorded, so it is assumed unchanged. A file in the place of none, or of the
    pretrained proxy, stays a difference.
    """
    base = dict(old.base)
    for name, content in new.base.items():
        if not str(content).startswith(MARK) or str(base.get(name)).startswith(MARK):
            continue
        named = base.get(name) if name.endswith("weights") else base.get(name.removesuffix("_code"))
        if named is not None and named not in NAMED_WEIGHTS:
            base[name] = content
    return old.model_copy(update={"base": base}) if base else old


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
