"""A sweep for programs: every line an event, nothing else on standard output."""

import io
import json
import subprocess
import sys
from platform.base import json_lines
from platform.base.json_lines import JsonLines
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import CHECKOUT


def events(text: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.getvalue().splitlines()]


def test_trials_are_events(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    terminal = JsonLines(out)
    with terminal.trials("s: search", 4, 8) as table:
        table.already(1, (50.0, "s-0000"))
        table.started("s-0001", "cpn grid")
        table.started("s-0001", "cpn grid")
        table.reported("s-0001", {"epoch": 1, "miou_epoch": 40.0, "loss_total": float("nan"), "array": object()})
        table.ended("s-0001", "COMPLETE", 55.0, None)
        table.ended("s-0002", "PRUNED", None, "others were better")
        terminal.say("for people")
    found = events(out)
    assert [event["event"] for event in found] == [
        "trials",
        "trial_started",
        "trial_reported",
        "trial_ended",
        "trial_ended",
    ]
    assert found[2] | {"time": 0} == {"event": "trial_reported", "time": 0, "uid": "s-0001", "epoch": 1,
                                      "miou_epoch": 40.0, "loss_total": None}  # fmt: skip
    assert (found[3]["state"], found[3]["value"], found[3]["done"], found[3]["total"]) == ("complete", 55.0, 2, 4)
    assert found[4]["reason"] == "others were better" and found[4]["best"] == {"value": 55.0, "uid": "s-0001"}
    said = capsys.readouterr()
    assert said.out == "" and "for people" in said.err and "s-0001  started  cpn grid" in said.err


def test_a_stage_is_said_at_its_ends_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(json_lines, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: 1.7e9))
    out = io.StringIO()
    with JsonLines(out).stage("crf", "images", 10) as bar:
        for done in range(1, 9):
            now[0] += 0.3
            bar.at(done)
    assert [event["done"] for event in events(out)] == [0, 4, 8, 10]
    assert {event["stage"] for event in events(out)} == {"crf"}


def test_a_stage_that_fails_is_not_said_to_be_whole() -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError), JsonLines(out).stage("crf", "images", 10):
        raise RuntimeError
    assert [event["done"] for event in events(out)] == [0]


def test_nothing_else_reaches_standard_output() -> None:
    code = (
        "import os, subprocess; from platform.base.json_lines import JsonLines, own_stdout; print('before')\n"
        "terminal = JsonLines(own_stdout()); print('python'); os.write(1, b'raw\\n')\n"
        "subprocess.run(['echo', 'child'])\n"
        "terminal.say('people'); terminal.event('verdict', low=float('-inf'), values=(1, float('nan')), where='http://me:geheim@h')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    first, line = done.stdout.splitlines()
    assert first == "before"
    assert json.loads(line) | {"time": 0} == {"event": "verdict", "time": 0, "low": None, "values": [1, None],
                                            "where": "http://me:***@h"}  # fmt: skip
    assert sorted(done.stderr.split()) == ["child", "people", "python", "raw"]
