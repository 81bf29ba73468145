"""The samplers by name, each seeded per trial from the search's seed and the trial's number, so that a restart draws on
as if nothing had happened.

| name   | learns | conditional names (`when`) |
|--------|--------|----------------------------|
| tpe    | yes    | Optuna's `group`: each set of names that exist together has its own densities |
| gp     | yes    | Optuna's Gaussian process; a name that does not exist counts as standing at its middle |
| cmaes  | yes    | numbers only, and where one does not exist its coordinate is idle; choices are drawn at random |
| qmc    | no     | one Sobol point in all names for each trial; a coordinate is idle where its name does not exist |
| random | no     | drawn only where they exist |
| grid   | no     | combinations only where they exist, each once |
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from ..config.sections import SearchOptions
from ..config.space import grid
from ..config.space.domains import ChoiceDomain, Search, drawn, encode, ordered
from ..config.space.unit_cube import from_unit, to_unit
from .distributions import distribution
from .history import StudyView, capped, completed

GENERATION = "cma"
"""Attribute of a trial that cmaes drew: its generation and its point."""


def build_sampler(
    options: SearchOptions, search: Search, reference: dict[str, Any], history: Sequence[FrozenTrial] = ()
) -> BaseSampler:
    """The sampler of a search. `reference` are the values of trial 0, which grid does not repeat; `history` are the
    finished trials of other sweeps.
    """
    if options.sampler in ("tpe", "gp"):
        return Learner(options, search, history)
    if options.sampler == "cmaes":
        return Cma(options, search, history)
    if options.sampler == "qmc":
        return Sobol(options, search)
    if options.sampler == "grid":
        return Grid(options, search, grid.points(search, reference, options.seed))
    return Independent(options, search)


class Independent(BaseSampler):
    """Every name for itself, evenly over its domain: `random`, and whatever the samplers below leave open."""

    def __init__(self, options: SearchOptions, search: Search) -> None:
        self._options = options
        self._search = drawn(search)
        self._names = ordered(search)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The names that are drawn together."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the names that are drawn together; Optuna takes those that exist in this trial."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of a name that is drawn alone."""
        rng = np.random.default_rng([self._options.seed, trial.number, self._names.index(param_name)])
        return self._stored({param_name: rng.random()})[param_name]

    def _stored(self, units: Mapping[str, float]) -> dict[str, Any]:
        return {name: encode(from_unit(self._search[name], float(u))) for name, u in units.items()}

    def _all(self) -> dict[str, BaseDistribution]:
        return {name: distribution(self._search[name]) for name in self._names}


class Sobol(Independent):
    """`qmc`: one scrambled Sobol sequence; trial n takes its point n."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._all()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        sequence = qmc.Sobol(len(self._names), scramble=True, rng=self._options.seed)
        if trial.number:
            sequence.fast_forward(trial.number)
        return self._stored(dict(zip(self._names, sequence.random(1)[0], strict=True)))


class Grid(Independent):
    """`grid`: trial n takes the n-th combination; the study's limit ends the sweep after the last."""

    def __init__(self, options: SearchOptions, search: Search, points: Sequence[dict[str, Any]]) -> None:
        super().__init__(options, search)
        self._points = points

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._all()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {name: encode(value) for name, value in self._points[trial.number - 1].items()}


class Cma(Independent):
    """`cmaes` over the numbers of a search; see `cma.py`."""

    def __init__(self, options: SearchOptions, search: Search, history: Sequence[FrozenTrial]) -> None:
        super().__init__(options, search)
        self._numbers = [name for name in self._names if not isinstance(self._search[name], ChoiceDomain)]
        self._history = [(self._point(trial.params), trial.values[0]) for trial in history]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: distribution(self._search[name]) for name in self._numbers}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        from . import cma

        ended = []
        for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            if GENERATION in other.system_attrs:
                generation, *point = other.system_attrs[GENERATION]
                value = other.values[0] if other.values else -np.inf
                rank = (other.state == TrialState.COMPLETE, value)
                ended.append(cma.Ended(generation, np.array(point), rank))
        generation, drawn_point = cma.propose(
            len(self._numbers), ended, self._history, self._options.seed, trial.number
        )
        kept = [generation, *drawn_point.tolist()]
        study._storage.set_trial_system_attr(trial._trial_id, GENERATION, kept)
        return self._stored(dict(zip(self._numbers, drawn_point, strict=True)))

    def _point(self, params: Mapping[str, Any]) -> Any:
        """Coordinates of a trial; the middle where a name does not exist."""
        return np.array([to_unit(self._search[n], params[n]) if n in params else 0.5 for n in self._numbers])


class Learner(BaseSampler):
    """`tpe` and `gp`: Optuna's own, built anew for each trial, over what `history.py` lets them see."""

    def __init__(self, options: SearchOptions, search: Search, history: Sequence[FrozenTrial]) -> None:
        self._options = options
        self._search = drawn(search)
        self._history = list(history)
        self._built: tuple[int, BaseSampler, optuna.Study] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        inner, seen = self._for(study, trial)
        return inner.infer_relative_search_space(seen, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        inner, seen = self._for(study, trial)
        return inner.sample_relative(seen, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        inner, seen = self._for(study, trial)
        return inner.sample_independent(seen, trial, param_name, param_distribution)

    def _for(self, study: optuna.Study, trial: FrozenTrial) -> tuple[BaseSampler, optuna.Study]:
        if self._built is None or self._built[0] != trial.number:
            trials = study.get_trials(deepcopy=False)
            done = capped([*self._history, *trials], self._options.history)
            if self._options.sampler == "gp":
                done = completed(done, self._search)
            running = [other for other in trials if other.state == TrialState.RUNNING]
            seen = cast(optuna.Study, StudyView(study, [*done, *running]))
            self._built = trial.number, _learner(self._options, trial.number), seen
        return self._built[1], self._built[2]


def _learner(options: SearchOptions, number: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if options.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        return optuna.samplers.GPSampler(seed=seed, deterministic_objective=False, warn_independent_sampling=False)
