"""Completion in a real bash: modules, options, names for --set, sweeps; and everybody else's completion stays."""

import os
import subprocess
import sys
from pathlib import Path
from platform.completion import main, parsers, script, settable

import pytest

from tests.conftest import CHECKOUT

GONE = """
import importlib, os, sys
from cpn.core.errors import run_command
from platform.completion import parsers
for name in parsers():
    package = hasattr(importlib.import_module(name), "__path__")
    main = importlib.import_module(name + ".__main__" * package).main
    if os.fork() == 0:
        reads, writes = os.pipe()
        os.close(reads)
        os.dup2(writes, 1)
        run_command(lambda: main(["--help"]))
    _, status = os.wait()
    print(name, os.waitstatus_to_exitcode(status), flush=True)
"""


def test_no_command_prints_a_traceback_without_a_reader() -> None:
    """`python -m platform.status --help | true`, of every command there is."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # argparse itself hides what fails while it writes
    done = subprocess.run(
        [sys.executable, "-c", GONE], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{name} 141" for name in parsers()]


TRY = """
try() { COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _cpn_python; echo "${COMPREPLY[*]}"; }
"""


@pytest.fixture(scope="module")
def text() -> str:
    return script(parsers())


def bash(text: str, folder: Path, *lines: str, before: str = "") -> list[str]:
    """What bash prints, one line for each `try`."""
    whole = "\n".join([before, text, TRY, *lines])
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-u", "-c", whole], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_words_in_a_real_bash(text: str, tmp_path: Path) -> None:
    for name in ("patch", "quick"):
        (tmp_path / "sweeps" / name).mkdir(parents=True)
        (tmp_path / "sweeps" / name / "lock").touch()
    (tmp_path / "elsewhere" / "other").mkdir(parents=True)
    (tmp_path / "elsewhere" / "other" / "lock").touch()
    found = bash(
        text,
        tmp_path,
        "try python -m platform.st",
        "try .venv/bin/python -m cpn.pre",
        "try python -m platform.sweep --dr",
        "try python -m platform.sweep s.yaml --set loss.w_t",
        "try python -m platform.sweep s.yaml --set data.root = else",
        "try python -m platform.sweep s.yaml --set loss.w_tcp = 2 --set budget.tri",
        "try python -m platform.report p",
        "try python -m platform.report --storage elsewhere ''",
        "try python -m platform.leaderboard --storage else",
        "try python -m cpn.coco a b --images sy",
        "try python -m http.ser",
        "try python scri",
    )
    assert found == [
        "platform.status platform.stop", "cpn.predict cpn.prepare", "--dry-run", "loss.w_tcp=", "elsewhere",
        "budget.trials=", "patch", "other", "elsewhere", "symlink", "", "",
    ]  # fmt: skip


def test_what_completed_python_before_goes_on(text: str, tmp_path: Path) -> None:
    before = "theirs() { COMPREPLY=(theirs); }; complete -F theirs python"
    lines = ["try python -m http.ser", "try python -m platform.swe", "complete -p python"]
    found = bash(text + text, tmp_path, *lines, before=before)  # sourced twice, as a new shell's rc may do
    assert found == ["theirs", "platform.sweep", "complete -o bashdefault -o default -F _cpn_python python"]


def test_every_command_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    files = [path for name in ("cpn", "platform") for path in (CHECKOUT / name).glob("*.py")]
    commands = {f"{p.parent.name}.{p.stem}" for p in files if "run_command(main)" in p.read_text()}
    commands |= {f"platform.{path.parent.name}" for path in (CHECKOUT / "platform").glob("*/__main__.py")}
    assert set(parsers()) == commands - {"platform.cluster.measured_steps"}  # started by a dry run, not by people
    assert main(["bash"]) == 0 and capsys.readouterr().out.startswith("# python -m platform.completion bash")


def test_names_for_set_are_the_values_and_no_sections() -> None:
    names = settable()
    assert {"data.root", "budget.trials", "name", "preset", "loss.w_tcp"} <= set(names)
    assert "budget" not in names and "data" not in names and len(set(names)) == len(names)
