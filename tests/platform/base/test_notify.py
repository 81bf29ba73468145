"""The user's command hears how a sweep ended, whichever way; what goes wrong with it changes nothing."""

import json
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from platform.base import notify
from platform.base.notify import notifying
from platform.base.paths import SweepPaths

import pytest

from cpn.core.errors import WorkError

AGAIN = "python -m platform.sweep s.yaml"


def writes(path: Path) -> str:
    """A command that keeps what it is told."""
    code = "import json, os, sys; json.dump([sys.stdin.read(), {k: v for k, v in os.environ.items() if 'CPN_' in k}], "
    return shlex.join([sys.executable, "-c", code + f"open({str(path)!r}, 'w'))"])


def ended(folder: Path, command: str | None, code: int = 0, error: BaseException | None = None,
          silent: bool = False) -> list[str]:  # fmt: skip
    """Warnings of a sweep that ends so."""
    warnings: list[str] = []
    with suppress(BaseException), notifying(command, "s", SweepPaths(folder), AGAIN, warnings.append) as ending:
        ending.code, ending.note, ending.silent = code, "**beats the reference**", silent
        if error is not None:
            raise error
    return warnings


@pytest.mark.parametrize(
    ("code", "error", "state", "line"),
    [
        (0, None, "finished", "sweep s: finished\n\n**beats the reference**\n"),
        (1, WorkError("no trial\nfinished"), "failed", "sweep s: failed: no trial\\nfinished\n"),
        (1, ValueError(), "failed", "sweep s: failed: ValueError\n"),
        (130, None, "stopped", f"sweep s: stopped: SIGINT; every trial can go on: {AGAIN}\n"),
        (143, None, "stopped", f"sweep s: stopped: SIGTERM; every trial can go on: {AGAIN}\n"),
        (0, KeyboardInterrupt(), "stopped", f"sweep s: stopped: every trial can go on: {AGAIN}\n"),
        (0, WorkError("http://me:geheim@host"), "failed", "sweep s: failed: http://me:***@host\n"),
    ],
)
def test_how_it_ended_is_told(tmp_path: Path, code: int, error: BaseException | None, state: str, line: str) -> None:
    assert ended(tmp_path, writes(tmp_path / "told"), code, error) == []
    text, environment = json.loads((tmp_path / "told").read_text())
    assert text == line
    assert environment["CPN_SWEEP"] == "s" and environment["CPN_STATE"] == state
    assert environment["CPN_SUMMARY"] == str(tmp_path / "summary.json")
    assert environment["CPN_REPORT"] == str(tmp_path / "report.html")


def test_nobody_is_told_without_a_command_or_at_a_second_stop(tmp_path: Path) -> None:
    assert ended(tmp_path, None) == []
    assert ended(tmp_path, writes(tmp_path / "told"), error=KeyboardInterrupt(), silent=True) == []
    assert not (tmp_path / "told").exists()


def test_a_broken_command_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [away] = ended(tmp_path, "/no/such/program --token=geheim")
    assert away == "notify.command: cannot be run (No such file or directory); give a program and its arguments, or " \
                   "sh -c '...'"  # fmt: skip
    [odd] = ended(tmp_path, "sh -c 'unclosed")
    assert odd.startswith("notify.command: cannot be run (No closing quotation)")
    [code] = ended(tmp_path, "sh -c 'exit 3'")
    assert code == "notify.command: ended with exit code 3; the sweep itself is as it says"
    monkeypatch.setattr(notify, "LIMIT_S", 0.2)
    [late] = ended(tmp_path, "sleep 5")
    assert late.startswith("notify.command: did not end within 0.2 seconds and was killed")


def test_a_command_that_reads_nothing_is_fine(tmp_path: Path) -> None:
    assert ended(tmp_path, "true") == []
