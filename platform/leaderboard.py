"""The ranked trials of a sweep: `python -m platform.leaderboard quickstart`. Reads only; works while a sweep runs."""

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict

from cpn.core.errors import InputError, run_command

from .base.paths import storage
from .base.terminal import Terminal

EXAMPLE = "python -m platform.leaderboard quickstart"
SHOWN = 20


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.leaderboard",
        usage=f"{EXAMPLE} [--top N | --all] [--storage FOLDER] [--json]",
        description="Rank the trials of a sweep: the objective on the select images, the confirmed mean with its 95 % "
        "interval and the difference to the reference on the confirm images, seeds, hours; then the pruned, failed and "
        "unfinished ones. Works while the sweep runs.",
    )
    command.add_argument("name", help="the sweep's name")
    some = command.add_mutually_exclusive_group()
    some.add_argument("--top", type=int, default=SHOWN, metavar="N", help=f"trials to show (default: {SHOWN})")
    some.add_argument("--all", action="store_true", help="every trial")
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--json", action="store_true", help="one JSON object, numbers in full")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0, 2 for a sweep that there is not."""
    options = parser().parse_args(arguments)
    if options.top < 1:
        raise InputError(f"--top {options.top}: no number of trials; give 1 or more, or --all")
    from .reports.ranking import ranking
    from .reports.snapshot import read_sweep
    from .reports.terminal_tables import print_ranking

    sweep = read_sweep(storage(options.storage, "--storage"), options.name)
    entries = ranking(sweep)
    some = entries if options.all else entries[: options.top]
    if options.json:
        values = {
            "sweep": sweep.name,
            "state": sweep.state,
            "so_far": sweep.so_far,
            "objective": sweep.spec.objective,
            "verdict": sweep.summary.verdict if sweep.summary else None,
            "all_trials": len(entries),
            "trials": [asdict(entry) for entry in some],
        }
        print(json.dumps(values, indent=2))
        return 0
    terminal = Terminal()
    left = len(entries) - len(some)
    if sweep.summary:
        terminal.say(f"verdict: {sweep.summary.plain_verdict}")
    print_ranking(terminal, sweep, some, f"{left} more trials: --all" if left else "")
    for entry in some:
        if entry.reason:
            terminal.say(f"{entry.uid}: {entry.reason}")
    if sweep.so_far:
        terminal.say(f"so far: {sweep.so_far}")
    where = "" if options.storage == "sweeps" else f" --storage {shlex.quote(options.storage)}"
    terminal.say(f"next: python -m platform.report {sweep.name}{where}")
    return 0


if __name__ == "__main__":
    run_command(main)
