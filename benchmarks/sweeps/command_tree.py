"""A command that starts processes of its own, watched from outside: its lines with their times, and the CPU of all.

    with watched([sys.executable, "-m", "platform.sweep", "sweep.yaml", "--json"], folder) as tree:
        lines = tree.until(lambda lines: bool(lines))

CPU seconds are summed over every process that carries the command's mark (benchmarks/services/processes.py), ended ones
too, as they were when last seen: at most LOOK_S of each is missed. Ray's processes are soon orphaned, so
that the system's sum over children misses them.
"""

import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.services.processes import CHECKOUT, Mark, marked
from cpn.core.errors import WorkError

LOOK_S = 0.25
NOT_OURS = ("RAY_ADDRESS", "CPN_STUDY_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
"""What in the caller's environment would send a measurement elsewhere."""


@dataclass(frozen=True)
class Line:
    """One line that the command printed."""

    at: float
    """Seconds since 1970: the event's own `time`, else when it was read."""
    cpu: float
    """CPU seconds of the whole tree when it was read."""
    event: Mapping[str, Any]
    """The JSON object; {"said": the text} for a line that is none."""


def ended(lines: Sequence[Line]) -> list[Line]:
    """The lines that end a trial."""
    return [line for line in lines if line.event.get("event") == "trial_ended"]


@dataclass
class CpuSeconds:
    """CPU seconds of processes that come and go."""

    look: Callable[[], Iterable[tuple[object, float]]]
    """Who runs now, and the CPU seconds of each."""
    seen: dict[object, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def total(self) -> float:
        """Look, and sum over all that were ever seen."""
        with self._lock:
            self.seen.update(self.look())
            return sum(self.seen.values())


def spent(mark: Mark) -> list[tuple[object, float]]:
    """The marked processes, by pid and start, for a pid comes again; user and system seconds of each."""
    seconds: list[tuple[object, float]] = []
    for process in mark.processes():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            seconds.append(((process.pid, process.create_time()), times.user + times.system))
    return seconds


class Tree:
    """The running command."""

    def __init__(self, process: "subprocess.Popen[str]", cpu: CpuSeconds) -> None:
        self.began = time.time()
        self._process, self._cpu = process, cpu
        self.lines: list[Line] = []

    @property
    def pid(self) -> int:
        """The command's own process."""
        return self._process.pid

    def until(self, done: Callable[[Sequence[Line]], bool]) -> list[Line]:
        """All lines so far, as soon as `done` says so of them. WorkError, with the last lines, if it ends before."""
        assert self._process.stdout is not None
        while not done(self.lines):
            text = self._process.stdout.readline()
            if not text:
                last = "\n".join(str(line.event.get("said", line.event)) for line in self.lines[-20:])
                raise WorkError(f"{self._process.args!r} ended too soon (exit code {self._process.wait()}):\n{last}")
            event = parsed(text)
            self.lines.append(Line(float(event.get("time", time.time())), self._cpu.total(), event))
        return self.lines


def parsed(text: str) -> dict[str, Any]:
    """Parse a line as an event."""
    with suppress(ValueError):
        event = json.loads(text)
        if isinstance(event, dict):
            return event
    return {"said": text.rstrip()}


def environment(mark: Mark) -> dict[str, str]:
    """Return the environment that isolates a command with Ray on this machine from the caller's services."""
    own = {name: value for name, value in mark.environment.items() if name not in NOT_OURS}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), own.get("PYTHONPATH")]))
    return {
        **own, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": str(mark.folder),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "MLFLOW_DISABLE_TELEMETRY": "true",
    }  # fmt: skip


@contextmanager
def watched(command: Sequence[str], folder: Path) -> Iterator[Tree]:
    """Run the command in `folder`; when the block ends, everything that it started is killed."""
    with marked("tree") as mark:
        process = subprocess.Popen(
            list(command), cwd=folder, env=environment(mark), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        cpu, ended = CpuSeconds(lambda: spent(mark)), threading.Event()
        tree = Tree(process, cpu)

        def watch() -> None:
            while not ended.wait(LOOK_S):
                cpu.total()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield tree
        finally:
            ended.set()
            thread.join()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
