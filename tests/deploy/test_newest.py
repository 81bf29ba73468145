"""deploy/newest.py: requirements without upper bounds, and the list of what breaks."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.conftest import CHECKOUT


@pytest.fixture
def newest() -> ModuleType:
    spec = importlib.util.spec_from_file_location("newest", CHECKOUT / "deploy" / "newest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("asked", "free"),
    [
        ("ray[default,train,tune]>=2.60,<2.61", "ray[default,train,tune]>=2.60"),
        ("numpy>=2.2", "numpy>=2.2"),
        ("model==0.1.0", "model"),
        ("old>=1,!=1.5,<2; python_version < '3.12'", "old>=1,!=1.5; python_version < '3.12'"),
    ],
    ids=["upper bound", "none", "pinned", "marker"],
)
def test_what_holds_a_library_back_is_left_out(newest: ModuleType, asked: str, free: str) -> None:
    assert Requirement(newest.unbounded(asked)) == Requirement(free)


def test_every_library_of_the_project_is_set_free(newest: ModuleType) -> None:
    asked, free = newest.requirements()
    assert len(asked) == len(free) > 40
    assert [Requirement(line).name for line in asked] == [Requirement(line).name for line in free]
    assert not any(spec.operator in ("<", "<=", "==", "~=") for line in free for spec in Requirement(line).specifier)


def test_what_breaks_is_listed(
    newest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands are recorded and not run."""
    ran: list[list[str]] = []
    said = "...F\nFAILED tests/test_a.py::test_b - ImportError: moved\n1 failed, 3 passed\n"

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        ran.append(command)
        listed = json.dumps([{"name": "Ray", "version": "99.0"}, {"name": "numpy", "version": "2.9"}])
        return SimpleNamespace(stdout=listed if "list" in command else said, returncode=int("pytest" in command))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(newest.venv, "create", lambda folder, with_pip: folder.mkdir())
    assert newest.main(["--venv", str(tmp_path / "own")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ray 99.0: pyproject.toml allows <2.61") and lines[1].startswith(
        "FAILED tests/test_a.py"
    )
    assert len(lines) == 2 and len(ran) == 4
    assert all(command[0] == str(tmp_path / "own" / "bin" / "python") != sys.executable for command in ran)
    assert "ray[default,train,tune]>=2.60" in ran[0] and "--upgrade" in ran[0]


def test_libraries_that_do_not_install_together_are_said(
    newest: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command: SimpleNamespace(returncode=1))
    monkeypatch.setattr(newest.venv, "create", lambda folder, with_pip: folder.mkdir())
    assert newest.main(["--venv", str(tmp_path / "own")]) == 2
    assert "do not install together" in capsys.readouterr().err


def test_make_knows_it() -> None:
    done = subprocess.run(["make", "-n", "newest"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "deploy/newest.py" in done.stdout
