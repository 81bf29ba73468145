import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cpn.core.errors import InputError, WorkError, run_command

CHECKOUT = str(Path(__file__).parents[3])


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The handlers of before, again after each test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raises(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 0, 0, ""),
        (lambda: 143, 143, ""),
        (raises(WorkError("the loss is nan; lower train.lr")), 1, "failed: the loss is nan; lower train.lr\n"),
        (raises(InputError("a.yaml: x: unknown key")), 2, "error: a.yaml: x: unknown key\n"),
        (raises(InputError("a\nb: \x1b[2J é")), 2, "error: a\\nb: \\x1b[2J é\n"),
        (
            raises(OSError(errno.ENOSPC, "No space left on device", "runs/x")),
            1,
            "failed: runs/x: No space left on device; make room there\n",
        ),
        (
            raises(OSError(errno.EFBIG, "File too large")),
            1,
            "failed: a file that was being written: File too large; raise the limit on the size of files (ulimit -f)\n",
        ),
        (raises(KeyboardInterrupt()), 130, "stopped; the same command continues\n"),
    ],
)
def test_exit_codes(main: Callable[[], int | None], code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(main)
    assert stopped.value.code == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(
    "defect",
    [
        ZeroDivisionError("by nothing"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        OSError(errno.EACCES, "Permission denied"),
    ],
)
def test_a_defect_keeps_its_traceback(defect: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(raises(defect))
    out, said = capsys.readouterr()
    assert left.value.code == 1 and out == "" and said.startswith("Traceback (most recent call last):")
    assert said.splitlines()[-1] == f"{type(defect).__name__}: {defect}"


@contextmanager
def outputs(tmp_path: Path, gone: str) -> Iterator[Path]:
    """Standard output, standard error or both as a pipe without a reader; gives the file of what is not."""
    kept, file = [os.dup(1), os.dup(2)], os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT)
    reads, writes = os.pipe()
    os.close(reads)
    streams = sys.stdout, sys.stderr
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(writes if name in gone else file, number)
        with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
            yield tmp_path / "said"
    finally:
        sys.stdout, sys.stderr = streams
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
        for number in (*kept, file, writes):
            os.close(number)


def many_lines() -> None:
    for number in range(100_000):
        print(number)


@pytest.mark.parametrize(
    ("gone", "main", "code"),
    [
        ("out", many_lines, 141),
        ("out", lambda: print("one line, kept until the end"), 141),
        ("out err", many_lines, 141),
        ("err", raises(InputError("wrong")), 2),
        ("err", raises(WorkError("failed")), 1),
        ("err", raises(ZeroDivisionError("a defect")), 1),
        ("err", raises(KeyboardInterrupt()), 130),
        ("out", raises(SystemExit(0)), 0),
    ],
)
def test_a_reader_that_has_gone_is_no_traceback(
    gone: str, main: Callable[[], int | None], code: int, tmp_path: Path
) -> None:
    with outputs(tmp_path, gone) as said, pytest.raises(SystemExit) as left:
        run_command(main)
    assert left.value.code == code and said.read_text() == ""


def test_another_broken_pipe_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(raises(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert left.value.code == 1 and "BrokenPipeError" in capsys.readouterr().err


def test_without_a_working_folder_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as left:
        run_command(lambda: pytest.fail("it has begun"))
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: the working folder is not there any more")


@pytest.mark.parametrize(("level", "wrong"), [("loud", True), ("10", True), ("info", False), ("ERROR", False)])
def test_a_level_of_logging_that_mlflow_does_not_know(
    level: str, wrong: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", level)
    with pytest.raises(SystemExit) as left:
        run_command(lambda: 0)
    assert left.value.code == (2 if wrong else 0)
    assert capsys.readouterr().err.startswith(f"error: MLFLOW_LOGGING_LEVEL={level}: is no level" if wrong else "")


@pytest.mark.parametrize(("zone", "wrong"), [("UTC+25", True), ("UTC+14", False), ("Nowhere/There", False)])
def test_a_time_zone_that_is_none_is_named(
    zone: str, wrong: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system takes hours beyond a day, which Python's own times do not."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with pytest.raises(SystemExit) as left:
            run_command(lambda: 0)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert left.value.code == (2 if wrong else 0)
    assert capsys.readouterr().err.startswith(f"error: TZ={zone}: is no time zone" if wrong else "")


@pytest.mark.parametrize(("folder", "word", "code"), [("a", "x", 0), ("ä", "x", 2), ("a", "ä.yaml", 2)])
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_names_that_a_locale_misreads_are_refused(tmp_path: Path, folder: str, word: str, code: int, utf8: str) -> None:
    """Arrow writes them as UTF-8 whatever the locale, so that what it wrote was not found again."""
    (tmp_path / folder).mkdir()
    settings = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": utf8, "PYTHONPATH": CHECKOUT}
    done = subprocess.run(
        [sys.executable, "-c", "from cpn.core.errors import run_command; run_command(lambda: 0)", word],
        cwd=tmp_path / folder, env={**os.environ, **settings}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if utf8 == "1" else code), done.stderr
    assert done.returncode == 0 or re.fullmatch(
        r"error: LC_ALL, LANG: \S+: this locale reads names of files as ascii; set PYTHONUTF8=1\n", done.stderr
    )


@pytest.mark.parametrize("opened", [lambda: open("/dev/null"), os.pipe], ids=["a file", "a pipe"])
def test_too_many_open_files_are_no_traceback(opened: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    """With the number that is the next as the limit; streams and what pytest holds are open already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def main() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        opened()

    try:
        with pytest.raises(SystemExit) as left:
            run_command(main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("failed: ") and line.endswith("raise the limit on open files (ulimit -n)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_nobody_answers_is_a_stop(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    cleaned: list[int] = []

    def main() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)

    as_at_login = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, as_at_login)  # what starts the tests in the background has them ignored
    try:
        with pytest.raises(SystemExit) as left:
            run_command(main)
    finally:
        signal.signal(number, before)
    assert left.value.code == 128 + number and cleaned == [number]
    assert capsys.readouterr().err == "stopped; the same command continues\n"


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "answered"])
def test_a_signal_that_somebody_answers_is_theirs(handler: signal.Handlers) -> None:
    """`nohup` has SIGHUP ignored, and a sweep answers by itself."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with pytest.raises(SystemExit) as left:
            run_command(lambda: signal.raise_signal(signal.SIGHUP))
        assert left.value.code == 0 and signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_is_ended_by_the_signal() -> None:
    codes: list[int] = []

    def main() -> None:
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with pytest.raises(SystemExit):
        run_command(main)
    assert codes == [-signal.SIGTERM]


@pytest.mark.parametrize("word", ["", "--storage=", "--top=--"])
def test_an_option_without_a_value_is_named(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", "small", word])
    with pytest.raises(SystemExit) as left:
        run_command(lambda: pytest.fail("it has begun"))
    assert left.value.code == 2
    assert (
        capsys.readouterr().err
        == f"error: {word or repr(word)}: a value is missing (a variable that is not set?): write one\n"
    )
