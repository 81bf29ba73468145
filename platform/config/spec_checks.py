"""What a specification's search has to hold before anything starts: names, domains, sampler, and that it can end."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationError

from cpn.config import RUN_SECTIONS, WITHOUT_EFFECT, known_names, nearest, to_dotted, with_values
from cpn.config.cam import BETAS
from cpn.core.errors import InputError

from .cost_extremes import extreme_values
from .space import grid
from .space.beta_range import is_within
from .space.domains import CURVE, ChoiceDomain, CurveDomain, Drawn, FloatDomain, condition_problem, drawn
from .sweep_spec import SweepSpec

DECIDE_TRAINING = (
    "train.objective", "network.pcm", "network.prcm", "loss.w_cls", "loss.w_tcp", "loss.w_cpcr", "loss.amp_weight",
    "loss.tcp_refined",
)  # fmt: skip
"""The names that decide what the losses reach."""
SEED = "train.seed"
LEARNING = ("gp", "tpe")
"""The samplers that learn from finished trials."""


def check_search(spec: SweepSpec, source: str) -> None:
    """Check every searched name against the method's configuration, every condition, and that the sweep can end."""
    problem = condition_problem(spec.search)
    if problem is not None:
        raise InputError(f"{source}: search.{problem[0]}: {problem[1]}")
    for name, domain in spec.search.items():
        where = f"{source}: search.{name}"
        if name not in value_names():
            raise InputError(f"{where}: unknown key{nearest(name, value_names())}")
        if isinstance(domain, CurveDomain) != (name == CURVE):
            cure = "beta is read off the curve; write {curve: true} or {float: [low, high]}, without step, log or when"
            raise InputError(f"{where}: {cure if name == CURVE else 'only cam.beta has a curve'}")
        if isinstance(domain, CurveDomain) and domain.within and not any(is_within(b, domain.within) for b in BETAS):
            raise InputError(f"{where}: {list(domain.within)} holds no point of the curve, 0, .02, ... 1.2; widen it")
        if name == SEED:
            raise InputError(f"{where}: the best of several seeds is luck, and confirm runs draw their own; drop it")
        if name in WITHOUT_EFFECT or name.partition(".")[0] not in RUN_SECTIONS:
            raise InputError(f"{where}: changes no trial's miou; set it in base instead")
        if not isinstance(domain, CurveDomain):
            _check_field(spec, name, domain, where)
    _check_losses(spec, source)
    _check_sampler(spec, source)
    _check_workers(spec, source)
    check_gain(spec, source)
    budget = spec.budget
    limits = (spec.trial_limit, budget.wall_hours, budget.gpu_hours, budget.target_miou, budget.plateau_trials)
    if all(limit is None for limit in limits):
        raise InputError(f"{source}: budget: the sweep would never end; give budget.trials (or hours, target, plateau)")


def _check_losses(spec: SweepSpec, source: str) -> None:
    """Refuse a search that can draw weights of the losses that together train nothing, though each alone is
    possible.
    """
    base = to_dotted(spec.base_config)
    lowest = {name: base[name] for name in ("loss.w_cls", "loss.w_tcp")}
    for name, domain in drawn(spec.search).items():
        if name in lowest:
            candidates: list[Any] = list(domain.choice if isinstance(domain, ChoiceDomain) else domain.ends)
            lowest[name] = min(map(float, candidates))
    if any(lowest.values()):
        return
    for corner in extreme_values(spec, DECIDE_TRAINING, low_ends=True):
        try:
            with_values(spec.base_config, corner, "-")
        except InputError as error:
            zero = next((name for name in corner if name.startswith("loss.w_")), next(iter(corner), "loss.w_cls"))
            cause = str(error).removeprefix("-: ")
            raise InputError(
                f"{source}: search.{zero}: a trial can draw {', '.join(f'{n}={v}' for n, v in corner.items())}, which "
                f"is not possible ({cause}); raise the low end of one weight"
            ) from None


def _check_sampler(spec: SweepSpec, source: str) -> None:
    """Check that the sampler can draw from the search, and learn what it is to learn."""
    options = spec.search_options
    problem = grid.problem(spec.search) if options.sampler == "grid" else None
    if problem is not None:
        raise InputError(f"{source}: search.{problem[0]}: {problem[1]}")
    where = f"{source}: search_options"
    if options.warm_start and options.sampler not in LEARNING:
        raise InputError(f"{where}.warm_start: {options.sampler} learns from nothing; take gp or tpe, or drop it")
    if spec.name in options.warm_start:
        raise InputError(f"{where}.warm_start: {spec.name} is this sweep itself; name an earlier one")


