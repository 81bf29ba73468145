"""The two ways a command can fail, and how its exit code tells them apart."""

import errno
import sys
import traceback
from collections.abc import Callable

from .masking import mask

PLACES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose another folder",
    errno.EACCES: "give this user the right to it, or choose another folder",
    errno.EPERM: "give this user the right to it, or choose another folder",
    errno.ENOTDIR: "a file is in the way, choose another folder",
    errno.EISDIR: "a folder is in the way, choose another name",
    errno.EEXIST: "something else is there, choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""What a disk may answer in the middle of the work, and the cure: no defect of ours."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write may end with although the file could be opened; such an error names no file."""


class _OneLine(Exception):
    """A message that stays one printable line whatever it quotes (a key with a line break or a terminal's codes), and
    shows no password.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in mask(str(message))))


class InputError(_OneLine):
    """The input is wrong: one line that names the file, the key and the cure. Exit code 2."""


class WorkError(_OneLine):
    """The input was right and the work failed all the same: one line. Exit code 1."""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and leave the process with the exit code of README's table.

    0 done, 1 the work failed (a full disk among others), 2 the input was wrong, 130 interrupted from the keyboard and
    resumable. The traceback of what nobody foresaw, exit code 1 as well, shows no password either.
    """
    try:
        code = main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except WorkError as error:
        print(f"failed: {error}", file=sys.stderr)
        code = 1
    except OSError as error:
        if error.errno in PLACES and (error.filename or error.errno in FULL):
            place = error.filename or "a file that was being written"
            print(f"failed: {WorkError(f'{place}: {error.strerror}; {PLACES[error.errno]}')}", file=sys.stderr)
        else:
            print(mask(traceback.format_exc()), end="", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        code = 130
    except Exception:
        print(mask(traceback.format_exc()), end="", file=sys.stderr)
        code = 1
    sys.exit(code)
