"""When a training saves its progress within an epoch: after so many minutes, on a notice, on SIGTERM."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

from cpn.models.ranks import rank_and_world, values_of_all

DECIDE_S = 2.0
"""Seconds between two decisions of several ranks, or two looks for a notice: each is a message that all wait for."""


@dataclass(frozen=True)
class Saving:
    """How progress within an epoch is saved, beside the checkpoint at its end."""

    minutes: float | None = None
    """Minutes since the last checkpoint after which one is written (`train.checkpoint_minutes`); None: never."""
    announced: Callable[[], bool] | None = None
    """Whether this machine is about to be taken away. All ranks ask after the same steps, as Ray Train wants it."""
    saved: Callable[[], None] | None = None
    """Called on every rank once a checkpoint within an epoch is written, as to upload it."""


class SaveTimer:
    """Decides after each step, the same on every rank, whether to save now.

    Rank 0's clock counts; a notice or SIGTERM of any rank does. The ranks decide together every `DECIDE_S` seconds, not
    after every step: on a GPU each decision waits for the device. One process without a notice to look for decides
    after every step.
    """

    def __init__(self, saving: Saving, held: "HeldSigterm") -> None:
        self._saving, self._held = saving, held
        self._known = False
        self._steps, self._decide_at = 0, 1
        self._decided = self._saved = time.monotonic()

    def saved(self) -> None:
        """Count the minutes from now on: a checkpoint has been written."""
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Return whether to save after this step. To be called after every step, by every rank."""
        self._steps += 1
        if self._steps < self._decide_at:
            return False
        rank, world = rank_and_world()
        now = time.monotonic()
        announced = self._saving.announced is not None and self._saving.announced()
        notice = announced or self._held.came
        news, self._known = notice and not self._known, notice
        minutes = self._saving.minutes
        late = rank == 0 and minutes is not None and now - self._saved >= 60 * minutes
        # At most twice as many as before: a GPU is given its first steps faster than it takes them.
        a_step = max(DECIDE_S / (2 * self._steps), (now - self._decided) / self._steps)
        steps = 1 if world == 1 and self._saving.announced is None else max(1, int(DECIDE_S / a_step))
        self._steps, self._decided, self._decide_at = 0, now, values_of_all(steps)[0]
        return any(values_of_all(int(late or news)))


class HeldSigterm:
    """Holds SIGTERM back while a `with` block runs, so that progress is saved first; then it takes its usual course.

    Not outside of the main thread, where Python handles no signals, nor where it is ignored or handled past
    Python.
    """

    def __init__(self) -> None:
        self.came = False
        """Whether it has come, and waits."""
        self._before: Any = None

    def __enter__(self) -> Self:
        before = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN):
            self._before = before
            signal.signal(signal.SIGTERM, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the handler back, and send the signal again if it has come; few handlers return."""
        before, self._before = self._before, None
        came, self.came = self.came, False
        if before is not None:
            signal.signal(signal.SIGTERM, before)
            if came:
                signal.raise_signal(signal.SIGTERM)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.came = True
