"""Folders in object storage, s3://bucket/prefix, through pyarrow.fs: whole or absent, and checked when they are read.

All code works on local folders; `push` brings what one holds to a URL and `pull` fetches it. The names and digests of
the files that belong together, a *part*, lie beside them in `.files/<part>.json`, which is written last: files that no
part lists are not there. What is fetched is held against its digest and gets its name when it is whole.

Credentials and endpoint come from the environment alone: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3
or AWS_ENDPOINT_URL, AWS_DEFAULT_REGION.
"""

import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError, WorkError
from cpn.core.files import file_digest, whole_file

if TYPE_CHECKING:  # imported where a URL is opened: most storage is a folder
    from pyarrow.fs import FileInfo, FileSystem

WHOLE = "whole"
"""The part that holds all files of a folder which is finished."""
LISTS = ".files"
SCRATCH = "CPN_SCRATCH"
"""Environment variable: a folder on this machine's own disk for what is fetched; it may be deleted between sweeps."""
CHUNK = 2**22
TIMEOUT_S = 30
ATTEMPTS = 4
"""Of one request, with growing pauses, before an error is an error."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0

CURES = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or check the name",
    "ACCESS_DENIED": "the credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY do not give the right to it",
    "INVALID_ACCESS_KEY_ID": "AWS_ACCESS_KEY_ID is not known there; set it and AWS_SECRET_ACCESS_KEY",
    "INVALID_CLIENT_TOKEN_ID": "AWS_ACCESS_KEY_ID is not known there; set it and AWS_SECRET_ACCESS_KEY",
    "SIGNATURE_DOES_NOT_MATCH": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID; set both",
    "NETWORK_CONNECTION": "the endpoint does not answer; start it, or check AWS_ENDPOINT_URL",
}
"""What S3 calls a trouble, and what to do about it."""


class Damaged(WorkError):
    """Fetched data differ from what was written."""


def is_url(place: str) -> bool:
    """Return whether a place is a URL and no folder."""
    return "://" in place


def scratch() -> Path:
    """Return where this machine keeps what it fetched: CPN_SCRATCH, or a folder of this host below the user's cache."""
    own = os.environ.get(SCRATCH)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cpn-platform"
    return Path(own).absolute() if own else cache / socket.gethostname()


def filesystem(url: str, key: str = "") -> "tuple[FileSystem, str]":
    """Return the filesystem that a URL lies on, and the path there. Raises InputError for a URL that is none."""
    from pyarrow.fs import FileSystem

    try:
        scheme, _, rest = url.partition("://")
        if scheme != "s3":
            system, path = FileSystem.from_uri(url)
            return system, str(path).rstrip("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]+(/.*)?", rest):
            raise ValueError("a bucket has lower-case letters, digits, dots and hyphens")
        return _s3(), rest.rstrip("/")
    except (ValueError, OSError) as error:
        raise InputError(f"{key}{url}: not a usable URL ({_one_line(error)}); write s3://BUCKET/PREFIX") from error


def _s3() -> "FileSystem":
    """S3 as the environment describes it."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return _s3_of(os.getpid(), endpoint, region, os.environ.get("AWS_ACCESS_KEY_ID"))


@lru_cache(maxsize=4)
def _s3_of(_process: int, endpoint: str, region: str | None, _user: str | None) -> "FileSystem":
    """Return one client for each process and environment, with patience of seconds and not of minutes."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    scheme, _, host = endpoint.rpartition("://")
    return S3FileSystem(
        endpoint_override=host.rstrip("/") or None,
        scheme=scheme or "https",
        region=region or ("us-east-1" if endpoint else None),
        connect_timeout=TIMEOUT_S / 3,
        request_timeout=TIMEOUT_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # small files are one request
    )


