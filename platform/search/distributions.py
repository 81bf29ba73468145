"""From domains to Optuna: distributions, drawing, and given values in Optuna's terms."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from ..config.space.domains import (
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
    """Return the plain values behind a trial's stored Optuna parameters, in the order of the search."""
    plain: dict[str, Any] = {}
    for name in ordered(search):
        if name in params:
            domain = search[name]
            plain[name] = decode(domain, params[name]) if isinstance(domain, ChoiceDomain) else params[name]
    return plain


def told_params(search: Search, values: Mapping[str, Any]) -> dict[str, tuple[Any, BaseDistribution]]:
    """Return what Optuna is told about given values: name -> (stored value, distribution).

    The reference may lie outside the space. A number outside its domain is moved to the nearest possible one, and a
    choice that is not listed is left out: samplers learn from the reference, and refuse or mislearn values that they
    could never draw. The true values go with the trial as an attribute.
    """
    params: dict[str, tuple[Any, BaseDistribution]] = {}
    for name, value in values.items():
        domain = search[name]
        if isinstance(domain, ChoiceDomain):
            if contains(domain, value):
                params[name] = encode(value), distribution(domain)
        elif not isinstance(domain, CurveDomain) and isinstance(value, (int, float)) and not isinstance(value, bool):
            low, high = domain.ends
            near = min(max(value, low), high)
            step = domain.step or (1 if isinstance(domain, IntDomain) else None)
            if step is not None:
                near = low + round((near - low) / step) * step
            params[name] = near, distribution(domain)
    return params


def distribution(domain: Drawn) -> BaseDistribution:
    """Return the Optuna distribution of a domain."""
    if isinstance(domain, FloatDomain):
        return FloatDistribution(*domain.ends, log=domain.log, step=domain.step)
    if isinstance(domain, IntDomain):
        return IntDistribution(*domain.ends, log=domain.log, step=domain.step or 1)
    return CategoricalDistribution([encode(value) for value in domain.choice])


def told_trial(search: Search, values: Mapping[str, Any], value: float | None) -> FrozenTrial:
    """Return a finished trial of another sweep, in this search's terms."""
    params = told_params(search, values)
    return optuna.trial.create_trial(
        value=value,
        params={name: stored for name, (stored, _) in params.items()},
        distributions={name: where for name, (_, where) in params.items()},
    )


def waiting_trial(entry: Mapping[str, Any], params: Mapping[str, tuple[Any, Any]]) -> FrozenTrial:
    """Return a waiting trial whose values are given, not drawn; `params` is what a sampler may learn of it."""
    return optuna.trial.create_trial(
        state=TrialState.WAITING,
        params={name: value for name, (value, _) in params.items()},
        distributions={name: distribution for name, (_, distribution) in params.items()},
        user_attrs=dict(entry),
    )
