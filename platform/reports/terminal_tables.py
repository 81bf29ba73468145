"""A sweep's tables on a terminal: they fit 100 columns, trials stand there by number, and no id is broken."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base.terminal import Terminal, clock
from ..search.sweep_summary import LeaderboardEntry, SweepSummary
from ..search.trial_row import CAM_BASELINE, REFERENCE
from .ranking import RankedTrial, configuration, difference, number, short, span
from .snapshot import SweepSnapshot

BEST_ROWS = 10
Row = Sequence[Any]


def print_summary(terminal: Terminal, summary: SweepSummary, pictures: Sequence[Path]) -> None:
    """Verdict, leaderboard, the table from CAM to DeepLab, and where the pictures are."""
    from .summary import ladder, ladder_head, statistics  # which brings torch; a leaderboard has no use for it

    terminal.say(f"verdict: {summary.plain_verdict} ({clock(summary.hours * 3600)} in all)")
    if summary.against_baseline:
        terminal.say(summary.against_baseline)
    if summary.stopped:
        terminal.say(f"the search ended early: {summary.stopped}")
    if summary.confirm_failed:
        terminal.warn(summary.confirm_failed)
    print_leaderboard(terminal, summary)
    if terminal.verbose:
        for line in statistics(summary):
            terminal.say(line)
    terminal.table("from CAM to segmentation", ["step", "images", ladder_head(summary)], ladder(summary))
    if summary.walk:
        terminal.say(summary.walk)
    if summary.stage_failed:
        terminal.say(f"failed: {summary.stage_failed}; the promotion stands, and so do the stages before")
    terminal.say("pictures:")
    for path in pictures:
        terminal.say(f"  {path}")


def print_leaderboard(terminal: Terminal, summary: SweepSummary) -> None:
    """Print the best full-budget trials with their values, then cam_baseline."""
    entries, score, count = summary.leaderboard[:BEST_ROWS], summary.sets["score"], summary.trials
    heads = ["trial", "", f"{summary.objective} ({score}, select)", "beta", f"confirmed ({score}, confirm)", "seeds"]
    rows: list[Row] = [
        [
            number_of(entry.uid, summary.sweep),
            marks_of(entry, summary),
            entry.miou,
            number(entry.beta, ".2f"),
            confirmed_cell(entry),
            entry.seeds or None,
        ]
        for entry in entries
    ]
    rows += baseline_rows(summary, ["-", CAM_BASELINE, None, None], [])
    caption = f"{count['complete']} complete, {count['pruned']} pruned, {count['fail']} failed; "
    caption += f"{summary.confirm_runs} confirm runs"
    values = [(entry.values, entry.role == REFERENCE) for entry in entries]
    print_trials(terminal, "leaderboard", summary.sweep, heads, rows, values, caption)


def print_ranking(terminal: Terminal, sweep: SweepSnapshot, entries: Sequence[RankedTrial], caption: str) -> None:
    """Print the table of `platform.leaderboard`: `entries` of `ranking`, then cam_baseline."""
    spec = sweep.spec
    score, unit = spec.base_config.data.score, "GPU-hours" if spec.resources.gpus_per_worker else "hours"
    rows: list[Row] = [
        [
            number_of(entry.uid, sweep.name),
            ", ".join([entry.state, *entry.marks]),
            entry.objective,
            number(entry.beta, ".2f"),
            None if entry.confirmed is None else f"{entry.confirmed:.1f}{span(entry.interval)}",
            difference(entry),
            entry.seeds or None,
            number(entry.hours if entry.gpu_hours is None else entry.gpu_hours, ".2f"),
        ]
        for entry in entries
    ]
    if sweep.summary:
        rows += baseline_rows(sweep.summary, ["-", CAM_BASELINE, None, None], [None], [None])
    heads = ["trial", "state", f"{spec.objective} % ({score}, select)", "beta", f"confirmed % ({score}, confirm)",
             "against the reference", "seeds", unit]  # fmt: skip
    values = [(entry.values, REFERENCE in entry.marks) for entry in entries]
    print_trials(terminal, f"leaderboard of {sweep.name}", sweep.name, heads, rows, values, caption)


def baseline_rows(summary: SweepSummary, before: Row, between: Row, behind: Row = ()) -> list[Row]:
    """Return a row of cam_baseline's confirmed mean and its seeds among other cells; none where it did not run."""
    means = summary.confirmed.get(CAM_BASELINE)
    if not means:
        return []
    mean = f"{sum(means) / len(means):.1f}{span(summary.baseline_interval)}"
    return [[*before, mean, *between, len(means), *behind]]


def print_trials(
    terminal: Terminal,
    title: str,
    sweep: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    trials: Sequence[tuple[Mapping[str, Any], bool]],
    caption: str,
) -> None:
    """Print trials in one table where their values fit beside the numbers in `rows`, else in two.

    Rows begin with the trial's number and what it is. `trials` are the searched values of each, and whether it is the
    reference; rows behind them have no values.
    """
    numbers = [str(row[0]) for row in rows[: len(trials)]]
    if numbers:
        caption = "; ".join(filter(None, [caption, f"trial {numbers[0]} is {sweep}-{numbers[0]}"]))
    names = list(dict.fromkeys(name for values, _ in trials for name in values))
    cells = [[short(values[name]) if name in values else "-" for name in names] for values, _ in trials]
    titles = [name.split(".")[-1] for name in names]
    beside = [*cells, *([""] * len(names) for _ in rows[len(trials) :])]
    joined = [[*row[:2], *more, *row[2:]] for row, more in zip(rows, beside, strict=True)]
    if terminal.fits(whole := [*heads[:2], *titles, *heads[2:]], joined):
        terminal.table(title, whole, joined, caption, left=2 + len(names))
        return
    terminal.table(title, heads, rows, caption)
    values_of = [[number, *more] for number, more in zip(numbers, cells, strict=True)]
    if not terminal.fits(["trial", *titles], values_of):
        reference = next((values for values, is_it in trials if is_it), {})
        titles = ["differs from the reference in" if reference else "values"]
        values_of = [
            [number, configuration(values if is_it else differing(values, reference))]
            for number, (values, is_it) in zip(numbers, trials, strict=True)
        ]
    if names:
        terminal.table("configurations", ["trial", *titles], values_of, left=1 + len(titles))


def differing(values: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not the reference's."""
    return {name: value for name, value in values.items() if reference.get(name) != value}


def marks_of(entry: LeaderboardEntry, summary: SweepSummary) -> str:
    """Return what a trial is: the reference, the winner."""
    holds_by_mark = {"reference": entry.role == REFERENCE, "winner": entry.uid == summary.winner}
    return ", ".join(name for name, holds in holds_by_mark.items() if holds)


def number_of(uid: str, sweep: str) -> str:
    """Return a trial's number as its uid ends: `0006`."""
    return uid.removeprefix(f"{sweep}-")


def confirmed_cell(entry: LeaderboardEntry) -> str | None:
    """Return a confirmed mean and its interval at 95 %."""
    return None if entry.miou_confirm_mean is None else f"{entry.miou_confirm_mean:.1f}{span(entry.interval)}"
