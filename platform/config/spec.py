"""The sweep's specification: one YAML file and `--set` values, read strictly into frozen sections.

spec = load_spec(Path("search_spaces/patch.yaml"), ["data.root=/data/VOC2012", "budget.trials=40"])
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpn.config import Config, brief, config_from, known_names, merge, nearest, preset_names, with_values
from cpn.config.configuration import finding
from cpn.config.presets import PRESETS
from cpn.config.section import Section
from cpn.core.errors import InputError

from ..base.absolute_paths import absolute_base, absolute_spec
from ..base.yaml_files import load_yaml, opening_question, parse_scalar
from .spec_checks import check_search, meant_search, value_names
from .sweep_spec import SweepSpec
from .table_spec import check_table


def load_spec(path: Path, sets: Sequence[str] = ()) -> SweepSpec:
    """Read and check a specification.

    `sets` are `name=value` texts: `data.root=...` (base names without the prefix), `budget.trials=40`, `name=NEW`,
    `search.patches.K=null` (drops a domain), `preset=scenes` (adds a preset).
    Raises InputError: one line with the file or --set, the key and the cure.
    """
    raw = load_yaml(path)
    if raw.get("question") is None:
        raw["question"] = opening_question(path)
    return spec_from(raw, sets, path)


def spec_from(raw: dict[str, Any], sets: Sequence[str], path: Path) -> SweepSpec:
    """Read the specification from values that `path` stands for in errors."""
    if not isinstance(raw.get("base", {}), dict) or not isinstance(raw.get("search", {}), dict):
        key = "base" if not isinstance(raw.get("base", {}), dict) else "search"
        raise InputError(f"{path}: {key}: has to hold `key: value` lines, or leave the key out")
    base_sets: dict[str, Any] = {}
    for text in sets:
        name, value = _split(text)
        first = name.partition(".")[0]
        if name == "preset":
            raw = {**raw, "base": add_presets(raw.get("base", {}), value, f"{path}: base")}
        elif first == "base":
            raise InputError(f"--set {name}: write it without `base.`: --set {name[5:] or 'data.root'}=...")
        elif first in SweepSpec.model_fields:
            raw = _set_sweep(raw, name, value)
        elif first in Config.model_fields:
            base_sets[name] = value
        else:
            known = [*known_names(), *sweep_names(), "preset"]
            raise InputError(f"--set {name}: unknown key{nearest(name, known)}")
    _check_base(raw, base_sets, path)
    for name, value in base_sets.items():
        raw = merge(raw, {"base": _nested(name.split("."), value)})
    set_names = names_of(sets)
    place = partial(_place, str(path), set_names)
    raw = absolute_spec(raw, place)
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        raise InputError(_explain(error, str(path), set_names)) from None
    spec._source, spec._set_names = str(path), tuple(base_sets)
    if spec.table is not None:
        if spec.search:
            where = next((f"--set {name}" for name in set_names if name.startswith("search.")), f"{path}: search")
            raise InputError(f"{where}: a table runs its rows and searches nothing; drop it, or the table")
        check_table(spec.table, spec.base, str(path))
    with _blaming_sets(str(path), set_names):
        check_search(spec, str(path))
        meant = meant_search(spec, str(path))
        if all(meant[name] is domain for name, domain in spec.search.items()):
            return spec
        spec = spec.model_copy(update={"search": meant})
        check_search(spec, str(path))
    return spec


@contextmanager
def _blaming_sets(source: str, set_names: Sequence[str]) -> Iterator[None]:
    """Name the --set in the place of the file where an error is about a key that it gave a value, or a part of."""
    try:
        yield
    except InputError as error:
        before, _, rest = str(error).partition(f"{source}: ")
        key, colon, rest = rest.partition(": ")
        if before or not colon:  # about something else
            raise
        raise InputError(f"{_place(source, set_names, key)}: {rest}") from None


def apply_sets(base: dict[str, Any], sets: Sequence[str], source: str) -> dict[str, Any]:
    """Return the method's nested values `base` with `--set` texts applied: dotted names, and `preset`. For a single
    run.

    Raises InputError for a name that is not the method's.
    """
    changed: dict[str, Any] = {}
    for text in sets:
        name, value = _split(text)
        if name == "preset":
            base = add_presets(base, value, source)
        elif name.partition(".")[0] in Config.model_fields:
            changed[name] = value
        else:
            raise InputError(f"--set {name}: unknown key{nearest(name, [*known_names(), 'preset'])}")
    with_values(config_from(base, source), changed, "--set")
    for name, value in changed.items():
        base = merge(base, _nested(name.split("."), value))
    return absolute_base(base, partial(_place, source, names_of(sets)))


def names_of(sets: Sequence[str]) -> list[str]:
    """Return the names that `--set` texts give a value."""
    return [_split(text)[0] for text in sets]


def add_presets(base: dict[str, Any], added: Any, source: str) -> dict[str, Any]:
    """Return `base` with presets from `--set preset=...`: they go last in its list, and over what the file
    itself says.
    """
    old, new = preset_names(base.get("preset"), source), preset_names(added or None, "--set preset")
    if not new:
        raise InputError("--set preset: names no preset, and takes none away; name one, or leave it out")
    for name in new:
        base = merge(base, PRESETS[name])
    return {**base, "preset": old + new}


def _split(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    name = name.strip()
    if not sign or not name:
        raise InputError(f"--set {text}: write name=value, as in --set budget.trials=40")
    if name == "name" and value.strip().isalnum():
        return name, value.strip()  # a job's number stays as it is written: 007, 1e5
    return name, parse_scalar(value, f"--set {name}")


def _nested(parts: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts[1:]):
        value = {part: value}
    return {parts[0]: value}


def _set_sweep(raw: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """`raw` with a sweep section's value changed; a searched name keeps its dots as one key."""
    first, _, rest = name.partition(".")
    if first != "search":
        return merge(raw, _nested(name.split("."), value))
    search = dict(raw.get("search", {}))
    names = value_names()
    fits = [known for known in (*search, *names) if rest == known or rest.startswith(known + ".")]
    if not rest:
        raise InputError(f"--set {name}: name what is searched: --set search.loss.w_tcp.float=[0.1,10]")
    if not fits:
        raise InputError(f"--set {name}: {rest} is not a name of the method{nearest(rest, names)}")
    searched = max(fits, key=len)
    if rest != searched:
        old = search.get(searched)
        value = merge(old if isinstance(old, dict) else {}, _nested(rest[len(searched) + 1 :].split("."), value))
    search[searched] = value
    if value is None:
        del search[searched]
    return {**raw, "search": search}


