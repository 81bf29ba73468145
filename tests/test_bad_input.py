"""What people really produce, in one table: exit code, one line with file, key and cure, nothing written or run.

The rows are in tests/bad_input, by kind. Those with exit code 0 look wrong and are not.
"""

import importlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from platform.run import sweep_context
from typing import Any

import pytest

from cpn import run
from cpn.core.errors import run_command
from tests.bad_input import archives, backbones, data, environment, names, promotion, studies, weights, yaml
from tests.bad_input.case import Case, listing
from tests.package_graph import CHECKOUT, module_files

CASES: list[Case] = [
    *yaml.CASES, *data.CASES, *archives.CASES, *weights.CASES, *backbones.CASES, *environment.CASES, *names.CASES,
    *promotion.CASES, *studies.CASES,
]  # fmt: skip
NOBODY = 65534
ENDING = 'if __name__ == "__main__":\n    run_command(main)\n'


def test_the_table_is_long_and_no_row_stands_twice() -> None:
    assert len([case for case in CASES if case.code]) >= 120
    assert [name for name, times in Counter(case.name for case in CASES).items() if times > 1] == []


def test_every_command_ends_as_the_real_processes_do() -> None:
    """The rows run a command's main as its file does under __main__, so that few of them have to start a process."""
    sources = {str(file): (CHECKOUT / file).read_text(encoding="utf-8") for file in module_files()}
    commands = {name: source for name, source in sources.items() if "\ndef parser(" in source}
    assert len(commands) >= 24
    assert [name for name, source in commands.items() if not source.endswith(ENDING)] == []


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder that every user may enter; whatever gets as far as work has not seen what is wrong."""

    def too_far(*_: Any, **__: Any) -> Any:
        raise AssertionError("the work was to begin")

    folder = Path(tempfile.mkdtemp(prefix="bad_input_")).resolve()
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sweep_context, "ray_cluster", too_far)
    monkeypatch.setattr(run, "run", too_far)
    monkeypatch.delenv("CPN_STUDY_URL", raising=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, place: Path, taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    case = case.at_port(taken)
    case.make(place)
    before = listing(place)
    capsys.readouterr()
    code, out, err = in_process(case, place) if case.process else in_here(case, capsys)
    assert code == case.code, err or out
    if case.code == 0:
        assert not err and all(word in out for word in case.words), out + err
    else:
        assert "Traceback" not in err
        said = err.splitlines()[-1] if case.usage else err.removesuffix("\n")
        assert "\n" not in said and said.isprintable(), err
        assert all(word in said for word in case.words), said
        assert case.usage or said.startswith("error: " if code == 2 else "failed: ")
    if case.check is None:
        assert listing(place) == before
    else:
        case.check(place)


def in_here(case: Case, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command's main in this process, if asked as another user; its exit code and both streams."""
    module, *arguments = case.arguments
    command = importlib.import_module(module)
    if case.other_user and os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    with pytest.raises(SystemExit) as left:
        try:
            if case.other_user:
                os.seteuid(NOBODY)
            run_command(lambda: command.main(arguments))
        finally:
            if case.other_user:
                os.seteuid(0)
    streams = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, streams.out, streams.err


def in_process(case: Case, place: Path) -> tuple[int, str, str]:
    """Run `python -m` as a user does."""

    def limited() -> None:
        if case.largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.largest, case.largest))

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", *case.arguments],
        cwd=place, env=environment, capture_output=True, text=True, preexec_fn=limited, timeout=100,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr
