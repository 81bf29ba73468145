"""What a command finds around it, brought into order before anything else: empty variables, closed streams.

An environment variable that is empty is one that is not set: `RAY_ADDRESS= python -m ...`, a job script's `$UNSET`.
Programs and libraries differ in that: Ray takes an empty TMPDIR for the working folder, MLflow an empty URI for one.

A stream that is closed (`>&-`, some services) leaves its number to the next file that is opened: a database, into which
then goes what a library prints.
"""

import os
import sys

NAMES = ("HOME", "MPLCONFIGDIR", "TEMP", "TMP", "TMPDIR")
PREFIXES = ("AWS_", "CPN_", "MKL_", "MLFLOW_", "OMP_", "OPENBLAS_", "RAY_", "XDG_")
MEANT = ("MLFLOW_AUTH_ADMIN_PASSWORD",)
"""An empty one is a mistake that has to be said, or a page would be open to everybody. CUDA_VISIBLE_DEVICES, where
empty means no GPU, is in none of the lists.
"""


UNUSED = ("MPLBACKEND",)
"""What says how to open windows: pictures here become files. Matplotlib's import fails at a name it does not know, such
as a notebook's in another environment.
"""


def drop_empty() -> None:
    """Take the empty ones of what we and our libraries read out of this process's environment, and what is UNUSED."""
    for name in UNUSED:
        os.environ.pop(name, None)
    for name, value in list(os.environ.items()):
        if not value and (name in NAMES or name.startswith(PREFIXES)) and name not in MEANT:
            del os.environ[name]


def open_closed_streams() -> None:
    """Put the null device in the place of standard input, output and error where they are closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:  # something else is below it already
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))
