"""Records go to an append-only file first, and from there in order to a store that may be away for days.

`Spool` is the file: one JSON event a line, synced before `append` returns, so that kill -9 loses nothing but a torn
last line. What brings the events to the store is in replay.py.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

from filelock import lock_descriptor

from cpn.core.checked import sealed_line, unsealed_line
from cpn.core.errors import WorkError
from cpn.core.files import read_json, write_bytes, write_json

Event = TypedDict(  # by its functional form, as `from` is a word of Python's
    "Event",
    {
        "id": str,
        "kind": str,
        "uid": str,
        "time": int,
        "name": str,
        "parent": str | None,
        "params": dict[str, str],
        "tags": dict[str, str],
        "step": int,
        "values": dict[str, float | str],
        "points": list[tuple[int, dict[str, float | str], int]],
        "now": bool,
        "revise": bool,
        "path": str,
        "folder": str,
        "images": dict[str, str],
        "digest": str,
        "source": str,
        "role": str,
        "status": str,
        "alive": list[str],
        "ended": dict[str, str],
        "model": str,
        "alias": str,
        "version": str | None,
        "from": str | None,
        "to": str | None,
        "reason": str,
        "who": str,
        "checkpoint": str | None,
        "backbone": str | None,
        "entry": dict[str, Any],
        "first": bool,
        "offset": int,
    },
    total=False,
)
"""A record as a line of the spool. The four first are in all; which of the others follows from `kind`, as `Recorder`
writes them: start, metrics, series, tags, experiment, artifact, images, dataset, end, register, point, moved,
reconcile.
"""
Value = TypeVar("Value", int, str)

EVENTS = "events.jsonl"
BLOCK = 1 << 16
"""Bytes read at once from the end of the file."""


class Refused(Exception):
    """The store is alive and will not take this event. `again`: worth another attempt at the next start."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


class StoreDown(WorkError):
    """The store does not answer: the event stays where it is, and so do those behind it."""


class Unfit(StoreDown):
    """The store is alive, and our records have no place in it as things are: they wait. The line says what to do."""


