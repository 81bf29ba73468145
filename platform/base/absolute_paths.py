"""Makes the paths of a configuration absolute, once, in the driver: workers have other working folders.

A relative path is meant from the folder in which the command was typed, wherever its YAML file lies; `~` is the home
folder. URLs and the names that stand for weights stay as they are.
"""

from collections.abc import Mapping
from typing import Any

from cpn.config import merge
from cpn.core.contents import NAMED_WEIGHTS
from cpn.core.files import full_path

PATHS = ("data.root", "network.weights", "irn.weights", "instance_masks.folder")
"""Dotted names of the method whose values are paths."""


def absolute(name: str, value: Any) -> Any:
    """Return the value of a dotted name, absolute where it is a path. Raises InputError where ~USER is unknown."""
    if name not in PATHS or not isinstance(value, str) or not value.strip() or "://" in value:
        return value
    return value if name != "data.root" and value in NAMED_WEIGHTS else str(full_path(value, name))


def absolute_base(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method's nested values with absolute paths."""
    found = dict(values)
    for name in PATHS:
        section, _, key = name.partition(".")
        inner = found.get(section)
        if isinstance(inner, Mapping) and key in inner:
            found = merge(found, {section: {key: absolute(name, inner[key])}})
    return found


def absolute_spec(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification's raw values with absolute paths: base, choices of the search, rows of a table."""
    found = {**raw, "base": absolute_base(raw.get("base", {}))}
    for name, domain in raw.get("search", {}).items():
        if name in PATHS and isinstance(domain, Mapping) and isinstance(domain.get("choice"), list):
            choice = [absolute(name, value) for value in domain["choice"]]
            found = merge(found, {"search": {name: {"choice": choice}}})
    table = raw.get("table")
    rows = table.get("rows") if isinstance(table, Mapping) else None
    for row, content in (rows if isinstance(rows, Mapping) else {}).items():
        for part in ("maps", "labels"):
            if isinstance(content, Mapping) and isinstance(content.get(part), str) and content[part]:
                name = f"table.rows.{row}.{part}"
                found = merge(found, {"table": {"rows": {row: {part: str(full_path(content[part], name))}}}})
        for part in ("values", "scenes"):
            if isinstance(content, Mapping) and isinstance(content.get(part), Mapping):
                found = merge(found, {"table": {"rows": {row: {part: absolute_base(content[part])}}}})
    return found
