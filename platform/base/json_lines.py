"""A sweep for programs that read along: `--json` prints one JSON object a line on standard output, and nothing else.

event           besides `time` (seconds since 1970)
trials          heading, total, done: a search or a round of confirm runs begins or goes on
trial_started   uid, what
trial_reported  uid, and an epoch's report: epoch, miou_epoch, loss terms, lr, images_per_s and so on
trial_ended     uid, state (complete, pruned, fail, resumable), value, reason, done, total, best, seconds_left
                (of the whole sweep)
stage           stage, done, total, unit: when it begins, at most once a second, and when it ends
verdict         winner, sentence, tested, better, difference, low, high, baseline
summary         what summary.json holds
ended           state (finished, stopped, failed), code, reason

What people are told goes to standard error, as plain lines.
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from cpn.core.errors import quiet
from cpn.core.redact import redacted

from .remaining_time import SEARCH, RunPrice
from .terminal import Lasting, StageBar, Terminal, TrialTable

BETWEEN_S = 1.0
"""Seconds between two lines of one stage."""


class JsonLines(Terminal):
    """Prints events to `out`, and to the terminal's lines' place whatever people are told."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(Lasting(stderr=True, force_terminal=False, width=120))
        self._out = out

    def event(self, name: str, **values: Any) -> None:
        """Print one line, passwords redacted; numbers that are not finite become null, for JSON has none."""
        line = json.dumps({"event": name, "time": round(time.time(), 3), **redacted(_finite(values))}, allow_nan=False)
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except BrokenPipeError:
            quiet(self._out)
            self.warn("nobody reads standard output any more; the sweep goes on without it")

    @contextmanager
    def trials(
        self, heading: str, total: int | None, epochs: int, objective: str = "miou", phase: str = SEARCH
    ) -> Iterator[TrialTable]:
        """Show the live table whose calls are events."""
        yield TrialEvents(self, heading, total, epochs, objective, phase)

    @contextmanager
    def stage(self, name: str, unit: str, total: int) -> Iterator[StageBar]:
        """Show the stage's bar whose progress is an event."""
        bar = StageEvents(self, name, unit, total, None)
        bar.say(0)
        yield bar
        bar.say(total)


class TrialEvents(TrialTable):
    """Trials as events."""

    def already(self, done: int, best: tuple[float, str] | None) -> None:
        super().already(done, best)
        self._terminal.event("trials", heading=self._heading, total=self._total, done=done)

    def started(self, uid: str, what: str, price: RunPrice | None = None, epoch: int = 0) -> None:
        if uid not in self._rows:
            self._terminal.event("trial_started", uid=uid, what=what)
        super().started(uid, what, price, epoch)

    def reported(self, uid: str, result: Mapping[str, Any]) -> None:
        super().reported(uid, result)
        plain = {key: value for key, value in result.items() if isinstance(value, str | int | float | bool | None)}
        self._terminal.event("trial_reported", **{**plain, "uid": uid})

    def ended(self, uid: str, state: str, miou: float | None, reason: str | None, counted: bool = True) -> None:
        super().ended(uid, state, miou, reason, counted)
        best = {"value": self._best[0], "uid": self._best[1]} if self._best else None
        self._terminal.event(
            "trial_ended", uid=uid, state=state.lower(), objective=self._objective, value=miou, reason=reason,
            done=self._done(), total=self._total, best=best, seconds_left=self.seconds_left(),
        )  # fmt: skip


class StageEvents(StageBar):
    """A stage's progress as events."""

    _at: tuple[float, int] = (-math.inf, -1)

    def at(self, done: int) -> None:
        self._terminal.remaining.stage(self._name, done / max(1, self._total))
        if time.monotonic() - self._at[0] >= BETWEEN_S and done != self._at[1]:
            self.say(done)

    def say(self, done: int) -> None:
        """Print one line."""
        self._at = (time.monotonic(), done)
        self._terminal.event("stage", stage=self._name, done=done, total=self._total, unit=self._unit)


def own_stdout() -> TextIO:
    """Keep standard output for us alone: from now on what anything else prints there, Ray and its C++ code too, goes to
    standard error.
    """
    sys.stdout.flush()
    ours = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return ours


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
