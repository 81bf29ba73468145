"""The trials of a sweep in the order of a leaderboard, as plain values: what command, report and tables show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.space.domains import encode
from ..search.study import REFERENCE, State, TrialRow
from .snapshot import SweepSnapshot

LAST = (State.PRUNED, State.RUNNING, State.WAITING, State.FAIL)
"""Behind the full-budget trials, in this order."""


@dataclass(frozen=True)
class RankedTrial:
    """A trial in the leaderboard, a row of `platform.leaderboard --json`. Scores are in percent."""

    place: int | None
    """None of a trial without the full budget."""
    uid: str
    state: str
    marks: list[str]
    """What it is besides: reference, winner, reused, audited."""
    objective: float | None
    """On the select images."""
    beta: float | None
    confirmed: float | None
    """Mean over fresh seeds on the confirm images, as `interval` and `difference`, of the sweep's last end."""
    interval: tuple[float, float] | None
    difference: tuple[float, float] | None
    """Bounds of the difference to the reference."""
    seeds: int
    epochs: int
    last_report: float | None
    hours: float | None
    """By the clock."""
    gpu_hours: float | None
    reason: str | None
    """Why it was pruned or failed."""
    run_key: str | None
    values: dict[str, Any]
    """The searched values, as Optuna keeps them."""


def ranking(sweep: SweepSnapshot) -> list[RankedTrial]:
    """Return every trial: the full-budget ones by the objective on the select images, then those that have none."""
    by_uid = {entry.uid: entry for entry in sweep.summary.leaderboard} if sweep.summary else {}
    means = {} if by_uid else confirmed_so_far(sweep)
    winner = sweep.summary.winner if sweep.summary else None
    gpus = sweep.spec.resources.workers * sweep.spec.resources.gpus_per_worker
    trials = []
    for place, row in enumerate(in_order(sweep.rows), 1):
        known, runs = by_uid.get(row.uid), means.get(row.uid, [])
        full = row.state is State.COMPLETE and row.miou is not None
        hours = sweep.trial_hours.get(row.uid)
        trials.append(
            RankedTrial(
                place=place if full else None,
                uid=row.uid,
                state=row.state.name.lower(),
                marks=marks(row, row.uid == winner),
                objective=row.miou,
                beta=row.beta if full else None,
                confirmed=(known.miou_confirm_mean if known else None) if by_uid else mean(runs),
                interval=known.interval if known else None,
                difference=known.difference if known else None,
                seeds=(known.seeds if known else 0) if by_uid else len(runs),
                epochs=row.epochs,
                last_report=row.reports.get(row.epochs),
                hours=hours,
                gpu_hours=None if hours is None or not gpus else hours * gpus,
                reason=row.reason,
                run_key=row.run_key,
                values={name: encode(value) for name, value in row.values.items()},
            )
        )
    return trials


def in_order(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Full-budget trials first, the best at the top and of equals the earlier; then the others, as `LAST` has them."""

    def key(row: TrialRow) -> tuple[int, float, int]:
        full = row.state is State.COMPLETE and row.miou is not None
        return (0, -(row.miou or 0.0), row.number) if full else (1 + _late(row.state), 0.0, row.number)

    return sorted(rows, key=key)


def _late(state: State) -> int:
    return LAST.index(state) if state in LAST else len(LAST)


def marks(row: TrialRow, winner: bool) -> list[str]:
    """Return what a trial is besides its state; an audited one would have been pruned and ran on."""
    at = row.would_prune_at
    holds_by_mark = {
        "reference": row.role == REFERENCE,
        "winner": winner,
        "reused": row.reused_from is not None,
        f"audited at {at:.0%}" if isinstance(at, float) else "audited": at is not None,
    }
    return [name for name, holds in holds_by_mark.items() if holds]


def confirmed_so_far(sweep: SweepSnapshot) -> dict[str, list[float]]:
    """Return the confirm runs that have ended, by the trial they confirm: the objective on the confirm images,
    percent.
    """
    by_trial: dict[str, dict[int, float]] = {}
    for run in sweep.again:
        value = run.attrs.get(f"{sweep.spec.objective}_confirm")
        if run.state is State.COMPLETE and value is not None:  # the same run may be in two races
            by_trial.setdefault(str(run.confirms), {})[run.seed] = float(value)
    return {uid: list(values.values()) for uid, values in by_trial.items()}


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return sum(values) / len(values) if values else None


def span(ends: Sequence[float] | None) -> str:
    """Return an interval in brackets, nothing where there is none."""
    return f" [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else ""


def heads(sweep: SweepSnapshot) -> list[str]:
    """Return the columns of `cells`; metrics name their images."""
    score, key = sweep.spec.base_config.data.score, sweep.spec.objective
    unit = "GPU-hours" if sweep.spec.resources.gpus_per_worker else "hours"
    return ["#", "trial", "state", f"{key} % ({score}, select)", "beta", f"confirmed % ({score}, confirm)",
            "against the reference", "seeds", unit]  # fmt: skip


def cells(entry: RankedTrial) -> list[str]:
    """Return one trial as text, without its configuration."""
    beta, hours, confirmed = entry.beta, entry.gpu_hours, entry.confirmed
    hours = entry.hours if hours is None else hours
    return [
        str(entry.place or "-"),
        entry.uid,
        ", ".join([entry.state, *entry.marks]),
        number(entry.objective, ".1f"),
        number(beta, ".2f"),
        "-" if confirmed is None else f"{confirmed:.1f}{span(entry.interval)}",
        difference(entry),
        str(entry.seeds or "-"),
        number(hours, ".2f"),
    ]


def difference(entry: RankedTrial) -> str:
    """Return a trial's difference to the reference with its interval."""
    ends = entry.difference
    return "-" if not ends else f"{(ends[0] + ends[1]) / 2:+.1f}{span(ends)}"


def number(value: float | None, form: str) -> str:
    """Return a number, or a dash."""
    return "-" if value is None else format(value, form)


def configuration(values: Mapping[str, Any]) -> str:
    """Return searched values by their short names, few digits."""
    return " ".join(f"{name.split('.')[-1]}={short(value)}" for name, value in values.items())


def short(value: Any) -> str:
    """Return a value in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
