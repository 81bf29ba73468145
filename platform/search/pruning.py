"""Which trials are stopped early: successive halving on shares of the schedule, with an audit of what it costs.

The learning rate follows the full budget (poly), so a trial is only comparable at the same share of its schedule, and
before half of it not at all. Nothing is kept here: the caller gives the values that stand in the study, so a restart
decides the same.
"""

import hashlib
import math
from collections.abc import Collection, Mapping
from enum import Enum

MIN_PEERS = 4
"""Minimum number of earlier values at a rung; with fewer no trial is pruned."""


class Decision(Enum):
    """What becomes of a trial at a rung."""

    KEEP = "keep"
    PRUNE = "prune"
    AUDIT = "audit"
    """It would be pruned, and runs on to show what pruning it would have cost."""


def rungs(epochs: int, grace: float, reduction: float) -> dict[float, int]:
    """Return the share of the schedule -> the epoch (1-based) after which trials are compared: grace, grace *
    reduction, ...

    With the default reduction 2 and a grace of at least one half there is exactly one. Trials with schedules of
    different length are compared at the same share, each after its own epoch.
    """
    epoch_by_share: dict[float, int] = {}
    share = grace
    while share < 1:
        epoch = math.ceil(share * epochs - 1e-9)
        if epoch < epochs and epoch not in epoch_by_share.values():
            epoch_by_share[round(share, 6)] = epoch
        share *= reduction
    return epoch_by_share


def rung_reached(epoch: int, reported: Collection[int], rung_epochs: Mapping[float, int]) -> float | None:
    """Return the share of the rung that the report of `epoch` reaches; None before the first and when an earlier report
    reached it.

    `reported` are the epochs that the trial has reported; `epoch` itself may be among them, for after a restart from
    a checkpoint the same epoch comes again and is decided again.
    """
    passed = [share for share, rung in rung_epochs.items() if rung <= epoch]
    if not passed:
        return None
    share = max(passed)
    return None if any(rung_epochs[share] <= earlier < epoch for earlier in reported) else share


def value_at(rung: int, reports: Mapping[int, float]) -> float | None:
    """Return the first value (epoch -> value) reported at `rung` or later; None for a trial that never got there."""
    later = [epoch for epoch in reports if epoch >= rung]
    return reports[min(later)] if later else None


def decide(
    value: float, peers: Collection[float], *, number: int, seed: int, reduction: float, audit: float
) -> Decision:
    """Decide on a trial with `value` (larger is better) at a rung where `peers` have already been.

    Of all that reached the rung the best 1 in `reduction` runs on. Equal values do not push each other out.
    """
    better = sum(peer > value for peer in peers)
    if len(peers) < MIN_PEERS or better < max(1, math.floor((len(peers) + 1) / reduction)):
        return Decision.KEEP
    return Decision.AUDIT if audited(number, seed, audit) else Decision.PRUNE


def audited(number: int, seed: int, share: float) -> bool:
    """Return whether trial `number` belongs to the audit arm: a hash of search seed and number, so that it is settled
    beforehand.
    """
    mark = hashlib.sha256(f"audit {seed} {number}".encode()).digest()
    return int.from_bytes(mark[:8], "big") / 2**64 < share
