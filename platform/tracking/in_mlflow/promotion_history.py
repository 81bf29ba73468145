"""An entry of the promotion history, as it stands in a registered model's tags, and the table of all on its page.

The history itself is in these tags (registry.py); the table is what a person reads of it, written again with each move.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

PROMOTED, ROLLED_BACK, BY_HAND, PUT_BACK = "promotion", "rollback", "by hand", "put back"
"""What an entry tells: a command promoted a run; went back to an earlier champion; took note that somebody had moved
the alias, and carried that version on; or moved it back because a gate did not hold."""
SWEEP, PERSON = "sweep", "person"
"""Who decided: the end of a sweep, or somebody."""
HEAD = "### Promotion history"
"""Begins our part of a description; what stands before it is somebody's own and stays."""
COLUMNS = ("when (UTC)", "version", "what", "run", "who", "why")
LONGEST = 5000
"""Characters of a description that MLflow's databases keep."""
LONGEST_CELL = 200
"""Characters of a reason that the table shows."""
GAP = "&emsp; | "
"""Between two cells: MLflow draws tables without lines and without room between columns."""


class Decision(BaseModel):
    """Who decided on a move of the alias, about which run, and on what grounds."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str = PROMOTED
    by: str | None = None
    """SWEEP or PERSON; None where an earlier version did not say."""
    uid: str | None = None
    run_key: str | None = None
    gates: dict[str, str] = {}
    """What each gate found, in words."""
    overridden: tuple[str, ...] = ()
    """The gates that did not hold, and gave way to the reason."""

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that are kept: those that were given, and no others."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class HistoryEntry(Decision):
    """One move of the alias. An entry of an earlier version lacks what that did not write; keys of a later one are kept
    as they are.
    """

    id: str
    """That of the record which it was made of."""
    who: str
    when: float
    """Seconds since 1970."""
    model: str
    alias: str
    before: str | None = Field(alias="from")
    """The version that the alias was moved from; None where it pointed at none."""
    to: str | None
    why: str
    remark: str | None = None
    """What had been done by hand before."""
    waiting: bool = False
    """Whether the store has not taken it yet."""


def description(before: str | None, entries: Sequence[HistoryEntry]) -> str:
    """Return the description with the table of `entries` (oldest first) in place of the one that `before` has: the
    newest first, and as many as a description holds.
    """
    own = (before or "").partition(HEAD)[0].rstrip()
    head = [HEAD, "", f"| {GAP.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    rows = [row(entry) for entry in reversed(entries)]
    for shown in range(len(rows), -1, -1):
        left = len(rows) - shown
        more = ["", f"{left} earlier: `python -m platform.promote --history`"] if left else []
        text = "\n".join([*([own, ""] if own else []), *head, *rows[:shown], *more])
        if len(text) <= LONGEST:
            return text
    return before or ""  # a description of somebody's own that leaves no room


def row(entry: HistoryEntry) -> str:
    """Return one move as a line of the table."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.when))
    what = entry.kind
    if entry.overridden:
        what += f", overrides {', '.join(entry.overridden)}"
    why = " ".join(entry.why.split())
    why = why if len(why) <= LONGEST_CELL else f"{why[: LONGEST_CELL - 1]}…"
    cells = [when, f"{entry.before or '-'} → {entry.to or '-'}", what, entry.uid or "-", entry.who]
    return f"| {GAP.join([*map(cell, cells), cell(why)])} |"


def cell(text: str) -> str:
    """Return text that ends neither the line nor the cell, and whose signs are shown as they are. An address stays
    one: MLflow makes a link of it.
    """
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|\\`*_~\[\]])", r"\\\1", plain)
