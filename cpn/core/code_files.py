"""Whose files a user's own code lies in: what somebody else could have written is not imported.

Looked at is the file of every module that `cpn.core.contents.reached_modules` finds, its bytecode, and the folders on
the way to both. Python and installed packages are trusted as they are, and so is what code computes at run time.
"""

import grp
import importlib.util
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from cpn.core.contents import contents, reached_modules
from cpn.core.errors import InputError

LOOKED_AT = "CPN_CODE_LOOKED_AT"
"""Environment variable of a sweep's workers: digests of the code that the driver has looked at."""
MOST_LINKS = 40
"""Symbolic links on the way to a file that the system follows."""


def check_code(name: str, key: str = "network.backbone") -> None:
    """Raise InputError, naming `key`, where others than this user and root could have written the code `name`,
    `package.module:factory`. Nothing is imported.

    Refused are files that others than their owner may write to, or that belong to neither this user nor root, and
    folders on the way that others may write to and take names from (no sticky bit). A group that has no member but the
    owner is no other, as for umask 002.
    """
    if known_code([name]).get(name) in os.environ.get(LOOKED_AT, "").split():
        return  # the same bytes as on the driver's machine, wherever they have been unpacked
    for module in reached_modules(name):
        paths = [module.file, *compiled(module.file)]
        own = {folder.resolve() for path in paths for folder in path.parents if folder.is_relative_to(module.root)}
        for step in dict.fromkeys(step for path in paths for step in on_the_way(path)):
            if fault := fault_of(step, step in own or not step.is_dir()):
                raise InputError(f"{key}: {name!r} is code that somebody else could have written: {step} {fault}")


def known_code(names: Iterable[str]) -> dict[str, str]:
    """Digests of the code that `names` name, of what can be found of it."""
    return {name: digest for name in names for digest in contents({"network.backbone": name}).values()}


def compiled(file: Path) -> list[Path]:
    """Return the bytecode that Python runs in place of a source, where there is one, or the folder it would be in."""
    if file.suffix != ".py":
        return []
    cached = Path(importlib.util.cache_from_source(str(file)))
    return [path for path in (cached, cached.parent) if path.exists()][:1]


def on_the_way(path: Path) -> Iterator[Path]:
    """Yield a path and all folders above it, and what its links lead to. Write access to any of them is enough to
    replace the file.
    """
    place, waiting, links = Path("/"), list(path.absolute().parts[1:]), 0
    yield place
    while waiting:
        part = waiting.pop(0)
        place = place.parent if part == ".." else place / part
        if place.is_symlink() and links < MOST_LINKS:
            links += 1
            target = Path(os.readlink(place))
            waiting = [*target.parts[target.is_absolute() :], *waiting]
            place = Path("/") if target.is_absolute() else place.parent
        else:
            yield place


def fault_of(path: Path, own: bool) -> str | None:
    """Describe what is wrong with the permissions of a file or folder, and the cure; None when nothing is.

    `own` is what has to belong to this user or to root: files, and the folders that modules are looked for in.
    """
    status = path.stat()
    folder = stat.S_ISDIR(status.st_mode)
    if own and status.st_uid not in (0, os.geteuid()):
        return f"belongs to {user_name(status.st_uid)} and neither to you nor to root; use a copy of your own"
    others = status.st_mode & stat.S_IWOTH or (
        status.st_mode & stat.S_IWGRP and not is_private(status.st_uid, status.st_gid)
    )
    if others and not (folder and status.st_mode & stat.S_ISVTX):
        return f"can be written by others than its owner (mode {stat.S_IMODE(status.st_mode):o}); chmod go-w {path}"
    return None


def is_private(user: int, group: int) -> bool:
    """Return whether a group holds its user alone, as systems make one for each user and then let files be
    group-writable (pam_umask's `usergroups`, which leaves out root).
    """
    try:
        account, listed = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    same = account.pw_gid == group and account.pw_name == listed.gr_name
    return user != 0 and same and set(listed.gr_mem) <= {account.pw_name}


def user_name(user: int) -> str:
    """Return a user as people call it."""
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user {user}"
