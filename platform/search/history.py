"""What a sampler that learns gets to see: the study's trials, those of other sweeps, and no more of them than helps."""

import copy
import heapq
import statistics
from collections.abc import Container, Sequence
from functools import cache
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

BEST_SHARE = 0.1
"""Share of the trials looked at that are the best of all; the others are the newest."""


class StudyView:
    """An Optuna study with these trials and no others; everything else is the study's."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self._seen_study, self._seen_trials = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen_study, name)

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """As in Optuna."""
        trials = [trial for trial in self._seen_trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return `get_trials`, under the name that Optuna's own samplers call."""
        return self.get_trials(deepcopy, states)


def capped(trials: Sequence[FrozenTrial], most: int | None) -> list[FrozenTrial]:
    """COMPLETE and PRUNED trials in their order, at most `most`: the best tenth and the newest of the others. TPE calls
    at most its best 25 good, whatever it sees, and weighs the others by their age.
    """
    done = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if most is None or len(done) <= most:
        return done
    complete = [(trial.values[0], -i) for i, trial in enumerate(done) if trial.state == TrialState.COMPLETE]
    keep = {-i for _, i in heapq.nlargest(round(BEST_SHARE * most), complete)}
    for i in reversed(range(len(done))):
        if len(keep) == most:
            break
        keep.add(i)
    return [done[i] for i in sorted(keep)]


def final_scores(trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, float]]:
    """Return each trial with its score. A PRUNED one gets what it had when it was stopped, and what those that ran to
    their end gained from that epoch on, in the median; while none has, it is left out.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]

    @cache
    def gain(epoch: int) -> float | None:
        gains = [t.values[0] - t.intermediate_values[epoch] for t in complete if epoch in t.intermediate_values]
        return statistics.median(gains) if gains else None

    scored = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            scored.append((trial, trial.values[0]))
        elif trial.intermediate_values:
            last = max(trial.intermediate_values)
            more = gain(last)
            if more is not None:
                scored.append((trial, trial.intermediate_values[last] + more))
    return scored
