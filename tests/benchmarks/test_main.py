"""The command `python -m benchmarks`: its topics, their options, and what the last line is."""

import argparse
import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import __main__ as command
from cpn.errors import InputError


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """Two topics, and what their `run` was called with."""
    called: list[argparse.Namespace] = []

    def run(options: argparse.Namespace) -> dict[str, Any]:
        called.append(options)
        print("a table")
        return {"rate": 0.123456, "count": 3, "rows": [{"a": 1}]}

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--faults", type=int, default=5)

    monkeypatch.setattr(command, "TOPICS", {"plain": "this", "chaos": "that"})
    monkeypatch.setitem(sys.modules, "benchmarks.plain", SimpleNamespace(run=run, __doc__="Plain."))
    monkeypatch.setitem(
        sys.modules, "benchmarks.chaos", SimpleNamespace(run=run, add_arguments=add_arguments, __doc__="Chaos.")
    )
    return called


def test_the_last_line_is_the_result(topics: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["plain"]) == 0
    assert capsys.readouterr().out == "a table\nplain: rate 0.1235, count 3\n"
    assert command.main(["plain", "--json"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {"topic": "plain", "rate": 0.123456, "count": 3, "rows": [{"a": 1}]}


def test_a_topic_has_options_of_its_own(topics: list[argparse.Namespace]) -> None:
    command.main(["chaos", "--faults", "20", "--quick"])
    command.main(["plain", "chaos"])
    command.main([])
    assert [vars(options) for options in topics] == [
        {"quick": True, "json": False, "faults": 20},
        {"quick": False, "json": False},
        {"quick": False, "json": False, "faults": 5},
        {"quick": False, "json": False},
        {"quick": False, "json": False, "faults": 5},
    ]
    with pytest.raises(SystemExit) as stopped:
        command.main(["plain", "--faults", "20"])
    assert stopped.value.code == 2


def test_topics_are_listed(topics: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0 and command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("  plain        this\n  chaos        that\nusage: python -m benchmarks") and topics == []


def test_an_unknown_topic_is_wrong_input(topics: list[argparse.Namespace]) -> None:
    with pytest.raises(InputError, match="^chess: no such topic; take plain, chaos$"):
        command.main(["plain", "chess"])
    assert topics == []


@pytest.mark.parametrize("topic", command.TOPICS)
def test_every_topic_is_a_module_with_a_run_and_help(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(importlib.import_module(f"benchmarks.{topic}").run)
    with pytest.raises(SystemExit) as stopped:
        command.main([topic, "--help"])
    assert stopped.value.code == 0 and f"usage: python -m benchmarks {topic}" in capsys.readouterr().out
