"""Who drives a sweep: one process at a time, known to the others by a lock and a record in the sweep's folder.

`lock` is held (filelock, which is flock) while a driver runs, and let go by the system however the process ends.
`driver.json` says who it is or was: host, process, start, command, and how it ended. A process number alone says
little, for numbers come again: it is the one that wrote the record if it runs since the same tick of the same boot.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from cpn.core.checked import SWEEP_WRITES
from cpn.core.errors import InputError, in_one_line
from cpn.core.files import read_json, write_json

from .paths import SweepPaths

RUNNING, STOPPED, FINISHED, FAILED = "running", "stopped", "finished", "failed"
SIGNAL_EXIT = 128
"""Added to the number of the signal that ended a command: its exit code."""


@dataclass(frozen=True)
class Driver:
    """The process that drives a sweep, or the last one that did. Times are in seconds since 1970."""

    host: str
    pid: int
    boot: str
    """Which start of the machine `ticks` counts from."""
    ticks: int
    """When the process began, as the kernel counts."""
    started: float
    command: str
    """What continues the sweep."""
    state: str = RUNNING
    """RUNNING, STOPPED, FINISHED or FAILED."""
    ended: float | None = None
    reason: str | None = None
    """Why it failed, in one line."""
    was: str | None = None
    """FINISHED while a start of a finished sweep has found nothing to do."""

    @property
    def here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether the process still drives the sweep. Remote processes cannot be probed; the record is trusted."""
        return self.state == RUNNING and (not self.here or birth(self.pid) == (self.boot, self.ticks))

    @property
    def stands(self) -> str:
        """How the sweep stands: its state, STOPPED if the process was killed, FINISHED if it was before it worked."""
        return (self.was or STOPPED) if self.state == RUNNING and not self.alive else self.state


class DriverLock:
    """What a driver says about its end while it holds the lock."""

    def __init__(self, ended: Callable[[str, str | None], None], works: Callable[[], None]) -> None:
        self.code = 0
        """The command's exit code."""
        self._ended, self._works = ended, works
        self.worked = False
        """Whether there was anything to do, so that what was finished before is not any more."""

    def works(self) -> None:
        """There is something to do."""
        if not self.worked:
            self.worked = True
            self._works()

    def last_words(self, code: int, reason: str | None) -> None:
        """Keep how it ended, where the process ends at once."""
        self._ended(state_of_exit(code), reason)


@contextmanager
def locked(paths: SweepPaths, name: str) -> Iterator[None]:
    """Keep every other process from driving the sweep while the block runs.

    Raises InputError when one does, or the folder cannot be written or locked.
    """
    try:
        held = FileLock(paths.lock, blocking=False, fallback_to_soft=False).acquire()
    except Timeout:
        raise InputError(f"{paths.lock}: {second_driver_message(name, read_driver(paths))}") from None
    except OSError as error:
        trouble = "has no file locks" if error.filename is None else "cannot be written"
        raise InputError(
            f"resources.storage: {paths.root.parent} {trouble} ({error.strerror}); choose another folder"
        ) from error
    with held:
        yield


@contextmanager
def driving(paths: SweepPaths, name: str, command: str) -> Iterator[DriverLock]:
    """Be the sweep's one driver while the block runs (see `locked`), and keep in the record how it ended."""
    with locked(paths, name):
        before = read_driver(paths)
        boot, ticks = birth(os.getpid()) or ("", 0)
        finished = before if before is not None and before.stands == FINISHED else None
        me = Driver(socket.gethostname(), os.getpid(), boot, ticks, time.time(), command)
        _write(paths, replace(me, was=FINISHED) if finished else me)
        is_driven = DriverLock(partial(_ended, paths, me), partial(_write, paths, me))

        def ended(state: str, reason: str | None = None) -> None:
            if finished is not None and not is_driven.worked and state != FAILED:
                as_before(finished)
            else:
                _ended(paths, me, state, reason)

        def as_before(record: Driver) -> None:
            with suppress(OSError):
                _write(paths, replace(record, state=FINISHED, was=None))

        try:
            yield is_driven
        except Exception as error:
            if finished is not None and isinstance(error, InputError):
                as_before(finished)  # a wrong command changes nothing about what is finished
            else:
                ended(FAILED, in_one_line(error))
            raise
        except BaseException:
            ended(STOPPED)
            raise
        ended(state_of_exit(is_driven.code))


def state_of_exit(code: int) -> str:
    """Return how a sweep stands whose command ends with that exit code."""
    return FINISHED if code == 0 else STOPPED if code > SIGNAL_EXIT else FAILED


def second_driver_message(name: str, driver: Driver | None) -> str:
    """Return the message for the second driver of a sweep."""
    who = f" (process {driver.pid} on {driver.host})" if driver is not None and driver.state == RUNNING else ""
    return f"sweep {name!r} is already running{who}; wait for it, or stop it: python -m platform.stop {name}"


def read_driver(paths: SweepPaths) -> Driver | None:
    """Return the record of the last driver; None where there is none, or none that can be read."""
    try:
        return Driver(**read_json(paths.driver))
    except (OSError, ValueError, TypeError):
        return None


def is_driven(paths: SweepPaths) -> bool:
    """Return whether some process of any machine drives the sweep, by its lock alone: its record may be damaged."""
    try:
        with FileLock(paths.lock, blocking=False, fallback_to_soft=False):
            return False
    except Timeout:
        return True


def refuse_if_driven(paths: SweepPaths, name: str) -> None:
    """Raise InputError while some process drives the sweep; `locked` says the same, later. Makes nothing."""
    if paths.lock.exists() and is_driven(paths):
        raise InputError(f"{paths.lock}: {second_driver_message(name, read_driver(paths))}")


def driver_note(paths: SweepPaths) -> str | None:
    """Return what there is to say of a record that is there and cannot be read."""
    if read_driver(paths) is None and paths.driver.exists():
        return f"{paths.driver}: is damaged, so nobody knows how it ended; {SWEEP_WRITES}"
    return None


def birth(pid: int) -> tuple[str, int] | None:
    """Boot and tick at which a process of this machine began; None when it is gone, or has only not been reaped."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # what comes before may hold blanks: the program's name
    return None if fields[0] in "ZX" else (boot, int(fields[19]))


def _write(paths: SweepPaths, driver: Driver) -> None:
    write_json(paths.driver, asdict(driver))


def _ended(paths: SweepPaths, me: Driver, state: str, reason: str | None = None) -> None:
    """Note the end. Where that cannot be written the record stays, and its process is gone: that reads as stopped."""
    with suppress(OSError):
        _write(paths, replace(me, state=state, ended=time.time(), reason=reason))
