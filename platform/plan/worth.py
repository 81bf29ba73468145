"""Whether more trials are worth their price: what they are expected to gain, held against `min_gain_per_gpu_hour`.

Asked before each draw. What the next LOOK_AHEAD trials are expected to gain (gaussian_process.expected_gain) is divided
by what they cost. The search ends when that is below the limit IN_A_ROW times, each time with one more finished trial,
and not before LEAST whole ones: a model that knows little is easily sure of itself. The numbers were chosen by
simulation, as is how often they are wrong: docs/search.md.
"""

from collections.abc import Callable
from typing import Any

from ..config.sweep_spec import SweepSpec
from ..search.study import State, Study
from ..search.trial_row import WORTH
from .budget import Clock
from .estimate import estimate
from .hours import hours_unit

LOOK_AHEAD = 8
"""Trials that the gain and the price are of: one draw alone explores or does not."""
LEAST = 16
"""Whole trials before which the search never ends so."""
IN_A_ROW = 5
"""Times that the gain has to be too small, one after the other."""


class Worth:
    """Says when the search has come so far that more is not worth it. What it decided is kept in the study: a sweep
    that is resumed stays ended, unless the limit was changed.
    """

    def __init__(self, spec: SweepSpec, study: Study, clock: Clock, say: Callable[[str], None]) -> None:
        self._spec, self._study, self._clock, self._say = spec, study, clock, say
        self._least = spec.budget.min_gain_per_gpu_hour
        self._gpus = spec.resources.workers * spec.resources.gpus_per_worker
        state = study.remembered(WORTH)
        self.lifted = bool(state.get("words")) and state.get("least") != self._least
        """Whether the search had ended so, and the limit was changed since."""
        if state and state.get("least") != self._least:
            state = {}
            study.remember(WORTH, state)
        self._kept = state
        self._price: float | None = None

    @property
    def words(self) -> str | None:
        """Why the search has ended so; None where it has not."""
        return self._kept.get("words")

    def limit(self, trials: int | None) -> int | None:
        """Return how many trials the study may come to hold, of `trials`: no more than it has once the search
        ended so.
        """
        return len(self._study.rows()) if self.words else trials

    def enough(self) -> bool:
        """Return whether no trial is to be drawn any more. Says so once."""
        if self._least is None:
            return False
        if self.words:
            return True
        rows = self._study.rows()
        ended = sum(row.state.finished for row in rows)
        whole = sum(row.state is State.COMPLETE for row in rows)
        if whole < LEAST or ended == self._kept.get("ended") or any(row.state is State.WAITING for row in rows):
            return False
        gain, price = self._study.expected_gain(LOOK_AHEAD), LOOK_AHEAD * self.hours_per_trial()
        if gain is None:
            return False
        low = self._kept.get("low", 0) + 1 if gain < self._least * price else 0
        state: dict[str, Any] = {"least": self._least, "ended": ended, "low": low}
        if low >= IN_A_ROW:
            state["words"] = gain_words(gain, price, hours_unit(self._gpus), self._spec.objective)
        self._kept = state
        self._study.remember(WORTH, state)
        if self.words:
            self._say(f"{self.words} (budget.min_gain_per_gpu_hour: {self._least:g})")
        return bool(self.words)

    def hours_per_trial(self) -> float:
        """GPU-hours, or hours on the CPU, of a trial: the mean of those that ended and were not reused; before there
        are any, as the plan prices one.
        """
        hours = self._clock.trial_hours
        spent = [hours[row.uid] for row in self._study.rows() if row.state.finished and hours.get(row.uid)]
        if spent:
            return sum(spent) / len(spent) * (self._gpus or 1)
        if self._price is None:
            self._price = estimate(self._spec).hours_per_trial or 0.0
        return self._price


def gain_words(gain: float, hours: float, unit: str, objective: str) -> str:
    """`another 8 GPU-hours are expected to gain 0.05 mIoU: stopping`."""
    what = "mIoU" if objective == "miou" else objective
    shown = f"{gain:.2f}" if gain >= 0.005 else "less than 0.01"
    return f"another {hours:{'.2g' if hours < 10 else '.0f'}} {unit} are expected to gain {shown} {what}: stopping"
