"""The base of every configuration section: frozen, strict, and documented field by field."""

import math
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationInfo, field_validator

# Upper limits of whole numbers, far above what anybody runs: what is larger is a slip of the keyboard (a 0 too many,
# pixels for centimetres), and would end in a plan of a million years or in a machine without memory.
LARGEST_SIDE = 16_384
"""Side of a crop, a patch or a scaled image, in pixels."""
LARGEST_BATCH = 65_536
"""Images a step."""
LARGEST_WIDTH = 65_536
"""Channels of a layer."""
LARGEST_RADIUS = 512
"""Radius of a random walk, and dilation of a layer, in cells of a map."""
MOST_EPOCHS = 100_000
MOST_STEPS = 100_000_000
"""Steps of an optimizer; images that an epoch shows."""
MOST_PIXELS = 10**10
"""Pixels of one view."""
MOST_IMAGES = 1_000_000
"""Scenes of a list."""
MOST_PROCESSES = 4_096
"""Loader processes of a trial; its workers."""
MOST_ITERATIONS = 1_000
"""Mean-field iterations of a CRF."""
MOST_TRIALS = 1_000_000
"""Trials of a sweep."""
MOST_SEEDS = 10_000
"""Seeds of one configuration."""


LARGEST_NUMBER = 1e9
"""Size of a rate, a weight, a share, a number of hours; more is not finite in a network's single precision."""
SMALLEST_NUMBER = 1e-30
"""Least size of what is not 0: less is 0 in single precision, and what divides by it not finite."""


class Section(BaseModel):
    """A frozen configuration section. Unknown keys and values of another type are errors, never warnings.

    So is what fits a type and cannot be meant: true for a number, text of blanks, a number beyond single precision.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # a list or a sweep may be called 2012; quotes do not survive a shell
    )

    any_size: ClassVar[bool] = False
    """Whether numbers may have any size here: what uses them says which it takes."""

    @field_validator("*", mode="before")
    @classmethod
    def _meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what cannot be meant, whatever the type of the field would make of it."""
        field = cls.model_fields[str(info.field_name)]
        annotation: Any = field.annotation
        kinds = _kinds(annotation)
        if any(isinstance(check, PlainValidator) for check in field.metadata) or not kinds <= _PLAIN:
            return value
        for part in _parts(value):
            if isinstance(part, bool) and not kinds.isdisjoint((int, float)) and not cls.model_config.get("strict"):
                raise ValueError("Input should be a number, not true or false")
            if isinstance(part, str) and not part.strip() and str in kinds and part != field.default:
                raise ValueError("this is empty; write a value, or leave the key out")
            if isinstance(part, float) and kinds <= _TEXTS:
                raise ValueError("this is read as a number, and 1.10 as 1.1; write it in quotes")
            if isinstance(part, int | float) and float in kinds and not cls.any_size:
                _check_size(part)
        return value


_TEXTS = frozenset((str, type(None)))
_PLAIN = frozenset((int, float, str, type(None)))
"""Kinds of values that a field of plain numbers and words has."""


@cache
def _kinds(annotation: Any) -> frozenset[Any]:
    """Return the types that a field's annotation names, those within its lists and unions too."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict):
        return frozenset().union(*(_kinds(kind) for kind in get_args(annotation) if kind is not ...))
    return frozenset((annotation,))


def _parts(value: Any) -> list[Any]:
    """Return a value, or those in its lists and mappings."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return [part for item in value for part in _parts(item)] if isinstance(value, list | tuple) else [value]


def _check_size(number: float) -> None:
    """Raise ValueError for a number that single precision cannot hold with what it is multiplied by."""
    if math.isfinite(number) and abs(number) > LARGEST_NUMBER:
        raise ValueError(f"this is beyond what a run can use; write {LARGEST_NUMBER:g} at most")
    if number and abs(number) < SMALLEST_NUMBER:
        raise ValueError(f"this is 0 in single precision; write 0, or {SMALLEST_NUMBER:g} at least")


def _number(value: Any) -> float:
    """Return a number, or what YAML leaves as text (1e-3), as pydantic takes it; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _auto_or_above_0(value: Any) -> float | Literal["auto"]:
    number = _number(value)
    if value != "auto" and not 0 < number < math.inf:
        raise ValueError("Input should be auto or a number above 0")
    if value != "auto":
        _check_size(number)
    return "auto" if value == "auto" else number


PositiveOrAuto = Annotated[float | Literal["auto"], PlainValidator(_auto_or_above_0)]
"""A number above 0, or `auto` for the one that a rule gives. One finding for both, where a union would give two."""


def whole_or_auto(low: int, high: float = math.inf) -> PlainValidator:
    """Annotate a field of `auto` or of whole numbers from `low` to `high`."""
    limits = f"from {low} on" if high == math.inf else f"from {low} to {high}"

    def check(value: Any) -> int | Literal["auto"]:
        number = _number(value)
        if value != "auto" and not (low <= number <= high and number.is_integer()):
            raise ValueError(f"Input should be auto or a whole number {limits}")
        return "auto" if value == "auto" else int(number)

    return PlainValidator(check)
