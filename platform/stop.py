"""Stop a sweep from another terminal: `python -m platform.stop patch`. Asks its driver as Ctrl-C does, and waits."""

import argparse
import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cpn.core.errors import InputError, WorkError, run_command

from .base.bucket_sync import with_published_state
from .base.lock import RUNNING, Driver, birth, driver_note, is_driven, read_driver
from .base.paths import SweepPaths, storage
from .reports.sweep_status import sweep_paths

EXAMPLE = "python -m platform.stop quickstart"
BETWEEN_S = 1.0
"""Seconds between the two signals of --now: the driver has to have taken the first."""
STILL_S = 15.0
"""Seconds between two lines while it is waited."""


@dataclass(frozen=True)
class StopResult:
    """What a stop saw."""

    sweep: str
    state: str
    """How the sweep stands now: running, stopped, finished or failed."""
    host: str
    pid: int
    signals: int
    """How many were sent."""
    seconds: float
    """How long it was waited."""
    command: str
    """What continues the sweep."""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    command_line = argparse.ArgumentParser(
        prog="python -m platform.stop",
        usage=f"{EXAMPLE} [--now] [--wait SECONDS] [--storage FOLDER] [--json]",
        description="Stop a running sweep: its trials finish their current reports, and everything is resumable. Exit "
        "code 0 when the sweep does not run any more, 1 when it still does, 2 when there is no such sweep.",
    )
    command_line.add_argument("name", help="the sweep's name")
    command_line.add_argument(
        "--now", action="store_true", help="do not wait for the current reports; resumable all the same"
    )
    command_line.add_argument(
        "--wait", type=float, metavar="SECONDS", help="wait no longer than that for its end (default: until it ends)"
    )
    command_line.add_argument(
        "--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)"
    )
    command_line.add_argument("--json", action="store_true", help="what was seen, as one JSON object")
    return command_line


def stop(paths: SweepPaths, name: str, now: bool, wait_s: float | None, say: Callable[[str], None]) -> StopResult:
    """Ask the driver of a sweep to stop, with `now` twice, and wait until it ends or `wait_s` seconds are over.

    Raises WorkError when it runs on another machine or belongs to another user: nothing is sent then.
    """
    driver = read_driver(paths)
    if driver is None and (note := driver_note(paths)) is not None:
        raise InputError(f"{note}; {'it runs: send SIGTERM to its process' if is_driven(paths) else 'it does not run'}")
    if driver is None:
        say(f"{name} does not run: nothing in {paths.root} says who drove it")
        return StopResult(name, "stopped", "", 0, 0, 0.0, "")
    if not driver.alive:
        ended_note = " and its process is gone" if driver.state == RUNNING else ""
        say(f"{name} does not run: it {'was running' if ended_note else 'is ' + driver.stands}{ended_note}")
        return _seen(name, driver, driver.stands, 0, 0.0)
    if not driver.here:
        raise WorkError(
            f"{name}: its record says that process {driver.pid} on {driver.host} drives it, which this machine cannot "
            f"look at; type there: python -m platform.stop {name} --storage {paths.root.parent}"
        )
    try:
        handle = os.pidfd_open(driver.pid)  # from here on the number cannot come to mean another process
    except ProcessLookupError:
        handle = -1
    if handle < 0 or birth(driver.pid) != (driver.boot, driver.ticks):
        say(f"{name} does not run: it ended just now")
        return _seen(name, read_driver(paths) or driver, (read_driver(paths) or driver).stands, 0, 0.0)
    began, sent = time.monotonic(), 0
    try:
        ends = None if wait_s is None else began + wait_s
        ended = False
        while sent < (2 if now else 1) and not ended:
            try:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            except ProcessLookupError:
                break
            except PermissionError:
                raise WorkError(f"{name}: process {driver.pid} belongs to another user; ask them to stop it") from None
            sent += 1
            if sent == 1:
                what = "to stop at once" if now else "to stop; it finishes the current reports (--now does not wait)"
                say(f"{name}: asked process {driver.pid} {what}")
            ended = _gone(handle, BETWEEN_S if now and sent == 1 else 0.0)
        ended = ended or _wait(handle, ends, name, say)
    finally:
        os.close(handle)
    seconds = time.monotonic() - began
    last = read_driver(paths) or driver
    state = last.stands if ended else RUNNING
    if not ended:
        say(f"{name}: still runs after {seconds:.0f} s")
    elif state == "stopped":
        say(f"{name}: stopped after {seconds:.0f} s; every trial can go on: {last.command}")
    else:
        say(f"{name}: {state} after {seconds:.0f} s" + (f" ({last.reason})" if last.reason else ""))
    return _seen(name, last, state, sent, seconds)


def _seen(name: str, driver: Driver, state: str, signals: int, seconds: float) -> StopResult:
    return StopResult(name, state, driver.host, driver.pid, signals, round(seconds, 1), driver.command)


def _gone(handle: int, seconds: float) -> bool:
    """Return whether the process ends within that time."""
    return bool(select.select([handle], [], [], max(0.0, seconds))[0])


def _wait(handle: int, ends: float | None, name: str, say: Callable[[str], None]) -> bool:
    """Wait for the end of the process, saying now and then that it lasts; False when the time is over."""
    began = time.monotonic()
    while True:
        left = STILL_S if ends is None else min(STILL_S, ends - time.monotonic())
        if _gone(handle, left):
            return True
        if ends is not None and time.monotonic() >= ends:
            return False
        say(f"{name}: still finishing its reports, {time.monotonic() - began:.0f} s so far")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0 when the sweep does not run any more, 1 when it does, 2 for a wrong name."""
    options = parser().parse_args(arguments)
    if options.wait is not None and not 0 <= options.wait < float("inf"):
        raise InputError(f"--wait {options.wait}: no number of seconds; give 0 or more")
    paths = sweep_paths(with_published_state(storage(options.storage, "--storage")), options.name)
    lines: list[str] = []
    result = stop(paths, options.name, options.now, options.wait, lines.append if options.json else _print)
    if options.json:
        answer: dict[str, Any] = {**result.__dict__, "said": lines}
        print(json.dumps(answer, indent=2))
    return 1 if result.state == RUNNING else 0


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run_command(main)