def _check_base(raw: dict[str, Any], base_sets: dict[str, Any], path: Path) -> None:
    """Name the file for what stands in it, and --set for what was set."""
    config = config_from(raw.get("base", {}), f"{path}: base")
    if base_sets:
        with_values(config, base_sets, "--set")


def sweep_names() -> list[str]:
    """Sections of a specification and the dotted names of their values."""
    names = []
    for name, field in SweepSpec.model_fields.items():
        names.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            names += [f"{name}.{inner}" for inner in field.annotation.model_fields]
    return names


def _place(source: str, set_names: Sequence[str], key: str) -> str:
    """Return the key as an error calls it: behind the --set that gave its value, or behind the file."""
    plain = key.removeprefix("base.")
    about = (name for name in set_names if f"{plain}.".startswith(f"{name}.") or name.startswith(f"{plain}."))
    name = next(about, None)
    if name is None:
        return f"{source}: {key}"
    return f"--set {name}" if plain == name else f"--set {name}: {plain}"


def _explain(error: ValidationError, source: str, set_names: Sequence[str]) -> str:
    findings = error.errors()
    first = findings[0]
    loc = list(first["loc"])
    if loc[0] == "search" and len(loc) > 2 and loc[2] in ("float", "int", "choice", "curve"):
        del loc[2]  # pydantic names the kind of domain that it chose
    key = brief(".".join(str(part) for part in loc))
    if first["type"] == "extra_forbidden":
        known = ["float", "int", "choice", "log", "step", "when"] if loc[0] == "search" else sweep_names()
        text = f"unknown key{nearest(str(loc[-1]) if loc[0] == 'search' else key, known)}"
    elif first["type"] == "missing":
        beside = next((name for name in set_names if name.startswith(f"{loc[0]}.")), None)
        text = f"is missing beside --set {beside}; add it, or drop that" if beside else "is missing; add it"
    else:
        text = finding(first["type"], first["msg"], first.get("input"))
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{_place(source, set_names, key)}: {text}{more}"
