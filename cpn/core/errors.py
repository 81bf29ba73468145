"""The two ways a command can fail, and how its exit code tells them apart."""

import errno
import logging
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import IO

from cpn.core.environment import drop_empty, open_closed_streams
from cpn.core.redact import redact

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
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "the whole system has too many files open, close other programs",
    errno.ELOOP: "a link there leads in a circle, lay it anew or choose another name",
}
"""What a disk may answer in the middle of the work, and the cure: no defect of ours."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write may end with although the file could be opened; such an error names no file."""
TOO_MANY = (errno.EMFILE, errno.ENFILE)
"""What a new pipe or socket may end with, too, which have no name."""
NAMED_WRONG = (errno.ENAMETOOLONG, errno.ELOOP)
"""What a disk answers to a name that cannot be: somebody gave it, so it is wrong input wherever it comes up."""
LONGEST_WORD = 400
"""The longest word, in characters, that a message quotes whole; longer ones are shortened in the middle."""


def printable(text: str, besides: str = "") -> str:
    """`text` with line breaks, a terminal's codes and the like spelled out, but for the characters `besides`."""
    return "".join(c if c.isprintable() or c in besides else ascii(c)[1:-1] for c in text)


def _shortened(text: str) -> str:
    """`text` with the middle of words that fill a screen left out."""
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:120]}...{word[0][-60:]}", text)


class _OneLine(Exception):
    """A message that stays one printable line of readable length whatever it quotes (a key with a line break or a
    terminal's codes, an id of 5,000 letters), and shows no password.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_shortened(printable(redact(str(message)))))


class InputError(_OneLine):
    """The input is wrong: one line that names the file, the key and the cure. Exit code 2."""


class WorkError(_OneLine):
    """The input was right and the work failed all the same: one line. Exit code 1."""

    def __init__(self, message: object = "", cure: str | None = None) -> None:
        """`cure` is the NAME=VALUE with which the same command, given it by --set, is expected to succeed."""
        super().__init__(message)
        self.cure = cure


MEMORY_WORDS = (
    "can't allocate memory", "not enough memory", "out of memory", "insufficient memory", "bad_alloc", "alloc_failed",
    "could not create a memory",
)  # fmt: skip
"""How torch's allocators, cuDNN, oneDNN, OpenCV and C++ say it, each in an error of its own kind."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of whatever library, says that memory does not suffice."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    ours = isinstance(error, InputError | WorkError)
    return not ours and any(words in str(error).lower() for words in MEMORY_WORDS)


def to_stderr(line: str) -> None:
    """Say a warning of one line where a person may see it and no output is disturbed."""
    print(f"warning: {redact(line)}", file=sys.stderr, flush=True)


PIPE_EXIT = 128 + signal.SIGPIPE
"""Exit code of a command whose reader has gone (`| head`), as a shell shows it for other programs."""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and leave the process with the exit code of the table in docs/usage.md.

    0 done, 1 the work failed (a full disk among others), 2 the input was wrong, 130 interrupted from the keyboard and
    resumable, 143 and 129 the same by SIGTERM and SIGHUP, 141 the reader of its output has gone. The traceback of an
    unexpected error, exit code 1 as well, shows no password either.
    """
    open_closed_streams()
    drop_empty()
    code = _code(_stoppable(main))
    if code > 128:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one while the process ends would spoil its exit code
            with suppress(ValueError):  # not the main thread
                signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


class _Stopped(KeyboardInterrupt):
    """A signal that asks to stop, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _stoppable(main: Callable[[], int | None]) -> Callable[[], int | None]:
    """Return `main` with SIGTERM and SIGHUP handled like Ctrl-C, unless they are handled or ignored already: it
    cleans up and says that it stopped. Not in processes forked from this one, which their parent ends by SIGTERM.
    """
    process = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() == process:
            raise _Stopped(number)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def run() -> int | None:
        ours = []
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                with suppress(ValueError):  # not the main thread
                    signal.signal(number, stop)
                    ours.append(number)
        try:
            return main()
        finally:
            for number in ours:
                if signal.getsignal(number) is stop:
                    signal.signal(number, signal.SIG_DFL)

    return run


