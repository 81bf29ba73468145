"""Read files that come from anywhere: regular ones of a bounded size, and nothing that blocks or never ends.

A pipe waits for a writer, /dev/zero has no end, and a link may lead to either; a file of gigabytes under the name of a
small one fills the memory. What is read here is looked at first. A dangling link is an error and not a missing
file: the user meant a file, and without it the product would silently use other data.
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


def is_there(path: Path, key: str = "") -> bool:
    """Return whether an input of the user's, of whatever kind, is there; links are followed.

    Raises InputError, behind the `key` that named it, where that cannot be said: a link that leads nowhere or in a
    circle, at the path's end or on the way to it; a name that is too long for a file or holds a zero byte; a folder
    that this user may not enter.
    """
    return _mode(path, key) is not None


def file_there(path: Path, key: str = "") -> bool:
    """Return whether an input is there and is a regular file. Raises InputError as `is_there` does."""
    mode = _mode(path, key)
    return mode is not None and stat.S_ISREG(mode)


def folder_there(path: Path, key: str = "") -> bool:
    """Return whether an input is there and is a folder. Raises InputError as `is_there` does."""
    mode = _mode(path, key)
    return mode is not None and stat.S_ISDIR(mode)


def _mode(path: Path, key: str) -> int | None:
    """Return what kind of file a path leads to; None where nothing is there."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError) as error:
        refuse_impossible(path, key)
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(
                f"{_said(key)}{path} cannot be read ({error.strerror}): make it readable for this user"
            ) from None
        return None


def refuse_impossible(path: Path, key: str = "") -> None:
    """Raise InputError, behind the `key`, when nothing can be or become `path`: it, or a folder on the way to it, is a
    link that leads nowhere, or its name is too long for a file or holds a zero byte.
    """
    shown = f"{_said(key)}{path}"
    if (dead := _dead_link(path)) is not None:
        raise InputError(f"{_said(key)}{dead}: lay the link anew, or put what is meant in its place")
    try:
        os.stat(path)
    except ValueError:
        raise InputError(f"{shown} holds a zero byte, which no file's name does: correct it") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{shown} is too long for the name of a file: give a shorter one") from None


def _dead_link(path: Path) -> str | None:
    """Return which link on the way to `path` leads nowhere, and where it points, in words; None where there is none."""
    for step in reversed((path, *path.parents)):
        try:
            if os.path.islink(step):
                os.stat(step)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return f"{step} is a link that leads in a circle (it points to {os.readlink(step)})"
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return f"{step} is a link to {os.readlink(step)}, which is not there"
            return None
    return None


def _said(key: str) -> str:
    return f"{key}: " if key else ""


def refuse_irregular(path: Path) -> None:
    """Raise InputError when `path` is, or links to, a pipe, a device or a socket, and as
    `refuse_impossible` does; what is not there is no matter.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        refuse_impossible(path)
        return
    _refuse(path, mode)


def read_plain(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file.

    Raises InputError for anything else and for more than `limit` bytes, before they are read; OSError as `open` does.
    """
    refuse_irregular(path)  # before it is opened: opening a device can set it going
    if os.path.isdir(path):  # Python's own error would name a number in the place of the path
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _refuse(path, status.st_mode)
        data = b"" if status.st_size > limit else file.read(limit + 1)
        if max(len(data), status.st_size) > limit:
            raise InputError(f"{path} is larger than {_size(limit)}, the most that is read here: give the right file")
        return data


def read_input(path: Path, limit: int) -> bytes:
    """Return the bytes of a file of the user's that has to be there and be readable.

    Raises InputError as `read_plain` does, and for a folder, a missing file and one that this user may not read.
    """
    try:
        return read_plain(path, limit)
    except IsADirectoryError:
        raise InputError(f"{path} is a folder and cannot be read: put a file there") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable for this user") from error


def _refuse(path: Path, mode: int) -> None:
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise InputError(f"{path} is {kind} and no regular file: put a file there")


def _size(limit: int) -> str:
    return f"{limit // MB} MB" if limit >= MB else f"{limit // 1000} kB"
