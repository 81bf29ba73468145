"""What a sweep's configurations name outside themselves: a user's own backbones and weights files, on every machine."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpn.config import Config, to_dotted
from cpn.core.code_files import LOOKED_AT, check_code, known_code
from cpn.core.contents import NAMED_WEIGHTS, contents, is_code, own_modules
from cpn.core.errors import InputError
from cpn.core.plain_file import file_there

from .space.domains import ChoiceDomain
from .sweep_spec import SweepSpec
from .table_spec import row_values, shown_rows

NAMES = ("network.backbone", "network.weights", "irn.backbone", "irn.weights")
"""Dotted names whose values may name a file or code."""


def named_values(spec: SweepSpec) -> list[dict[str, str]]:
    """List the values that NAMES can take in a sweep: in the base, each choice of the search and each table row."""
    return [values for _, values in _places(spec)]


def _places(spec: SweepSpec) -> list[tuple[str, dict[str, str]]]:
    """Return the same, each behind the place in the specification where it stands, as messages name it before the key.

    What stands in the base may also come from --set or a preset, and has no place here.
    """
    places: list[tuple[str, dict[str, Any]]] = [("", dict(_named(spec.base_config)))]
    for name, domain in spec.search.items():
        if name in NAMES and isinstance(domain, ChoiceDomain):
            # null, for random numbers, names nothing
            places += [(f"{spec._source}: search.", {name: value}) for value in domain.choice]
    if spec.table is not None:
        rows = shown_rows(spec.table, spec.base_config)
        places += [(f"{spec._source}: table, row {name}: ", row_values(spec.base, name, row, spec.name))
                   for name, row in rows.items()]  # fmt: skip
    return [(place, {name: values[name] for name in NAMES if isinstance(values.get(name), str)})
            for place, values in places]  # fmt: skip


def named_contents(spec: SweepSpec) -> dict[str, str]:
    """Digest the files and the code that the sweep names: path or `module:factory` -> digest."""
    return {value: content for values in named_values(spec) for value, content in contents(values).items()}


def contents_of(config: Config) -> dict[str, str]:
    """Digest the files and the code that one configuration names: path or `module:factory` -> digest."""
    return contents(_named(config))


def own_backbones(spec: SweepSpec) -> list[str]:
    """Return the `module:factory` names of the user's own backbones."""
    named = (value for values in named_values(spec) for name, value in values.items() if name.endswith("backbone"))
    return list(dict.fromkeys(filter(is_code, named)))


def trains_own_code(spec: SweepSpec) -> bool:
    """Return whether a run's network is the user's code, or may be: what it costs is known by running it."""
    return any(is_code(values.get("network.backbone")) for values in named_values(spec))


def import_folders(backbones: Iterable[str]) -> list[str]:
    """Return where processes on other machines, or in other working folders, find these backbones and what they
    import.
    """
    modules = (module for backbone in backbones for module in own_modules(backbone))
    return list(dict.fromkeys(str(module.root) for module in modules))


def looked_at(backbones: Sequence[str]) -> dict[str, str]:
    """Environment of workers: they run the code that this process has looked at wherever it has been unpacked."""
    return {LOOKED_AT: " ".join(known_code(backbones).values())} if backbones else {}


def lay_out(backbones: Iterable[str], folder: Path) -> None:
    """Copy the sources of own backbones, and of the user's own modules that they import, under `folder`."""
    for module in (module for backbone in backbones for module in own_modules(backbone)):
        target = folder / module.file.relative_to(module.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module.file, target)


def check_named(spec: SweepSpec) -> None:
    """Raise InputError where a weights file or a module that a trial may ask for is not there, or somebody else could
    have written the module (cpn/core/code_files.py).
    """
    for place, values in _places(spec):
        for name, value in values.items():
            key = f"{place}{name}"
            if name.endswith("weights") and value not in NAMED_WEIGHTS and not file_there(Path(value), key):
                raise InputError(f"{key}: {value}: no such weights file; check the path")
            if name.endswith("backbone") and is_code(value) and not own_modules(value):
                raise InputError(f"{key}: {value!r} cannot be imported; run the command in the module's folder")
            if name.endswith("backbone") and is_code(value):
                check_code(value, key)


def check_code_of(config: Config) -> None:
    """Raise InputError where somebody else could have written code that a configuration names."""
    for name, value in _named(config).items():
        if name.endswith("backbone") and is_code(value):
            check_code(value, name)


def check_contents(config: Config, known: Mapping[str, str]) -> None:
    """Raise InputError where this machine has another file or module than the sweep started with; `known` is what
    `named_contents` said then.
    """
    here = contents_of(config)
    for name, value in _named(config).items():
        if value in known and here.get(value) != known[value]:
            is_there = "is another one on this machine than" if value in here else "is not on this machine, and was"
            cure = "start anew after a change, --set name=NEW; or put the same on every machine"
            raise InputError(f"{name}: {value} {is_there} when the sweep was started; {cure}")


def _named(config: Config) -> dict[str, str]:
    return {name: value for name, value in to_dotted(config).items() if name in NAMES and isinstance(value, str)}
