"""A user's own code that raises: any exception becomes one line with its text, the file and the line."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    no fault of the code (out of memory, a failing GPU) passes through.
    """
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
