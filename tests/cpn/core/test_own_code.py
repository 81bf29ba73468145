"""Errors of a user's code: one line, the innermost file and line of theirs, and what passes through."""

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from cpn.core.errors import InputError, WorkError
from cpn.core.own_code import LONGEST, own_code, shared_state


def line_of(words: str) -> int:
    """The line of this file that holds `words` first."""
    return next(n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if words in line)


def divides() -> None:
    1 / 0  # noqa: B018  here it is raised


def in_torch() -> None:
    torch.zeros(2, 3) @ torch.zeros(2, 3)  # here torch refuses


def in_python() -> None:
    json.loads("{")  # here json refuses


def many_lines() -> None:
    raise RuntimeError("first\n\tsecond " + "x" * 1000)


def leaves() -> None:
    raise SystemExit(3)


def beside_exceptions() -> None:
    raise type("Own", (BaseException,), {})("of no usual kind")  # here no Exception


def without_words() -> None:
    def divides_itself(self: object) -> str:
        return str(1 / 0)

    raise type("Mute", (Exception,), {"__str__": divides_itself})  # here a text fails


@pytest.mark.parametrize(
    ("code", "words", "at"),
    [
        (beside_exceptions, "Own: of no usual kind", "# here no Exception"),
        (without_words, "Mute (", "# here a text"),
        (divides, "ZeroDivisionError: division by zero", "# noqa: B018  here"),
        (in_torch, "RuntimeError: mat1 and mat2 shapes", "# here torch"),
        (in_python, "JSONDecodeError: Expecting property name", "# here json"),
        (many_lines, "RuntimeError: first second xxx", 'RuntimeError("first'),
        (leaves, "SystemExit: 3", "raise SystemExit(3)"),
    ],
)
def test_one_line_with_the_users_file_and_line(code: object, words: str, at: str) -> None:
    with pytest.raises(InputError) as refused, own_code("my:net", "its forward"):
        code()  # type: ignore[operator]
    message = str(refused.value)
    assert message.startswith(f"network.backbone: 'my:net': its forward raised {words}")
    assert f"({__file__}, line {line_of(at)}); correct it there, then python -m cpn.backbone --check my:net" in message
    assert "\n" not in message and len(message) < LONGEST + 400


def test_a_syntax_error_is_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    with (
        pytest.raises(InputError, match=f"its module raised SyntaxError: .*{path}, line 2"),
        own_code("m:f", "its module"),
    ):
        compile("a = 1\ndef (\n", str(path), "exec")


def test_where_all_code_is_installed_the_place_is_outside_torch(tmp_path: Path) -> None:
    place = tmp_path / "site-packages" / "theirs" / "net.py"
    code = compile("import torch\n\ndef forward():\n    torch.zeros(2, 3) @ torch.zeros(2, 3)\n", str(place), "exec")
    space: dict[str, object] = {}
    exec(code, space)
    with pytest.raises(InputError) as refused, own_code("theirs.net:f", "its forward"):
        exec("forward()", space)
    assert "net.py, line 4" in str(refused.value) or f"{__file__}, line" in str(refused.value)


@pytest.mark.parametrize(
    "error", [InputError("a cure is named"), WorkError("it failed"), MemoryError(), torch.OutOfMemoryError("CUDA")]
)
def test_what_is_no_fault_of_the_code_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as passed, own_code("my:net", "its forward"):
        raise error
    assert passed.value is error


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt), own_code("my:net", "its forward"):
        raise KeyboardInterrupt


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "precision": (lambda: torch.set_default_dtype(torch.float64), "torch's default precision"),
    "device": (lambda: torch.set_default_device("meta"), "torch's default device"),
    "gradients": (lambda: torch.set_grad_enabled(False), "whether gradients are computed"),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "the number of threads"),
    "seed": (lambda: torch.manual_seed(torch.initial_seed() ^ 1), "torch's seed"),
    "algorithms": (lambda: torch.use_deterministic_algorithms(True), "torch's algorithms are deterministic"),
    "folder": (lambda: os.chdir("/"), "the working folder"),
    "another stdout": (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout"),
    "no stdout": (lambda: setattr(sys, "stdout", None), "sys.stdout"),
    "closed stdout": (lambda: sys.stdout.close(), "sys.stdout"),
    "another stderr": (lambda: setattr(sys, "stderr", io.StringIO()), "sys.stderr"),
}


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder and a stream of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=list(CHANGES))
def test_what_all_share_is_set_back_and_said(apart: None, change: Callable[[], object], words: str) -> None:
    with torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):
        before = [(each.words, each.get()) for each, _ in shared_state() if each.words != "torch's seed"]
        with pytest.raises(InputError, match=f"'own:net': its forward changes .*{words}, .*leave it as it is"):
            with own_code("own:net", "its forward"):
                change()
        if not getattr(before[1][1][0], "closed", False):  # a closed stream is replaced
            assert before == [(each.words, each.get()) for each, _ in shared_state() if each.words != "torch's seed"]
        print("somebody writes on", file=sys.stdout)


def test_what_changes_and_raises_is_set_back(apart: None, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its forward raised ValueError: no"), own_code("own:net", "its forward"):
        os.chdir("/")
        raise ValueError("no")
    assert Path.cwd() == tmp_path


def test_code_that_sets_back_and_draws_is_let_be(apart: None) -> None:
    with torch.random.fork_rng(devices=[]), own_code("own:net", "its forward"), torch.no_grad():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
        torch.rand(3)
