"""A page over the paper's tables and figures and our searches: filled where run; grey where not, with the command."""

import base64
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.checked import whole_png
from cpn.core.errors import InputError
from cpn.core.files import write_bytes

from ...base.paths import Storage, SweepPaths
from ...config.spec import load_spec
from ...config.table_spec import Table
from ...search.sweep_summary import read_summary
from ..table_result import cost_words, read_table, table_cells

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = Path(__file__).with_name("paper.html.jinja")
HEADS = ("Question", "Command", "Cost", "Note", "Paper")
"""What the header of a search space says, each after its own head."""
PARTS = ("The paper's tables and figures", "Beyond the paper", "Searches")
PICTURES = {
    "panel": "CAMs of the rows side by side for the same images",
    "random_walk": "from CAM to pseudo label by the random walk",
    "deeplab": "the segmentation network on validation images, without and with CRF",
}
"""Pictures that a table's folder may hold, and what they show."""


def write_paper_report(store: Storage, spaces: Path, out: Path) -> tuple[Path, dict[str, bool]]:
    """Write the page to `out`; returns it, and for every search space whether it was run.

    Raises InputError where none of them has a table.
    """
    import jinja2

    entries = [entry(store, path, out.parent) for path in sorted(spaces.glob("*.yaml"))]
    if not any(shown["heads"] for shown in entries):
        raise InputError(f"--spaces: {spaces} holds no search space with a table; name the folder search_spaces")
    surroundings = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    surroundings.filters["prose"] = prose
    page = surroundings.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        parts={part: [shown for shown in entries if shown["part"] == part] for part in PARTS},
        all=len(entries),
        run=sum(shown["filled"] for shown in entries),
    )
    write_bytes(out, page.encode())
    return out, {shown["name"]: shown["filled"] for shown in entries}


def prose(text: str) -> "Markup":
    """Escaped text whose `words` in backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def entry(store: Storage, path: Path, beside: Path) -> dict[str, Any]:
    """Return what the page in folder `beside` shows of one search space file."""
    spec = load_spec(path)
    shown = {
        "name": spec.name,
        "header": dict.fromkeys(HEADS, "") | dict(header(path)),
        "part": PARTS[1] if spec.name.startswith("beyond_") else PARTS[2] if spec.table is None else PARTS[0],
        "command": f"python -m platform.sweep {shlex.quote(str(path))}",
    }
    paths = store.sweep(spec.name)
    if spec.table is None:
        return shown | search_entry(paths, beside)
    return shown | table_entry(paths, spec.table)


def table_entry(paths: SweepPaths, table: Table) -> dict[str, Any]:
    """Return a table's numbers, or the paper's alone where it was not run."""
    result = read_table(paths.table)
    heads, body = table_cells(result.rows, result.columns) if result else empty_cells(table)
    there = {name: paths.root / f"{name}.png" for name in PICTURES}
    return {
        "title": table.title,
        "filled": result is not None,
        "heads": heads,
        "body": body,
        "words": result.words if result else table.note,
        "pictures": {
            PICTURES[name]: base64.b64encode(picture.read_bytes()).decode()
            for name, picture in there.items()
            if result and whole_png(picture)
        },
        "report": None,
        "ran": cost_words(result) if result else "",
    }


def search_entry(paths: SweepPaths, beside: Path) -> dict[str, Any]:
    """Return a search's verdict, and where its own report lies."""
    summary = read_summary(paths.summary)
    report = paths.root / "report.html"
    return {
        "title": f"Search {paths.root.name}",
        "filled": summary is not None,
        "heads": [],
        "body": [],
        "words": f"Verdict: {summary.verdict}." if summary else "",
        "pictures": {},
        "report": os.path.relpath(report, beside) if summary and report.exists() else None,
        "ran": f"{summary.trials.get('complete', 0)} complete trials in {summary.hours:.2f} hours." if summary else "",
    }


def empty_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the paper's numbers of a table that was not run."""
    columns = list(dict.fromkeys(column for row in table.rows.values() for column in row.published))
    body = [
        [name, *(f"{row.published[column]:.2f}" if column in row.published else "-" for column in columns)]
        for name, row in table.rows.items()
    ]
    return ["row", *(f"{column}, paper" for column in columns)], body


def header(path: Path) -> Mapping[str, str]:
    """Return the header of a search space file by its heads, lines that go on joined."""
    by_head: dict[str, str] = {}
    last = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").rstrip()
        head, sign, rest = text.partition(":")
        if sign and head in HEADS:
            last = head
            by_head[head] = rest.strip()
        elif last is not None:
            by_head[last] += f" {text}"
    return by_head
