"""The thread that hands the events of a spool to the store, one after the other, and remembers how far it came.

Applying an event twice must be harmless: after a kill the last few come again.
"""

import threading
import time
from collections.abc import Callable

from .spool import Event, Refused, Spool, StoreDown, Unfit

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between attempts at a store that does not answer; doubles from the first to the longest."""

SAVE_EVERY = 0.5
"""Seconds between two writes of the position while there is a backlog."""


class Replay:
    """The thread that brings a spool's events to the store.

    `begin` comes before the first event; `apply` takes one event, and raises Refused (the event is set aside and the
    next one comes) or StoreDown (the same event comes again later), as `begin` may; `end` comes last, if anything came.
    `warn` gets one line for the first StoreDown of each kind and one for the first refusal of each kind.
    """

    def __init__(
        self,
        spool: Spool,
        apply: Callable[[Event], None],
        warn: Callable[[str], None],
        begin: Callable[[], object] = lambda: None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        self._spool = spool
        self._apply = apply
        self._warn = warn
        self._begin = begin
        self._end = end
        self.begun = False
        """Whether the store has been reached."""
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
            while self._open and self._failed_attempt <= before and self._thread.is_alive():
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._wake.wait(left)
            return self._spool.pending

    def reach(self, timeout_s: float) -> None:
        """Wait until the store has been reached, an attempt at that has failed, or the time is over."""
        with self._wake:
            self._wake.wait_for(lambda: self.begun or self._failed_attempt or not self._thread.is_alive(), timeout_s)

    @property
    def _open(self) -> bool:
        """Whether there is anything to do."""
        return not self.begun or self._spool.pending > 0

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
            if not self._open:
                self._sleep(None)
                continue
            with self._wake:
                self._attempts += 1
                self._hurry = False
            try:
                self._begin()
                with self._wake:
                    self.begun = True
                    self._wake.notify_all()
                self._drain()
                wait = FIRST_WAIT
                continue
            except Unfit as error:
                if self._failed_attempt:  # whoever asks first is told otherwise: `Recorder.check`
                    self.warn_once(str(error), f"{error}; until then records wait in {self._spool.folder}")
            except StoreDown as error:
                self.warn_once("down", f"{error}; records wait in {self._spool.folder} and follow by themselves")
            except Exception as error:  # of the spool's own disk, mostly, which may come back; the thread must live on
                line = f"{self._spool.folder}: the records cannot be read ({type(error).__name__}: {error})"
                self.warn_once("unreadable", f"{line}; they follow when they can")
            with self._wake:
                self._failed_attempt = self._attempts
                self._wake.notify_all()
            self._sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        if self.begun:
            self._end()
        self._saved = 0.0
        self._save()

    def _sleep(self, seconds: float | None) -> None:
        """Wait for new events (None), or for `seconds` unless somebody flushes."""
        with self._wake:
            if seconds is None:
                self._wake.wait_for(lambda: self._stopped or self._open)
            else:
                self._wake.wait_for(lambda: self._stopped or self._hurry, seconds)

    def _drain(self) -> None:
        start = self._spool.offset
        for event, behind in self._spool.read(start):
            if self._stopped:
                break
            if event is None:
                reason = f"a line of {self._spool.folder}/events.jsonl, up to byte {behind}, is damaged"
                self._set_aside({"kind": "unreadable", "offset": behind}, Refused(reason))
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
