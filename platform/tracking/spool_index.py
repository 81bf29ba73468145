"""What has been told about runs, from the spool: a few bytes a run in memory, and the rest in the file."""

from array import array
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from .in_mlflow.promotion_history import SWEEP
from .spool import Event, Spool

STEPS = ("metrics", "series", "images")
"""Kinds of events that tell something about steps of a run."""
AT_ONCE = 64
"""Runs whose metric keys are kept in memory: those that run now, and what was asked for last."""


class SpoolIndex:
    """Which runs were begun and ended, which version was registered last, which steps of a metric or image were told.

    Of a run's metrics only the places in the file are kept, 8 bytes an event, and read again when they are asked for.
    """

    def __init__(self) -> None:
        self.spool: Spool | None = None
        self.latest = 0
        """The newest time of an event, in ms since 1970."""
        self.ended: set[str] = set()
        self.started: set[str] = set()
        self.registered: dict[str, tuple[str, str]] = {}
        self._places: dict[str, array[int]] = {}
        self._told: OrderedDict[str, set[tuple[int, str]]] = OrderedDict()

    def hear(self, event: Event, offset: int) -> None:
        """Take note of an event, which begins at `offset` of the file."""
        uid, kind = event.get("uid", ""), event.get("kind")
        self.latest = max(self.latest, int(event.get("time", 0)))
        if kind in STEPS:
            self._places.setdefault(uid, array("Q")).append(offset)
            if uid in self._told:
                self._told[uid].update(_steps(event))
        elif kind == "end":
            self.ended.add(uid)
        elif kind == "start":
            self.ended.discard(uid)
            self.started.add(uid)
        elif kind == "register":
            self.registered[event.get("entry", {}).get("by", SWEEP)] = (uid, event["tags"]["digest"])

    def steps(self, uid: str) -> set[tuple[int, str]]:
        """Step and key of each value that was told about a run."""
        if uid not in self._told:
            places = self._places.get(uid, ())
            events = self.spool.at(places) if self.spool and places else ()
            self._told[uid] = {step for event in events for step in _steps(event)}
            while len(self._told) > AT_ONCE:
                self._told.popitem(last=False)
        self._told.move_to_end(uid)
        return self._told[uid]


def _steps(event: Mapping[str, Any]) -> set[tuple[int, str]]:
    if event["kind"] == "images":
        return {(event["step"], key) for key in event["images"]}
    points = event["points"] if event["kind"] == "series" else [(event["step"], event["values"], event["time"])]
    return {(step, key) for step, values, _ in points for key in values}
