"""When a sweep ends: the first limit of its budget that is reached, in words."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cpn.files import read_json, write_json

from .spec import Budget
from .study import State, TrialRow


class Clock:
    """Hours by the clock over all starts of a sweep, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = float(read_json(path)["seconds"]) if path.exists() else 0.0
        self._began = time.monotonic()

    @property
    def hours(self) -> float:
        """Hours so far, earlier starts included."""
        return (self._before + time.monotonic() - self._began) / 3600

    def save(self) -> None:
        """Keep what has passed; called at every trial's end, so that a kill loses little."""
        write_json(self._path, {"seconds": self.hours * 3600})


def reached(budget: Budget, rows: Sequence[TrialRow], hours: float, gpus_per_trial: float) -> str | None:
    """The limit that is reached, or None. `budget.trials` is the searcher's own matter."""
    done = [row for row in rows if row.state.finished]
    failures = sum(row.state is State.FAIL for row in done)
    if failures >= budget.failures:
        return f"budget.failures: {failures} trials failed"
    if budget.wall_hours is not None and hours >= budget.wall_hours:
        return f"budget.wall_hours: {hours:.2f} hours have passed"
    gpu_hours = gpus_per_trial * sum(float(row.attrs.get("seconds", 0.0)) for row in done) / 3600
    if budget.gpu_hours is not None and gpu_hours >= budget.gpu_hours:
        return f"budget.gpu_hours: {gpu_hours:.2f} GPU-hours are used"
    results = [row.miou for row in sorted(done, key=lambda r: r.number) if row.miou is not None]
    if budget.target_miou is not None and results and max(results) >= budget.target_miou:
        return f"budget.target_miou: {max(results):.1f} is reached"
    if budget.plateau_trials is not None and results:
        since = len(results) - 1 - results.index(max(results))
        if since >= budget.plateau_trials:
            return f"budget.plateau_trials: {since} trials without a new best"
    return None


def stopper(
    budget: Budget,
    rows: Callable[[], Sequence[TrialRow]],
    clock: Clock,
    gpus_per_trial: float,
    say: Callable[[str], None],
) -> Callable[[], bool]:
    """Whether to stop, for the searcher to ask before each new trial; says the reason once."""
    said: list[str] = []

    def stop() -> bool:
        reason = reached(budget, rows(), clock.hours, gpus_per_trial)
        if reason and not said:
            said.append(reason)
            say(f"no new trials: {reason}")
        return reason is not None

    return stop
