"""Download one file over HTTP: it goes on where it stopped, tries again, and is whole or absent.

Requests brings redirects, proxies (HTTPS_PROXY) and certificates; what it lacks is going on with a part. Every byte
that came is kept, however early a connection breaks: it is read as it arrives (urllib3's read1), not by full chunks.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError

from cpn.core.errors import InputError, WorkError, to_stderr
from cpn.core.files import read_json, write_json

TRIES = 6
"""Connections in a row that brought no byte beyond those of all before; then it gives up."""
PAUSE_S = 2.0
"""Seconds before the second try; twice as long each time."""
TIMEOUT_S = 60.0
"""Seconds without an answer or a byte."""
CHUNK = 1 << 20
"""The most bytes that are taken at a time."""
PAGE_STARTS = (b"<!doctype html", b"<html")
PAGE_HEAD = 64
"""Bytes of a file in which a web page shows itself; they may come one by one."""

Report = Callable[[int, int | None], None]
"""Called with the bytes that are there and those of the whole file, None where the server does not say."""


def fetch(
    address: str, to: Path, report: Report, pause_s: float = PAUSE_S, say: Callable[[str], None] = to_stderr
) -> None:
    """Download `address` to `to`. Received bytes are kept in `to`.part, the server's validator beside it.

    `say` gets a line before each further try: why the last one ended, what is kept, and how long is waited.

    Raises InputError where there is no such file or a web page comes in its place, WorkError when the connection fails
    `TRIES` times in a row without a new byte: the same command then goes on.
    """
    part, validators = to.with_name(to.name + ".part"), to.with_name(to.name + ".part.json")
    tries, most = 0, part.stat().st_size if part.exists() else 0
    while True:
        try:
            total = _receive(address, part, validators, report)
            break
        except (requests.RequestException, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
                raise  # the disk's, not the network's
            now = part.stat().st_size if part.exists() else 0
            # By the most that ever was: a server that begins anew each time must not look as if it went on.
            tries, most = (1, now) if now > most else (tries + 1, most)
            if tries >= TRIES:
                next_step = (
                    f"{now:,} bytes are kept in {part}, and the same command goes on" if now else "try again later"
                )
                raise WorkError(
                    f"{address} cannot be downloaded ({_reason(error)}; {TRIES} tries in a row brought nothing "
                    f"more): {next_step}, or name another server by --mirror"
                ) from error
            pause = pause_s * 2 ** (tries - 1)
            say(
                f"{address}: {_reason(error)}; {now:,} bytes are here, trying again in {pause:g} s "
                f"(try {tries + 1} of {TRIES} without a new byte)"
            )
            time.sleep(pause)
    size = part.stat().st_size
    if total is not None and size != total:
        part.unlink()
        validators.unlink(missing_ok=True)
        raise WorkError(
            f"{address}: {size:,} bytes came where the server promised {total:,}; nothing was kept: try again, or "
            "name another server by --mirror"
        )
    part.replace(to)
    validators.unlink(missing_ok=True)


def _receive(address: str, part: Path, validators: Path, report: Report) -> int | None:
    """Receive the rest of `address` into `part`; gives the whole file's size, None where the server does not say."""
    had = part.stat().st_size if part.exists() else 0
    known = read_json(validators) if validators.exists() and had else {}
    headers = {"Accept-Encoding": "identity"}
    if had and known.get("validator"):
        headers |= {"Range": f"bytes={had}-", "If-Range": known["validator"]}
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # there is no rest: the part is whole, or not of this file
            part.unlink()
            raise requests.ConnectionError("the server has less than was received")
        if answer.status_code in (429, 500, 502, 503, 504):
            raise requests.ConnectionError(f"status {answer.status_code}")
        if not answer.ok:
            raise InputError(
                f"{address} is not there (status {answer.status_code}): name another server by --mirror, or get the "
                "file by hand and put it there under the same name"
            )
        goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {had}-")
        had = had if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = had + int(length) if length is not None and length.isdigit() else None
        tag = answer.headers.get("ETag") or "W/"  # a weak one says nothing of bytes
        write_json(validators, {"validator": answer.headers.get("Last-Modified") if tag.startswith("W/") else tag})
        with open(part, "r+b" if goes_on else "wb") as file:
            file.seek(had)
            file.truncate()
            start = b"" if had == 0 else bytes(PAGE_HEAD)
            for data in _arriving(answer):
                start += data[: PAGE_HEAD - len(start)]
                if start.lstrip().lower().startswith(PAGE_STARTS):
                    file.truncate(0)
                    raise InputError(
                        f"{address}: the server sent a web page in place of the file (a login or a proxy?): open the "
                        "address in a browser, put the file there under its name, and run the same command"
                    )
                file.write(data)
                had += len(data)
                report(had, total)
    return total


def _arriving(answer: requests.Response) -> Iterator[bytes]:
    """Yield the answer's bytes as they arrive. ConnectionError where it ends before its promised length."""
    try:
        while data := answer.raw.read1(CHUNK, decode_content=False):
            yield data
    except HTTPError as error:
        raise requests.ConnectionError(error) from error


def check_digest(path: Path, md5: str | None, sha256_start: str | None) -> str | None:
    """Say what is wrong with a file whose digest is known; None where it is right or nothing is known."""
    for name, expected in (("md5", md5), ("sha256", sha256_start)):
        if expected is None:
            continue
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, name).hexdigest()
        if not actual.startswith(expected):
            return f"its {name.upper()} is {actual}, published is {expected}{'...' * (len(expected) < len(actual))}"
    return None


def _reason(error: Exception) -> str:
    """Return the innermost cause, in a line: requests wraps those of urllib3."""
    inner = next((arg.reason for arg in error.args if getattr(arg, "reason", None) is not None), error)
    return " ".join(str(inner).split()).rpartition("): ")[2][:160] or type(error).__name__