def check_surroundings() -> None:
    """Raise InputError where there is no working folder, no such time zone or no such level of logging, which every
    command comes to ask for; for an option without a value, which argparse takes for an empty text or a list; and for
    names of files that a locale without UTF-8 makes others of than the libraries do.
    """
    try:
        here = os.getcwd()
    except OSError as error:
        raise InputError(
            f"the working folder is not there any more or cannot be read ({error.strerror}): go to another one (cd)"
        ) from None
    if (empty := next((word for word in sys.argv[1:] if re.fullmatch(r"(--[\w-]+=(--)?)?", word)), None)) is not None:
        raise InputError(f"{empty or repr(empty)}: a value is missing (a variable that is not set?): write one")
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and (odd := next((text for text in (here, *sys.argv[1:]) if not text.isascii()), None)):
        shown = os.fsencode(odd).decode("utf-8", "replace")
        raise InputError(f"LC_ALL, LANG: {shown}: this locale reads names of files as {encoding}; set PYTHONUTF8=1")
    try:
        datetime.now().astimezone()
    except ValueError as error:
        raise InputError(f"TZ={os.environ.get('TZ')}: is no time zone ({error}): correct or unset it") from None
    level = os.environ.get("MLFLOW_LOGGING_LEVEL")
    if level and level.upper() not in logging.getLevelNamesMapping():  # MLflow's import fails at it
        raise InputError(f"MLFLOW_LOGGING_LEVEL={level}: is no level: write ERROR, WARNING, INFO or DEBUG, or unset it")


def _code(main: Callable[[], int | None]) -> int:
    """Run `main` and return its exit code; an error has been printed as one line."""
    try:
        try:
            check_surroundings()
            return main() or 0
        finally:  # also for argparse's --help; at the interpreter's own flush an error would be a traceback
            sys.stdout.flush()
    except InputError as error:
        _say(f"error: {error}")
        return 2
    except WorkError as error:
        _say(f"failed: {error}")
    except KeyboardInterrupt as stop:
        _say("stopped; the same command continues")
        return 128 + (stop.number if isinstance(stop, _Stopped) else signal.SIGINT)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_gone():
            quiet(sys.stdout, sys.stderr)
            return PIPE_EXIT
        plain = as_work_error(error)
        if plain is not None and isinstance(error, OSError) and error.errno in NAMED_WRONG:
            _say(f"error: {plain}")
            return 2
        if plain is not None:
            _say(f"failed: {plain}")
        else:
            _say(redact(traceback.format_exc()), end="")
    return 1


def as_work_error(error: Exception) -> WorkError | None:
    """Say in words what is no defect of ours: a disk that is full or cannot be written, memory that does not suffice.

    None for any other error.
    """
    if isinstance(error, OSError) and error.errno in PLACES and (error.filename or error.errno in (*FULL, *TOO_MANY)):
        place = error.filename or ("a file that was being written" if error.errno in FULL else "a pipe or a socket")
        return WorkError(f"{place}: {error.strerror}; {PLACES[error.errno]}")
    if not isinstance(error, OSError) and is_out_of_memory(error):
        return WorkError(f"out of memory ({brief_words(error)}); leave more memory free")
    return None


def in_one_line(error: BaseException) -> str:
    """Return an error's message as one line without secrets, its kind where it has none."""
    return redact(" ".join(str(error).split())) or type(error).__name__


def brief_words(error: BaseException) -> str:
    """Shorten an error's message to the start of one line."""
    return in_one_line(error)[:200]


def _say(text: str, end: str = "\n") -> None:
    """Print a line on standard error; without a reader the exit code alone reports the error."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        quiet(sys.stderr)


def reader_gone() -> bool:
    """Return whether standard output or standard error is a pipe without a reader, or a terminal that was closed."""
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def quiet(*streams: IO[str]) -> None:
    """Redirect those of these streams whose reader has gone to the null device."""
    for stream in streams:
        with suppress(OSError, ValueError, AttributeError):  # one that is no file, as under a test
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
