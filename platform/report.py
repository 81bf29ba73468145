"""A sweep's report: `python -m platform.report quickstart`. One HTML file that needs no network, and tables for papers.

Made by itself at the end of a sweep; by hand at any time, while it runs or after it was stopped ("so far").
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from cpn.core.errors import InputError, run_command
from cpn.core.files import check_place

from .base.paths import storage
from .base.terminal import Terminal
from .reports.page import single_run, write_report

EXAMPLE = "python -m platform.report quickstart"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m platform.report",
        usage=f"{EXAMPLE} [--single-gpu RUN] [--out FOLDER] [--storage FOLDER] [--json]\n"
        "       python -m platform.report --paper [--spaces FOLDER]",
        description="Write the report of a sweep: report.html, one file that opens without network, and the "
        "leaderboard for a paper's appendix as leaderboard.md and leaderboard.tex. Works while the sweep runs.",
    )
    made.add_argument("name", nargs="?", help="the sweep's name; none with --paper")
    made.add_argument("--paper", action="store_true", help="one page over the paper's tables and figures instead")
    made.add_argument(
        "--spaces", type=Path, default=Path("search_spaces"), metavar="FOLDER", help="with --paper: their files"
    )
    made.add_argument(
        "--single-gpu", metavar="RUN", dest="single_gpu",
        help="your own run on one card, its key or folder, that throughput is relative to (python -m platform.train)",
    )  # fmt: skip
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where to write it (default: the sweep's own folder)")
    made.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    made.add_argument("--json", action="store_true", help="the files that were written, as one JSON object")
    return made


def paper(given: argparse.Namespace) -> int:
    """The page over the paper's tables; exit code 0."""
    from .reports.paper_report import write_paper_report
    from .reports.summary import shortened

    page, run = write_paper_report(storage(given.storage), given.spaces, (given.out or Path()) / "paper_report.html")
    if given.json:
        print(json.dumps({"page": str(page), "run": run}))
        return 0
    print(f"{sum(run.values())} of {len(run)} tables and figures were run: {shortened(page.resolve())}")
    print(f"next: open {page.resolve().as_uri()} in a browser")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 0, 2 for a sweep or run that there is not."""
    given = parser().parse_args(arguments)
    if (given.name is None) != given.paper:
        raise InputError("platform.report: give a sweep's name, or --paper and no name")
    if given.paper:
        check_place(given.out or Path(), "--out")
        return paper(given)
    store = storage(given.storage)
    folder = given.out or store.sweep(given.name).root
    check_place(folder, "--out")
    from .reports.snapshot import read_sweep

    sweep = read_sweep(store, given.name)
    single = single_run(store, given.single_gpu) if given.single_gpu else None
    words = ["python", "-m", "platform.report", given.name]
    words += ["--storage", given.storage] if given.storage != "sweeps" else []
    words += ["--single-gpu", given.single_gpu] if given.single_gpu else []
    files = write_report(sweep, folder, single, shlex.join(words))
    if given.json:
        print(json.dumps({"sweep": sweep.name, "so_far": sweep.so_far, "files": [str(file) for file in files]}))
        return 0
    terminal = Terminal()
    from .reports.summary import shortened

    for file in files:
        terminal.say(str(shortened(file)))
    if sweep.so_far:
        terminal.say(f"so far: {sweep.so_far}")
    terminal.say(f"next: open {files[0].resolve().as_uri()} in a browser")
    return 0


if __name__ == "__main__":
    run_command(main)
