"""Lock files of one machine, freed by the system when their process ends, however it ends.

`fcntl` itself: what a library adds are timeouts and other systems, which nothing here needs, and the deletion of the
lock file, which another process may have open.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; wait while another process holds it. Its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def file_lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`, unless another process holds it: yields whether it is held here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
