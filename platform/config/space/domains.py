"""What may be searched: domains and conditions as YAML writes them. Nothing here knows Optuna.

A value with list form (`patches.K: [56, 112]`) is stored in Optuna and MLflow as the text '56,112' and is a list
everywhere else.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from cpn.config.section import Section

Scalar = str | bool | int | float | None
Wanted = Scalar | list[Scalar | list[Scalar]]
When = dict[str, Wanted]


class _Domain(Section):
    model_config = ConfigDict(strict=True)
    any_size = True

    when: When | None = None
    """Dotted names of other searched values and the value (or list of values) each must have for this one to exist."""


class FloatDomain(_Domain):
    """`{float: [low, high]}`, both ends included."""

    ends: Annotated[tuple[float, float], Field(strict=False)] = Field(alias="float")
    """Lowest and highest value."""
    log: bool = False
    """Draw uniformly in the logarithm; needs low > 0."""
    step: float | None = Field(default=None, gt=0)
    """Grid width from the low end up, or null for a continuous range."""

    @model_validator(mode="after")
    def _possible(self) -> "FloatDomain":
        _check_range(*self.ends, self.log, self.step)
        return self


class IntDomain(_Domain):
    """`{int: [low, high]}`, both ends included."""

    ends: Annotated[tuple[int, int], Field(strict=False)] = Field(alias="int")
    """Lowest and highest value."""
    log: bool = False
    """Draw uniformly in the logarithm; needs low > 0."""
    step: int | None = Field(default=None, gt=0)
    """Grid width from the low end up; null means 1."""

    @model_validator(mode="after")
    def _possible(self) -> "IntDomain":
        _check_range(*self.ends, self.log, self.step)
        return self


MOST_CHOICES = 1000
"""More are a range: each is tried on the configuration before a sweep starts, and no search comes to know them all."""


class ChoiceDomain(_Domain):
    """`{choice: [...]}`: one of a list of values, each a scalar or a list of scalars."""

    choice: list[Scalar | list[Scalar]] = Field(min_length=1)
    """The values to choose from."""

    @field_validator("choice", mode="before")
    @classmethod
    def _values(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > MOST_CHOICES:
            raise ValueError(
                f"has {len(value)} values, {MOST_CHOICES} at most; write a range: {{int: [low, high]}} or {{float: "
                "[low, high]}"
            )
        for item in value if isinstance(value, list) else ():
            for part in item if isinstance(item, list) else (item,):
                if not isinstance(part, str | int | float | None):
                    raise ValueError(f"a choice is a value or a list of values, not {part!r}; write it so")
        return value

    @model_validator(mode="after")
    def _distinct(self) -> "ChoiceDomain":
        stored = [encode(value) for value in self.choice]
        for index, value in enumerate(stored):
            if value in stored[:index]:
                raise ValueError(f"the choice {self.choice[index]!r} stands twice; keep one of them")
        return self


CURVE = "cam.beta"
"""The name that is read off a curve."""


class CurveDomain(Section):
    """`{curve: true}`, only for `cam.beta`: read off the threshold curve of every trial; costs no trial, is not drawn.
    `{float: [low, high]}` there means the same within these ends.
    """

    model_config = ConfigDict(strict=True)

    curve: Literal[True]
    """Always true."""
    within: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """Lowest and highest beta that may be chosen, or null for the whole curve."""


def _kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        kinds = [kind for kind in ("float", "int", "choice", "curve") if kind in value]
        return kinds[0] if len(kinds) == 1 else None
    for kind, model in (("float", FloatDomain), ("int", IntDomain), ("choice", ChoiceDomain), ("curve", CurveDomain)):
        if isinstance(value, model):
            return kind
    return None


Domain = Annotated[
    Annotated[FloatDomain, Tag("float")]
    | Annotated[IntDomain, Tag("int")]
    | Annotated[ChoiceDomain, Tag("choice")]
    | Annotated[CurveDomain, Tag("curve")],
    Discriminator(
        _kind,
        custom_error_type="domain",
        custom_error_message="not a domain; write {float: [low, high]}, {int: [low, high]} or {choice: [a, b]}",
    ),
]
Search = Mapping[str, FloatDomain | IntDomain | ChoiceDomain | CurveDomain]
Drawn = FloatDomain | IntDomain | ChoiceDomain


def condition_problem(search: Search) -> tuple[str, str] | None:
    """Return the first wrong `when` as (searched name, what is wrong and the cure), or None."""
    for name, domain in search.items():
        for parent, wanted in _conditions(domain).items():
            above = search.get(parent)
            if above is None:
                return name, f"`when` names {parent}, which is not searched; search it too or drop the `when`"
            if not isinstance(above, (IntDomain, ChoiceDomain)):
                return name, f"`when` names {parent}, which is no choice or int; only those have exact values"
            if not allowed(above, wanted):
                return name, f"`when` lists no value of {parent}, so it would never be drawn; name one of its values"
            for value in allowed(above, wanted):
                if not contains(above, value):
                    return (
                        name,
                        f"`when` wants {parent} to be {value!r}, which it never is; name one of its values",
                    )
    try:
        ordered(search)
    except ValueError as error:
        return str(error), "its `when` leads back to itself; drop one of the conditions"
    return None


def ordered(search: Search) -> list[str]:
    """Return the drawn names in file order, but each after the names that its `when` asks for. ValueError(name) on a
    cycle.
    """
    done: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(name)
        if name in done:
            return
        for parent in _conditions(search[name]):
            visit(parent, (*above, name))
        done.append(name)

    for name in drawn(search):
        visit(name, ())
    return done


def drawn(search: Search) -> dict[str, Drawn]:
    """Return the part of the search that Optuna draws: everything but what is read off the curve."""
    return {name: domain for name, domain in search.items() if not isinstance(domain, CurveDomain)}


def allowed(parent: Drawn, wanted: Wanted) -> list[Any]:
    """Return the values a `when` entry lists. A list that is itself one of the parent's choices is one value."""
    if isinstance(parent, ChoiceDomain) and isinstance(wanted, list) and wanted in parent.choice:
        return [wanted]
    return wanted if isinstance(wanted, list) else [wanted]


