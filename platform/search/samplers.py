"""The samplers by name, each seeded per trial from the search's seed and the trial's number, so that a restart draws on
as if nothing had happened.

| name   | learns | conditional names (`when`) |
|--------|--------|----------------------------|
| gp     | yes    | one Gaussian process; a name that does not exist counts as standing at its middle |
| tpe    | yes    | Optuna's `group`: each set of names that exist together has its own densities |
| qmc    | no     | one Sobol point in all names for each trial; a coordinate is idle where its name does not exist |
| random | no     | drawn only where they exist |
| grid   | no     | combinations only where they exist, each once |
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ..config.sections import SearchOptions
from ..config.space import grid
from ..config.space.domains import Search, active, drawn, encode, ordered
from ..config.space.points import Cube
from ..config.space.unit_cube import from_unit
from .distributions import decode_params, distribution
from .gaussian_process import expected_gain, most_hopeful
from .history import StudyView, capped, final_scores

STARTUP = 8
"""Trials that gp spreads evenly over the space before it asks its model, the reference among them."""
MOST_POINTS = 300
"""Finished trials that gp looks at, at most: a draw takes the cube of it."""


def build_sampler(
    options: SearchOptions, search: Search, reference: dict[str, Any], history: Sequence[FrozenTrial] = ()
) -> BaseSampler:
    """Return the sampler of a search. `reference` are the values of trial 0, which grid does not repeat; `history` are
    the finished trials of other sweeps.
    """
    if options.sampler == "gp":
        return Gp(options, search, history)
    if options.sampler == "tpe":
        return Learner(options, search, history)
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
        """Return the names that are drawn together."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of the names that are drawn together; Optuna takes those that exist in this trial."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a value of a name that is drawn alone."""
        rng = np.random.default_rng([self._options.seed, trial.number, self._names.index(param_name)])
        return self._stored({param_name: rng.random()})[param_name]

    def _stored(self, units: Mapping[str, float]) -> dict[str, Any]:
        return {name: encode(from_unit(self._search[name], float(u))) for name, u in units.items()}

    def _sobol(self, number: int) -> dict[str, Any]:
        """Point `number` of one scrambled Sobol sequence over all names."""
        from scipy.stats import qmc  # seconds to load, for two samplers alone

        sequence = qmc.Sobol(len(self._names), scramble=True, rng=self._options.seed)
        if number:
            sequence.fast_forward(number)
        return self._stored(dict(zip(self._names, sequence.random(1)[0], strict=True)))

    def _all(self) -> dict[str, BaseDistribution]:
        return {name: distribution(self._search[name]) for name in self._names}


class Sobol(Independent):
    """`qmc`: trial n takes point n of one scrambled Sobol sequence. Optuna's own gives conditional names no axis."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._all()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sobol(trial.number)


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


class Gp(Independent):
    """`gp`: the point where a Gaussian process over all names hopes for most; see `gaussian_process.py`.

    A name that does not exist stands at the middle of its domain, so that what is learned of the others with one value
    of a choice counts with another as far as the scores bear it out. Trials that run or failed count as having met
    expectations: nothing is drawn beside them until more is known.
    """

    def __init__(self, options: SearchOptions, search: Search, history: Sequence[FrozenTrial]) -> None:
        super().__init__(options, search)
        self._cube = Cube(search)
        self._history = list(history)
        self._most = min(options.history or MOST_POINTS, MOST_POINTS)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._all()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = study.get_trials(deepcopy=False)
        known = self._known(trials)
        if len(known) < 2 or (trial.number < STARTUP and not self._history):
            return self._sobol(trial.number)
        points, scores = (np.array(column) for column in zip(*known, strict=True))
        pending = self._pending(trials, trial.number)
        point = most_hopeful(self._cube, points, scores, pending, self._options.seed, trial.number)
        return {name: encode(value) for name, value in self._cube.values(point).items()}

    def expected_gain(self, study: optuna.Study, draws: int) -> float | None:
        """By how much the study's next trials are expected to raise its best score; None where nothing is known."""
        trials = study.get_trials(deepcopy=False)
        known = self._known(trials)
        if len(known) < 2:
            return None
        points, scores = (np.array(column) for column in zip(*known, strict=True))
        return expected_gain(self._cube, points, scores, self._pending(trials), draws, self._options.seed, len(trials))

    def _known(self, trials: Sequence[FrozenTrial]) -> list[tuple[NDArray[np.float64], float]]:
        """Return the trials that have a score, in the cube, with it."""
        scored = final_scores(capped([*self._history, *trials], self._most))
        return [(point, score) for t, score in scored if (point := self._point(t)) is not None]

    def _pending(self, trials: Sequence[FrozenTrial], drawn: int | None = None) -> NDArray[np.float64]:
        """Return those that run or failed, but for the one that is being drawn."""
        waiting = [t for t in trials if t.state in (TrialState.RUNNING, TrialState.FAIL) and t.number != drawn]
        return np.array([point for t in waiting[-MOST_POINTS:] if (point := self._point(t)) is not None])

    def _point(self, trial: FrozenTrial) -> NDArray[np.float64] | None:
        """Return the trial in the cube; None where it lacks a name that exists there: a reference outside the space."""
        values = decode_params(trial.params, self._search)
        if any(name not in values and active(name, self._search, values) for name in self._names):
            return None
        return self._cube.point(values)


class Learner(BaseSampler):
    """`tpe`: Optuna's own, built anew for each trial, over what `history.py` lets it see."""

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
            running = [other for other in trials if other.state == TrialState.RUNNING]
            seen = cast(optuna.Study, StudyView(study, [*done, *running]))
            self._built = trial.number, _learner(self._options, trial.number), seen
        return self._built[1], self._built[2]


def _learner(options: SearchOptions, number: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([options.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
