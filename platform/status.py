"""What sweeps there are and how they stand: `python -m platform.status`. Reads studies and records, starts nothing."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict

from cpn.core.errors import InputError, run_command
from cpn.core.plain_file import folder_there

from .base.bucket_sync import with_published_state
from .base.lock import FINISHED, RUNNING
from .base.paths import Storage, storage
from .base.remaining_time import CONFIRM, SEARCH
from .base.terminal import Terminal, remaining
from .reports.sweep_status import Status, status, sweep_names

EXAMPLE = "python -m platform.status"


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.status",
        usage=f"{EXAMPLE} [NAME ...] [--storage FOLDER] [--json]",
        description="Show the sweeps of a storage folder and how they stand: running, stopped, finished or failed, "
        "their trials, the best one and the champion; of a running one its phase, remaining time and GPU-hours.",
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="only these sweeps")
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--json", action="store_true", help="a JSON list, one object per sweep")
    return command


def show(sweeps: Sequence[Status], store: Storage) -> None:
    """Print the table, notes and the next command."""

    terminal = Terminal()
    rows = []
    for row in sweeps:
        kinds = [("complete", row.complete), ("pruned", row.pruned), ("failed", row.failed)]
        kinds.append(("unfinished", row.unfinished))
        trials = ", ".join(f"{number} {kind}" for kind, number in kinds if number) or "none"
        trials = "-" if row.complete is None else trials + (f" of {row.budget}" if row.budget else "")
        best = "-" if row.best is None else f"{row.objective} {row.best:.1f} ({row.best_uid})"
        rows.append([row.sweep, row.state, trials, best, row.champion or "-"])
    terminal.table(f"sweeps in {store.place}", ["sweep", "state", "trials", "best (select)", "champion"], rows, left=5)
    for row in sweeps:
        for note in row.notes:
            terminal.say(f"{row.sweep}: {note}")
        if row.stopped:
            terminal.say(f"{row.sweep}: the search ended early: {row.stopped}")
    for row in sweeps:
        if row.state == RUNNING:
            if row.phase is not None:
                terminal.say(progress_words(row))
            terminal.say(f"{row.sweep} runs as process {row.pid} on {row.host}; to stop it: {_stop(row, store)}")
        elif row.state != FINISHED and row.command:
            terminal.say(f"next: {row.command}")


def progress_words(row: Status) -> str:
    """Phase, progress, remaining time and hours of a sweep that runs."""
    of = f" of {row.phase_runs}" if row.phase_runs is not None else ""
    runs = f", {row.phase_done}{of} runs" if row.phase in (SEARCH, CONFIRM) else ""
    used = f"; {row.hours:.2f} {row.hours_unit} so far" if row.hours is not None else ""
    return f"{row.sweep}: {row.phase}{runs}{remaining(row.seconds_left)}{used}"


def _stop(row: Status, store: Storage) -> str:
    where = "" if store == storage("sweeps") else f" --storage {shlex.quote(store.place)}"
    return f"python -m platform.stop {row.sweep}{where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0, 2 for a name or a folder that there is not."""
    options = parser().parse_args(arguments)
    store = with_published_state(storage(options.storage, "--storage"))
    if store.url is None and not folder_there(store.root, "--storage"):
        raise InputError(f"--storage: {store.root} is no folder; run a sweep first, or name its resources.storage")
    sweeps = [status(store, name) for name in options.names or sweep_names(store)]
    if options.json:
        print(json.dumps([asdict(row) for row in sweeps], indent=2))
    elif sweeps:
        show(sweeps, store)
    else:
        print(f"no sweep in {store.place}; next: python -m platform.sweep search_spaces/quickstart.yaml")
    return 0


if __name__ == "__main__":
    run_command(main)
