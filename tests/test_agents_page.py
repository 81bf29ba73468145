"""AGENTS.md and docs/coming_from.md: parsers take every command of ours that they name; events are those of --json."""

import re
import shlex
from importlib import import_module
from pathlib import Path
from platform.base import json_lines
from platform.config.sections import Budget, Confirm, Pruning, Resources, SearchOptions
from platform.search.sweep_summary import SweepSummary

import pytest

from tests.conftest import CHECKOUT

AGENTS, COMING_FROM = CHECKOUT / "AGENTS.md", CHECKOUT / "docs" / "coming_from.md"
OURS = re.compile(r"^ {4}(python -m (?:cpn|platform)\.[^#\n]*)|`(python -m (?:cpn|platform)\.[^`]*)`", re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The commands of ours on a page, in blocks and in backticks."""
    found = [block or inline for block, inline in OURS.findall(page.read_text(encoding="utf-8"))]
    return list(dict.fromkeys(words.partition(">")[0].strip() for words in found))


@pytest.mark.parametrize("page", [AGENTS, COMING_FROM], ids=["agents", "coming_from"])
def test_commands_are_taken_by_their_parsers(page: Path) -> None:
    found = commands(page)
    assert len(found) >= 8
    for command in found:
        words = shlex.split(command)
        module = import_module(words[2])
        if hasattr(module, "__path__"):  # a package is run by its __main__
            module = import_module(f"{words[2]}.__main__")
        module.parser().parse_args(words[3:])


def test_events_and_fields_are_those_that_are_written() -> None:
    text = AGENTS.read_text(encoding="utf-8")
    events = re.findall(r"^\| (`[a-z_`, ]+) \|", text, re.MULTILINE)
    names = {name for cell in events for name in re.findall(r"[a-z_]+", cell)} - {"event"}
    assert names == set(re.findall(r"^([a-z_]+) {2,}", json_lines.__doc__ or "", re.MULTILINE)) - {"event"}
    for name in ("verdict", "better", "tested", "interval", "against_baseline"):
        assert f"`{name}" in text and name in SweepSummary.model_fields


def test_keys_of_ours_exist() -> None:
    text = COMING_FROM.read_text(encoding="utf-8") + AGENTS.read_text(encoding="utf-8")
    sections = {
        "budget": Budget,
        "confirm": Confirm,
        "pruning": Pruning,
        "resources": Resources,
        "search_options": SearchOptions,
    }
    for section, name in re.findall(r"`(?:--set )?([a-z_]+)\.([a-z_]+)[`=]", text):
        if section in sections and name != "slots_per_trial":
            assert name in sections[section].model_fields, f"{section}.{name}"
