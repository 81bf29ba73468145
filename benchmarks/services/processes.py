"""Processes that end with the one that started them, however that ends: known by a mark in their environment.

    with marked("postgres") as mark:
        server = Service([...], mark.folder / "log", mark.environment, ready=...)

The mark is inherited by whatever a process starts in its turn, adopted or not, so that the end of the block finds all
of it. If this process is killed, a guard process does the same: it reads from a pipe that breaks then.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "CPN_SERVICES_MARK"
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mark:
    """What processes get to be known by, and a folder of theirs, which goes with them."""

    name: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the mark."""
        return {**os.environ, MARK: self.name}

    def processes(self) -> list[psutil.Process]:
        """All that run and carry the mark; zombies do nothing any more and don't count."""
        return with_mark(self.name)


@contextmanager
def marked(kind: str) -> Iterator[Mark]:
    """A mark for processes; all that carry it are killed when the block ends or this process dies."""
    # Directly under the system's folder: paths of sockets have to be short, and the database's user has to get there.
    folder = Path(tempfile.mkdtemp(prefix=f"cpn-{kind}-"))
    mark = Mark(f"{kind}-{secrets.token_hex(8)}", folder)
    guard = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.services.processes", mark.name, str(folder)],
        cwd=CHECKOUT, stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield mark
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def guard(name: str, folder: Path) -> None:
    """Wait until the pipe on standard input breaks, then kill what carries the mark and remove the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        sys.stdin.buffer.read()
    while left := with_mark(name):
        kill_all(left)
    shutil.rmtree(folder, ignore_errors=True)


def with_mark(name: str) -> list[psutil.Process]:
    """The processes that carry the mark `name`, or one below it (`name.1`); of other users only root sees them."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            carried = process.environ().get(MARK, "")
            if f"{carried}.".startswith(f"{name}.") and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def command_lines(processes: Iterable[psutil.Process]) -> list[str]:
    """The command lines of those that still run: one may end between being found and being asked."""
    lines = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a zombie is such a one
            lines.append(" ".join(process.cmdline()))
    return lines


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """kill -9, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def free_port() -> int:
    """Choose a free TCP port on loopback that stays its server's while that is down: above Ray's worker ports, and
    below the system's ephemeral ports (32768 and above).
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Service:
    """One server process with its children; it can be killed and started again with the same command, so on its port.

    `ready` is asked until it is true; what it raises as OSError counts as not yet. RuntimeError with the end of the log
    when the process ends before, or `patience_s` are over.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        ready: Callable[[], bool],
        patience_s: float = 120.0,
    ) -> None:
        self._command, self._log, self._environment = list(command), log, dict(environment)
        self._ready, self._patience_s = ready, patience_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it answers."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._log.parent, env=self._environment, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + self._patience_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                tail = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self._command[0]} did not start (exit code {self._process.poll()}):\n{tail}")
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """The server and its children that run."""
        if self._process is None or self._process.poll() is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            return [own, *own.children(recursive=True)]
        return []

    def kill(self) -> None:
        """kill -9 of all of it, as when the machine dies."""
        kill_all(self.processes())
        if self._process is not None:
            self._process.wait()

    def stop(self, number: int = signal.SIGTERM, patience_s: float = 15.0) -> None:
        """Ask it to end, as an operator would; what has not ended then is killed."""
        if self._process is None:
            return
        before = self.processes()
        if before:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
            kill_all([*before, *self.processes()])
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return self._ready()
        except OSError:
            return False


if __name__ == "__main__":
    guard(sys.argv[1], Path(sys.argv[2]))
