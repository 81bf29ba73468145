"""A server of files on this machine that breaks off, lies and changes its mind; archives for it to serve."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATA = bytes(range(256)) * 20_000
"""5 MB that are no archive."""


@dataclass
class Server:
    """What the server has, how it behaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    """Bytes of each of the next answers after which it hangs up."""
    statuses: list[int] = field(default_factory=list)
    """Status of each of the next answers, which are empty."""
    promises: int = 0
    """Bytes by which the promised length differs from what is sent."""
    ranges: bool = True
    """Whether it can send a rest."""
    tag: str = '"one"'
    asked: list[str | None] = field(default_factory=list)
    """The Range of every request."""
    url: str = ""


@contextmanager
def serving() -> Iterator[Server]:
    """A server on this machine's loopback that behaves as its state says."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            name = self.path.rsplit("/", 1)[-1]
            if state.statuses or name not in state.files:
                self.send_response(state.statuses.pop(0) if state.statuses else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data, start = state.files[name], 0
            if wanted and state.ranges and self.headers.get("If-Range") == state.tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("ETag", state.tag)
            self.send_header("Content-Length", str(len(data) - start + state.promises))
            self.end_headers()
            cut = state.breaks_after.pop(0) if state.breaks_after else len(data)
            self.wfile.write(data[start : start + cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))  # it looks this often whether to end
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def tar_of(files: dict[str, bytes], kind: str = "w:gz", links: dict[str, str] | None = None) -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=kind) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
