"""What `make` says about a machine on which the install could not succeed."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "deploy" / "check_machine.py"
lacks = runpy.run_path(str(SCRIPT))["lacks"]


@pytest.mark.parametrize("version", [(3, 11), (3, 12)])
def test_a_fit_machine_lacks_nothing(version: tuple[int, int]) -> None:
    assert lacks(version, "/usr/bin/g++", True, True) is None


@pytest.mark.parametrize(
    ("machine", "cure"),
    [
        (((3, 10), "g++", True, True), "PYTHON=python3.11"),
        (((3, 13), "g++", True, True), "PYTHON=python3.11"),
        (((2, 7), None, False, False), "PYTHON=python3.11"),
        (((3, 12), "g++", True, False), "apt-get install python3.12-venv"),
        (((3, 11), None, True, True), "apt-get install g++"),
        (((3, 11), "g++", False, True), "apt-get install python3.11-dev"),
    ],
)
def test_one_line_names_the_cure(machine: tuple, cure: str) -> None:
    line = lacks(*machine)
    assert cure in line and "\n" not in line
