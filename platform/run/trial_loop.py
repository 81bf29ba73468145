"""Run the open trials of a study on Ray Tune, and bring the records in line with the study."""

from collections.abc import Callable
from functools import partial
from typing import Any

from cpn.core.errors import InputError

from ..base.lock import SIGNAL_EXIT
from ..base.remaining_time import SEARCH
from ..base.terminal import Terminal
from ..cluster.capacity import concurrency
from ..cluster.interruption import Interruption
from ..cluster.ray_driver import run_trials
from ..config.sections import Pruning
from ..config.space.beta_range import narrowed, searched_range
from ..plan import budget
from ..search import confirm
from ..search.study import State, Study, TrialRow
from ..tracking.recorder import Recorder
from .earlier_keys import take_over_run
from .sweep_context import SweepContext
from .trial_listener import TrialListener

RECORDS_S, HURRIED_S = 30.0, 1.0
"""Seconds that a slow tracking store is given at the end; the rest waits for the next start."""


def run_open_trials(
    sweep: SweepContext,
    trials: Study,
    heading: str,
    limit: int | None,
    pruning: Pruning,
    limits: budget.Limits | None,
    phase: str = SEARCH,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Run a study's open trials on Ray Tune, with the live table; without `limits` all of them. `phase` is what they
    are in the sweep's remaining time; `enough` says before each draw whether none is worth it any more.
    """
    concurrent = concurrency(sweep.spec.resources, sweep.cluster())
    sweep.price_what_is_left(concurrent)
    epochs = sweep.config.train.epochs
    done = [row for row in trials.rows() if row.state.finished]
    counted = [row for row in done if row.role != confirm.CAM_BASELINE]
    best = max(((row.miou, row.uid) for row in counted if row.miou is not None), default=None)
    objective = sweep.spec.objective
    with sweep.terminal.trials(heading, limit, epochs, objective, phase) as table, sweep.interruption.patiently():
        table.already(len(done), best)
        run_trials(
            trials,
            sweep.setup(threads=1),
            limit=limit,
            concurrent=concurrent,
            pruning=pruning,
            search_seed=sweep.spec.search_options.seed,
            epochs=epochs,
            listener=TrialListener(sweep, trials, table),
            interruption=sweep.interruption,
            over=limits.over if limits else lambda: False,
            reuse=partial(find_reusable_run, sweep),
            claim=lambda row: sweep.claims.take(row.uid, sweep.key(row)),
            enough=enough,
        )


def find_reusable_run(sweep: SweepContext, row: TrialRow) -> dict[str, Any] | None:
    """Return the metrics of a finished run with the same configuration, seed and data, made by whatever sweep."""
    result = sweep.finished(row)
    if result is None and take_over_run(sweep.store, sweep.method(row), sweep.pack.fingerprint, sweep.terminal.say):
        result = sweep.finished(row)
    if result is None:
        return None
    if sweep.spec.objective not in result.metrics:
        raise InputError(
            f"{sweep.folder(row)}: an earlier version left {sweep.spec.objective} out of this run; delete the folder"
        )
    key, report = sweep.key(row), f"{sweep.spec.objective}_epoch"
    return {
        "epoch": result.history[-1]["epoch"],
        "reports": {entry["epoch"]: entry[report] for entry in result.history if entry.get(report) is not None},
        "run_key": key,
        "reused_from": key,
        "seconds": 0.0,
        **narrowed(result.metrics, sweep.folder(row), sweep.config.cam, searched_range(sweep.spec.search)),
    }


def has_open_trials(trials: Study, limit: int | None) -> bool:
    """Return whether the study has trials that are waiting, unfinished, or still to be drawn."""
    counts = trials.counts()
    return bool(counts[State.WAITING] or counts[State.RUNNING] or (limit is not None and sum(counts.values()) < limit))


def reconcile(sweep: SweepContext, recorder: Recorder, *studies: Study) -> None:
    """Record results missed after a crash, and close runs in MLflow that no driver continues."""
    alive: set[str] = {sweep.records.parent}
    for trials in studies:
        for row in trials.rows():
            if row.state is State.RUNNING:
                alive.add(row.uid)
            elif row.state.finished and not recorder.ended(row.uid):
                sweep.records.trial_started(row, sweep.method(row), sweep.key(row))
                sweep.records.trial_ended(row, sweep.finished(row), sweep.folder(row))
    recorder.reconcile(alive=alive)


def report_interruption(terminal: Terminal, interruption: Interruption, command: str) -> int:
    """Return what is said when a signal ended the sweep early."""
    terminal.say(f"stopped; every trial can go on: {command}")
    return SIGNAL_EXIT + (interruption.signal or 2)
