"""Runs that the study has as complete and whose files are damaged or gone are made again: same configuration and seed.

They are trials of a list study of their own, NAME.again, and go the way of all trials; what the study has of the
original stays as it is.
"""

from collections.abc import Collection, Sequence

from cpn.core.errors import WorkError
from cpn.core.run_files import COUNTS, PANEL, RESULT, SCORES
from cpn.scoring.finished_run import damaged_files

from ..base import bucket_sync
from ..base.remaining_time import CONFIRM
from ..config.sections import Pruning
from ..search.study import State, Study, TrialRow, open_list
from .sweep_context import SweepContext
from .trial_loop import has_open_trials, run_open_trials

AGAIN = ".again"
READ = (COUNTS, SCORES, PANEL)
"""What is read of a confirm run; its network may have been let go of."""
SAME = 1e-6
"""Relative difference up to which a run that was made again has the value it had."""


def lost_runs(sweep: SweepContext, rows: Sequence[TrialRow], names: Collection[str] | None) -> list[TrialRow]:
    """Return the complete trials among `rows` whose run, or these files of it, are damaged or gone; said in a line
    each.
    """
    lost = []
    for row in rows:
        if row.state is not State.COMPLETE:
            continue
        folder = sweep.folder(row)
        bucket_sync.download_run(sweep.store, folder, sweep.warn_once)
        damaged = damaged_files(folder, names)
        if names is None and damaged and sweep.finished(row) is not None:
            continue  # pictures, which have been drawn again
        if damaged is None or damaged:
            sweep.warn_once(f"{row.uid}: {folder / (damaged or [RESULT])[0]} is missing or damaged; it is made again")
            lost.append(row)
    return lost


def remake(sweep: SweepContext, url: str, trials: Study, rows: Sequence[TrialRow]) -> bool:
    """Make the runs of `rows` again; False where a signal came first. Raises WorkError for one that cannot be had."""

    name = sweep.spec.name
    again = open_list(name + AGAIN, url, trials.identity())
    try:
        before = [row.confirms for row in again.rows() if row.state.finished]
        again.enqueue(
            [
                {
                    "values": row.values,
                    "seed": row.seed,
                    "role": "again",
                    "of": row.uid,
                    "before": before.count(row.uid),
                }
                for row in rows
            ]
        )
        if has_open_trials(again, None):
            heading = f"{name}: making damaged runs again"
            run_open_trials(sweep, again, heading, len(again.rows()), Pruning(kind="none"), None, CONFIRM)
        if sweep.interruption:
            return False
        newest = {str(row.confirms): row for row in again.rows()}  # the newest of each
    finally:
        again.close()
    for row in rows:
        new = newest[row.uid]
        if new.state is not State.COMPLETE or damaged_files(sweep.folder(row)) != []:
            raise WorkError(
                f"{row.uid}: its run {sweep.folder(row)} is damaged and could not be made again "
                f"({new.reason or 'it lies under a key of an earlier version'}); start anew: --set name=NEW"
            )
        if row.miou is not None and new.miou is not None and abs(new.miou - row.miou) > SAME * abs(row.miou):
            sweep.terminal.warn(
                f"{row.uid}: made again, it has {new.miou:.4f} where the study has {row.miou:.4f} (another machine?)"
            )
    return True