class Spool:
    """The events of one writer, in `folder`: events.jsonl, position.json, refused.jsonl.

    `store` names the store they go to; each store has its own position, so that another one gets everything. `hear` is
    given each event that is there or comes, with the offset where it begins. A second writer in the same folder is a
    WorkError.
    """

    def __init__(self, folder: Path, store: str, hear: Callable[[Event, int], None] = lambda *_: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = store
        self.hear = hear
        self._path = folder / EVENTS
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock, self._aside = threading.Lock(), threading.Lock()
        if not lock_descriptor(self._file, blocking=False):
            os.close(self._file)
            raise WorkError(f"{folder}: another process writes these records; wait for it or stop it")
        self.troubles: list[str] = []
        """One line for each damaged file, with what is done about it."""
        self.size = self._drop_torn_line()
        self.offset = self._read_position()
        self._stamp = self.pending = start = 0
        for event, behind in self.read():
            if event:
                self._stamp = max(self._stamp, _stamp(event))
                with suppress(KeyError, TypeError, ValueError):  # an earlier version's line, without a checksum
                    hear(event, start)
            self.pending += behind > self.offset
            start = behind
        self._refused_ids = self._take_up_refused()

    @property
    def refused_ids(self) -> Collection[str]:
        """The ids of events that the store would not take."""
        return self._refused_ids

    @property
    def refused(self) -> int:
        """How many events the store would not take; they lie in refused.jsonl with the reasons."""
        return len(self._refused_ids)

    def append(self, event: Event) -> Event:
        """Write one event to disk and return it with its `id`. WorkError if the disk is full.

        Ids sort by time, and after a clock that was put back still in the order of writing.
        """
        with self._lock:
            if "id" not in event:
                self._stamp = max(time.time_ns(), self._stamp + 1)
                event = {"id": f"{self._stamp:016x}{secrets.token_hex(2)}", **event}
            line = sealed_line(event)
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes were written")
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, self.size)
                raise WorkError(f"{self._path}: the record cannot be kept ({error}); free space and go on") from error
            self.hear(event, self.size)
            self.size += len(line)
            self.pending += 1
        return event

    def at(self, offsets: Iterable[int]) -> Iterator[Event]:
        """Yield the events that begin at these offsets."""
        with open(self._path, "rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield _parse(file.readline()) or {}

    def find(self, event_id: str) -> int | None:
        """Return the offset behind the event of that id; None where there is none."""
        mark, offset = f'{{"id":"{event_id}"'.encode(), 0
        with open(self._path, "rb") as file:
            for line in file:
                offset += len(line)
                if line.startswith(mark):
                    return offset
        return None

    def read(self, offset: int = 0) -> Iterator[tuple[Event | None, int]]:
        """Events from a byte offset on, each with the offset behind it; None for a whole line that is no event."""
        with open(self._path, "rb") as file:
            file.seek(offset)
            while offset < self.size:
                line = file.readline()
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield _parse(line), offset

    def advance(self, offset: int) -> None:
        """Note in memory that the store has all events before `offset`; `save` puts it on disk."""
        with self._lock:
            self.offset = offset
            self.pending -= 1

    def rewind(self, offset: int = 0) -> None:
        """Go on from an earlier offset: the store has forgotten, or never had, what comes behind it."""
        with self._lock:
            self.offset = offset
            self.pending = sum(1 for _ in self.read(offset))

    def save(self) -> None:
        """Write the position, whole or absent, beside those of other stores."""
        positions = self._positions()
        positions[self.store] = self.offset
        write_json(self.folder / "position.json", positions)

    def marked(self) -> str | None:
        """Return the id of the event that this store was last marked with; None where it never was."""
        return _read_map(self.folder / "marked.json", str).get(self.store)

    def mark(self, event_id: str) -> None:
        """Note that the store has been marked with an event, up to which it has all."""
        path = self.folder / "marked.json"
        write_json(path, {**_read_map(path, str), self.store: event_id})

    def set_aside(self, event: Event, reason: str, again: bool) -> None:
        """Keep an event that the store refused, once, with the reason. OSError if the disk is full."""
        with self._aside:
            self._set_aside(event, reason, again)

    def _set_aside(self, event: Event, reason: str, again: bool) -> None:
        if event.get("id") in self._refused_ids:
            return
        line = sealed_line({"reason": reason, "again": again, "event": event})
        with open(self.folder / "refused.jsonl", "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                if file.write(line) != len(line):
                    raise OSError("only a part was written")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)  # half a line would spoil the next one
                raise
        self._refused_ids.add(str(event.get("id")))

    def retry_refused(self) -> bool:
        """Append refused events that are worth another attempt anew; whether there were any. One that is refused again
        meanwhile, by the thread that takes it at once, is set aside after that.
        """
        with self._aside:
            before = len(self._refused_ids)
            self._refused_ids = self._take_up_refused()
            return len(self._refused_ids) < before

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._file)

    def _drop_torn_line(self) -> int:
        """Cut off what a kill left behind the last newline, and return the size in bytes."""
        size = whole = os.fstat(self._file).st_size
        while whole:
            start = max(0, whole - BLOCK)
            newline = os.pread(self._file, whole - start, start).rfind(b"\n")
            whole = start + newline + 1
            if newline >= 0:
                break
        if whole != size:
            os.ftruncate(self._file, whole)
        return whole

    def _positions(self) -> dict[str, int]:
        return _read_map(self.folder / "position.json", int)

    def _read_position(self) -> int:
        """Return the byte offset behind the last replayed event; 0 if it does not fit the file."""
        offset = self._positions().get(self.store, 0)
        if 0 < offset <= self.size and os.pread(self._file, 1, offset - 1) == b"\n":
            return offset
        if offset:
            self.troubles.append(
                f"{self._path}: is damaged or an older copy ({offset} bytes had been told, it has {self.size}); it is "
                "told again, and so is every trial that has ended"
            )
        return 0

    def _take_up_refused(self) -> set[str]:
        """Append refused events that are worth another attempt anew, and return the ids of the rest."""
        path = self.folder / "refused.jsonl"
        if not path.exists():
            return set()
        lines = path.read_bytes().splitlines()
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        if len(entries) < len(lines):
            self.troubles.append(
                f"{path}: {len(lines) - len(entries)} of {len(lines)} lines are damaged, the refused records in them "
                "are lost; the others are kept"
            )
        final = [entry for entry in entries if not entry["again"]]
        for entry in entries:
            if entry["again"]:
                self.append(entry["event"])
        if len(final) < len(lines):
            write_bytes(path, b"".join(sealed_line(entry) for entry in final))
        return {str(entry["event"].get("id")) for entry in final}


def waiting(folder: Path, store: str | None) -> list[Event]:
    """Return the events in `folder` that `store` has not taken yet, or refused for the time being; None: all events.

    Changes nothing.
    """
    events, position, refused = (folder / name for name in (EVENTS, "position.json", "refused.jsonl"))
    if not events.exists():
        return []
    data = events.read_bytes()
    offset = 0 if store is None else _read_map(position, int).get(store, 0)
    behind = data[offset:] if 0 < offset <= len(data) and data[offset - 1 : offset] == b"\n" else data
    pending = [event for line in behind.splitlines(keepends=True) if line.endswith(b"\n") and (event := _parse(line))]
    entries = [_entry(line) for line in refused.read_bytes().splitlines()] if refused.exists() else []
    return pending + [entry["event"] for entry in entries if entry and entry["again"]]


def _read_map(path: Path, kind: type[Value]) -> dict[str, Value]:
    """Read the values by store. A damaged file counts as missing: all events are sent again, which changes nothing."""
    try:
        values = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return {str(k): v for k, v in values.items() if isinstance(v, kind)} if isinstance(values, dict) else {}


def _stamp(event: Event) -> int:
    """Return when an event was written, in ns since 1970, by its id; 0 for one that has none of ours."""
    try:
        return int(str(event["id"])[:-4], 16)
    except (KeyError, ValueError):
        return 0


def _parse(line: bytes) -> Event | None:
    """Return one line as an event, None if it is none."""
    return cast("Event | None", unsealed_line(line))


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return one line of refused.jsonl, None if it is none."""
    entry = unsealed_line(line)
    return entry if entry is not None and "again" in entry and isinstance(entry.get("event"), dict) else None
