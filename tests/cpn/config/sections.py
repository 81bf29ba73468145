"""What every section of the configuration is asked: its values, and the one line about a wrong one."""

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from cpn.config import Config, config_from, to_dotted
from cpn.core.errors import InputError


def whole_numbers(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of the fields that hold whole numbers, but for seeds, each with a value of far too much."""
    for name, field in model.model_fields.items():
        kinds = [part for part in (field.annotation, *get_args(field.annotation)) if isinstance(part, type)]
        section = next((part for part in kinds if issubclass(part, BaseModel)), None)
        if section is not None:
            yield from whole_numbers(section, f"{above}{name}.")
        elif re.search(r"\bint\b", repr(field.annotation)) and not name.endswith("seed"):
            several = "tuple" in repr(field.annotation)
            before = field.default[:-1] if isinstance(field.default, tuple) else (1,)
            yield f"{above}{name}", [*before, 10**12] if several else 10**12


def official(section: str) -> dict[str, Any]:
    """Every value of a section in preset `official`, under its dotted name without the section's."""
    config = config_from({"preset": "official"}, "test")
    values = to_dotted(getattr(config, section))
    assert values == to_dotted(getattr(Config(), section)), "official is what the section defaults to"
    return values


def refusal(section: str, values: object) -> str:
    """The one line that refuses these values of a section, without the file's name."""
    with pytest.raises(InputError) as refused:
        config_from({section: values}, "my.yaml")
    line = str(refused.value)
    assert line.startswith("my.yaml: ") and "\n" not in line
    return line.removeprefix("my.yaml: ")
