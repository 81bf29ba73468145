"""Tells the user's own command how a sweep ended: finished, failed or stopped. What goes wrong with it is a warning."""

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cpn.core.errors import in_one_line

from .lock import FAILED, FINISHED, SIGNAL_EXIT, STOPPED
from .paths import SweepPaths

LIMIT_S = 60.0
"""Seconds that the command is given."""


@dataclass
class Ending:
    """What the sweep knows about its end; filled in by its steps."""

    code: int = 0
    """The exit code to come."""
    note: str = ""
    """The summary in Markdown."""
    silent: bool = False
    """It was stopped twice: nothing is to be waited for."""


@contextmanager
def notifying(
    command: str | None, name: str, paths: SweepPaths, again: str, warn: Callable[[str], None]
) -> Iterator[Ending]:
    """Run `command` when the block ends, however it ends. `again` is what continues the sweep.

    On its standard input stands how it ended in one line, then the summary where there is one. In its environment
    CPN_SWEEP is the sweep's name, CPN_STATE finished, failed or stopped, CPN_SUMMARY and CPN_REPORT are files, which
    are the ones of an earlier end where this one has none.
    """
    ending = Ending()

    def tell(state: str, why: str = "") -> None:
        if command is not None and not ending.silent:
            line = f"sweep {name}: {state}{f': {why}' if why else ''}"
            text = f"{line}\n\n{ending.note}\n" if state == FINISHED else f"{line}\n"
            environment = {
                "CPN_SWEEP": name,
                "CPN_STATE": state,
                "CPN_SUMMARY": str(paths.summary),
                "CPN_REPORT": str(paths.report),
            }
            run(command, text, environment, warn)

    try:
        yield ending
    except KeyboardInterrupt:
        tell(STOPPED, f"every trial can go on: {again}")
        raise
    except Exception as error:
        tell(FAILED, in_one_line(error))
        raise
    if ending.code > SIGNAL_EXIT:
        tell(STOPPED, f"{signal.Signals(ending.code - SIGNAL_EXIT).name}; every trial can go on: {again}")
    else:
        tell(FINISHED if ending.code == 0 else FAILED)


def run(command: str, text: str, environment: dict[str, str], warn: Callable[[str], None]) -> None:
    """Run the command with `text` on its standard input; its program is not said, for it may carry a token."""
    try:
        done = subprocess.run(
            shlex.split(command), input=text, text=True, check=False, timeout=LIMIT_S, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired:
        warn(f"notify.command: did not end within {LIMIT_S:g} seconds and was killed; let it work in the background")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        warn(f"notify.command: cannot be run ({reason}); give a program and its arguments, or sh -c '...'")
    else:
        if done.returncode != 0:
            warn(f"notify.command: ended with exit code {done.returncode}; the sweep itself is as it says")
