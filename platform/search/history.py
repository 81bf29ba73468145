"""What a sampler that learns gets to see: the study's trials, those of other sweeps, and no more of them than helps."""

import copy
import heapq
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..config.space.domains import Search, active, encode, ordered
from ..config.space.unit_cube import from_unit
from .distributions import decode_params, distribution

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


def completed(trials: Sequence[FrozenTrial], search: Search) -> list[FrozenTrial]:
    """Copies in which every searched name has a value, for samplers that know no conditions: a name that does not exist
    beside the others stands at the middle of its domain. A trial that lacks a name which does exist there (a reference
    outside the space) is left out.
    """
    filled = []
    for trial in trials:
        values = decode_params(trial.params, search)
        missing = [name for name in ordered(search) if name not in values]
        if any(active(name, search, values) for name in missing):
            continue
        whole = copy.copy(trial)
        whole.params = {**trial.params, **{name: encode(from_unit(search[name], 0.5)) for name in missing}}  # type: ignore[arg-type]
        whole.distributions = {name: distribution(search[name]) for name in whole.params}  # type: ignore[arg-type]
        filled.append(whole)
    return filled
