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
    """Whatever else was recorded: metrics at the end, `would_prune_at`, attributes of the list entry."""

    @property
    def epochs(self) -> int:
        """The last epoch that was reported, 0 if none was."""
        return max(self.reports, default=0)
