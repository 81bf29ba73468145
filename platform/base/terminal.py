"""What a person sees while a sweep runs: one live table, or plain lines where there is no terminal. Made with rich."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cpn.core.errors import printable, quiet
from cpn.core.progress import Progress, shown_progress
from cpn.core.redact import redact

from .remaining_time import SEARCH, RemainingTime, RunPrice

MOST_ROWS = 12
WARNING = "warning: "
"""What a line begins with that says what went wrong without stopping anything."""
OPEN = ("running", "resumable")
"""States of trials that are not done."""
BORDER = 3
"""Characters of a table's line and padding beside each column."""
BETWEEN_S = 60.0
"""Seconds between two lines about the epochs of one trial, without a terminal."""


class Lasting(Console):
    """A console whose reader may leave (`| head`): the work goes on and what is printed from then on goes nowhere. Left
    to itself rich would end the process. What is shown comes from files: no brackets or colons in it are rich's.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        quiet(self.file)


class Terminal:
    """Everything a sweep prints."""

    def __init__(self, console: Console | None = None) -> None:
        # Without a terminal's width lines go to files and logs: wide enough for the tables.
        self.console = console or Lasting(width=None if sys.stdout.isatty() else 100)
        self.warnings: list[str] = []
        """What was warned of, without secrets."""
        self.remaining = RemainingTime(known=False)
        """Of all that this command runs; whoever knows prices puts a priced one here."""

        self.verbose = False
        """Whether a sweep's end shows its statistics too."""

    def say(self, line: str) -> None:
        """Print one plain line without secrets, never broken: commands and paths are copied from it."""
        text = printable(redact(line), "\n")
        if text.startswith(WARNING):
            self.warnings.append(text.removeprefix(WARNING))
        self.show(text)

    def show(self, text: str) -> None:
        """Print a line that holds no secret."""
        self.console.print(Text(text), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print one line that says what went wrong without stopping anything."""
        self.say(f"{WARNING}{line}")

    def progress(self) -> AbstractContextManager[Progress]:
        """Show how far the packing of data and the like is, which the block tells what is given."""
        return shown_progress()

    def event(self, name: str, **values: Any) -> None:
        """Print what a program that reads along wants to know; people have the tables. See
        platform/base/json_lines.py.
        """

    def table(
        self, title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", left: int = 2
    ) -> None:
        """Print a table; numbers are shown with one decimal, the first `left` columns begin at the left. It is as wide
        as the console: lines are broken between words, as long as there is room for the words.
        """
        grid = Table(title=printable(title), caption=caption or None, title_justify="left", caption_justify="left")
        cells = [[shown(cell) for cell in row] for row in rows]
        columns = [[head, *(row[index] for row in cells)] for index, head in enumerate(heads)]
        for index, (head, width) in enumerate(zip(heads, widths(columns, self.console.width, left), strict=True)):
            grid.add_column(head, justify="left" if index < left else "right", overflow="fold", width=width)
        for row in cells:
            grid.add_row(*map(Text, row))
        self.console.print(grid)

    def fits(self, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
        """Return whether a table fits with no cell broken, and heads broken between words at most."""
        columns = [[head, *(shown(row[index]) for row in rows)] for index, head in enumerate(heads)]
        least = [max(map(cell_len, [*column[0].split(), *column[1:]]), default=0) for column in columns]
        return table_width(least) <= self.console.width

    @contextmanager
    def trials(
        self, heading: str, total: int | None, epochs: int, objective: str = "miou", phase: str = SEARCH
    ) -> Iterator["TrialTable"]:
        """Show the live table of running and finished trials; `objective` is the key of what they are ranked by,
        `phase` what they are in the remaining time.
        """
        view = TrialTable(self, heading, total, epochs, objective, phase)
        if not self.console.is_terminal:
            self.say(heading)
            yield view
            return
        with Live(view, console=self.console, refresh_per_second=2, redirect_stdout=False, redirect_stderr=False):
            yield view

    @contextmanager
    def stage(self, name: str, unit: str, total: int) -> Iterator["StageBar"]:
        """Show a progress bar for one stage."""
        if not self.console.is_terminal:
            yield StageBar(self, name, unit, total, None)
            return
        with shown_progress(self.console) as progress:
            yield StageBar(self, name, unit, total, progress)


class StageBar:
    """How far a stage is; without a terminal a line now and then."""

    def __init__(self, terminal: Terminal, name: str, unit: str, total: int, progress: Progress | None) -> None:
        self._terminal, self._name, self._unit, self._total, self._progress = terminal, name, unit, total, progress
        self._began, self._said = time.monotonic(), time.monotonic()
        if progress is not None:
            progress(f"{name}, {unit}", 0, total)

    def at(self, done: int) -> None:
        """`done` of the total are done."""
        self._terminal.remaining.stage(self._name, done / max(1, self._total))
        if self._progress is not None:
            self._progress(f"{self._name}, {self._unit}", done, self._total)
        elif time.monotonic() - self._said > 15:
            self._said = time.monotonic()
            left = (self._said - self._began) / done * (self._total - done) if done else None
            sweep = of_sweep(self._terminal.remaining.left()) if self._terminal.remaining.phases else ""
            self._terminal.say(f"  {self._name}: {done} of {self._total} {self._unit}{remaining(left)}{sweep}")


class TrialTable:
    """Rows of the trials seen in this run of the command; the last `MOST_ROWS` are shown."""

    def __init__(
        self,
        terminal: Terminal,
        heading: str,
        total: int | None,
        epochs: int,
        objective: str = "miou",
        phase: str = SEARCH,
    ) -> None:
        self._objective, self._phase = objective, phase
        self._terminal, self._heading, self._total, self._epochs = terminal, heading, total, epochs
        self._rows: dict[str, dict[str, Any]] = {}
        self._began = self._said = time.monotonic()
        self._done_before = 0
        self._best: tuple[float, str] | None = None
        terminal.remaining.begin(phase, total)

    def already(self, done: int, best: tuple[float, str] | None) -> None:
        """Trials that were finished before this start, and the best of them (miou, uid)."""
        self._done_before, self._best = done, best
        self._terminal.remaining.begin(self._phase, self._total, done)

    def started(self, uid: str, what: str, price: RunPrice | None = None, epoch: int = 0) -> None:
        """Note that a trial began, at a price, of which earlier starts have done `epoch` epochs."""
        self._terminal.remaining.started(uid, price or RunPrice(0.0, 1.0, 0.0, self._epochs), epoch)
        if uid not in self._rows:
            epochs = price.epochs if price else self._epochs
            self._rows[uid] = {"what": what, "epoch": epoch, "epochs": epochs, "state": "running"}
            self._rows[uid]["said"] = time.monotonic()
            if not self._terminal.console.is_terminal:
                self._terminal.say(f"  {uid}  started  {what}")

    def preparing(self, uid: str, what: str, done: int, total: int) -> None:
        """Show how far the making of something is that a trial waits for."""
        row = self._rows.setdefault(uid, {"what": "", "epoch": 0, "state": "running"})
        row["doing"] = f"{what} {100 * done // total} %"
        if not self._terminal.console.is_terminal and time.monotonic() - self._said > 15:
            self._said = time.monotonic()
            self._terminal.say(f"  {uid}  {what} {done} of {total}")

    def reported(self, uid: str, result: Mapping[str, Any]) -> None:
        """Show an epoch's report."""
        row = self._rows.setdefault(uid, {"what": "", "epoch": 0, "state": "running"})
        row.pop("doing", None)
        row["epoch"] = int(result.get("epoch", row["epoch"]))
        for key, name in ((f"{self._objective}_epoch", "value_epoch"), (self._objective, "value")):
            if key in result:
                row[name] = float(result[key])
        if row["epoch"]:
            self._terminal.remaining.reported(uid, row["epoch"])
        if self._objective not in result and "failed" not in result and not self._terminal.console.is_terminal:
            self._say_epoch(uid, row, result)

    def _say_epoch(self, uid: str, row: dict[str, Any], result: Mapping[str, Any]) -> None:
        """Print a line about an epoch, at most one in `BETWEEN_S` of each trial."""
        if time.monotonic() - row.get("said", self._began) < BETWEEN_S:
            return
        row["said"] = time.monotonic()
        key, left = f"{self._objective}_epoch", self._terminal.remaining.run_left(uid)
        score = f"  {key} {float(result[key]):.1f}" if key in result else ""
        loss = f"  loss {float(result['loss_total']):.3g}" if "loss_total" in result else ""
        trial = f", trial {clock(left)} left" if left is not None else ""
        epoch = f"epoch {row['epoch']}/{row.get('epochs', self._epochs)}"
        self._terminal.say(f"  {uid}  {epoch}{score}{loss}{trial}{of_sweep(self.seconds_left())}")

    def ended(self, uid: str, state: str, miou: float | None, reason: str | None, counted: bool = True) -> None:
        """Note that a trial ended, or was left to be resumed. The best so far is one of those that are `counted`."""
        row = self._rows.setdefault(uid, {"what": "", "epoch": 0})
        row["state"] = state.lower()
        row.pop("doing", None)
        self._terminal.remaining.ended(uid, state == "COMPLETE", row["state"] not in OPEN)
        if miou is not None:
            row["value"] = miou
            if counted:
                self._best = max(self._best or (miou, uid), (miou, uid))
        if not self._terminal.console.is_terminal:
            number = f"  {self._objective} {miou:.1f}" if miou is not None else ""
            best = f"  best {self._best[0]:.1f}" if self._best else ""
            why = f"  {reason}" if reason else ""
            left = of_sweep(self.seconds_left())
            self._terminal.say(f"  {uid}  {state.lower()}{number}{why}{best}  {self._count()}{left}")

    def seconds_left(self) -> float | None:
        """Return the seconds left of the whole sweep; None while it is unknown."""
        return self._terminal.remaining.left()

    def _done(self) -> int:
        return self._done_before + sum(row["state"] not in OPEN for row in self._rows.values())

    def _count(self) -> str:
        return f"{self._done()} of {self._total if self._total is not None else '?'} trials"

    def __rich__(self) -> Group:
        table = Table(title=self._heading, title_justify="left")
        for head, side in (
            ("trial", "left"),
            ("configuration", "left"),
            ("state", "left"),
            ("epoch", "right"),
            (f"{self._objective}_epoch (select)", "right"),
            (f"{self._objective} (select)", "right"),
        ):
            table.add_column(head, justify=side)  # type: ignore[arg-type]
        for uid, row in list(self._rows.items())[-MOST_ROWS:]:
            table.add_row(
                uid,
                printable(row["what"]),
                row.get("doing", row["state"]),
                f"{row['epoch']}/{row.get('epochs', self._epochs)}",
                shown(row.get("value_epoch")),
                shown(row.get("value")),
            )
        best = f"best so far {self._best[0]:.1f} ({self._best[1]})" if self._best else "no result yet"
        elapsed = clock(time.monotonic() - self._began)
        return Group(table, Text(f"{self._count()}, {best}, {elapsed} so far{of_sweep(self.seconds_left())}"))


def widths(columns: Sequence[Sequence[str]], room: int, left: int) -> list[int]:
    """Characters of each column (head first) so that a table is at most `room` wide: heads are broken first, between
    words, then the widest of the `left` columns of text, then numbers; words are broken last.
    """
    body = [max((cell_len(line) for cell in column[1:] for line in cell.split("\n")), default=0) for column in columns]
    least = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    result = [max(cell_len(column[0]), width) for column, width in zip(columns, body, strict=True)]
    every = range(len(columns))
    while table_width(result) > room:
        heads = [i for i in every if result[i] > max(body[i], least[i])]
        text = [i for i in every[:left] if result[i] > least[i]]
        numbers = [i for i in every if result[i] > least[i]]
        spare = heads or text or numbers or [i for i in every if result[i] > 1]
        if not spare:
            break
        result[max(spare, key=lambda i: result[i])] -= 1
    return result


def table_width(columns: Sequence[int]) -> int:
    """Characters of a table with columns so wide."""
    return sum(columns) + BORDER * len(columns) + 1


def shown(cell: Any) -> str:
    """Return a table cell: one decimal for floats, a dash for nothing."""
    if cell is None:
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float) else printable(str(cell), "\n")


def clock(seconds: float) -> str:
    """Return the seconds as 1:02:03 or 2:03."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def remaining(seconds: float | None) -> str:
    """`, about 2:03 left`, or nothing when it isn't known."""
    return f", about {clock(seconds)} left" if seconds is not None else ""


def of_sweep(seconds: float | None) -> str:
    """`, sweep about 2:03 left`, or nothing when it isn't known."""
    return f", sweep about {clock(seconds)} left" if seconds is not None else ""
