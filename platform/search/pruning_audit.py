"""What pruning costs and saves, measured on the trials that it would have stopped and that ran on.

Everything here is computed from the study's rows alone, so that a restart finds the same.

    agreement   is the order of trials at a rung the order at the end? Spearman's correlation, with an interval
    regret      how much worse the best result would be if the audited trials had been stopped as well
    saving      the hours that pruned trials did not take
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import special

from ..config.sections import Pruning
from . import pruning
from .study import SEARCH, State, TrialRow
from .sweep_summary import PruningAccount, RungAccount

LEAST_PAIRS = 8
"""Minimum number of trials with a value at the rung and at the end for an estimate of the correlation."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Agreement:
    """Rank correlation between the rung and the final score."""

    trials: int
    """Trials with a value at the rung and at the end."""
    audited: int
    """Those among them that would have been pruned, at this rung or at another."""
    correlation: float | None
    """Spearman's, weighted; None when it is undefined: fewer than 3 trials, or all of them equal."""
    low: float | None
    high: float | None
    """Bounds at 95 %; None when the trials are too few for any."""

    def __str__(self) -> str:
        """Describe the correlation in words."""
        if self.correlation is None:
            return f"not measured, {self.trials} trials have both"
        bounds = f" [{self.low:.2f}, {self.high:.2f}]" if self.low is not None and self.high is not None else ""
        return f"{self.correlation:.2f}{bounds} over {self.trials} trials, {self.audited} of them audited"


def agreement(rows: Sequence[TrialRow], share: float, rungs_of: Callable[[TrialRow], Mapping[float, int]]) -> Agreement:
    """Correlate (Spearman) the value at the rung `share` with the final miou, over all trials that have both.

    Those trials are no fair sample: the pruned ones are missing, and without the lower half any correlation looks
    weak. So the audited ones stand for all that would have been pruned at their rung, each with the weight
    (pruned + audited) / audited, and every other trial has weight 1. The interval is Bonett and Wright's (2000), with
    Kish's effective number of trials, (sum of weights)^2 / sum of squares.
    """
    stopped = [row.pruned_at for row in rows if row.state is State.PRUNED]
    finals = [row for row in rows if row.state is State.COMPLETE and row.miou is not None]
    marks = [row.would_prune_at for row in finals]
    pruned_at, audited_at = Counter(stopped), Counter(marks)  # counted once: looking each time is slow with many trials
    early, late, weights, audited = [], [], [], 0
    for row, mark in zip(finals, marks, strict=True):
        rung = rungs_of(row).get(share)
        value = None if rung is None else pruning.value_at(rung, row.reports)
        if value is None or row.miou is None:
            continue
        early.append(value)
        late.append(row.miou)
        weights.append(1.0 if mark is None else (pruned_at[mark] + audited_at[mark]) / audited_at[mark])
        audited += mark is not None
    correlation = spearman(np.array(early), np.array(late), np.array(weights))
    low, high = (None, None) if correlation is None else bounds(correlation, np.array(weights))
    return Agreement(len(early), audited, correlation, low, high)


