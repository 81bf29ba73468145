"""Records go to an append-only file first, and from there in order to a store that may be away for days.

`Spool` is the file: one JSON event a line, synced before `append` returns, so that kill -9 loses nothing but a torn
last line. `Replay` is the thread that hands the events to `apply`, one after the other, and remembers how far it
came. Applying an event twice must be harmless: after a kill the last few come again.
"""

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cpn.errors import WorkError
from cpn.files import read_json, write_bytes, write_json

Event = dict[str, Any]

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between attempts at a store that does not answer; doubles from the first to the longest."""

SAVE_EVERY = 0.5
"""Seconds between two writes of the position while there is a backlog."""


class Refused(Exception):
    """The store is alive and will not take this event. `again`: worth another attempt at the next start."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


class StoreDown(Exception):
    """The store does not answer: the event stays where it is, and so do those behind it."""


class Spool:
    """The events of one writer, in `folder`: events.jsonl, position.json, refused.jsonl.

    `store` names the store they go to; each store has its own position, so that another one gets everything. A second
    writer in the same folder is a WorkError.
    """

    def __init__(self, folder: Path, store: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = store
        self._path = folder / "events.jsonl"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise WorkError(f"{folder}: another process writes these records; wait for it or stop it") from error
        self.size = self._drop_torn_line()
        self._stamp = max((_stamp(event) for event, _ in self.read() if event), default=0)
        self.offset = self._read_position()
        self.pending = sum(1 for _ in self.read(self.offset))
        self._refused_ids = self._take_up_refused()

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
            line = json.dumps(event, allow_nan=False, separators=(",", ":")).encode() + b"\n"
            try:
                written = os.write(self._file, line)
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes were written")
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, self.size)
                raise WorkError(f"{self._path}: the record cannot be kept ({error}); free space and go on") from error
            self.size += len(line)
            self.pending += 1
        return event

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

    def rewind(self) -> None:
        """Begin again with the first event: the store has forgotten, or never had, what came before."""
        with self._lock:
            self.offset = 0
            self.pending = sum(1 for _ in self.read(0))

    def save(self) -> None:
        """Write the position, whole or absent, beside those of other stores."""
        positions = self._positions()
        positions[self.store] = self.offset
        write_json(self.folder / "position.json", positions)

    def set_aside(self, event: Event, reason: str, again: bool) -> None:
        """Keep an event that the store refused, once, with the reason. OSError if the disk is full."""
        if event.get("id") in self._refused_ids:
            return
        line = json.dumps({"reason": reason, "again": again, "event": event}, allow_nan=False).encode() + b"\n"
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
        """Append refused events that are worth another attempt anew; whether there were any. Nobody may replay now."""
        before = len(self._refused_ids)
        self._refused_ids = self._take_up_refused()
        return len(self._refused_ids) < before

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._file)

    def _drop_torn_line(self) -> int:
        """Cut off what a kill left behind the last newline, and return the size in bytes."""
        with open(self._path, "rb") as file:
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.ftruncate(self._file, whole)
        return whole

    def _positions(self) -> dict[str, int]:
        path = self.folder / "position.json"
        return dict(read_json(path)) if path.exists() else {}

    def _read_position(self) -> int:
        """The byte offset behind the last replayed event; 0 if it does not fit the file."""
        offset = self._positions().get(self.store, 0)
        if not 0 < offset <= self.size:
            return 0
        return offset if os.pread(self._file, 1, offset - 1) == b"\n" else 0

    def _take_up_refused(self) -> set[str]:
        """Append refused events that are worth another attempt anew, and return the ids of the rest."""
        path = self.folder / "refused.jsonl"
        if not path.exists():
            return set()
        entries = [entry for line in path.read_bytes().splitlines() if (entry := _parse(line)) is not None]
        kept = [entry for entry in entries if not entry["again"]]
        for entry in entries:
            if entry["again"]:
                self.append(entry["event"])
        if len(kept) < len(entries):
            write_bytes(path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        return {str(entry["event"].get("id")) for entry in kept}


def waiting(folder: Path, store: str) -> list[Event]:
    """The events in `folder` that `store` has not taken yet, or refused for the time being. Changes nothing."""
    events, position, refused = (folder / name for name in ("events.jsonl", "position.json", "refused.jsonl"))
    if not events.exists():
        return []
    data = events.read_bytes()
    offset = read_json(position).get(store, 0) if position.exists() else 0
    behind = data[offset:] if 0 < offset <= len(data) and data[offset - 1 : offset] == b"\n" else data
    found = [event for line in behind.splitlines(keepends=True) if line.endswith(b"\n") and (event := _parse(line))]
    entries = [_parse(line) for line in refused.read_bytes().splitlines()] if refused.exists() else []
    return found + [entry["event"] for entry in entries if entry and entry["again"]]


class Replay:
    """The thread that brings a spool's events to the store.

    `apply` takes one event; it raises Refused (the event is set aside and the next one comes) or StoreDown (the same
    event comes again later). `warn` gets one line for the first StoreDown and one for the first refusal of each kind.
    """

    def __init__(self, spool: Spool, apply: Callable[[Event], None], warn: Callable[[str], None]) -> None:
        self._spool = spool
        self._apply = apply
        self._warn = warn
        self._warned: set[str] = set()
        self._wake = threading.Condition()
        self._hurry = False
        self._stopped = False
        self._attempts = 0
        self._failed_attempt = 0
        self._saved = 0.0
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that the spool has a new event."""
        with self._wake:
            self._wake.notify_all()

    def flush(self, timeout_s: float) -> int:
        """Wait until the store has everything, an attempt at it fails, or the time is over; return what is pending."""
        end = time.monotonic() + timeout_s
        with self._wake:
            before = self._attempts
            self._hurry = True
            self._wake.notify_all()
            while self._spool.pending and self._failed_attempt <= before and self._thread.is_alive():
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._wake.wait(left)
            return self._spool.pending

    def stop(self, timeout_s: float) -> None:
        """Ask the thread to end after the event in hand and wait for it at most `timeout_s` seconds."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
        self._thread.join(timeout_s)

    def warn_once(self, kind: str, line: str) -> None:
        """Warn, unless there was a warning of this kind already."""
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(line)

    def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._stopped:
            if not self._spool.pending:
                self._sleep(None)
                continue
            with self._wake:
                self._attempts += 1
                self._hurry = False
            try:
                self._drain()
                wait = FIRST_WAIT
            except StoreDown as error:
                self.warn_once("down", f"{error}; records wait in {self._spool.folder} and follow by themselves")
                with self._wake:
                    self._failed_attempt = self._attempts
                    self._wake.notify_all()
                self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        self._saved = 0.0
        self._save()

    def _sleep(self, seconds: float | None) -> None:
        """Wait for new events (None), or for `seconds` unless somebody flushes."""
        with self._wake:
            if seconds is None:
                self._wake.wait_for(lambda: self._stopped or self._spool.pending > 0)
            else:
                self._wake.wait_for(lambda: self._stopped or self._hurry, seconds)

    def _drain(self) -> None:
        start = self._spool.offset
        for event, behind in self._spool.read(start):
            if self._stopped:
                break
            if event is None:
                self._set_aside({"kind": "unreadable", "offset": behind}, Refused("the line is no event"))
            else:
                try:
                    self._apply(event)
                except Refused as refusal:
                    self._set_aside(event, refusal)
            if self._spool.offset != start:  # `apply` had the spool rewound: what it just did comes again
                return
            self._spool.advance(behind)
            start = behind
            self._save()
            with self._wake:
                self._wake.notify_all()

    def _set_aside(self, event: Event, refusal: Refused) -> None:
        kind, about = str(event.get("kind")), event.get("uid", "")
        line = f"a {kind} record of {about or 'the store'} was refused and set aside: {refusal}"
        self.warn_once(f"refused {kind} {about}", line)
        try:
            self._spool.set_aside(event, str(refusal), refusal.again)
        except OSError as error:  # it stays where it is in the spool, and comes again
            raise StoreDown(f"{self._spool.folder}/refused.jsonl cannot be written: {error}") from error

    def _save(self) -> None:
        """Write the position when all is done, and now and then in a backlog; it may lag, events may come twice."""
        if self._spool.pending and self._saved and time.monotonic() - self._saved < SAVE_EVERY:
            return
        try:
            self._spool.save()
        except OSError as error:
            self.warn_once("position.json", f"{self._spool.folder}/position.json cannot be written: {error}")
        self._saved = time.monotonic()


def _stamp(event: Event) -> int:
    """When an event was written, in ns since 1970, by its id; 0 for one that has none of ours."""
    try:
        return int(str(event["id"])[:-4], 16)
    except (KeyError, ValueError):
        return 0


def _parse(line: bytes) -> Event | None:
    """One line as an event, None if it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
