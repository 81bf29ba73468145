"""What a sweep has come to, `summary.json`: written at its end by platform/reports/summary.py, and read back."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cpn.core.checked import SWEEP_WRITES, read_typed

from ..base.lock import FINISHED, read_driver
from ..base.paths import SweepPaths
from ..base.yaml_files import load_kept

Number = int | float
"""As the file holds it."""
Bounds = tuple[float, float]


class RungAccount(BaseModel):
    """How well a rung foretold the end of the trials that went on."""

    model_config = ConfigDict(frozen=True)

    share: float
    """Of the schedule."""
    epoch: int
    trials: int
    """With a value at the rung and at the end."""
    audited: int
    """Those among them that would have been pruned."""
    correlation: float | None = None
    """Spearman's; None where it is undefined."""
    low: float | None = None
    high: float | None = None
    off: str | None = None
    """Why pruning switched itself off there, in words; None where it did not."""


class PruningAccount(BaseModel):
    """What pruning cost and saved: the account of platform/search/pruning_audit.py. Scores are in percent."""

    model_config = ConfigDict(frozen=True)

    kind: str = "none"
    rungs: tuple[RungAccount, ...] = ()
    trials: int = 0
    """Of the search."""
    unseen: int = 0
    """That were pruned."""
    audited: int = 0
    """That would have been pruned and ran to their end."""
    best_audited: float | None = None
    best_other: float | None = None
    points: float | None = None
    """What pruning the audited ones too would have lost; None where there is nothing to compare."""
    better: int = 0
    """Audited trials above all others."""
    better_unseen_at_most: int | None = None
    """How many of the unseen are better, at 95 %."""
    expected_loss: float | None = None
    """What the unseen are expected to have lost."""
    hours_saved: float | None = None
    gpu_hours_saved: float | None = None
    words: tuple[str, ...] = ()
    """For people, a sentence a line."""


class CostAccount(BaseModel):
    """What the hours of a sweep's trials went to: the account of platform/plan/budget.py."""

    model_config = ConfigDict(frozen=True)

    unit: str = ""
    """GPU-hours, or hours of trials on the CPU."""
    spent: dict[str, float] = {}
    """By what they went to: useful, pruned, failed, unfinished, confirming."""
    total: float = 0.0
    estimated: float | None = None
    """Without pruning; None on the CPU."""
    money: float | None = None
    """None without a price."""
    words: str = ""
    """For people."""


class LeaderboardEntry(BaseModel):
    """A full-budget trial. Numbers are in percent."""

    model_config = ConfigDict(frozen=True)

    uid: str
    role: str
    """`reference` or `search`."""
    miou: float | None
    """The objective on the select images."""
    beta: float | None
    miou_confirm_mean: float | None = None
    """Mean of the objective over the fresh seeds on the confirm images; None where it did not run again."""
    interval: Bounds | None = None
    """Of that mean, at 95 %."""
    difference: Bounds | None = None
    """Bounds of its difference to the reference, at the verdict's level."""
    seeds: int = 0
    """Fresh seeds it ran again with."""
    would_prune_at: float | None = None
    """Share of the schedule at which pruning would have stopped it; None where it never would."""
    values: dict[str, Any] = {}
    """The searched values, as Optuna keeps them."""


class SweepSummary(BaseModel):
    """A sweep's verdict, numbers and words. Metrics are in percent.

    What an earlier version did not write has a default here; what a later one adds is not read.
    """

    model_config = ConfigDict(frozen=True)

    sweep: str = ""
    objective: str = "miou"
    verdict: str
    """In words."""
    against_baseline: str | None = None
    """How the winner stands against cam_baseline, in words."""
    tested: bool = False
    better: bool = False
    """Whether the winner is shown to beat the reference."""
    interval: tuple[float | None, float | None] = (None, None)
    """Of the winner's difference to the reference; None where it was not tested."""
    winner: str
    """Uid of the trial with the best confirmed mean."""
    promoted: bool = True
    """Whether it was promoted; with `promote.when: better` only one that is better is."""
    winner_values: dict[str, Any] = {}
    """Its searched values, as Optuna keeps them."""
    winner_beta: float | None = None
    trials: dict[str, int] = {}
    """How many trials are complete, pruned, fail."""
    stopped: str | None = None
    """Why the search ended before its other limits, in words: more was not worth its price."""
    confirm_runs: int = 0
    confirm_failed: str | None = None
    """Which confirm runs failed, in words."""
    confirmed: dict[str, tuple[float, ...]] = {}
    """By trial, and `cam_baseline`: the objective on the confirm images for each fresh seed."""
    baseline_interval: Bounds | None = None
    """Of cam_baseline's mean, at 95 %."""
    leaderboard: tuple[LeaderboardEntry, ...] = ()
    """Full-budget trials, the best first."""
    pruning: PruningAccount = PruningAccount()
    without_masks: str | None = None
    """How well mask_free ranks the trials as miou does, in words."""
    walk: str | None = None
    """What was chosen for the random walk, in words."""
    walk_used: bool = True
    """False where the CAM's own masks are taken in its place."""
    unscored: tuple[str, ...] = ()
    """Later stages that had no masks to be scored on."""
    stage_failed: str | None = None
    """The later stage that failed, and why."""
    metrics: dict[str, Number | None] = {}
    """What the sweep's record in MLflow has: the objective, confirmed means, `STAGE/METRIC`, hours."""
    sets: dict[str, str] = {}
    """Names of the lists `score` and `val`."""
    fingerprint: str = ""
    """Of the packed data set."""
    hours: float = 0.0
    """By the clock, over all starts."""
    cost: CostAccount = CostAccount()
    note: str = ""
    """All of it for people, in Markdown."""

    @property
    def ended(self) -> int:
        """How many trials had ended."""
        return sum(self.trials.values())

    @property
    def plain_verdict(self) -> str:
        """The verdict with its subject, and what was promoted: a sentence that stands alone."""
        is_reference = any(entry.uid == self.winner and entry.role == "reference" for entry in self.leaderboard)
        who = "the reference" if is_reference else "it" if self.better else self.winner
        end = f"{who} was promoted" if self.promoted else f"{who} was not promoted (promote.when: better)"
        return f"{f'{self.winner} ' if self.better else ''}{self.verdict}; {end}"

    def to_json(self) -> dict[str, Any]:
        """Give the plain values that the file holds."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_summary(path: Path) -> SweepSummary | None:
    """Read a summary; None where there is none. Raises DamagedFile where it is not what a sweep writes."""
    try:
        return read_typed(path, SweepSummary, SWEEP_WRITES)
    except FileNotFoundError:
        return None


def missing_summary(paths: SweepPaths) -> str | None:
    """Say that a finished search has no summary, in one line with the cure; None where it has one or none is due."""
    if paths.summary.exists():
        return None
    last = read_driver(paths)
    if last is None or last.stands != FINISHED or not paths.spec.exists() or load_kept(paths.spec).get("table"):
        return None
    return f"{paths.summary}: is missing, though the sweep has finished; {SWEEP_WRITES}"
