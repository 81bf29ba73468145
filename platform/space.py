"""From domains to Optuna: distributions, drawing, the reference in Optuna's terms, and samplers that a restart does
not disturb.
"""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from cpn.errors import InputError

from .domains import (
    ChoiceDomain,
    CurveDomain,
    Drawn,
    FloatDomain,
    IntDomain,
    Search,
    active,
    contains,
    decode,
    encode,
    ordered,
)


def draw(trial: optuna.trial.BaseTrial, search: Search) -> dict[str, Any]:
    """Draw one configuration: dotted name -> plain value, only for the names whose conditions hold."""
    values: dict[str, Any] = {}
    for name in ordered(search):
        if not active(name, search, values):
            continue
        domain = search[name]
        if isinstance(domain, FloatDomain):
            values[name] = trial.suggest_float(name, *domain.ends, log=domain.log, step=domain.step)
        elif isinstance(domain, IntDomain):
            values[name] = trial.suggest_int(name, *domain.ends, log=domain.log, step=domain.step or 1)
        elif isinstance(domain, ChoiceDomain):
            stored = trial.suggest_categorical(name, [encode(value) for value in domain.choice])
            values[name] = decode(domain, stored)
    return values


def decode_params(params: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """The plain values behind a trial's stored Optuna parameters, in the order of the search."""
    plain: dict[str, Any] = {}
    for name in ordered(search):
        if name in params:
            domain = search[name]
            plain[name] = decode(domain, params[name]) if isinstance(domain, ChoiceDomain) else params[name]
    return plain


def reference_values(search: Search, base: Mapping[str, Any]) -> dict[str, Any]:
    """The reference: the base configuration's own values (dotted names) of the searched names that are active there.

    They may lie outside their domains: the paper's setting is compared with, whether or not the search could reach it.
    """
    values: dict[str, Any] = {}
    for name in ordered(search):
        if active(name, search, values):
            values[name] = base[name]
    return values


def reference_params(search: Search, values: Mapping[str, Any]) -> dict[str, tuple[Any, BaseDistribution]]:
    """What Optuna is told about the reference: name -> (stored value, distribution).

    A number outside its domain is moved to the nearest possible one, and a choice that is not listed is left out:
    samplers learn from the reference, and refuse or mislearn values that they could never draw. The true values go
    with the trial as an attribute.
    """
    told: dict[str, tuple[Any, BaseDistribution]] = {}
    for name, value in values.items():
        domain = search[name]
        if isinstance(domain, ChoiceDomain):
            if contains(domain, value):
                told[name] = encode(value), distribution(domain)
        elif not isinstance(domain, CurveDomain) and isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = domain.ends
            near = min(max(value, low), high)
            step = domain.step or (1 if isinstance(domain, IntDomain) else None)
            if step is not None:
                near = low + round((near - low) / step) * step
            told[name] = near, distribution(domain)
    return told


def distribution(domain: Drawn) -> BaseDistribution:
    """The Optuna distribution of a domain."""
    if isinstance(domain, FloatDomain):
        return FloatDistribution(*domain.ends, log=domain.log, step=domain.step)
    if isinstance(domain, IntDomain):
        return IntDistribution(*domain.ends, log=domain.log, step=domain.step or 1)
    return CategoricalDistribution([encode(value) for value in domain.choice])


def build_sampler(name: str, search_seed: int, number: int) -> BaseSampler:
    """A fresh sampler for one trial. Its seed comes from the search seed and the trial's number, not from a state that
    a restart loses.
    """
    seed = int(np.random.SeedSequence([search_seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        independent = optuna.samplers.RandomSampler(seed=seed)
        if name == "qmc":  # one scrambled sequence for the whole search; the study counts how far it is used
            return optuna.samplers.QMCSampler(
                seed=search_seed, scramble=True, independent_sampler=independent, warn_independent_sampling=False
            )
        if name == "gp":
            return optuna.samplers.GPSampler(
                seed=seed,
                independent_sampler=independent,
                warn_independent_sampling=False,
                deterministic_objective=False,
            )
        if name == "cmaes":
            if importlib.util.find_spec("cmaes") is None:  # Optuna itself would find out at the second trial
                raise InputError("search_options.sampler: cmaes is not installed; pip install cmaes, or take tpe")
            return optuna.samplers.CmaEsSampler(
                seed=seed, independent_sampler=independent, warn_independent_sampling=False
            )
    raise InputError(f"search_options.sampler: {name!r} is unknown; take tpe, random, qmc, cmaes or gp")


class SeededSampler(BaseSampler):
    """Hands every trial to a sampler built for its number."""

    def __init__(self, name: str, search_seed: int) -> None:
        self._name = name
        self._search_seed = search_seed
        self._built: tuple[int, BaseSampler] | None = None
        build_sampler(name, search_seed, 0)  # a missing package is found before the first trial

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._built is None or self._built[0] != trial.number:
            self._built = trial.number, build_sampler(self._name, self._search_seed, trial.number)
        return self._built[1]

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._of(trial).after_trial(study, trial, state, values)
