import errno
from collections.abc import Callable

import pytest

from cpn.errors import InputError, WorkError, run_command


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