def explain(error: OSError) -> str:
    """Describe an error of object storage, with the cure."""
    message = _one_line(error)
    cure = next((text for name, text in CURES.items() if name in message), None)
    cure = cure or (
        CURES["ACCESS_DENIED"] if "403" in message else "check the URL, the credentials and AWS_ENDPOINT_URL"
    )
    name = re.search(r"AWS Error ([A-Z_]+)", message)
    return f"{cure} ({name.group(1) if name else message[:200]})"


def check_url(url: str, key: str, write: bool) -> None:
    """Raise InputError, naming `key`, unless what lies at the URL can be listed and, with `write`, written."""
    system, path = filesystem(url, f"{key}: ")
    try:
        with suppress(FileNotFoundError):  # nothing has been put there yet; a bucket that is missing is another error
            _entries(system, path)
        if write:
            probe = f"{path}/.{secrets.token_hex(4)}.probe"
            _make_folder(system, path)
            with system.open_output_stream(probe) as file:
                file.write(b"x")
            system.delete_file(probe)
    except OSError as error:
        raise InputError(f"{key}: {url}: {explain(error)}") from error


def push(local: Path, url: str, names: Iterable[str] | None = None, part: str = WHOLE) -> None:
    """Bring files of the folder `local` (all of them, or `names` in it) to `url` as one part of it.

    What lies there with the same digest is not sent again. A part that is sent anew is absent in the meantime.
    """
    system, path = filesystem(url)
    wanted = {name: file_digest(local / name) for name in sorted(names if names is not None else names_in(local))}
    there = listing(url, part)
    if there == wanted:
        return
    if there is not None:
        system.delete_file(_list_path(path, part))
    for name, digest in wanted.items():
        if (there or {}).get(name) != digest:
            send(local / name, f"{url}/{name}")
    with _writing(system, _list_path(path, part)) as target:
        target.write(json.dumps(wanted, indent=1).encode())


def pull(url: str, local: Path, wanted: Callable[[str], bool] | None = None, part: str | None = None) -> bool:
    """Fetch the files that the parts of `url` list (only `part`; only those that are `wanted`) into the folder `local`.

    Returns whether there is such a part. What lies in `local` with the right digest is not fetched again. Several
    processes may fetch the same at once. Raises Damaged when a file is missing there or is not what was written.
    """
    files = listing(url, part)
    if files is None:
        return False
    system, path = filesystem(url)
    for name, digest in files.items():
        if wanted is None or wanted(name):
            target = local / name
            if not target.is_file() or file_digest(target) != digest:
                fetch(system, f"{path}/{name}", target, digest)
    return True


def send(file: Path, url: str) -> None:
    """Send one file; the object is there when it is whole."""
    system, path = filesystem(url)
    with open(file, "rb") as source, _writing(system, path) as target:
        shutil.copyfileobj(source, target, CHUNK)


def fetch(system: "FileSystem", path: str, target: Path, digest: str | None) -> None:
    """Fetch one file; it gets its name when it is whole and has the digest."""
    try:
        source = system.open_input_stream(path)
    except FileNotFoundError as error:
        raise Damaged(f"{path}: is missing") from error
    with source, whole_file(target) as file:
        shutil.copyfileobj(source, file, CHUNK)
        file.flush()
        if digest is not None and file_digest(Path(file.name)) != digest:
            raise Damaged(f"{path}: is not what was written there")


def listing(url: str, part: str | None = None) -> dict[str, str] | None:
    """Name -> digest of the files of a part, or of all parts together; None where there is none."""
    system, path = filesystem(url)
    if part is not None:
        return _read_list(system, _list_path(path, part))
    digests: dict[str, str] | None = None
    for info in _entries(system, f"{path}/{LISTS}", allow_not_found=True):
        files = _read_list(system, info.path) if info.path.endswith(".json") else None
        if files is not None:
            digests = {**(digests or {}), **files}
    return digests