def check_gain(spec: SweepSpec, source: str, cure: str = "take search_options.sampler=gp, or drop it") -> None:
    """Check that the sampler can say what more trials would gain, where the budget asks for it."""
    if spec.budget.min_gain_per_gpu_hour is None:
        return
    where = f"{source}: budget.min_gain_per_gpu_hour"
    if spec.table is not None:
        raise InputError(f"{where}: a table searches nothing, so there is no gain to expect; drop it")
    if spec.search_options.sampler != "gp":
        raise InputError(f"{where}: only the sampler gp expects a gain, this is {spec.search_options.sampler}; {cure}")


def _check_workers(spec: SweepSpec, source: str) -> None:
    """Check that every number of workers that an elastic trial may come to shares a batch evenly."""
    resources, batch = spec.resources, spec.base_config.train.batch_size
    if resources.min_workers is None:
        return
    for workers in range(resources.min_workers, resources.workers + 1):
        if batch % workers:
            raise InputError(
                f"{source}: resources.min_workers: a trial may come to {workers} workers, which do not divide "
                f"train.batch_size, {batch}; raise min_workers, or change the batch"
            )


def _check_field(spec: SweepSpec, name: str, domain: Drawn, where: str) -> None:
    """Build the configuration at the ends of a domain, or with each choice."""
    if isinstance(domain, ChoiceDomain):
        probes: list[Any] = list(domain.choice)
    else:
        probes = list(domain.ends)
    for value in probes:
        try:
            with_values(spec.base_config, {name: value}, "-")
        except InputError as error:
            cause = str(error).removeprefix("-: ").removeprefix(f"{name}: ")
            raise InputError(f"{where}: {value!r} is not possible there ({cause}); narrow the domain") from None
    if isinstance(domain, FloatDomain) and domain.step is None and domain.ends[0] < domain.ends[1]:
        inside = domain.ends[0] + (domain.ends[1] - domain.ends[0]) * 0.381966  # no whole number
        try:
            with_values(spec.base_config, {name: inside}, "-")
        except InputError:
            low, high = (int(end) for end in domain.ends)
            raise InputError(f"{where}: float for a field of whole numbers; write {{int: [{low}, {high}]}}") from None


def meant_search(spec: SweepSpec, source: str) -> dict[str, Any]:
    """Return the search with every choice, and every condition on one, as its name holds it: `yes` for a name of true
    and false is true, '4' for a whole number is 4. As they stand the reference's own value would be none of them, and
    silently leave the search.
    """
    meanings: dict[str, dict[tuple[type, Any], Any]] = {}
    for name, domain in spec.search.items():
        if isinstance(domain, ChoiceDomain):
            parsed = [to_dotted(with_values(spec.base_config, {name: value}, "-"))[name] for value in domain.choice]
            pairs = [(old, list(new) if isinstance(new, tuple) else new)
                     for old, new in zip(domain.choice, parsed, strict=True)]  # fmt: skip
            # 1 for 1.0 is found as it stands, and a study that has it goes on.
            meanings[name] = {_as_written(old): old if _alike(old, new) else new for old, new in pairs}
    meant: dict[str, Any] = {}
    for name, domain in spec.search.items():
        changed: dict[str, Any] = {}
        if isinstance(domain, ChoiceDomain):
            changed["choice"] = list(meanings[name].values())
        if not isinstance(domain, CurveDomain) and domain.when is not None:
            changed["when"] = {parent: _meant_condition(wanted, meanings.get(parent, {}))
                               for parent, wanted in domain.when.items()}  # fmt: skip
        written = domain.model_dump(by_alias=True, exclude_none=True)
        if changed and any(_as_written(written[key]) != _as_written(value) for key, value in changed.items()):
            try:
                meant[name] = type(domain).model_validate({**written, **changed})
            except ValidationError as error:
                cause = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise InputError(f"{source}: search.{name}: {cause}") from None
        else:
            meant[name] = domain
    return meant


def _meant_condition(wanted: Any, meanings: dict[tuple[type, Any], Any]) -> Any:
    if _as_written(wanted) in meanings:
        return meanings[_as_written(wanted)]
    return [meanings.get(_as_written(item), item) for item in wanted] if isinstance(wanted, list) else wanted


def _alike(old: Any, new: Any) -> bool:
    return not isinstance(new, list) and old == new and isinstance(old, bool) == isinstance(new, bool)


def _as_written(value: Any) -> tuple[type, Any]:
    """Return a value with its type, so that 1, 1.0 and true are three."""
    if isinstance(value, Mapping):
        return dict, tuple((key, _as_written(item)) for key, item in value.items())
    return (list, tuple(map(_as_written, value))) if isinstance(value, list | tuple) else (type(value), value)


@cache
def value_names() -> tuple[str, ...]:
    """Return the method's dotted names, sections left out."""
    names = known_names()
    sections = {name.rpartition(".")[0] for name in names}
    return tuple(name for name in names if name not in sections)
