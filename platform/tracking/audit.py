"""What the store should have by now and has not: somebody deleted it in MLflow, or put the store back to a backup.

The spool has it all. Runs that MLflow can restore are restored; for the rest the spool is told again from the first
record on that is missing, which changes nothing about what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .registry import ModelState
from .spool import Event, Spool
from .store import Store


class ToldBefore:
    """What the spool tells of the time before: of all of it, and of what this store was told."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.begun: set[tuple[str, int]] = set()
        """uid and time, in ms, of each start of a run, told or not."""
        self.starts: dict[str, int] = {}
        """Of each run that the store was told of the offset of its first start."""
        self.registered: dict[str, list[tuple[int, Event]]] = {}
        """Of each registered model what made its versions, each with its offset."""
        start = 0
        for event, behind in spool.read():
            delivered = behind <= spool.offset and event is not None and event.get("id") not in spool.refused_ids
            if event and event.get("kind") == "start":
                self.begun.add((event["uid"], event["time"]))
                if delivered:
                    self.starts.setdefault(event["uid"], start)
            elif event and delivered and event.get("kind") == "register":
                self.registered.setdefault(event["model"], []).append((start, event))
            start = behind

    def __bool__(self) -> bool:
        return self.spool.size > 0

    def has(self, event_id: str) -> bool:
        """Return whether the spool has the record."""
        return self.spool.find(event_id) is not None


@dataclass
class Lack:
    """What has to be done about it."""

    offset: int | None = None
    """Where in the spool to go on from; None: where one was."""
    lines: list[str] = field(default_factory=list)
    """For people."""
    anew: list[Event] = field(default_factory=list)
    """Records to be appended."""

    def back(self, offset: int) -> None:
        """Go on from there, or from before."""
        self.offset = offset if self.offset is None else min(offset, self.offset)


def what_lacks(store: Store, delivered: ToldBefore) -> Lack:
    """Hold the store against what it was told; restores deleted runs. Raises what MLflow raises."""
    lack = Lack()
    store.inherited = store.run_ids.keys() - delivered.starts.keys()
    missing_runs(store, delivered, lack)
    put_back(store, delivered, lack)
    for model, events in delivered.registered.items():
        missing_versions(store.model(model), model, events, lack)
    return lack


def missing_runs(store: Store, delivered: ToldBefore, lack: Lack) -> None:
    """Find runs that are gone."""
    missing = delivered.starts.keys() - store.run_ids.keys()
    if not missing:
        return
    restored = store.restore(missing)
    if restored:
        lack.lines.append(f"{_shown(restored)} had been deleted in MLflow: restored")
    gone = sorted(missing - set(restored))
    if gone:
        what = f"{_shown(gone)}, of {len(delivered.starts)} that were told, {_are(gone)} not in the store any more"
        lack.lines.append(f"{what}: told again from {delivered.spool.folder}")
        lack.back(min(delivered.starts[uid] for uid in gone))


def put_back(store: Store, delivered: ToldBefore, lack: Lack) -> None:
    """Find what came after the mark in the store. That lags a little after a kill; where it is behind a mark that was
    set before, the store is as it was then.
    """
    spool = delivered.spool
    behind = spool.find(store.replayed) if store.replayed else None
    if behind is None or behind >= spool.offset:
        return
    lack.back(behind)
    if behind < (spool.find(spool.marked() or "") or 0):
        number = sum(1 for _, end in spool.read(behind) if end <= spool.offset)
        lack.lines.append(
            f"the tracking store lacks the last {number} records that it was told, as if put back to a backup: "
            f"told again from {spool.folder}"
        )


def missing_versions(state: ModelState | None, model: str, events: list[tuple[int, Event]], lack: Lack) -> None:
    """Find a registered model that is gone, and a version that is where an alias ought to be."""
    if state is None:
        lack.lines.append(f"registered model {model} is gone from the store: versions, alias, history are told again")
        lack.back(events[0][0])
        return
    if lack.offset is not None:  # the store was put back: what it lacks comes again
        return
    for alias in dict.fromkeys(event["alias"] for _, event in events):
        version = state.last(alias)
        if version is None or version in state.versions or alias in state.aliases:
            continue
        entries = {entry.id for entry in state.history if entry.alias == alias and entry.to == version}
        registrations = [event for _, event in events if event["id"] in entries]
        gone = f"version {version} of {model}, its {alias}, was deleted in MLflow"
        if not registrations:
            lack.lines.append(f"{gone}; python -m platform.rollback --to VERSION names another")
            continue
        lack.lines.append(f"{gone}: it is registered again")
        again: Event = {
            **registrations[-1],
            "reason": f"version {version} was deleted in MLflow: {registrations[-1]['reason']}",
        }
        again.pop("id", None)
        again.pop("time", None)
        lack.anew.append(again)


def _shown(uids: Sequence[str]) -> str:
    return uids[0] if len(uids) == 1 else f"{len(uids)} runs ({uids[0]} ...)"


def _are(uids: Sequence[str]) -> str:
    return "is" if len(uids) == 1 else "are"