def folders(url: str) -> list[str]:
    """Return the names of the folders right below a URL, sorted."""
    system, path = filesystem(url)
    entries = _entries(system, path, allow_not_found=True)
    return sorted(info.base_name for info in entries if _is_folder(info) and info.base_name != LISTS)


def sizes(url: str) -> dict[str, int]:
    """Name -> bytes of everything below a URL, in one listing."""
    system, path = filesystem(url)
    entries = _entries(system, path, recursive=True, allow_not_found=True)
    return {info.path.removeprefix(f"{path}/"): info.size for info in entries if info.is_file}


def remove(url: str) -> None:
    """Delete a folder: first what says that it is there, then the rest. One that is not there stays so."""
    system, path = filesystem(url)
    for folder in (f"{path}/{LISTS}", path):
        if _is_folder(system.get_file_info(folder)):
            system.delete_dir(folder)


def forget(url: str, name: str) -> int:
    """Delete one file of a folder that is whole, which stays whole without it; the bytes that were freed."""
    files = listing(url, WHOLE)
    if files is None or name not in files:
        return 0
    system, path = filesystem(url)
    del files[name]
    write_object(_list_path(url, WHOLE), json.dumps(files, indent=1).encode())
    info = system.get_file_info(f"{path}/{name}")
    if not info.is_file:
        return 0
    system.delete_file(f"{path}/{name}")
    return int(info.size)


def write_object(url: str, data: bytes) -> None:
    """Write one object, whole or absent."""
    system, path = filesystem(url)
    with _writing(system, path) as target:
        target.write(data)


def read_object(url: str) -> bytes | None:
    """Read one object; None where there is none."""
    system, path = filesystem(url)
    try:
        with system.open_input_stream(path) as file:
            return bytes(file.read())
    except FileNotFoundError:
        return None


def names_in(local: Path) -> list[str]:
    """Return the files below a folder, without those that are still being written."""
    files = [path.relative_to(local) for path in local.rglob("*") if path.is_file()]
    return sorted(str(name) for name in files if not any(part.startswith(".") for part in name.parts))


def with_retries(work: Callable[[], Any], seconds: float, say: Callable[[str], None]) -> Any:
    """Do `work`, again and again while object storage has troubles, for `seconds`; `say` hears of the first one."""
    end, wait, reported = time.monotonic() + seconds, FIRST_WAIT, False
    while True:
        try:
            return work()
        except OSError as error:
            if time.monotonic() + wait > end or error.filename is not None:  # a file of this machine gets no better
                raise
            if not reported:
                say(f"object storage: {explain(error)}; trying again for {seconds:.0f} s")
            reported = True
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def _read_list(system: "FileSystem", path: str) -> dict[str, str] | None:
    """Return a part's list; one that says something else names no files. None where there is none."""
    try:
        with system.open_input_stream(path) as file:
            digests = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError:
        return None
    if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        return None
    outside = next((name for name in digests if name.startswith("/") or ".." in name.split("/")), None)
    if outside is not None:
        raise Damaged(f"{path}: names {outside!r}, a file outside its folder")
    return digests


def _list_path(path: str, part: str) -> str:
    return f"{path}/{LISTS}/{part}.json"


def _entries(system: "FileSystem", path: str, **options: bool) -> "list[FileInfo]":
    """Return what lies right below a path, or, `recursive`, anywhere below it."""
    from pyarrow.fs import FileSelector

    return list(system.get_file_info(FileSelector(path, **options)))


def _is_folder(info: "FileInfo") -> bool:
    from pyarrow.fs import FileType

    return bool(info.type == FileType.Directory)


@contextmanager
def _writing(system: "FileSystem", path: str) -> Iterator[Any]:
    _make_folder(system, path.rpartition("/")[0])
    with system.open_output_stream(path) as target:
        yield target


def _make_folder(system: "FileSystem", path: str) -> None:
    """Object storage has no folders; a disk, on which the same is tested, has."""
    if system.type_name != "s3":
        system.create_dir(path, recursive=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
