"""The history of a sweep's champion as it is known here: what the registry has, and what still waits in the spool."""

from typing import TYPE_CHECKING

from cpn.core.checked import unsealed_line
from cpn.core.errors import WorkError, to_stderr

from ..base.paths import Storage
from ..tracking.read import read_model_state
from ..tracking.recorder import spool_store
from ..tracking.records import model_name
from ..tracking.registry import HISTORY, Entry, entry_of
from ..tracking.spool import waiting
from .candidates import stored_uri

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from ..base.paths import Storage

MOVES = ("register", "point", "moved")
"""Records that move the alias, or tell that somebody did."""


def recorded_history(store: Storage, name: str) -> list[Entry]:
    """The entries that the tracking store had when it was last written to from here; oldest first."""
    copy = store.sweep(name).records / HISTORY
    lines = copy.read_bytes().splitlines() if copy.exists() else []
    entries = [entry for line in lines if (entry := unsealed_line(line)) is not None and "id" in entry]
    if len(entries) < len(lines):
        to_stderr(f"{copy}: {len(lines) - len(entries)} damaged lines; the store has them, and gives them again")
    return entries


def missing_model_message(name: str) -> str:
    """What is said of a registered model that the store had, and has no more."""
    return f"registered model {model_name(name)} is gone from the store; the sweep's own command makes it again"


def history(store: Storage, name: str, uri: str | None) -> tuple[list[Entry], str | None]:
    """The entries of sweep `name`, oldest first, and a warning where the tracking store is away, or has them no more.

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
    known = {entry["id"] for entry in entries}
    for event in waiting(folder, spool_store(uri)):
        if event.get("kind") in MOVES and event["id"] not in known:
            entries.append({**entry_of(event, event.get("from"), event.get("version")), "waiting": True})
    return entries, warning
