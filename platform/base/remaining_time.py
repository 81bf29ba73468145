"""One remaining time for a whole sweep: its runs, the confirm runs, the later stages. Arithmetic over seconds alone.

Work is counted in priced seconds (platform/plan/priced_work.py). What running and ended runs have done of theirs,
beside the time that it took, is the pace; before the first report it is that of earlier starts, or 1, so that the price
itself is shown. Between two reports the remaining time only falls.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

SEARCH, CONFIRM, STAGES = "search", "confirm", "stages"
PHASES = (SEARCH, CONFIRM, STAGES)


@dataclass(frozen=True)
class RunPrice:
    """Priced seconds of one run: before its first epoch, of each epoch, and behind the last."""

    start: float
    epoch: float
    end: float
    epochs: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.at(self.epochs) + self.end

    def at(self, epoch: int) -> float:
        """Return the seconds until the end of an epoch; none before the first."""
        return self.start + self.epoch * epoch if epoch else 0.0


@dataclass
class Running:
    """A run that holds its workers."""

    price: RunPrice
    began: float
    before: float
    """Priced seconds that earlier starts have done of it."""
    done: float
    """Priced seconds done at the last report."""
    at: float
    """When that was."""


@dataclass
class Priced:
    """The runs of a phase: how many there are in all (None: unknown), and what one of them is priced at."""

    runs: int | None
    each: float
    done: int = 0


@dataclass(frozen=True)
class PhaseProgress:
    """How far a sweep is, as another process reads it."""

    phase: str | None
    """A stage by its name."""
    done: int
    """Runs that have ended in the phase."""
    runs: int | None
    """Of how many; None where that is unknown."""
    left: float | None
    """Seconds that are left of the sweep."""
    at: float
    """When that was, in seconds since 1970."""


@dataclass
class RemainingTime:
    """What is left of a sweep, in seconds of wall-clock time; None while it is unknown.

    `stages` are priced seconds by name; a stage without a price counts once it runs.
    """

    phases: dict[str, Priced] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    at_once: int = 1
    """Runs at a time."""
    known: bool = True
    """False where the runs have no price (own code that was not run): nothing is said before the first report."""
    pace: float = 1.0
    """Seconds that a priced second took in earlier starts."""
    most: float | None = None
    """Seconds after which the budget ends the search, as of `begin`."""

    def __post_init__(self) -> None:
        self.phase: str | None = None
        self._running: dict[str, Running] = {}
        self._priced = self._measured = 0.0
        self._shares: list[float] = []
        self._prices: list[float] = []
        self._stage: tuple[str, float, float, float] | None = None
        self._left: float | None = None
        self._at = self._began = time.monotonic()

    def begin(self, phase: str, runs: int | None = None, done: int = 0) -> None:
        """Note that a phase begins or goes on, with `done` of `runs` ended before."""
        self.phase, self._began = phase, time.monotonic()
        self._running.clear()
        self._prices.clear()
        known = self.phases.setdefault(phase, Priced(runs, 0.0))
        known.runs, known.done = runs if runs is not None else known.runs, done
        self._look()

    def started(self, uid: str, price: RunPrice, epoch: int = 0) -> None:
        """Note that a run begins, of which earlier starts have done `epoch` epochs; said again, it goes on."""
        now = time.monotonic()
        if uid not in self._running:
            self._running[uid] = Running(price, now, price.at(epoch), price.at(epoch), now)
            self._prices.append(price.seconds)
        self._look()

    def reported(self, uid: str, epoch: int) -> None:
        """Note that a run has ended an epoch."""
        run = self._running.get(uid)
        if run is not None and run.price.at(epoch) > run.done:  # epochs of earlier starts are reported again
            run.done, run.at = run.price.at(epoch), time.monotonic()
            self._look()

    def ended(self, uid: str, whole: bool, counts: bool = True) -> None:
        """Note that a run has ended, `whole` or early; one that only waits to be resumed does not count. One that never
        began here was taken over from another sweep.
        """
        run, known = self._running.pop(uid, None), self.phases.get(self.phase or "")
        if known is not None and counts:
            known.done += 1
        if run is not None:
            done = run.price.seconds if whole else run.done
            if done > run.before:
                self._priced += done - run.before
                self._measured += (time.monotonic() if whole else run.at) - run.began
            if self.phase == SEARCH and counts:
                self._shares.append(done / max(run.price.seconds, 1e-9))
        self._look()

    def stage(self, name: str, share: float) -> None:
        """Note that a later stage has done this share of itself; 1 is its end."""
        now = time.monotonic()
        if self.phase != STAGES:
            self.phase = STAGES
            self._running.clear()
        if share >= 1:
            self.stages.pop(name, None)
            self._stage = None
        elif self._stage is None or self._stage[0] != name:
            self._stage = (name, now, share, share)
        else:
            self._stage = (*self._stage[:3], share)
        self._look()

    def left(self) -> float | None:
        """Return the seconds that are left of the sweep."""
        if self._left is None:
            return None
        return max(self._later(), self._left - (time.monotonic() - self._at))

    def run_left(self, uid: str) -> float | None:
        """Return the seconds that are left of a run."""
        run = self._running.get(uid)
        if run is None or (self._pace() is None):
            return None
        return self._of_run(run, time.monotonic())

    def snapshot(self) -> PhaseProgress:
        """Return what another process may know."""
        known = self.phases.get(self.phase or "", Priced(None, 0.0))
        phase = self._stage[0] if self.phase == STAGES and self._stage else self.phase
        return PhaseProgress(phase=phase, done=known.done, runs=known.runs, left=self.left(), at=time.time())

    def _pace(self) -> float | None:
        """Return the seconds that a priced second takes; None where neither a price nor a report is known."""
        priced, measured = self._priced, self._measured
        for run in self._running.values():
            if run.done > run.before:
                priced, measured = priced + run.done - run.before, measured + run.at - run.began
        return measured / priced if priced > 0 and measured > 0 else self.pace if self.known else None

    def _of_run(self, run: Running, now: float) -> float:
        return max(0.0, (run.price.seconds - run.done) * (self._pace() or 0.0) - (now - run.at))

    def _later(self) -> float:
        """Return the seconds of what stands behind the present phase, or behind the present stage."""
        pace = self._pace() or 0.0
        place = PHASES.index(self.phase) if self.phase in PHASES else -1
        running = self._stage[0] if self._stage else None
        left = sum(seconds for name, seconds in self.stages.items() if name != running) * pace
        for name in PHASES[place + 1 :]:
            if (known := self.phases.get(name)) is not None and known.runs is not None:
                left += max(0, known.runs - known.done) * known.each * pace / self.at_once
        return left

    def _look(self) -> None:
        self._at = time.monotonic()
        self._left = self._of_phase()
        if self._left is not None:
            self._left += self._later()

    def _of_phase(self) -> float | None:
        """Return the seconds that are left of the present phase."""
        pace = self._pace()
        if self.phase == STAGES:
            if self._stage is None:
                return 0.0
            name, began, first, share = self._stage
            if share > first:
                return (self._at - began) / (share - first) * (1 - share)
            return self.stages.get(name, 0.0) * (pace or 0.0) * (1 - share)
        known = self.phases.get(self.phase or "")
        if known is None or pace is None:
            return None
        running = [self._of_run(run, self._at) for run in self._running.values()]
        bound = None
        if self.phase == SEARCH and self.most is not None:
            bound = max(0.0, self.most - (self._at - self._began))
        if known.runs is None:
            return bound
        waiting = max(0, known.runs - known.done - len(running))
        share, each = 1.0, known.each or mean(self._prices)
        if self.phase == SEARCH and self._shares:  # what runs cost here, and how early they are stopped
            share, each = mean(self._shares), mean(self._prices) or each
        left = max([*running, (sum(running) + waiting * each * share * pace) / self.at_once])
        return left if bound is None else min(left, bound)


def mean(values: Sequence[float]) -> float:
    """Return the mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0
