"""How far a command is: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # rich is imported where there is a terminal
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@contextmanager
def shown_progress(console: "Console | None" = None) -> Iterator[Progress]:
    """Show a rich bar on a terminal, or on `console`; elsewhere a plain line every ten seconds. Both tell the time
    left.
    """
    if console is not None or sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        left = TimeRemainingColumn(), TextColumn("left")
        with Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *left, console=console) as bars:
            tasks: dict[str, Any] = {}

            def show(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done)

            yield show
        return
    begun: dict[str, float] = {}
    shown: dict[str, float] = {}

    def line(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        start = begun.setdefault(what, now)
        if now - shown.setdefault(what, now) >= 10 or done == total:
            shown[what] = now
            left = f", {(now - start) / done * (total - done):.0f} s left" if done else ""
            print(f"{what} {done} of {total}{left}", flush=True)

    yield line
