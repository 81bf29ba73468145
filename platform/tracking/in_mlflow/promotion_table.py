"""The promotion history as a Markdown table: the description of a registered model, on its page in MLflow.

The history is in the model's tags (registry.py); this is what a person reads of it, written again with each move.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = "### Promotion history"
"""Begins our part of a description; what stands before it is somebody's own and stays."""
LONGEST = 5000
"""Characters of a description that MLflow's databases keep."""
LONGEST_REASON = 200


def description(before: str | None, entries: Sequence[Mapping[str, Any]]) -> str:
    """The description with the table of `entries` (oldest first) in place of the one that `before` has: the newest
    first, and as many as a description holds.
    """
    own = (before or "").partition(HEAD)[0].rstrip()
    head = [HEAD, "", "| when (UTC) | version | what | run | who | why |", "|---|---|---|---|---|---|"]
    rows = [row(entry) for entry in reversed(entries)]
    for shown in range(len(rows), -1, -1):
        left = len(rows) - shown
        more = ["", f"{left} earlier: `python -m platform.promote --history`"] if left else []
        text = "\n".join([*([own, ""] if own else []), *head, *rows[:shown], *more])
        if len(text) <= LONGEST:
            return text
    return before or ""  # a description of somebody's own that leaves no room


def row(entry: Mapping[str, Any]) -> str:
    """One move as a line of the table."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry["when"]))
    what = entry.get("kind", "promotion")
    if entry.get("overridden"):
        what += f", overrides {', '.join(entry['overridden'])}"
    why = cell(entry["why"])
    why = why if len(why) <= LONGEST_REASON else f"{why[: LONGEST_REASON - 1]}…"
    cells = [when, f"{entry['from'] or '-'} → {entry['to'] or '-'}", what, entry.get("uid") or "-", entry["who"]]
    return f"| {' | '.join([*map(cell, cells), why])} |"


def cell(text: Any) -> str:
    """Text that ends neither the line nor the cell, and is no link or markup of somebody's."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", " ".join(str(text).split()))
