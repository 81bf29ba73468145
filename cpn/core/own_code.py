"""A user's own code that raises: any exception becomes one line with its text, the file and the line. So does code that
changes what the whole process shares (torch's default precision, the seed, the working folder, standard output).
"""

from __future__ import annotations

import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError, WorkError

LONGEST = 300
"""Characters of an exception's text that are shown; torch lists a whole state dict in one."""
HERE = str(Path(__file__).parents[1])
STANDARD = sysconfig.get_paths()["stdlib"]
INSTALLED = ("site-packages", "dist-packages")


@contextmanager
def own_code(name: str, what: str) -> Iterator[None]:
    """Turn whatever the user's code `name` raises inside the block into an InputError in one line.

    `what` says what it was doing, such as "its forward". What names a cure already (InputError, WorkError) and what is
    no fault of the code (out of memory, a failing GPU) passes through. What the block changes of `shared_state` is set
    back, and is an InputError too.
    """
    before = shared_state()
    try:
        yield
    except (InputError, WorkError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the code is not ours: it may raise anything, or leave
        if "torch" in sys.modules:
            import torch

            if isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError)):
                raise
        raise InputError(
            f"network.backbone: {name!r}: {what} raised {exception_text(error)} ({place_of(error)}); correct it there, "
            f"then python -m cpn.backbone --check {name}"
        ) from error
    finally:
        changed = [each.words for each, value in before if _set_back(each, value)]
    if changed:
        raise InputError(
            f"network.backbone: {name!r}: {what} changes {changed[0]}, which everything else in the process depends "
            "on; leave it as it is, or set it back before the end"
        )


@dataclass(frozen=True)
class Shared:
    """Something that all code of the process shares."""

    words: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _stream(name: str) -> Callable[[], Any]:
    return lambda: (getattr(sys, name), getattr(getattr(sys, name), "closed", None))


def _put_stream(name: str) -> Callable[[Any], None]:
    def put(value: tuple[Any, bool | None]) -> None:
        stream, closed = value
        lost = not closed and getattr(stream, "closed", False)
        setattr(sys, name, io.StringIO() if lost else stream)

    return put


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return None


def _put_folder(folder: str | None) -> None:
    if folder is not None:
        os.chdir(folder)


ALWAYS = (
    Shared("the working folder", _folder, _put_folder),
    Shared("sys.stdout", _stream("stdout"), _put_stream("stdout")),
    Shared("sys.stderr", _stream("stderr"), _put_stream("stderr")),
)


@cache
def _of_torch() -> tuple[Shared, ...]:
    import torch

    return (
        Shared("torch's default precision", torch.get_default_dtype, torch.set_default_dtype),
        Shared("torch's default device", torch.get_default_device, torch.set_default_device),
        Shared("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled),
        Shared("the number of threads", torch.get_num_threads, torch.set_num_threads),
        Shared("torch's seed", torch.initial_seed, lambda value: None),  # what was drawn since cannot be brought back
        Shared(
            "whether torch's algorithms are deterministic",
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
    )


def shared_state() -> list[tuple[Shared, Any]]:
    """Return what all code of the process shares and a user's own has no business to change, with its values now."""
    return [(each, each.get()) for each in (*ALWAYS, *(_of_torch() if "torch" in sys.modules else ()))]


def _set_back(shared: Shared, value: Any) -> bool:
    """Whether it has another value by now, which is set back."""
    if shared.get() == value:
        return False
    shared.put(value)
    return True


def exception_text(error: BaseException) -> str:
    """Return an exception's kind and text in one line of bounded length."""
    try:
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    except Exception:  # its __str__ is the user's, too
        text = ""
    shown = text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def place_of(error: BaseException) -> str:
    """File and line of the innermost frame of the user's code.

    That is the innermost one outside Python, this product and installed packages; where all of the code is installed,
    the innermost outside Python, this product and torch.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    others = [frame for frame in frames if not _is_below(frame.filename, HERE) and not _is_python(frame.filename)]
    users = [frame for frame in others if not any(part in Path(frame.filename).parts for part in INSTALLED)]
    no_torch = [frame for frame in others if "torch" not in Path(frame.filename).parts]
    frame = (users or no_torch or list(frames))[-1]
    return f"{frame.filename}, line {frame.lineno}"


def _is_below(file: str, folder: str) -> bool:
    return Path(file).is_relative_to(folder)


def _is_python(file: str) -> bool:
    installed = any(part in Path(file).parts for part in INSTALLED)
    return file.startswith("<") or (_is_below(file, STANDARD) and not installed)
