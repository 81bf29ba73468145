"""CPU seconds of looking: children count, a failure is said, and the goals stand beside."""

import argparse
from pathlib import Path

import pytest

from benchmarks.sweeps import looking
from benchmarks.sweeps.looking import above, commands, run, spent
from cpn.core.errors import InputError, WorkError

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_the_cpu_of_children_counts(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    (tmp_path / "parent.py").write_text("import subprocess, sys\nsubprocess.run([sys.executable, 'busy.py'])\n")
    assert spent(["parent"], tmp_path) > 0.3


def test_a_command_that_fails_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit('no such sweep')\n")
    with pytest.raises(WorkError, match="^broken ended with exit code 1: no such sweep$"):
        spent(["broken"], tmp_path)


def test_goals_stand_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    monkeypatch.chdir(tmp_path)
    told: list[list[str]] = []

    def spent(words: list[str], folder: Path) -> float:
        told.append(words)
        return 5.0 if words[0] == "platform.gc" else 1.0

    monkeypatch.setattr(looking, "spent", spent)
    found = run(argparse.Namespace(quick=True, rounds=5, sweep=Path("mine.yaml")))
    assert found["above"] == "gc" and found["commands"]["sweep_again"] == {"cpu_s": 1.0, "goal_s": 6.0}
    assert told[:2] == [["platform.leaderboard", "mine"]] * 2, "once to fill the caches"
    assert "gc: 5.00 CPU s, goal 4" in capsys.readouterr().out
    assert above({"a": {"cpu_s": 1.0, "goal_s": 2.0}}) == "none"
    with pytest.raises(InputError, match="--rounds 0"):
        run(argparse.Namespace(quick=False, rounds=0, sweep=None))


def test_parsers_take_every_command() -> None:
    from importlib import import_module

    for _, (module, *words) in commands("small", "small.yaml").values():
        import_module(module).parser().parse_args(words)