def spearman(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float | None:
    """Spearman's rank correlation of two samples (n,) whose members count `weights` times; None when undefined.

    With whole weights it is that of the sample with each member repeated; with equal ones it is the usual.
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    ranks = [weighted_ranks(values, weights) for values in (first, second)]
    covariance = np.cov(ranks, aweights=weights)
    return float(np.clip(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]), -1, 1))


def weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weight below each value and half of the weight at it: (n,), equal values with equal ranks."""
    _, group = np.unique(values, return_inverse=True)
    mass = np.bincount(group, weights=weights)
    ranks: np.ndarray = (np.cumsum(mass) - mass / 2)[group]
    return ranks


def bounds(correlation: float, weights: np.ndarray) -> tuple[float | None, float | None]:
    """Compute the 95 % interval of a Spearman correlation over weighted trials; (None, None) for 3 or fewer."""
    effective = weights.sum() ** 2 / (weights**2).sum()
    if effective <= 3:
        return None, None
    centre = math.atanh(min(max(correlation, -0.9999), 0.9999))
    half = special.ndtri((1 + CONFIDENCE) / 2) * math.sqrt((1 + correlation**2 / 2) / (effective - 3))
    return math.tanh(centre - half), math.tanh(centre + half)


def is_too_low(measured: Agreement, options: Pruning) -> bool:
    """Return whether to switch pruning off: enough trials were audited, and the correlation is below the threshold.

    The estimate decides, not a bound: pruning switched off wrongly costs some hours, pruning wrongly the best trial.
    """
    if options.min_rank_correlation is None or measured.correlation is None or measured.trials < LEAST_PAIRS:
        return False
    return measured.audited >= max(1, options.min_audited) and measured.correlation < options.min_rank_correlation


@dataclass(frozen=True)
class Regret:
    """Cost of pruning in miou points, estimated from the audited trials."""

    audited: int
    """Would-be-pruned trials that ran to their end."""
    unseen: int
    """Trials that were pruned."""
    best_audited: float | None
    best_other: float | None
    """Best miou of the trials that pruning would have let through."""
    points: float | None
    """best_audited - best_other: above 0, pruning would have lost the best trial by so much."""
    better: int
    """Audited trials above best_other."""
    better_unseen_at_most: int | None
    """Of the unseen at most so many lie above best_other, at 95 %, if they are like the audited ones."""
    expected_loss: float | None
    """What the unseen are expected to have lost against best_other, drawn as if from the audited ones' results."""


def regret(rows: Sequence[TrialRow]) -> Regret:
    """Estimate what stopping every would-be-pruned trial would have cost; None where no trial was audited."""
    done = [row for row in rows if row.state is State.COMPLETE and row.miou is not None]
    audited = sorted(float(row.miou or 0) for row in done if row.would_prune_at is not None)
    others = [float(row.miou or 0) for row in done if row.would_prune_at is None]
    unseen = sum(row.state is State.PRUNED for row in rows)
    best_audited, best_other = max(audited, default=None), max(others, default=None)
    if best_audited is None or best_other is None:
        return Regret(len(audited), unseen, best_audited, best_other, None, 0, None, None)
    n, better = len(audited), sum(value > best_other for value in audited)
    # Clopper and Pearson's upper bound of the share.
    share = 1.0 if better == n else float(special.betaincinv(better + 1, n - better, CONFIDENCE))
    # The largest of `unseen` draws is at most the i-th smallest result with probability (i / n) ** unseen.
    below = (np.arange(n + 1) / n) ** unseen
    loss = float(np.diff(below) @ np.maximum(0, np.array(audited) - best_other)) if unseen else 0.0
    at_most = math.floor(share * unseen)
    return Regret(n, unseen, best_audited, best_other, best_audited - best_other, better, at_most, loss)


def hours_saved(rows: Sequence[TrialRow], epochs_of: Callable[[TrialRow], int]) -> float | None:
    """Return hours that the pruned trials would still have taken: their missing share of the schedule times the mean
    length of a full trial. None when no trial ran in full (reused runs took no time and do not count).
    """
    pruned = [row for row in rows if row.state is State.PRUNED]
    if not pruned:
        return 0.0
    full = [row.seconds for row in rows if row.state is State.COMPLETE and row.seconds]
    if not full:
        return None
    missing = sum(max(0.0, 1 - row.epochs / epochs_of(row)) for row in pruned)
    return missing * float(np.mean(full)) / 3600


def account(
    rows: Sequence[TrialRow],
    options: Pruning,
    epochs: int,
    gpus_per_trial: float,
    off: Mapping[str, str],
) -> PruningAccount:
    """Summarise a sweep's pruning, for summary and report.

    `epochs` is the base's schedule, `off` what the study remembers of rungs that were switched off: share -> words.
    """

    def epochs_of(row: TrialRow) -> int:
        return int(row.values.get("train.epochs", epochs))

    def rungs_of(row: TrialRow) -> dict[float, int]:
        return pruning.rungs(epochs_of(row), options.grace, options.reduction)

    shares = pruning.rungs(epochs, options.grace, options.reduction) if options.kind != "none" else {}
    hours = hours_saved(rows, epochs_of)
    result = PruningAccount(
        kind=options.kind,
        rungs=tuple(
            RungAccount(share=share, epoch=epoch, off=off.get(f"{share:g}"), **asdict(agreement(rows, share, rungs_of)))
            for share, epoch in shares.items()
        ),
        **asdict(regret(rows)),
        trials=sum(row.role == SEARCH for row in rows),
        hours_saved=hours,
        gpu_hours_saved=None if hours is None else hours * gpus_per_trial,
    )
    return result.model_copy(update={"words": tuple(words(result))})


def words(result: PruningAccount) -> list[str]:
    """Describe the account in sentences, one a line; none when nothing was or would have been pruned."""
    lines: list[str] = []
    if result.unseen:
        hours, gpu_hours = result.hours_saved, result.gpu_hours_saved
        saved = "how much that saved is not known: no trial ran in full"
        if hours is not None:
            saved = f"{gpu_hours:.2f} GPU-hours saved" if gpu_hours else f"{hours:.2f} hours of trials saved"
        lines.append(f"pruning stopped {result.unseen} of {result.trials} trials; {saved}")
    if result.audited:
        lines.append(audit_words(result))
    for rung in result.rungs:
        if rung.trials >= LEAST_PAIRS or rung.off:
            measured = Agreement(rung.trials, rung.audited, rung.correlation, rung.low, rung.high)
            lines.append(f"rank correlation of {rung.share:.0%} of the schedule with its end: {measured}")
        if rung.off:
            lines.append(rung.off)
    return lines


def audit_words(result: PruningAccount) -> str:
    """Describe the results of the audited trials."""
    text = f"{result.audited} would-be-pruned trials ran on: "
    if result.points is None:
        return text + "there is nothing to compare them with"
    if result.points > 0:
        text += f"pruning them would have cost {result.points:.1f} miou ({result.best_audited:.1f} became "
        text += f"{result.best_other:.1f})"
    else:
        text += f"pruning them would have cost nothing (best {result.best_audited:.1f}, others "
        text += f"{result.best_other:.1f})"
    if result.unseen:
        text += f"; of the {result.unseen} unseen at most {result.better_unseen_at_most} are better (95 %), "
        text += f"expected loss {result.expected_loss:.1f}"
    return text


def switched_off(measured: Agreement, share: float, options: Pruning) -> str:
    """Return the line that is printed, tagged and stored when pruning switches itself off."""
    return (
        f"pruning is switched off at {share:.0%} of the schedule: the order there foretells the end too little, "
        f"Spearman {measured}, {options.min_rank_correlation:g} is asked for"
    )
