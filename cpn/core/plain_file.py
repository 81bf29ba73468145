"""Read files that come from anywhere: regular ones of a bounded size, and nothing that blocks or never ends.

A pipe waits for a writer, /dev/zero has no end, and a link may lead to either; a file of gigabytes under the name of a
small one fills the memory. What is read here is looked at first.
"""

import errno
import os
import stat
from pathlib import Path

from cpn.core.errors import InputError

MB = 1_000_000

_KINDS = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def refuse_irregular(path: Path) -> None:
    """Raise InputError when `path` is, or links to, a pipe, a device or a socket; what is not there is no matter."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    _refuse(path, mode)


def read_plain(path: Path, limit: int) -> bytes:
    """The bytes of a regular file.

    Raises InputError for anything else and for more than `limit` bytes, before they are read; OSError as `open` does.
    """
    refuse_irregular(path)  # before it is opened: opening a device can set it going
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _refuse(path, status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        data = b"" if status.st_size > limit else file.read(limit + 1)
        if max(len(data), status.st_size) > limit:
            raise InputError(f"{path} is larger than {_size(limit)}, the most that is read here: give the right file")
        return data


def _refuse(path: Path, mode: int) -> None:
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise InputError(f"{path} is {kind} and no regular file: put a file there")


def _size(limit: int) -> str:
    return f"{limit // MB} MB" if limit >= MB else f"{limit // 1000} kB"
