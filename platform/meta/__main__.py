"""Which hyperparameters mattered in which sweep: `python -m platform.meta quickstart patch`. Reads only."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError, run_command

from ..base.paths import storage
from ..base.terminal import Terminal

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from .effects import Importance

EXAMPLE = "python -m platform.meta quickstart patch"
RESAMPLES = 100
FEWEST, MOST = 20, 10_000
"""Redraws below which a percentile at 95 % is none."""

NOTE = """\
How much of the differences in score a name explains by itself (fANOVA), over the trials that ran to
their end and have the name: shares need not add up to 100, and hold for what was searched.
[95 % interval] over {} redraws of the trials; *: more than 95 % of what shuffled scores give."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.meta",
        usage=f"{EXAMPLE} [--resamples N] [--seed N] [--storage FOLDER] [--json]",
        description="Compare sweeps: each hyperparameter's share of the variance of the objective (fANOVA), "
        "with an interval over trials, beside what shuffled scores give; and the best S_N beside the size of the "
        "objects. A share holds for the range that was searched.",
    )
    command.add_argument("names", nargs="+", metavar="SWEEP", help="sweeps of the storage folder")
    command.add_argument(
        "--resamples", type=int, default=RESAMPLES, metavar="N", help=f"redraws of the trials (default: {RESAMPLES})"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of the redraws (default: 0)")
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--json", action="store_true", help="one JSON object, numbers in full")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0, 2 for a sweep that there is not."""
    options = parser().parse_args(arguments)
    if options.resamples < FEWEST:
        raise InputError(f"--resamples {options.resamples}: too few for an interval; give {FEWEST} or more")
    if options.resamples > MOST:
        raise InputError(f"--resamples {options.resamples}: would take days; give {MOST} at most")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: give 0 or more")
    from ..reports.snapshot import read_sweep
    from .effects import follows, patch_size, sweep_importances

    store = storage(options.storage, "--storage")
    sweeps = [read_sweep(store, name) for name in dict.fromkeys(options.names)]
    terminal = Terminal()
    importances, sizes = {}, {}
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        for sweep in sweeps:
            with terminal.progress() as report:
                progress = partial(report, f"{sweep.name}: redrawing trials")
                importances[sweep.name] = sweep_importances(
                    sweep.spec.search, sweep.rows, options.resamples, options.seed, progress
                )
            if (size := patch_size(sweep)) is not None:
                sizes[sweep.name] = size
    sentence = follows(list(sizes.values()))
    if options.json:
        values: dict[str, Any] = {
            "importances": {
                sweep: {name: {**asdict(one), "mattered": one.mattered} for name, one in by_name.items()}
                for sweep, by_name in importances.items()
            },
            "patch_size": {sweep: {**asdict(size), "patch_side": size.patch_side} for sweep, size in sizes.items()},
            "follows": sentence,
        }
        print(json.dumps(values, indent=2))
        return 0
    names = dict.fromkeys(name for by_name in importances.values() for name in by_name)
    ranked = sorted(names, key=lambda name: -max(of[name].share for of in importances.values() if name in of))
    rows = [[name, *(cell(of.get(name)) for of in importances.values())] for name in ranked]
    if rows:
        terminal.table("share of variance, %", ["name", *importances], rows)
        terminal.say(NOTE.format(options.resamples))
    for name, by_name in importances.items():
        if not by_name:
            terminal.say(f"{name}: too few trials ran to their end, or all have one score")
    sides = [[name, f"{s.best:.0f} [{s.low:.0f}, {s.high:.0f}]", side(s.patch_side), side(s.object_side)]
             for name, s in sizes.items()]  # fmt: skip
    if sides:
        terminal.table("S_N of the best quarter", ["sweep", "S_N", "patch side, pixels", "object side, pixels"], sides)
        terminal.say(sentence)
    return 0


def cell(one: "Importance | None") -> str:
    """Return one share with its interval."""
    return "-" if one is None else f"{one.share:.0f} [{one.low:.0f}, {one.high:.0f}]{' *' * one.mattered}"


def side(pixels: float | None) -> str:
    """Pixels, or that nobody knows."""
    return "-" if pixels is None else f"{pixels:.0f}"


if __name__ == "__main__":
    run_command(main)
