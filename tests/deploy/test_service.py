"""The systemd unit and the CI workflow are valid, and the commands in them are the project's."""

import configparser
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.conftest import CHECKOUT

UNIT = CHECKOUT / "deploy" / "cpn-sweep@.service"


def unit() -> configparser.ConfigParser:
    """The unit, read strictly: no key twice."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """With the interpreter of this test in the place of the installed one, which systemd wants to be there."""
    text = UNIT.read_text().replace("/srv/cpn/platform/.venv/bin/python", sys.executable)
    copy = tmp_path / "cpn-sweep@patch.service"
    copy.write_text(text.replace("WorkingDirectory=/srv/cpn/platform", f"WorkingDirectory={tmp_path}"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_goes_on_after_a_crash_not_wrong_input() -> None:
    service = unit()["Service"]
    assert service["Restart"] == "on-failure"
    assert (service["RestartPreventExitStatus"], service["SuccessExitStatus"]) == ("2", "143")
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")
    python, option, module, space = service["ExecStart"].split()
    assert option == "-m" and find_spec(module) is not None
    assert (CHECKOUT / space.replace("%i", "patch")).exists()


def test_the_workflow_is_valid_and_runs_ci() -> None:
    path = CHECKOUT / ".github" / "workflows" / "ci.yml"
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run([*tool, "vendor.github-workflows", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (job,) = yaml.safe_load(path.read_text())["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_citation_is_valid() -> None:
    tool = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.citation-file-format"]
    done = subprocess.run([*tool, str(CHECKOUT / "CITATION.cff")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
