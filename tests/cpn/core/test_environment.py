"""An empty variable is one that is not set, and a closed stream is the null device."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from cpn.core.environment import drop_empty


@pytest.mark.parametrize(
    "name",
    [
        "RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "HOME", "MLFLOW_TRACKING_URI", "CPN_STUDY_URL", "CPN_SCRATCH",
        "XDG_CACHE_HOME", "AWS_ENDPOINT_URL", "OMP_NUM_THREADS",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["", "something"])
def test_an_empty_variable_is_dropped_and_another_kept(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    drop_empty()
    assert os.environ.get(name) == (value or None)


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "MLFLOW_AUTH_ADMIN_PASSWORD", "SOMEBODY_S"])
def test_what_an_empty_value_means_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    drop_empty()
    assert os.environ[name] == ""


def test_a_choice_of_windows_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://no.such.notebook")
    drop_empty()
    assert "MPLBACKEND" not in os.environ


CLOSED = """
import os, sys
for number in {closed}:
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)
from cpn.core.environment import open_closed_streams
open_closed_streams()
file = open("database", "w")
os.write(1, b"printed\\n"), os.write(2, b"warned\\n")
print("said"), sys.stdout.flush(), print("told", file=sys.stderr), sys.stdin.read()
file.write(str(file.fileno() > 2))
"""


@pytest.mark.parametrize("closed", [c for c in product((0, 1, 2), repeat=3) if list(c) == sorted(c)], ids=str)
def test_no_file_takes_the_place_of_a_closed_stream(closed: tuple[int, ...], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CLOSED.format(closed=sorted(set(closed)))], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}, input="",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "database").read_text() == "True"
    assert ended.stdout == ("" if 1 in closed else "printed\nsaid\n")
    assert ended.stderr == ("" if 2 in closed else "warned\ntold\n")
