"""Ray Tune's suggest, result and complete over the study; the only state is the study's, so that a kill loses nothing.

    searcher = StudySearcher(study, limit=spec.trial_limit, should_stop=budget_used)
    scheduler = StudyPruner(study, searcher, spec.pruning, spec.search_options.seed, epochs)
    Tuner(trainable, tune_config=TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=-1,
    max_concurrent_trials=n))

The trainable gets {uid, number, values, seed, role} and reports {epoch, miou_epoch} after each epoch, at the end also
{miou, ...}; a report with `failed: reason` ends the trial as FAIL.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from . import pruning
from .spec import Pruning
from .study import SEARCH, State, Study, TrialRow

RECORDED = ("beta", "miou_epoch", "miou_fixed_beta", "miou_confirm", "miou_train", "seconds", "run_key", "reused_from")
"""Keys of the last result that are kept as the trial's attributes."""


class StudySearcher(Searcher):
    """Hands out the study's unfinished trials under their own uid, then new ones, and tells it how each ended."""

    def __init__(
        self,
        study: Study,
        limit: int | None = None,
        should_stop: Callable[[], bool] | None = None,
        reuse: Callable[[TrialRow], Mapping[str, Any] | None] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        """`limit` is the number of trials that the study may come to hold; `should_stop` is asked before each new
        trial. `reuse` may give the metrics of a finished run of the same configuration: such a trial is told at once
        and never started, and `told` hears its uid.
        """
        super().__init__(metric=None, mode="max")  # no metric: an epoch's report lacks the objective
        self._study = study
        self._should_stop = should_stop or (lambda: False)
        self._reuse = reuse or (lambda row: None)
        self._told = told or (lambda uid: None)
        self._pending = study.unfinished()
        counts = study.counts()
        waiting = counts[State.WAITING]
        held = sum(counts.values())
        self._new = math.inf if limit is None else waiting + max(0, limit - held)
        self._uids: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self.interrupted = False
        """Set when the driver is being stopped: trials that end from now on without a result stay RUNNING and are
        resumed.
        """

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune snapshots its parts; the study is the state, and nothing is restored from a snapshot

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # Ray forgets FINISHED
        """The next trial as a Tune config, or FINISHED."""
        row = None if self.interrupted else self._next()
        if row is None:
            return str(Searcher.FINISHED)
        self._uids[trial_id] = row.uid
        return {"uid": row.uid, "number": row.number, "values": row.values, "seed": row.seed, "role": row.role}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record an epoch's `miou_epoch` (the pruner has done so already where there is one)."""
        record(self._study, self._uids[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended; a trial that it holds as finished stays as it is."""
        uid = self._uids[trial_id]
        last = result or {}
        attrs = {key: last[key] for key in RECORDED if last.get(key) is not None}
        if last.get("failed"):
            self._study.tell(uid, State.FAIL, reason=str(last["failed"]), attrs=attrs)
        elif "miou" in last and not error:
            self._study.tell(uid, State.COMPLETE, float(last["miou"]), attrs=attrs)
        elif self.interrupted or (not error and not result):
            return  # never ran, or is being stopped: resumed by the next start
        else:
            reason = self._reasons.pop(uid, None) or ("failed" if error else "ended without reporting miou")
            self._study.tell(uid, State.FAIL, reason=reason, attrs=attrs)

    def failed(self, uid: str, reason: str) -> None:
        """Remember why a trial raised, for Tune does not tell the searcher."""
        self._reasons[uid] = reason

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study is the state."""

    def _next(self) -> TrialRow | None:
        """The next trial that has to be run; those whose result is known are told on the way."""
        while not self._should_stop() or self._pending:
            row = self._pending.pop(0) if self._pending else self._ask()
            result = self._reuse(row) if row is not None else None
            if row is None or result is None:
                return row
            attrs = {key: result[key] for key in RECORDED if result.get(key) is not None}
            self._study.tell(row.uid, State.COMPLETE, float(result["miou"]), attrs=attrs)
            self._told(row.uid)
        return None

    def _ask(self) -> TrialRow | None:
        if self._new <= 0:
            return None
        self._new -= 1
        return self._study.ask()


class TrialEvents(Callback):
    """Tune's callbacks, said by uid to whoever listens in the driver."""

    def __init__(
        self,
        started: Callable[[str], None],
        reported: Callable[[str, Mapping[str, Any]], None],
        ended: Callable[[str], None],
    ) -> None:
        self._started, self._reported, self._ended = started, reported, ended

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune snapshots its parts; ours are never restored from there

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial's actor runs."""
        self._started(trial.config["uid"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported."""
        self._reported(trial.config["uid"], result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial ended or was stopped; the searcher has told the study."""
        self._ended(trial.config["uid"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A trial raised, and is not tried again."""
        self._ended(trial.config["uid"])


class StopWhen(Stopper):
    """Ends all trials as soon as `asked` says so; the study keeps those without a result as resumable."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop a trial at this report."""
        return self._asked()

    def stop_all(self) -> bool:
        """Whether to stop everything."""
        return self._asked()


class StudyPruner(FIFOScheduler):
    """Stops trials by the rule of `pruning` and by values that are not finite, and tells the study before Tune acts."""

    def __init__(self, study: Study, searcher: StudySearcher, options: Pruning, seed: int, epochs: int) -> None:
        """`epochs` is the full schedule of a trial, `seed` the search's."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._searcher = searcher
        self._options = options
        self._seed = seed
        self._rungs = pruning.rungs(epochs, options.grace, options.reduction) if options.kind == "asha" else []

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see StudySearcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Record the report; STOP when the trial is pruned or has failed."""
        uid = trial.config["uid"]
        record(self._study, uid, result)
        if result.get("failed"):
            return self._stop(uid, State.FAIL, str(result["failed"]))
        if "miou" in result or "miou_epoch" not in result or "epoch" not in result:
            return str(TrialScheduler.CONTINUE)
        epoch, value = int(result["epoch"]), float(result["miou_epoch"])
        if not math.isfinite(value):
            return self._stop(uid, State.FAIL, f"miou_epoch is {value} after epoch {epoch}")
        return self._at_rung(uid, epoch, value)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Keep the reason; whether the trial is tried again is Tune's business, how it ends the searcher's."""
        self._searcher.failed(trial.config["uid"], _last_line(trial))

    def _at_rung(self, uid: str, epoch: int, value: float) -> str:
        row = self._study.row(uid)
        rung = pruning.rung_reached(epoch, row.reports, self._rungs)
        if rung is None or row.role != SEARCH or "would_prune_at" in row.attrs:
            return str(TrialScheduler.CONTINUE)
        peers = {number: peer for number, peer in self._study.reports_at(rung).items() if number != row.number}
        decision = pruning.decide(
            value,
            list(peers.values()),
            number=row.number,
            seed=self._seed,
            reduction=self._options.reduction,
            audit=self._options.audit,
        )
        if decision is pruning.Decision.PRUNE:
            better = sum(peer > value for peer in peers.values())
            return self._stop(uid, State.PRUNED, f"after epoch {epoch}: {better} of {len(peers)} others were better")
        if decision is pruning.Decision.AUDIT:
            self._study.mark(uid, would_prune_at=epoch)
        return str(TrialScheduler.CONTINUE)

    def _stop(self, uid: str, state: State, reason: str) -> str:
        self._study.tell(uid, state, reason=reason)
        return str(TrialScheduler.STOP)


def record(study: Study, uid: str, result: Mapping[str, Any]) -> None:
    """Report `miou_epoch` at `epoch`, where a result has both and is not the last one sent again."""
    if "epoch" in result and "miou_epoch" in result:
        study.report(uid, int(result["epoch"]), float(result["miou_epoch"]))


def _last_line(trial: Trial) -> str:
    """The last line of a trial's traceback, which names the exception."""
    try:
        with open(trial.error_file, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, TypeError):
        return "failed; no traceback was kept"
    return lines[-1] if lines else "failed"
