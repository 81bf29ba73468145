"""A sweep's report: `python -m platform.report quickstart`. One HTML file that needs no network, and tables for papers.

Made by itself at the end of a sweep; by hand at any time, while it runs or after it was stopped ("so far").
"""

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError, WorkError, run_command
from cpn.core.files import check_place
from cpn.core.redact import redact
from cpn.scoring.judgement_scores import JudgementScores

from .base.paths import shortened, storage
from .base.terminal import Terminal
from .base.tracking_uri import check_store, sqlite_path, store_uri, ui_command
from .reports.html.page import single_run, write_report

EXAMPLE = "python -m platform.report quickstart"


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.report",
        usage=f"{EXAMPLE} [--single-gpu RUN] [--out FOLDER] [--storage FOLDER] [--json]\n"
        "       python -m platform.report --paper [--spaces FOLDER]\n"
        "       python -m platform.report --judged FOLDER [--uri URI]",
        description="Write the report of a sweep: report.html, one file that opens without network, and the "
        "leaderboard for a paper's appendix as leaderboard.md and leaderboard.tex. Works while the sweep runs.",
    )
    command.add_argument("name", nargs="?", help="the sweep's name; none with --paper or --judged")
    command.add_argument("--paper", action="store_true", help="one page over the paper's tables and figures instead")
    command.add_argument(
        "--spaces", type=Path, default=Path("search_spaces"), metavar="FOLDER", help="with --paper: their files"
    )
    command.add_argument(
        "--single-gpu", metavar="RUN", dest="single_gpu",
        help="your own run on one card, its key or folder, that throughput is relative to (python -m platform.train)",
    )  # fmt: skip
    command.add_argument(
        "--judged", type=Path, metavar="FOLDER", help="report.html of a judgement: what python -m cpn.judge --out wrote"
    )
    command.add_argument(
        "--uri", metavar="URI", help="with --judged: the MLflow store that gets it as a run, files and all"
    )
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write it (default: the sweep's own folder)"
    )
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--json", action="store_true", help="the files that were written, as one JSON object")
    return command


def paper(options: argparse.Namespace) -> int:
    """Return the page over the paper's tables; exit code 0."""
    from .reports.html.paper_report import write_paper_report

    page, run = write_paper_report(
        storage(options.storage, "--storage"), options.spaces, (options.out or Path()) / "paper_report.html"
    )
    if options.json:
        print(json.dumps({"page": str(page), "run": run}))
        return 0
    print(f"{sum(run.values())} of {len(run)} tables and figures were run: {shortened(page.resolve())}")
    print(f"next: open {page.resolve().as_uri()} in a browser")
    return 0


def judgement(options: argparse.Namespace) -> int:
    """Return the page of a judgement, and its run in MLflow; exit code 0."""
    from .reports.html.page import read_judgement, write_judgement

    warning = None if options.uri is None else check_store(options.uri, "--uri")
    if warning is not None:
        raise InputError(f"{warning.partition(';')[0]}; start it, or leave out --uri")
    scores = read_judgement(options.judged)
    page = write_judgement(options.judged, scores, options.out or options.judged)
    record = {} if options.uri is None else recorded(options.uri, scores, options.judged, page)
    if options.json:
        print(json.dumps({"page": str(page), **record}))
        return 0
    print(shortened(page.resolve()))
    if record:
        again = " (it was there)" if record["again"] else ""
        print(f"MLflow: experiment judgements, run {record['run']}{again}")
        print(f"next: {ui_command(options.uri)}")
    else:
        print(f"next: open {page.resolve().as_uri()} in a browser")
    return 0


def recorded(uri: str, scores: JudgementScores, folder: Path, page: Path) -> dict[str, Any]:
    """Record a judgement in the store at `uri`. WorkError, in one line, if that does not answer."""
    from .tracking.client import connect, mlflow_module, one_line
    from .tracking.in_mlflow.judgement import record_judgement
    from .tracking.moved_store import FILES

    path = sqlite_path(store_uri(uri))
    home = None if uri.startswith(("http://", "https://")) else (path.parent if path else Path.cwd()) / FILES
    files = [file for name in ("judge.json", "panel.png", "curve.png") if (file := folder / name).is_file()]
    try:
        ids = record_judgement(mlflow_module(), connect(store_uri(uri)), scores, [*files, page], home)
    except mlflow_module().MlflowException as error:
        raise WorkError(f"--uri {redact(uri)}: {one_line(error)}") from error
    return dict(zip(("experiment", "run", "again"), ids, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0, 2 for a sweep or run that there is not."""
    options = parser().parse_args(arguments)
    if [options.name is not None, options.paper, options.judged is not None].count(True) != 1:
        raise InputError("platform.report: give a sweep's name, or --paper, or --judged FOLDER, and one of them alone")
    if options.uri is not None and options.judged is None:
        raise InputError(
            f"--uri {redact(options.uri)}: a sweep is in MLflow already; give it with --judged, or leave it out"
        )
    if options.paper:
        check_place(options.out or Path(), "--out")
        return paper(options)
    if options.judged is not None:
        check_place(options.out or options.judged, "--out" if options.out else "--judged")
        return judgement(options)
    store = storage(options.storage, "--storage")
    folder = options.out or store.sweep(options.name).root
    check_place(
        folder, "--out" if options.out or os.path.isdir(folder) else options.name
    )  # no sweep: its name is wrong
    from .reports.snapshot import read_sweep

    sweep = read_sweep(store, options.name)
    single = single_run(store, options.single_gpu) if options.single_gpu else None
    words = ["python", "-m", "platform.report", options.name]
    words += ["--storage", options.storage] if options.storage != "sweeps" else []
    words += ["--single-gpu", options.single_gpu] if options.single_gpu else []
    files = write_report(sweep, folder, single, shlex.join(words))
    if options.json:
        print(json.dumps({"sweep": sweep.name, "so_far": sweep.so_far, "files": [str(file) for file in files]}))
        return 0
    terminal = Terminal()
    for file in files:
        terminal.say(str(shortened(file)))
    if sweep.so_far:
        terminal.say(f"so far: {sweep.so_far}")
    terminal.say(f"next: open {files[0].resolve().as_uri()} in a browser")
    return 0


if __name__ == "__main__":
    run_command(main)
