"""When a search ends: the first limit of its budget that is reached, in words; then what its hours went to."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from cpn.core.errors import to_stderr
from cpn.core.files import DamagedFile, write_json

from ..base.remaining_time import PhaseProgress
from ..config.sections import Budget
from ..config.sweep_spec import SweepSpec
from ..search.study import State, TrialRow
from ..search.sweep_summary import CostAccount
from .estimate import estimate
from .hours import KeptHours, hours_unit, read_hours

KIND_OF = {State.COMPLETE: "useful", State.PRUNED: "pruned", State.FAIL: "failed"}
"""What the hours of a search trial were, by how it ended; `unfinished` are the others'."""
CONFIRMING = "confirming"


class Clock:
    """Wall-clock hours, and hours of each trial, over all starts of a sweep, kept in a file. A start that finds nothing
    to do, which never calls `go`, adds none.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = to_stderr) -> None:
        self._path = path
        hours = KeptHours(seconds=0.0)
        try:
            hours = read_hours(path)
        except DamagedFile as error:
            warn(str(error))
        self._before = hours.seconds
        self._trials: dict[str, float] = {**hours.trials}
        self._running: dict[str, float] = {}
        self._began: float | None = None

    def at_least(self, hours: float, rows: Sequence[TrialRow]) -> None:
        """Count no less than what is known elsewhere: `hours` of the sweep's last end, seconds of its complete trials.
        A clock that was lost, or put back to an older copy, goes on from there.
        """
        self._before = max(self._before, 3600 * hours)
        for row in rows:
            if row.uid not in self._trials and row.seconds:
                self._trials[row.uid] = row.seconds

    def go(self) -> None:
        """Work begins; said again, it goes on."""
        if self._began is None:
            self._began = time.monotonic()

    @property
    def hours(self) -> float:
        """Hours so far, earlier starts included."""
        return (self._before + (0.0 if self._began is None else time.monotonic() - self._began)) / 3600

    @property
    def trial_hours(self) -> dict[str, float]:
        """Hours that each trial has held its workers so far, by uid: running, pruned and failed ones too."""
        now = time.monotonic()
        return {
            uid: (self._trials.get(uid, 0.0) + (now - self._running.get(uid, now))) / 3600
            for uid in {**self._trials, **self._running}
        }

    def began(self, uid: str) -> None:
        """Note that a trial holds its workers from now on; said again, it goes on."""
        self._running.setdefault(uid, time.monotonic())

    def ended(self, uid: str) -> None:
        """Note that a trial has let its workers go."""
        began = self._running.pop(uid, None)
        if began is not None:
            self._trials[uid] = self._trials.get(uid, 0.0) + time.monotonic() - began

    def save(self, progress: PhaseProgress | None = None) -> None:
        """Keep what has passed, and how far the sweep is (RemainingTime.snapshot); called at every report, so that a
        kill loses little.
        """
        trials = {uid: 3600 * hours for uid, hours in self.trial_hours.items()}
        more = {} if progress is None else {"progress": asdict(progress)}
        write_json(self._path, {"seconds": self.hours * 3600, "trials": trials, **more})


class Limits:
    """Asks the budget: before each new trial, and at every report of those that run. Says the reason once."""

    def __init__(
        self,
        budget: Budget,
        ended: Callable[[], Sequence[TrialRow]],
        clock: Clock,
        gpus_per_trial: float,
        say: Callable[[str], None],
    ) -> None:
        self._budget, self._ended, self._clock, self._gpus, self._say = budget, ended, clock, gpus_per_trial, say
        self._said = False
        self._seen = -1
        self._reached: str | None = None

    def over(self) -> bool:
        """Return whether the search ends: no trial starts any more, and running ones end at their next report.

        What they have done is kept, and they go on if the budget is raised. `budget.trials` is the searcher's own
        matter: it ends nothing that runs.
        """
        gpu_hours = 0.0 if self._budget.gpu_hours is None else self._gpus * sum(self._clock.trial_hours.values())
        reason = out_of_hours(self._budget, self._clock.hours, gpu_hours) or self._by_results()
        if reason and not self._said:
            self._said = True
            self._say(f"the search ends here, trials under way stay resumable: {reason}")
        return reason is not None

    def _by_results(self) -> str | None:
        """`reached`, looked at again when a trial has ended: Tune asks ten times a second."""
        rows = self._ended()
        if len(rows) != self._seen:
            self._seen, self._reached = len(rows), reached(self._budget, rows)
        return self._reached


def out_of_hours(budget: Budget, hours: float, gpu_hours: float) -> str | None:
    """Return the limit of hours that is reached, or None."""
    if budget.wall_hours is not None and hours >= budget.wall_hours:
        return f"budget.wall_hours: {hours:.2f} hours have passed"
    if budget.gpu_hours is not None and gpu_hours >= budget.gpu_hours:
        return f"budget.gpu_hours: {gpu_hours:.2f} GPU-hours are used"
    return None


def hours_left(budget: Budget, clock: Clock, gpus_per_trial: float, at_once: int) -> float | None:
    """Return hours after which one of the limits of hours ends the search, with `at_once` trials at a time; None
    without.
    """
    left = [] if budget.wall_hours is None else [budget.wall_hours - clock.hours]
    if budget.gpu_hours is not None and gpus_per_trial:
        used = gpus_per_trial * sum(clock.trial_hours.values())
        left.append((budget.gpu_hours - used) / gpus_per_trial / at_once)
    return max(0.0, min(left)) if left else None


def reached(budget: Budget, rows: Sequence[TrialRow]) -> str | None:
    """Return the limit that the finished trials have reached, or None."""
    done = [row for row in rows if row.state.finished]
    failures = sum(row.state is State.FAIL for row in done)
    if failures >= budget.failures:
        return f"budget.failures: {failures} trials failed"
    results = [row.miou for row in sorted(done, key=lambda r: r.number) if row.miou is not None]
    if budget.target_miou is not None and results and max(results) >= budget.target_miou:
        return f"budget.target_miou: {max(results):.1f} is reached"
    if budget.plateau_trials is not None and results:
        since = len(results) - 1 - results.index(max(results))
        if since >= budget.plateau_trials:
            return f"budget.plateau_trials: {since} trials without a new best"
    return None


def account(
    spec: SweepSpec, trial_hours: Mapping[str, float], rows: Sequence[TrialRow], again: Sequence[TrialRow]
) -> CostAccount:
    """Return what the hours of a sweep's trials went to beside what was estimated, in numbers and in words.

    `trial_hours` is by uid (`Clock.trial_hours`), `rows` are the search's trials, `again` the confirm runs. On GPUs the
    unit is the GPU-hour, on the CPU the hour of a trial, for which there is no estimate. A reused run costs nothing.
    """
    gpus = spec.resources.workers * spec.resources.gpus_per_worker
    spent = dict.fromkeys([*KIND_OF.values(), "unfinished", CONFIRMING], 0.0)
    for uid, kind in [(r.uid, KIND_OF.get(r.state, "unfinished")) for r in rows] + [(r.uid, CONFIRMING) for r in again]:
        spent[kind] += trial_hours.get(uid, 0.0) * (gpus or 1)
    total, price = sum(spent.values()), spec.budget.price_per_gpu_hour
    unit, estimated = hours_unit(gpus), estimate(spec).hours if gpus else None
    words = f"{unit}: " + ", ".join(f"{kind} {hours:.2f}" for kind, hours in spent.items()) + f"; {total:.2f} in all"
    words += "" if estimated is None else f", {estimated:.2f} estimated without pruning"
    money = price * total if gpus and price is not None else None
    words += "" if money is None else f"; price {money:.2f}"
    return CostAccount(unit=unit, spent=spent, total=total, estimated=estimated, money=money, words=words)
