"""Ray Tune's suggest, result and complete over the study; the only state is the study's, so that a kill loses nothing.

    searcher = StudySearcher(study, limit=spec.trial_limit, should_stop=budget_used)
    scheduler = StudyPruner(study, searcher, spec.pruning, spec.search_options.seed, epochs, say)
    Tuner(trainable, tune_config=TuneConfig(search_alg=searcher, scheduler=scheduler, num_samples=-1,
    max_concurrent_trials=n))

The trainable gets {uid, number, values, seed, role} and reports {epoch, miou_epoch} after each epoch, at the end also
{miou, ...}; a report with `failed: reason` ends the trial as FAIL.
"""

import errno
import math
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ..config.sections import Pruning
from ..search import pruning, pruning_audit
from ..search.study import SEARCH, State, Study, TrialRow

RECORDED = (
    "beta", "miou", "miou_epoch", "miou_fixed_beta", "miou_confirm", "miou_train", "mask_free", "mask_free_epoch",
    "mask_free_confirm", "classification_map", "cp_agreement", "seconds", "run_key", "reused_from",
)  # fmt: skip
"""Keys of the last result that are kept as the trial's attributes, besides the objective."""
FULL = tuple(f"[Errno {number}]" for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS))
"""How a traceback names a disk that takes nothing more: no space, no share of it left, a limit, read-only."""


