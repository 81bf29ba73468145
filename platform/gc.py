"""Show what a sweep holds on disk and what can be deleted: `python -m platform.gc quickstart`."""

import argparse
import json
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict

from cpn.core.errors import InputError, run_command

from .base.lock import locked
from .base.paths import storage
from .base.terminal import Terminal
from .base.yaml_files import load_kept
from .promotion.garbage import CHAMPION, DiskUse, _short, check_quiet, delete, find_deletable, megabytes
from .reports.sweep_status import sweep_paths

EXAMPLE = "python -m platform.gc quickstart"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m platform.gc",
        usage=f"{EXAMPLE} [--keep-top K] [--superpixels] [--delete] [--storage FOLDER] [--uri URI] [--json]",
        description="Show what a sweep holds on disk and what of it can go. Deletes nothing without --delete.",
    )
    made.add_argument("name", help="the sweep's name")
    made.add_argument("--keep-top", type=int, default=3, metavar="K", help="best trials to keep (default: 3)")
    made.add_argument("--superpixels", action="store_true", help="let superpixel maps go, which all sweeps here share")
    made.add_argument("--delete", action="store_true", help="delete what can go, and say what it was")
    made.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    made.add_argument("--uri", metavar="URI", help="tracking.uri (default: that of the sweep)")
    made.add_argument("--json", action="store_true", help="as one JSON object, sizes in bytes")
    return made


def show(found: DiskUse, deleted: bool, command: str) -> None:
    """The tables and what to type next."""

    terminal = Terminal()
    for title, items in (("kept", found.keeps), ("deleted" if deleted else "can go", found.goes)):
        rows = [[item.why, _short(item.path), megabytes(item.bytes)] for item in items]
        total = megabytes(sum(item.bytes for item in items))
        terminal.table(f"{found.sweep}: {title}, {total}", ["why", "what", "size"], rows)
    if deleted or not found.goes:
        terminal.say("next: python -m platform.status")
    else:
        terminal.say(f"nothing was deleted; to let it go: {command} --delete")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 0; 1 while the sweep's files are still needed, 2 for a wrong name or store."""
    given = parser().parse_args(arguments)
    if given.keep_top < 0:
        raise InputError(f"--keep-top {given.keep_top}: no number of trials; give 0 or more")
    store = storage(given.storage)
    if store.url is not None:
        raise InputError(
            f"--storage: {store.url} is no folder; in a bucket a sweep itself lets go of what nothing needs when it "
            "ends (resources.keep_top), more can be deleted there by hand"
        )
    paths = sweep_paths(store, given.name)
    if not paths.spec.exists():
        raise InputError(f"{paths.spec}: is not there, so nobody knows which runs are the sweep's; start it once more")
    from .tracking.recorder import read_aliases

    uri = given.uri or (load_kept(paths.spec).get("tracking") or {}).get("uri")
    if uri and "***" in uri:
        raise InputError("--uri: the password of tracking.uri was not kept; give the whole URI")
    champions = read_aliases(uri, CHAMPION).values()
    with locked(paths, given.name) if given.delete else nullcontext():
        if given.delete:
            check_quiet(store, given.name, uri)
        found = find_deletable(store, given.name, given.keep_top, champions, given.superpixels)
        if given.delete:
            delete(found, store)
    if given.json:
        totals = {name: sum(i.bytes for i in items) for name, items in (("kept", found.keeps), ("goes", found.goes))}
        print(json.dumps({**asdict(found), "bytes": totals, "deleted": given.delete}, indent=2))
    else:
        more = [f"--keep-top {given.keep_top}"] if given.keep_top != 3 else []
        more += ["--superpixels"] if given.superpixels else []
        more += [f"--storage {shlex.quote(given.storage)}"] if given.storage != "sweeps" else []
        show(found, given.delete, " ".join([f"python -m platform.gc {given.name}", *more]))
    return 0


if __name__ == "__main__":
    run_command(main)
