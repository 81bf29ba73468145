"""The report of a sweep that runs: written as trials end, in a thread, and reloaded by the browser that shows it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from cpn.core.errors import in_one_line

from ..base.lock import RUNNING
from ..reports.html.page import write_report
from ..reports.snapshot import SweepSnapshot
from ..run.sweep_context import SweepContext
from ..search.study import Study
from ..search.sweep_summary import SweepSummary
from ..search.trial_row import WORTH

LEAST_S = 60.0
"""Seconds between two reports at least."""
SHARE = 50
"""A report comes no sooner than this many times the processor time of the last one, so that writing takes 2 % of one
core at most. Not its wall time: where trials have all cores that is many times as long, and no second report came.
"""


class LiveReport:
    """Writes report.html of a sweep again as trials begin and end, unless the last one is too young; and hands it on.

    `written` hears of each. What goes wrong is a warning, once: the report is of no use to the sweep itself.
    """

    def __init__(
        self,
        sweep: SweepContext,
        trials: Study,
        again: Study,
        command: str,
        last: SweepSummary | None,
        written: Callable[[Path], None],
    ) -> None:
        self._sweep, self._trials, self._again = sweep, trials, again
        self._command, self._last, self._written = command, last, written
        self._next, self._thread, self._untold = time.monotonic(), threading.Thread(), False

    def write_if_due(self, news: bool) -> None:
        """Write the report in a thread, unless the last one is too young, or holds all there is to tell.

        Called with `news` as a trial begins or ends, and without after each epoch: what came too early is written then.
        """
        self._untold = self._untold or news
        if not self._untold or self._thread.is_alive() or time.monotonic() < self._next:
            return
        self._untold = False
        sweep = self._sweep
        snapshot = SweepSnapshot(
            sweep.spec.name, sweep.store, sweep.spec, self._trials.rows(), self._again.rows(), sweep.pack.fingerprint,
            RUNNING, self._command, self._last, times=self._trials.times() | self._again.times(),
            stopped=self._trials.remembered(WORTH).get("words"),
        )  # fmt: skip
        self._thread = threading.Thread(target=self._write, args=(snapshot,), daemon=True)
        self._thread.start()

    def _write(self, snapshot: SweepSnapshot) -> None:
        began = time.thread_time()
        try:
            self._written(write_report(snapshot, self._sweep.paths.root)[0])
        except Exception as error:  # of whatever kind plots, templates and the disk raise; the sweep goes on
            self._sweep.warn_once(f"the report of the running sweep was not written ({in_one_line(error)})")
        self._next = time.monotonic() + max(LEAST_S, SHARE * (time.thread_time() - began))

    def close(self) -> None:
        """Wait for a report that is being written: the sweep's last one is not to be written over."""
        self._next = float("inf")
        if self._thread.is_alive():
            self._thread.join()
