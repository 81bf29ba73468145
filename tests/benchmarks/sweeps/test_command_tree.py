"""What is read of a command from outside: its lines, and the CPU of processes that have ended too."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from benchmarks.services.processes import MARK, with_mark
from benchmarks.sweeps.command_tree import CpuSeconds, parsed, watched
from cpn.core.errors import WorkError

CHILD = "import time; time.sleep(1); [None for _ in iter(lambda: time.process_time() < 0.6, False)]; time.sleep(2)"
COMMAND = f"""
import json, os, subprocess, sys
print("plain words", flush=True)
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
print(json.dumps({{"event": "trial_ended", "time": 12.5, "address": os.environ.get("RAY_ADDRESS")}}), flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(json.dumps({{"event": "left"}}), flush=True)
sys.stdin.read()
import time; time.sleep(600)
"""


def test_an_ended_process_counts_once() -> None:
    looks: list[list[tuple[object, float]]] = [
        [(("1", 10.0), 1.0), (("2", 10.0), 5.0)],
        [(("1", 10.0), 1.5)],  # the second has ended
        [(("1", 10.0), 2.0), (("2", 90.0), 0.25)],  # and its number was given again
    ]

    def look() -> Iterable[tuple[object, float]]:
        return looks.pop(0)

    cpu = CpuSeconds(look)
    assert [cpu.total() for _ in range(3)] == [6.0, 6.5, 7.25]


def test_lines_that_are_no_objects_are_what_was_said() -> None:
    assert parsed('{"event": "a", "time": 1}\n') == {"event": "a", "time": 1}
    assert parsed("starting Ray\n") == {"said": "starting Ray"}
    assert parsed("[1, 2]\n") == {"said": "[1, 2]"}


def test_a_command_is_watched_with_all_that_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    before = time.time()
    with watched([sys.executable, "-c", COMMAND], tmp_path) as tree:
        lines = tree.until(lambda lines: any(line.event.get("event") == "left" for line in lines))
        pid = tree.pid
        mark = psutil.Process(pid).environ()[MARK]
        assert len(with_mark(mark)) >= 2
    first, second = lines[0], next(line for line in lines if "address" in line.event)
    assert first.event == {"said": "plain words"} and before <= first.at <= time.time()
    assert second.at == 12.5 and second.event["address"] is None
    assert second.cpu - first.cpu >= 0.2  # of the child's 0.6 at most the last look's quarter is missed
    assert not psutil.pid_exists(pid)
    assert not with_mark(mark)


def test_a_command_that_ends_too_soon_shows_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(WorkError, match=r"exit code 3\):.*some words"),
        watched([sys.executable, "-c", "print('some words'); raise SystemExit(3)"], tmp_path) as tree,
    ):
        tree.until(lambda lines: False)
