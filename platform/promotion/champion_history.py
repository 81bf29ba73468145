"""The history of a sweep's champion as it is known here: what the registry has, and what still waits in the spool."""

import time

from pydantic import ValidationError

from cpn.core.checked import unsealed_line
from cpn.core.errors import WorkError, to_stderr

from ..base.paths import Storage
from ..reports.sweep_status import stored_uri
from ..tracking.in_mlflow.promotion_history import HistoryEntry
from ..tracking.read import read_model_state
from ..tracking.recorder import spool_store
from ..tracking.records import model_name
from ..tracking.registry import HISTORY, entry_of
from ..tracking.spool import waiting

MOVES = ("register", "point", "moved")
"""Records that move the alias, or tell that somebody did."""


def recorded_history(store: Storage, name: str) -> list[HistoryEntry]:
    """Return the entries that the tracking store had when it was last written to from here; oldest first."""
    copy = store.sweep(name).records / HISTORY
    lines = copy.read_bytes().splitlines() if copy.exists() else []
    entries = [entry for line in lines if (entry := read_line(line)) is not None]
    if len(entries) < len(lines):
        to_stderr(f"{copy}: {len(lines) - len(entries)} damaged lines; the store has them, and gives them again")
    return entries


def read_line(line: bytes) -> HistoryEntry | None:
    """Return the entry that a line of the copy holds; None where it is damaged."""
    try:
        return HistoryEntry.model_validate(unsealed_line(line))
    except ValidationError:
        return None


def missing_model_message(name: str) -> str:
    """Return what is said of a registered model that the store had, and has no more."""
    return f"registered model {model_name(name)} is gone from the store; the sweep's own command makes it again"


def history(store: Storage, name: str, uri: str | None) -> tuple[list[HistoryEntry], str | None]:
    """Return the entries of sweep `name`, oldest first, and a warning where the tracking store is away, or has them no
    more.

    Then they are those that it had when it was last written to from here. What it has not taken is marked `waiting`.
    """
    uri = uri if uri is not None else stored_uri(store, name)
    folder, warning = store.sweep(name).records, None
    copy = "this is what it had when it was last told something from here"
    try:
        state = read_model_state(uri, model_name(name))
        entries = list(state.history) if state else []
        if state is None and (entries := recorded_history(store, name)):
            warning = f"{missing_model_message(name)}; {copy}"
    except WorkError as error:
        entries, warning = recorded_history(store, name), f"{error}; {copy}"
    known = {entry.id for entry in entries}
    for event in waiting(folder, spool_store(uri)):
        if event.get("kind") in MOVES and event["id"] not in known:
            entry = entry_of(event, event.get("from"), event.get("to", event.get("version")))
            entries.append(entry.model_copy(update={"waiting": True}))
    return entries, warning


def in_words(entry: HistoryEntry) -> str:
    """Return one entry of the history in a line or two: lines are read where a table of six columns is not."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.when))
    moved = " to ".join(filter(None, (entry.before, entry.to)))
    to = (
        "waits for the tracking store"
        if entry.waiting
        else f"version {moved}"
        if entry.to
        else f"no version, was {moved}"
    )
    of = f" of {entry.uid}" if entry.uid else ""
    lines = [f"{when}  {entry.model}  {to}: {entry.kind}{of} by {entry.who}: {entry.why}"]
    for name in entry.overridden:
        lines.append(f"    overrides {name}: {entry.gates.get(name, '')}")
    if entry.remark:
        lines.append(f"    {entry.remark}")
    return "\n".join(lines)
