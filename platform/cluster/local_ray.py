"""Starts Ray on this machine, for this user alone: on the loopback address, in a folder of mode 700, with a token.

SECURITY.md lists the sockets; tests/platform/cluster/test_listening.py looks at those of a running sweep.
"""

import logging
import os
import secrets
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError
from cpn.core.files import check_place

from .ray_environment import in_environment

STARTS = 3
"""Times that a local Ray whose processes are late is started before it is given up."""

LONGEST_FOLDER = 107 - len("/ray/session_2026-11-29_21-00-51_590741_1234567/sockets/plasma_store")
"""Bytes of a folder under which the paths of Ray's sockets are no longer than the system bears."""

LOOPBACK = {
    # Made for Windows and macOS, whose firewalls ask about every other address: a Ray of one machine is at 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # And the connections between a trial's workers.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""Environment of Ray's processes where all of them run here."""


def start_ray() -> None:
    """Start Ray on this machine. Ray gives its own processes 30 seconds, which a busy machine may not have for them: it
    is tried again then. RuntimeError when it never comes up, InputError where it could not be kept from other users.
    """
    import ray

    own_token()
    folder = own_folder()
    for _ in range(STARTS):
        started: list[subprocess.Popen[bytes]] = []
        try:
            # Without the dashboard a stopped trial's placement group is never freed, and the sweep hangs.
            with own_groups(started), loopback():
                ray.init(
                    address="local",  # or Ray joins what a `ray start` left on this machine, without our environment
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=None if folder is None else str(folder / "ray"),
                )
            return
        except BaseException as error:
            if type(error) is Exception:  # what Ray raises when its processes are late is a plain one
                ray.shutdown()
            end_groups(started)
            if type(error) is not Exception:
                raise
            late = error
    raise RuntimeError(f"tried {STARTS} times: {late}") from late


@contextmanager
def loopback() -> Iterator[None]:
    """Let what Ray starts here listen on 127.0.0.1 alone. Given that address, Ray takes this machine's outer one
    instead (Ray issue 26293), and its processes listen on all; under a variable made for other systems it takes it. An
    internal of Ray, read when it is imported, which may have happened already.
    """
    from ray._private import ray_constants

    enabled = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with in_environment({name: value for name, value in LOOPBACK.items() if not os.environ.get(name)}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = enabled


@contextmanager
def own_groups(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Let what Ray starts here, which is added to `started`, be in process groups of its own: `timeout`, a batch
    system or a terminal signals the whole group of the driver, whose trials could not finish their reports without Ray.
    When the driver dies, Ray's processes still do at once (prctl's PR_SET_PDEATHSIG). An internal of Ray, whose version
    is pinned.
    """
    from ray._private import services

    before = services.ConsolePopen

    def start(*command: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(before(*command, process_group=0, **options))
        return started[-1]

    services.ConsolePopen = start  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        services.ConsolePopen = before  # type: ignore[misc]


def end_groups(started: list[subprocess.Popen[bytes]]) -> None:
    """Kill the process groups of a Ray that did not come up: `ray.shutdown` knows nothing of them, and with theirs a
    second try on a busy machine would be later still.
    """
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def own_token() -> None:
    """Create the access token of Ray where Ray looks for it, readable by this user alone: Ray itself would make it
    readable by all. Where the home folder cannot be written (a service with ProtectHome, a container), this
    start of Ray gets one of its own in its environment.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    token_file = Path.home() / ".ray" / "auth_token"
    try:
        if token_file.exists() and not token_file.read_bytes().strip():
            token_file.unlink()  # a start that was killed, or a full disk
        if not token_file.exists():
            check_place(token_file.parent, "HOME")
            token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(token_file, secrets.token_hex(32))
        status = token_file.stat()
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            token_file.chmod(0o600)  # Ray itself had written it
        readable = os.access(token_file, os.R_OK)
    except (InputError, OSError):
        readable = False
    if not readable:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 600, whole or absent; what somebody else has written there meanwhile stays."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
    finally:
        os.unlink(temporary)


def own_folder() -> Path | None:
    """Return where Ray keeps its files, sockets among them, so that no other user gets there: it gives its own folders
    mode 777. None where it may keep them as it does by itself: in RAY_TMPDIR, or a TMPDIR that nobody else may write
    to.

    Elsewhere that is a folder of mode 700 in it, made here. Raises InputError where somebody else has that name.
    """
    shared = Path(os.environ.get("TMPDIR") or "/tmp")
    folder = shared / f"cpn-{os.geteuid()}"
    if os.environ.get("RAY_TMPDIR") or not (shared.is_dir() and shared.stat().st_mode & 0o022):
        return None
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        return None
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise InputError(f"RAY_TMPDIR: {folder} is another user's; set RAY_TMPDIR to a folder of your own")
    folder.chmod(0o700)
    return folder


def check_ray_folder() -> None:
    """Raise InputError where Ray, started on this machine, could not keep its files, or a socket's path were too long
    for the system. Batch systems give every job a TMPDIR of its own.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    folder = os.environ.get(name) or "/tmp"
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise InputError(
            f"{name}: {folder} has {len(os.fsencode(folder))} characters, too many for Ray's sockets, which bear "
            f"{LONGEST_FOLDER}; set RAY_TMPDIR to a shorter folder of your own, e.g. RAY_TMPDIR=/tmp/$USER"
        )
    check_place(Path(folder), name)
