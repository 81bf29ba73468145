"""Show what a sweep holds on disk and what can be deleted: `python -m platform.gc quickstart`."""

import argparse
import json
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict

from cpn.core.errors import InputError, run_command, to_stderr

from .base.lock import locked
from .base.paths import storage
from .base.terminal import Terminal
from .promotion.garbage import CHAMPION, DiskUse, _short, check_quiet, delete, find_deletable, megabytes
from .reports.sweep_status import stored_uri, sweep_paths

EXAMPLE = "python -m platform.gc quickstart"


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    command_line = argparse.ArgumentParser(
        prog="python -m platform.gc",
        usage=f"{EXAMPLE} [--keep-top K] [--superpixels] [--delete] [--storage FOLDER] [--uri URI] [--json]",
        description="Show what a sweep holds on disk and what of it can go. Deletes nothing without --delete.",
    )
    command_line.add_argument("name", help="the sweep's name")
    command_line.add_argument("--keep-top", type=int, default=3, metavar="K", help="best trials to keep (default: 3)")
    command_line.add_argument(
        "--superpixels", action="store_true", help="let superpixel maps go, which all sweeps here share"
    )
    command_line.add_argument("--delete", action="store_true", help="delete what can go, and say what it was")
    command_line.add_argument(
        "--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)"
    )
    command_line.add_argument("--uri", metavar="URI", help="tracking.uri (default: that of the sweep)")
    command_line.add_argument("--json", action="store_true", help="as one JSON object, sizes in bytes")
    return command_line


def show(disk_use: DiskUse, deleted: bool, command: str) -> None:
    """Print the tables and the next command."""

    terminal = Terminal()
    for title, items in (("kept", disk_use.keeps), ("deleted" if deleted else "can go", disk_use.goes)):
        rows = [[item.why, _short(item.path), megabytes(item.bytes)] for item in items]
        total = megabytes(sum(item.bytes for item in items))
        terminal.table(f"{disk_use.sweep}: {title}, {total}", ["why", "what", "size"], rows)
    if deleted or not disk_use.goes:
        terminal.say("next: python -m platform.status")
    else:
        terminal.say(f"nothing was deleted; to let it go: {command} --delete")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0; 1 while the sweep's files are still needed, 2 for a wrong name or store."""
    options = parser().parse_args(arguments)
    if options.keep_top < 0:
        raise InputError(f"--keep-top {options.keep_top}: no number of trials; give 0 or more")
    store = storage(options.storage, "--storage")
    if store.url is not None:
        raise InputError(
            f"--storage: {store.url} is no folder; in a bucket a sweep itself lets go of what nothing needs when it "
            "ends (resources.keep_top), more can be deleted there by hand"
        )
    paths = sweep_paths(store, options.name)
    if not paths.spec.exists():
        raise InputError(f"{paths.spec}: is missing, and says which runs are the sweep's; start the sweep once more")
    from .tracking.recorder import read_aliases

    uri = options.uri or stored_uri(store, options.name)
    champions = read_aliases(uri, CHAMPION).values()
    with locked(paths, options.name) if options.delete else nullcontext():
        if options.delete:
            check_quiet(store, options.name, uri)
        disk_use = find_deletable(store, options.name, options.keep_top, champions, options.superpixels)
        for line in disk_use.warnings:
            to_stderr(line)
        if options.delete:
            delete(disk_use, store)
    if options.json:
        totals = {
            name: sum(i.bytes for i in items) for name, items in (("kept", disk_use.keeps), ("goes", disk_use.goes))
        }
        print(json.dumps({**asdict(disk_use), "bytes": totals, "deleted": options.delete}, indent=2))
    else:
        more = [f"--keep-top {options.keep_top}"] if options.keep_top != 3 else []
        more += ["--superpixels"] if options.superpixels else []
        more += [f"--storage {shlex.quote(options.storage)}"] if options.storage != "sweeps" else []
        show(disk_use, options.delete, " ".join([f"python -m platform.gc {options.name}", *more]))
    return 0


if __name__ == "__main__":
    run_command(main)