class StudySearcher(Searcher):
    """Hand out the study's unfinished trials under their own uid, then new ones, and record how each ended."""

    def __init__(
        self,
        study: Study,
        limit: int | None = None,
        should_stop: Callable[[], bool] | None = None,
        reuse: Callable[[TrialRow], Mapping[str, Any] | None] | None = None,
        ended: Callable[[str], None] | None = None,
        claim: Callable[[TrialRow], bool] | None = None,
        enough: Callable[[], bool] | None = None,
    ) -> None:
        """`limit` is the number of trials that the study may come to hold; `should_stop` is asked before each
        trial. `reuse` may give the metrics of a finished run of the same configuration: such a trial is recorded at
        once and never started, and `ended` is called with its uid. `claim` says whether a trial's run is free.
        `enough` is asked before a trial is drawn, and ends the drawing alone.
        """
        super().__init__(metric=None, mode="max")  # no metric: an epoch's report lacks the objective
        self._study = study
        self._objective = objective_of(study)
        self._should_stop = should_stop or (lambda: False)
        self._reuse = reuse or (lambda row: None)
        self._ended = ended or (lambda uid: None)
        self._claim = claim or (lambda row: True)
        self._enough = enough or (lambda: False)
        self._pending = study.unfinished()
        counts = study.counts()
        waiting = counts[State.WAITING]
        existing = sum(counts.values())
        self._new = math.inf if limit is None else waiting + max(0, limit - existing)
        self._uids: dict[str, str] = {}
        self._running: dict[str, dict[str, Any]] = {}
        self._reasons: dict[str, str] = {}
        self._had: dict[str, int] = {}
        self.halted: str | None = None
        """Why nothing can run any more, whichever trial it is; set with `interrupted`."""
        self.interrupted = False
        """Set when the driver is being stopped: trials that end from now on without a result stay RUNNING and are
        resumed.
        """

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune snapshots its parts; the study is the state, and nothing is restored from a snapshot

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray forgets FINISHED
        """Return the next trial as a Tune config, FINISHED when there is none, or None while there are only such to
        wait for.

        A trial whose configuration runs already, here or in another sweep, waits: that result will be its own, and two
        runs at a time would write to one folder. Others go ahead of it. At most one more waits than runs: what is drawn
        early learns from less.
        """
        waiting: list[TrialRow] = []
        row = self._next()
        while row is not None and (row.values in self._running.values() or not self._claim(row)):
            waiting.append(row)
            row = self._next() if len(waiting) <= len(self._running) else None
        self._pending = waiting + self._pending
        if row is None:
            return None if waiting else str(Searcher.FINISHED)
        self._uids[trial_id] = row.uid
        self._had[row.uid] = self._study.row(row.uid).epochs
        self._running[trial_id] = row.values
        return {"uid": row.uid, "number": row.number, "values": row.values, "seed": row.seed, "role": row.role}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record an epoch's `miou_epoch` (the pruner has done so already where there is one)."""
        record(self._study, self._uids[trial_id], result, self._objective)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended; a trial that it holds as finished stays as it is."""
        uid = self._uids[trial_id]
        self._running.pop(trial_id, None)
        last = result or {}
        attrs = self._attributes(last)
        if last.get("failed"):
            self._study.tell(uid, State.FAIL, reason=str(last["failed"]), attrs=attrs)
        elif self._objective in last and not error:
            self._study.tell(uid, State.COMPLETE, float(last[self._objective]), attrs=attrs)
        elif self.interrupted or (not error and not result):
            return  # never ran, or is being stopped: resumed by the next start
        elif error and self._study.row(uid).epochs > self._had[uid]:
            # It got further before it died. Machines die more often than a long trial may; what ends the same way again
            # gets no further, and is told as failed then.
            self._pending.append(self._study.row(uid))
        else:
            reason = self._reasons.pop(uid, None) or (
                "failed" if error else f"ended without reporting {self._objective}"
            )
            self._study.tell(uid, State.FAIL, reason=reason, attrs=attrs)

    @property
    def left(self) -> bool:
        """Whether trials wait to run on; Tune asks for none any more once it was told FINISHED."""
        return bool(self._pending) and not self.interrupted

    def failed(self, uid: str, reason: str) -> None:
        """Remember why a trial raised, for Tune does not tell the searcher. No trial is to blame for a full disk: all
        stay resumable, and nothing more is started.
        """
        self._reasons[uid] = reason
        if any(words in reason for words in FULL):
            self.interrupted, self.halted = True, reason

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study is the state."""

    def _next(self) -> TrialRow | None:
        """Return the next trial that has to be run; record those whose result is known on the way."""
        while not self.interrupted:
            if self._should_stop():  # what waits stays resumable too
                self.interrupted = True
                break
            row = self._pending.pop(0) if self._pending else self._ask()
            result = self._reuse(row) if row is not None else None
            if row is None or result is None:
                return row
            for epoch, value in result.get("reports", {}).items():
                self._study.report(row.uid, epoch, value)
            self._study.tell(row.uid, State.COMPLETE, float(result[self._objective]), attrs=self._attributes(result))
            self._ended(row.uid)
        return None

    def _attributes(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes recorded of a trial's last result, besides its value."""
        return {key: result[key] for key in RECORDED if key != self._objective and result.get(key) is not None}

    def _ask(self) -> TrialRow | None:
        if self._new <= 0 or self._enough():
            self._new = 0
            return None
        self._new -= 1
        return self._study.ask()


class TrialEvents(Callback):
    """Forward Tune's callbacks, by uid, to the listeners in the driver."""

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
        """Hear that a trial's actor runs."""
        self._started(trial.config["uid"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Hear that a trial reported."""
        self._reported(trial.config["uid"], result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hear that a trial ended or was stopped; the searcher has told the study."""
        self._ended(trial.config["uid"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Hear that a trial raised, and is not tried again."""
        self._ended(trial.config["uid"])


class StopWhen(Stopper):
    """Ends all trials as soon as `asked` says so; the study keeps those without a result as resumable."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether to stop a trial at this report."""
        return self._asked()

    def stop_all(self) -> bool:
        """Return whether to stop everything."""
        return self._asked()


class StudyPruner(FIFOScheduler):
    """Stops trials by the rule of `pruning` and by values that are not finite, and tells the study before Tune acts.

    What it knows of other trials it reads from the study when the first trial reaches a rung; what it decides about
    itself (that it is switched off, and when it last looked) it keeps there.
    """

    def __init__(
        self,
        study: Study,
        searcher: StudySearcher,
        options: Pruning,
        seed: int,
        epochs: int,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`epochs` is the base's full schedule (a trial may have its own), `seed` the search's; `say` hears when
        pruning switches itself off, and once more after each restart.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._objective = objective_of(study)
        self._searcher = searcher
        self._options = options
        self._seed = seed
        self._epochs = epochs
        self._say = say or (lambda line: None)
        self._values: dict[float, dict[int, float]] | None = None
        self._marked: dict[float, set[int]] = {}
        self._finished: set[int] = set()
        self._off: dict[str, str] = {}
        self._looked: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see StudySearcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Record the report; STOP when the trial is pruned or has failed."""
        uid = trial.config["uid"]
        key = f"{self._objective}_epoch"
        record(self._study, uid, result, self._objective)
        if result.get("failed"):
            return self._stop(uid, State.FAIL, str(result["failed"]))
        if self._objective in result or key not in result or "epoch" not in result:
            return str(TrialScheduler.CONTINUE)
        epoch, value = int(result["epoch"]), float(result[key])
        if not math.isfinite(value):
            return self._stop(uid, State.FAIL, f"{key} is {value} after epoch {epoch}")
        return self._at_rung(uid, epoch, value) if self._options.kind == "asha" else str(TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Keep the reason; whether the trial is tried again is Tune's business, how it ends the searcher's."""
        self._searcher.failed(trial.config["uid"], _last_line(trial))

    def _at_rung(self, uid: str, epoch: int, value: float) -> str:
        row = self._study.row(uid)
        share = pruning.rung_reached(epoch, row.reports, self._rungs_of(row))
        if share is None:
            return str(TrialScheduler.CONTINUE)
        at = self._read().setdefault(share, {})
        peers = [peer for number, peer in at.items() if number != row.number]
        at[row.number] = value
        if row.role != SEARCH or row.would_prune_at is not None:
            return str(TrialScheduler.CONTINUE)
        marked = self._marked.setdefault(share, set())
        decision = pruning.decide(
            value,
            peers,
            number=row.number,
            seed=self._seed,
            reduction=self._options.reduction,
            audit=self._audit_share(share, len(marked)),
        )
        if decision is pruning.Decision.PRUNE:
            better = sum(peer > value for peer in peers)
            reason = f"after epoch {epoch}: {better} of {len(peers)} others were better"
            return self._stop(uid, State.PRUNED, reason, {"pruned_at": share})
        if decision is pruning.Decision.AUDIT:
            self._study.mark(uid, would_prune_at=share)
            marked.add(row.number)
        return str(TrialScheduler.CONTINUE)

    def _audit_share(self, share: float, marked: int) -> float:
        """Return how many of the would-be-pruned run on now: all while pruning has not proved itself, and once it is
        off.
        """
        if self._options.audit == 0:
            return 0.0
        self._look(share)
        return 1.0 if f"{share:g}" in self._off or marked < self._options.min_audited else self._options.audit

    def _look(self, share: float) -> None:
        """Switch pruning off at a rung where it does not foretell the end. Looks again whenever a quarter more audited
        trials have finished: to look at each would find a low value by chance in the end, and read the study each time.
        """
        key = f"{share:g}"
        if key in self._off:
            return
        running = self._marked.get(share, set()) - self._finished
        self._finished |= {n for n in running if self._study.row(self._study.uid(n)).state is State.COMPLETE}
        finished = len(self._finished & self._marked.get(share, set()))
        before = self._looked.get(key, 0)
        if finished < max(1, self._options.min_audited, math.ceil(before * 1.25), before + 1):
            return
        measured = pruning_audit.agreement(self._study.rows(), share, self._rungs_of)
        if measured.trials < pruning_audit.LEAST_PAIRS:
            return
        self._looked[key] = finished
        if pruning_audit.is_too_low(measured, self._options):
            self._off[key] = pruning_audit.switched_off(measured, share, self._options)
        self._study.remember("pruning", {"off": self._off, "looked": self._looked})
        if key in self._off:
            self._say(self._off[key])

    def _rungs_of(self, row: TrialRow) -> dict[float, int]:
        epochs = int(row.values.get("train.epochs", self._epochs))
        return pruning.rungs(epochs, self._options.grace, self._options.reduction)

    def _read(self) -> dict[float, dict[int, float]]:
        """Return the share of the schedule -> trial number -> its value there; read from the study once, then
        kept up.
        """
        if self._values is None:
            self._values = {}
            for row in self._study.rows():
                for share, rung in self._rungs_of(row).items():
                    value = pruning.value_at(rung, row.reports)
                    if value is not None:
                        self._values.setdefault(share, {})[row.number] = value
                if row.would_prune_at is not None:
                    self._marked.setdefault(row.would_prune_at, set()).add(row.number)
            remembered = self._study.remembered("pruning")
            self._off, self._looked = dict(remembered.get("off", {})), dict(remembered.get("looked", {}))
            for line in self._off.values():
                self._say(line)
        return self._values

    def _stop(self, uid: str, state: State, reason: str, attrs: Mapping[str, Any] | None = None) -> str:
        self._study.tell(uid, state, reason=reason, attrs=attrs)
        return str(TrialScheduler.STOP)


def objective_of(study: Study) -> str:
    """Return the key of what the study maximises; epochs report it with `_epoch` behind."""
    return study.identity().metric


def record(study: Study, uid: str, result: Mapping[str, Any], objective: str) -> None:
    """Report the objective's value at `epoch`, where a result has both and is not the last one sent again."""
    key = f"{objective}_epoch"
    if "epoch" in result and key in result:
        study.report(uid, int(result["epoch"]), float(result[key]))


def _last_line(trial: Trial) -> str:
    """Return the last line of a trial's traceback, which names the exception; or the one that says that a disk
    is full.
    """
    try:
        with open(trial.error_file, encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, TypeError):
        return "failed; no traceback was kept"
    full = [line for line in lines if any(words in line for words in FULL)]
    return (full or lines or ["failed"])[-1]
