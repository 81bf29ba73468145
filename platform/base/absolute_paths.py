"""Makes the paths of a configuration absolute, once, in the driver: workers have other working folders.

A relative path is meant from the folder in which the command was typed, wherever its YAML file lies; `~` is the home
folder. URLs and the names that stand for weights stay as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cpn.config import merge
from cpn.core.contents import NAMED_WEIGHTS
from cpn.core.files import full_path

PATHS = ("data.root", "network.weights", "irn.weights", "instance_masks.folder")
"""Dotted names of the method whose values are paths."""


Place = Callable[[str], str]
"""What an error calls a key, with the file or the --set that gave it."""


def absolute(name: str, value: Any, shown: str | None = None) -> Any:
    """Return the value of a dotted name, absolute where it is a path. Raises InputError where ~USER is unknown, which
    calls the name as `shown`.
    """
    if name not in PATHS or not isinstance(value, str) or not value.strip() or "://" in value:
        return value
    return value if name != "data.root" and value in NAMED_WEIGHTS else str(full_path(value, shown or name))


def absolute_base(values: Mapping[str, Any], place: Place = str, below: str = "") -> dict[str, Any]:
    """Return the method's nested values with absolute paths; errors call them `place(below + name)`."""
    result = dict(values)
    for name in PATHS:
        section, _, key = name.partition(".")
        inner = result.get(section)
        if isinstance(inner, Mapping) and key in inner:
            result = merge(result, {section: {key: absolute(name, inner[key], place(below + name))}})
    return result


def absolute_spec(raw: Mapping[str, Any], place: Place = str) -> dict[str, Any]:
    """Return a specification's raw values with absolute paths: base, choices of the search, rows of a table."""
    result = {**raw, "base": absolute_base(raw.get("base", {}), place, "base.")}
    for name, domain in raw.get("search", {}).items():
        if name in PATHS and isinstance(domain, Mapping) and isinstance(domain.get("choice"), list):
            choice = [absolute(name, value, place(f"search.{name}")) for value in domain["choice"]]
            result = merge(result, {"search": {name: {"choice": choice}}})
    table = raw.get("table")
    rows = table.get("rows") if isinstance(table, Mapping) else None
    for row, content in (rows if isinstance(rows, Mapping) else {}).items():
        for part in ("maps", "labels"):
            if isinstance(content, Mapping) and isinstance(content.get(part), str) and content[part]:
                path = str(full_path(content[part], place(f"table.rows.{row}.{part}")))
                result = merge(result, {"table": {"rows": {row: {part: path}}}})
        for part in ("values", "scenes"):
            if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
                inner = absolute_base(content[part], place, f"table.rows.{row}.{part}.")
                result = merge(result, {"table": {"rows": {row: {part: inner}}}})
    return result
