"""What the product wrote itself is checked when it is read again: a damaged file is one line, with file and cure.

JSON carries a digest of itself (cpn/core/files.py), npz and PNG a checksum of each part; a large file has a digest
elsewhere (a manifest, a file beside it), against which it is held once a machine and start: the result is remembered by
the file's size, time of change and inode, in a folder of empty files that may be deleted at any time.
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar
from zipfile import BadZipFile

from pydantic import BaseModel, ValidationError

from cpn.core.files import AGAIN, DamagedFile, digest, file_digest, read_json, write_bytes
from cpn.core.object_storage import scratch

BROKEN = (
    ValueError, KeyError, IndexError, EOFError, SyntaxError, OverflowError, RuntimeError, BadZipFile, TokenError,
    zlib.error, struct.error,
)  # fmt: skip
"""What numpy, zipfile, PIL and pyarrow raise for bytes that are not what was written."""
OF_RUN = (
    "the sweep's command makes again what it needs itself; any run is made again by python -m platform.export TRIAL > "
    "run.yaml and python -m platform.train run.yaml"
)
"""The cure for a file of a finished run."""
SWEEP_WRITES = "give the sweep's command again, which writes it anew"
"""The cure for what a sweep writes at its start or its end."""
PNG = b"\x89PNG\r\n\x1a\n"
SUM = "sum"
"""Key of a line's checksum."""
SIDE = ".sha256"
"""Ending of a file that holds the digest of the file beside it."""
KEPT_DAYS = 60
"""After so long without being used, what is remembered of a file is forgotten."""
LOOKED = ".looked_through"
"""File whose age says when marks were last looked through for old ones."""

Typed = TypeVar("Typed", bound=BaseModel)


@contextmanager
def reading(path: Path, cure: str = AGAIN) -> Iterator[None]:
    """Read a file that has to be there: DamagedFile, with the `cure`, where it is missing or cannot be understood.

    What the disk answers to a file that is there (no permission) stays an OSError.
    """
    try:
        yield
    except DamagedFile:
        raise
    except FileNotFoundError:
        raise DamagedFile(path, cure, missing=True) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedFile(path, cure, error) from None
    except BROKEN as error:
        raise DamagedFile(path, cure, error) from None


def read_typed(path: Path, model: type[Typed], cure: str = AGAIN) -> Typed:
    """Read a JSON file of `write_json` as the model that it was written from.

    Raises FileNotFoundError where there is none, DamagedFile, with the `cure`, where it is not what was written.
    """
    return validated(read_json(path, cure), path, model, cure)


def validated(value: object, path: Path, model: type[Typed], cure: str = AGAIN) -> Typed:
    """Validate what a file holds. Raises DamagedFile, naming the first key that is missing or wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedFile(path, cure, f"{where}: {first['msg']}" if where else "no dictionary") from None


def sealed_line(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object as one line with its checksum, for files that grow line by line."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return json.dumps({**value, SUM: _sum(text)}, separators=(",", ":")).encode() + b"\n"


def unsealed_line(line: bytes) -> dict[str, Any] | None:
    """Read a line of `sealed_line`; None for a damaged one. Lines of earlier versions have no checksum."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    recorded_sum = value.pop(SUM, None)
    if recorded_sum is not None and recorded_sum != _sum(json.dumps(value, separators=(",", ":"))):
        return None
    return value


def _sum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def is_png(data: bytes) -> bool:
    """Return whether bytes are a whole PNG: every chunk is there and has its checksum."""
    if not data.startswith(PNG):
        return False
    at = len(PNG)
    while at + 12 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        if kind == b"IEND":
            return end == len(data)
        at = end
    return False


def whole_png(path: Path) -> bool:
    """Return whether a file is there and is a whole PNG."""
    try:
        return is_png(path.read_bytes())
    except FileNotFoundError:
        return False


def verified(path: Path, sha256: str, again: bool = False) -> bool:
    """Return whether a file has this digest. Computed once and remembered while the file is not touched; `again`
    computes it all the same, which a command does once when it starts: a disk that rots changes no time.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    known = [str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino, sha256]
    return remembered(known, lambda: file_digest(path) == sha256, again)


def damaged_among(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Return the names of the files in a folder that are missing or have not their digest; remembered as in
    `verified`.
    """
    lost = [name for name in digests if not (folder / name).is_file()]
    if lost:
        return lost
    stats = [(name, (folder / name).stat()) for name in sorted(digests)]
    known = [str(folder.absolute()), [[n, digests[n], s.st_size, s.st_mtime_ns, s.st_ino] for n, s in stats]]

    def holds() -> bool:
        lost.extend(name for name, sha256 in digests.items() if file_digest(folder / name) != sha256)
        return not lost

    remembered(known, holds)
    return lost


def remembered(known: object, holds: Callable[[], bool], again: bool = False) -> bool:
    """Return whether something `holds`, computed only where it is not remembered of what is `known` that it did."""
    mark = scratch() / "verified" / digest(known)
    with suppress(OSError):
        if not again and mark.exists():
            os.utime(mark)
            return True
    if not holds():
        with suppress(OSError):
            mark.unlink(missing_ok=True)
        return False
    with suppress(OSError):  # a home folder that cannot be written: nothing is remembered
        forget_old(mark.parent)
        write_bytes(mark, b"")
    return True


@cache
def forget_old(folder: Path) -> None:
    """Remove what has not been asked for in a long time; once a day, since it looks at every mark."""
    now, last = time.time(), folder / LOOKED
    if last.exists() and now - last.stat().st_mtime < 86400:
        return
    for mark in folder.glob("*"):
        if mark.stat().st_mtime < now - 86400 * KEPT_DAYS:
            mark.unlink(missing_ok=True)
    write_bytes(last, b"")


def side_file(path: Path) -> Path:
    """Return where the digest of a file that has no manifest lies."""
    return path.with_name(path.name + SIDE)


def write_side(path: Path, sha256: str) -> None:
    """Keep the digest of a file beside it. An old one goes before the file is written anew: without one it is taken as
    it is, with another's it would count as damaged.
    """
    write_bytes(side_file(path), sha256.encode() + b"\n")


def side_digest(path: Path) -> str | None:
    """Return the digest beside a file; None where an earlier version wrote it, or the digest is not whole."""
    try:
        recorded = side_file(path).read_bytes().strip()
    except FileNotFoundError:
        return None
    return recorded.decode("ascii", "replace") or "none"
