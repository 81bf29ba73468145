"""Writes that are whole or absent, and digests: everything that is kept on disk goes through here.

A file or folder is written under a temporary name, synced, renamed, and its folder synced: whoever sees the name after
a kill -9, or after the machine lost power, sees all that belongs to it.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cpn.core.errors import FULL, InputError
from cpn.core.plain_file import refuse_impossible


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a binary file to write; on success it becomes `path`, so that a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def full_path(text: str, key: str) -> Path:
    """Return a path made absolute, `~` and `~user` expanded. Raises InputError, naming `key`, where there is no such
    user, and for a path that nothing can be or become.
    """
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"{key}: {text}: there is no such home folder; write the whole path") from error
    refuse_impossible(path, key)
    return path


def check_place(path: Path, key: str) -> None:
    """Raise InputError, naming `key`, unless files can be written in the folder `path`, or it can be made."""
    try:
        refuse_impossible(path.absolute(), key)
        place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be written ({error.strerror}); choose another folder") from error


def check_file(path: Path, key: str) -> None:
    """Raise InputError, naming `key`, unless the file `path` can be written or made: asked before the work whose result
    it gets.
    """
    check_place(path.parent, key)
    refuse_impossible(path.absolute(), key)
    if path.is_dir():
        raise InputError(f"{key}: {path} is a folder; give the name of a file")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or absent, even after kill -9."""
    with whole_file(path) as file:
        file.write(data)


SEAL = "digest"
"""Key of a JSON file for the digest of all else in it."""
LIST = "list"
"""Key under which a file holds a value that is no mapping."""
AGAIN = "delete it, and give the same command again"
"""The cure for a file that its command writes again."""


class DamagedFile(InputError, ValueError):
    """A file that the product itself wrote is not what it wrote: one line with the file and the cure."""

    def __init__(self, path: Path | str, cure: str | None = None, why: object = "", missing: bool = False) -> None:
        """`why` is what a reader said of it; `cure` is what mends it, as an order. Without a cure `path` is the whole
        line: torch makes an exception of a loader's process again from its text alone.
        """
        self.path, self.cure, self.why, self.missing = Path(path), cure, str(why), missing
        if cure is None:
            super().__init__(path)
            return
        reason = " ".join(str(why).split())[:200]
        how = "missing" if missing else f"damaged ({reason})" if reason else "damaged"
        super().__init__(f"{path}: is {how}; {cure}")

    def __reduce__(self) -> Any:
        return type(self), (str(self.path), self.cure, self.why, self.missing)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys and a digest of itself, whole or absent.

    NaN is refused (ValueError).
    """
    plain = json.loads(json.dumps(value, allow_nan=False))  # as it will be read: no tuples, no numbers as keys
    body = plain if isinstance(plain, dict) else {LIST: plain}
    text = json.dumps({**body, SEAL: digest(body)}, indent=2, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path, cure: str = AGAIN, sealed: bool = False) -> Any:
    """Read a JSON file written by `write_json`, and hold it against its own digest.

    Files of earlier versions have none and are taken as they are, unless it has to be `sealed`. Raises DamagedFile,
    which is an InputError and a ValueError, with the `cure`; FileNotFoundError where there is none.
    """
    return unsealed(path.read_bytes(), path, cure, sealed)


def unsealed(data: bytes, path: Path | str, cure: str = AGAIN, sealed: bool = False) -> Any:
    """Return what `read_json` gives of a file's bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        why = "it is empty" if not data else "it is no text" if isinstance(error, UnicodeDecodeError) else error
        raise DamagedFile(path, cure, why) from None
    if not isinstance(value, dict) or SEAL not in value:
        if sealed or (isinstance(value, dict) and LIST in value):
            raise DamagedFile(path, cure, "it has no digest of itself")
        return value
    body = {name: part for name, part in value.items() if name != SEAL}
    if value[SEAL] != digest(body):
        raise DamagedFile(path, cure, "it is not what was written")
    return body[LIST] if body.keys() == {LIST} else body


def is_sealed(path: Path) -> bool:
    """Return whether a JSON file that can be read has a digest of itself; those of earlier versions have none."""
    value = json.loads(path.read_bytes())
    return isinstance(value, dict) and SEAL in value


@contextmanager
def whole_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """Give a fresh temporary folder; on success sync all in it and rename it to `path`, on any failure remove it.

    An existing `path` is replaced only once the new folder is whole; without `replace` it stays, and OSError
    (ENOTEMPTY) says so unless it is an empty folder. A link to a folder stays: where it leads is replaced.
    """
    path = path.resolve() if path.is_dir() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for below in (*temporary.rglob("*"), temporary):
            sync(below)
        if replace and path.exists():
            old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
        sync(path.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def sync(path: Path) -> None:
    """Wait until the disk has a file's bytes, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks sync no folders: nothing to wait for
            raise
    finally:
        os.close(opened)


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form, first 16 hex digits: the key of runs and stages."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
