"""A page over all tables and figures of the paper: filled where they were run, grey where not, with what fills them."""

import base64
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpn.errors import InputError
from cpn.files import read_json, write_bytes

from .paths import Storage
from .spec import load_spec
from .table_result import table_cells
from .table_spec import Table

TEMPLATE = Path(__file__).with_name("paper.html.jinja")
HEADS = ("Question", "Command", "Cost", "Paper")
"""What the header of a search space says, each after its own head."""


def write_paper_report(store: Storage, spaces: Path, out: Path) -> tuple[Path, dict[str, bool]]:
    """Write the page to `out`; returns it, and for every table whether it was run. InputError without any table."""
    import jinja2

    shown = [entry for path in sorted(spaces.glob("*.yaml")) if (entry := table_entry(store, path)) is not None]
    if not shown:
        raise InputError(f"--spaces: {spaces} holds no search space with a table; name the folder search_spaces")
    surroundings = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = surroundings.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        tables=shown, run=sum(entry["filled"] for entry in shown)
    )
    write_bytes(out, page.encode())
    return out, {entry["name"]: entry["filled"] for entry in shown}


def table_entry(store: Storage, path: Path) -> dict[str, Any] | None:
    """What the page shows of one search space file, None where it has no table."""
    spec = load_spec(path)
    if spec.table is None:
        return None
    paths = store.sweep(spec.name)
    result = read_json(paths.table) if paths.table.exists() else None
    heads, body = table_cells(result["rows"], result["columns"]) if result else empty_cells(spec.table)
    panel = paths.root / "panel.png"
    return {
        "name": spec.name,
        "title": spec.table.title,
        "filled": result is not None,
        "header": header(path),
        "heads": heads,
        "body": body,
        "words": result["words"] if result else spec.table.note,
        "panel": base64.b64encode(panel.read_bytes()).decode() if result and panel.exists() else None,
        "command": f"python -m platform.sweep {shlex.quote(str(path))}",
        "hours": result["run_hours"] if result else None,
        "runs": len(result["runs"]) if result else 0,
        "seeds": result["seeds"] if result else spec.table.seeds,
    }


def empty_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """The heads and the paper's numbers of a table that was not run."""
    columns = list(dict.fromkeys(column for row in table.rows.values() for column in row.published))
    body = [
        [name, *(f"{row.published[column]:.2f}" if column in row.published else "-" for column in columns)]
        for name, row in table.rows.items()
    ]
    return ["row", *(f"{column}, paper" for column in columns)], body


def header(path: Path) -> Mapping[str, str]:
    """The header of a search space file by its heads, lines that go on joined."""
    found: dict[str, str] = {}
    last = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").rstrip()
        head, sign, rest = text.partition(":")
        if sign and head in HEADS:
            last = head
            found[head] = rest.strip()
        elif last is not None:
            found[last] += f" {text}"
    return found
