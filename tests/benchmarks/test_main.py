"""The command `python -m benchmarks`: its topics, their options, and what the last line is."""

import argparse
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.comparison import BEGIN, END, Comparison, NotMeasuredError, conditions, take_turns
from cpn.core.errors import InputError


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
    monkeypatch.setattr(command, "COMPARISONS", {})
    modules = {
        "plain": SimpleNamespace(run=run, __doc__="Plain."),
        "chaos": SimpleNamespace(run=run, add_arguments=add_arguments, __doc__="Chaos."),
    }
    monkeypatch.setattr(command, "topic_module", modules.__getitem__)
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
    assert [vars(options) for options in topics] == [
        {"quick": True, "json": False, "faults": 20},
        {"quick": False, "json": False},
        {"quick": False, "json": False, "faults": 5},
    ]
    with pytest.raises(SystemExit) as stopped:
        command.main(["plain", "--faults", "20"])
    assert stopped.value.code == 2


def test_topics_are_listed(topics: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0 and command.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[:2]] == [["plain", "this"], ["chaos", "that"]]
    assert "usage: python -m benchmarks" in out and topics == []


def test_an_unknown_topic_is_wrong_input(topics: list[argparse.Namespace]) -> None:
    with pytest.raises(InputError, match="^chess: no such topic; take plain, chaos$"):
        command.main(["plain", "chess"])
    assert topics == []


def test_each_comparison_has_a_name_and_a_row_on_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Comparison(1.0, 4.0, "s", True, 0.5, {"extra": 7}).result()
    monkeypatch.setattr(command, "COMPARISONS", {"fast": "this", "slow": "that"})
    results = {"fast": found, "slow": {**found, "equal": False}}
    modules = {name: SimpleNamespace(run=lambda options, r=ours: r, __doc__="") for name, ours in results.items()}
    monkeypatch.setattr(command, "topic_module", modules.__getitem__)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n| `kept` | 1 |\n| `fast` | old |\n{END}\nafter\n")
    monkeypatch.setattr(command, "conditions", lambda quick: "quickly" if quick else "at length")
    assert command.main(["--json", "--write", str(page)]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert {k: first[k] for k in ("name", "ratio", "ours", "other", "unit", "equal")} == {
        "name": "fast", "ratio": 0.25, "ours": 1.0, "other": 4.0, "unit": "s", "equal": True,
    }  # fmt: skip
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after"
    assert lines[4] == "| `fast` | 1 | 4 | s | 0.25 | at most 0.5 | yes | extra 7 | at length |"
    assert lines[5] == "| `kept` | 1 |" and "| NO |" in lines[6] and second["name"] == "slow"


def test_what_cannot_be_measured_here_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(options: argparse.Namespace) -> dict[str, Any]:
        raise NotMeasuredError("scaling: two workers need two cores")

    monkeypatch.setattr(command, "COMPARISONS", {"first": "this", "second": "that"})
    found = Comparison(1.0, 4.0, "s", True, None).result()
    runs = {"first": missing, "second": lambda options: found}
    modules = {name: SimpleNamespace(run=run, __doc__="") for name, run in runs.items()}
    monkeypatch.setattr(command, "topic_module", modules.__getitem__)
    assert command.main([]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "not measured: scaling: two workers need two cores" and out[1].startswith("second: ratio 0.25")
    with pytest.raises(InputError, match="two workers need two cores"):
        command.main(["first"])


def test_a_row_says_how_it_was_measured() -> None:
    quick, long = conditions(True), conditions(False)
    assert quick == f"quick, {long}"
    commit, cores = re.fullmatch(r"commit (\S+), (\d+) x .+", long).groups()  # type: ignore[union-attr]
    assert int(cores) == len(os.sched_getaffinity(0)) and commit


def test_sides_take_turns_and_medians_are_taken() -> None:
    now, ran = [0.0], []

    def side(name: str, seconds: list[float]) -> Any:
        def work() -> None:
            now[0] += seconds[ran.count(name)]
            ran.append(name)

        return work

    ours, other = take_turns(side("a", [9, 1, 2, 3]), side("b", [9, 5, 7, 6]), 3, lambda: now[0])
    assert (ours, other) == (2, 6) and ran == ["a", "b"] * 4


@pytest.mark.parametrize("topic", [*command.COMPARISONS, *command.TOPICS])
def test_every_topic_is_a_module_with_a_run_and_help(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command.topic_module(topic).run)
    with pytest.raises(SystemExit) as stopped:
        command.main([topic, "--help"])
    assert stopped.value.code == 0 and f"usage: python -m benchmarks {topic}" in capsys.readouterr().out
