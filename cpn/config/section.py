"""The base of every configuration section: frozen, strict, and documented field by field."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainValidator

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


class Section(BaseModel):
    """A frozen configuration section. Unknown keys and values of another type are errors, never warnings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        coerce_numbers_to_str=True,  # a list or a sweep may be called 2012; quotes do not survive a shell
    )


def _number(value: Any) -> float:
    """A number, or what YAML leaves as text (1e-3), as pydantic takes it; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _auto_or_above_0(value: Any) -> float | Literal["auto"]:
    number = _number(value)
    if value != "auto" and not 0 < number < math.inf:
        raise ValueError("Input should be auto or a number above 0")
    return "auto" if value == "auto" else number


PositiveOrAuto = Annotated[float | Literal["auto"], PlainValidator(_auto_or_above_0)]
"""A number above 0, or `auto` for the one that a rule gives. One finding for both, where a union would give two."""


def whole_or_auto(low: int, high: float = math.inf) -> PlainValidator:
    """The same for whole numbers from `low` to `high`: a field's annotation."""
    limits = f"from {low} on" if high == math.inf else f"from {low} to {high}"

    def check(value: Any) -> int | Literal["auto"]:
        number = _number(value)
        if value != "auto" and not (low <= number <= high and number.is_integer()):
            raise ValueError(f"Input should be auto or a whole number {limits}")
        return "auto" if value == "auto" else int(number)

    return PlainValidator(check)