def active(name: str, search: Search, values: Mapping[str, Any]) -> bool:
    """Return whether `name` exists beside `values`, which hold the names drawn before it."""
    for parent, wanted in _conditions(search[name]).items():
        above = search[parent]
        if isinstance(above, CurveDomain) or parent not in values:
            return False
        if encode(values[parent]) not in [encode(value) for value in allowed(above, wanted)]:
            return False
    return True


def values_of_base(search: Search, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base configuration's own values (dotted names) of the searched names that are active there: the
    reference.

    They may lie outside their domains: the paper's setting is compared with, whether or not the search could reach it.
    """
    values: dict[str, Any] = {}
    for name in ordered(search):
        if active(name, search, values):
            values[name] = base[name]
    return values


def with_curve(search: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search in which a plain float range for beta stands as what it is, a part of the curve."""
    beta = search.get(CURVE)
    if not isinstance(beta, FloatDomain) or beta.log or beta.step is not None or beta.when is not None:
        return dict(search)
    return {**search, CURVE: CurveDomain(curve=True, within=beta.ends)}


def parse_search(value: Mapping[str, Any]) -> dict[str, FloatDomain | IntDomain | ChoiceDomain | CurveDomain]:
    """Return a search as it stands in YAML, or in a study's identity."""
    return TypeAdapter(dict[str, Domain]).validate_python(value)


def contains(domain: Drawn, value: Any) -> bool:
    """Return whether `value` (plain) can be drawn from `domain`; a step is not looked at."""
    if isinstance(domain, ChoiceDomain):
        return encode(value) in [encode(choice) for choice in domain.choice]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (whole or (isinstance(domain, FloatDomain) and isinstance(value, float))) and (
        domain.ends[0] <= value <= domain.ends[1]
    )


def encode(value: Any) -> Scalar:
    """Return the form in which Optuna and MLflow store a value: lists as '56,112', scalars as they are."""
    return ",".join(str(item) for item in value) if isinstance(value, (list, tuple)) else value


def decode(domain: ChoiceDomain, stored: Scalar) -> Any:
    """Return the listed choice whose stored form is `stored`; a list comes as a new list."""
    for value in domain.choice:
        if encode(value) == stored:
            return list(value) if isinstance(value, list) else value
    raise ValueError(f"{stored!r} is not among the choices")


def _conditions(domain: FloatDomain | IntDomain | ChoiceDomain | CurveDomain) -> When:
    return {} if isinstance(domain, CurveDomain) else domain.when or {}


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low {low} is above high {high}; write [{high}, {low}]")
    if log and low <= 0:
        raise ValueError(f"log needs low > 0, not {low}; raise it or drop log")
    if log and step is not None:
        raise ValueError("log and step exclude each other; drop one")
    if step is not None and not (high - low) / step < 2**53:
        raise ValueError(f"step {step} is too fine for {low} to {high}; write a larger one, or null")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
        last = low + int((high - low) / step) * step
        raise ValueError(f"high {high} is not low {low} plus whole steps of {step}; write [{low}, {round(last, 12)}]")


def domain_words(domain: object) -> str:
    """Return a domain in one cell: `float 0.1 to 10, log`."""
    dump = domain.model_dump(by_alias=True, exclude_none=True)  # type: ignore[attr-defined]
    kind = next(k for k in ("float", "int", "choice") if k in dump)
    ends = dump[kind]
    text = (
        f"{kind} {ends[0]} to {ends[1]}"
        if kind != "choice"
        else f"one of {', '.join(str(list(v) if isinstance(v, tuple) else v) for v in ends)}"
    )
    if dump.get("log"):
        text += ", log"
    conditions = [f"{name}={value}" for name, value in dump.get("when", {}).items()]
    return text + (f", when {' and '.join(conditions)}" if conditions else "")
