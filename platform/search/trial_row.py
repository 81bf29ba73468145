"""One trial as the study knows it. Nothing here knows Optuna."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

REFERENCE, SEARCH = "reference", "search"
CAM_BASELINE = "cam_baseline"
"""Role of the confirm runs of the classification loss alone."""


WORTH = "worth"
"""Under this name a study keeps whether more trials are worth their price (platform/plan/worth.py)."""


class State(StrEnum):
    """How a trial stands. Names are Optuna's."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def finished(self) -> bool:
        return self in (State.COMPLETE, State.PRUNED, State.FAIL)


@dataclass(frozen=True)
class TrialRow:
    """One trial as the study knows it."""

    number: int
    uid: str
    state: State
    values: dict[str, Any]
    """Searched dotted names and their plain values (of a fixed trial: all that differ from the base)."""
    seed: int
    """Training seed."""
    role: str
    """`reference`, `search`, or what the list study says."""
    miou: float | None = None
    """The objective (mask_free, where the sweep says so), of COMPLETE trials only."""
    beta: float | None = None
    """Threshold at which `miou` was reached."""
    reports: dict[int, float] = field(default_factory=dict)
    """Epoch -> miou_epoch."""
    reason: str | None = None
    """Why it was pruned or failed."""
    attrs: dict[str, Any] = field(default_factory=dict)
    """Whatever else was recorded: metrics at the end, and what the properties below read."""

    @property
    def epochs(self) -> int:
        """The last epoch that was reported, 0 if none was."""
        return max(self.reports, default=0)

    @property
    def run_key(self) -> str | None:
        """The key of the run that it ended with; None where it has not ended, or an earlier version ended it."""
        return self._text("run_key")

    @property
    def seconds(self) -> float | None:
        """How long its run took; None where it has not ended."""
        return self._number("seconds")

    @property
    def reused_from(self) -> str | None:
        """The run that it took over in place of training."""
        return self._text("reused_from")

    @property
    def pruned_at(self) -> float | None:
        """The share of the schedule at which it was pruned."""
        return self._number("pruned_at")

    @property
    def would_prune_at(self) -> float | None:
        """The share of the schedule at which an audited trial would have been pruned; it ran on. A whole number is an
        earlier version's: the epoch.
        """
        return self._number("would_prune_at")

    @property
    def confirms(self) -> str | None:
        """Of a confirm run: the uid of the trial whose configuration it runs again, or CAM_BASELINE."""
        return self._text("of")

    @property
    def race(self) -> str | None:
        """Of a confirm run: the race that it belongs to."""
        return self._text("race")

    @property
    def race_round(self) -> int | None:
        """Of a confirm run in a race: its round."""
        value = self._number("round")
        return None if value is None else int(value)

    @property
    def table_row(self) -> str | None:
        """Of a table's run: the name of its row."""
        return self._text("row")

    def _text(self, name: str) -> str | None:
        value = self.attrs.get(name)
        return None if value is None else str(value)

    def _number(self, name: str) -> float | None:
        value = self.attrs.get(name)
        return value if value is None or isinstance(value, int | float) else float(value)
