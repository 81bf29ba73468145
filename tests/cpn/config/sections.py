"""What every section of the configuration is asked: its values, and the one line about a wrong one."""

from typing import Any

import pytest

from cpn.config import Config, config_from, to_dotted
from cpn.core.errors import InputError


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
