"""The sweep: `python -m platform.sweep search_spaces/patch.yaml`. Search, confirm, promote, stages; resumable."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cpn.core.errors import InputError, run_command

from .base.json_lines import JsonLines, own_stdout
from .base.terminal import Terminal

EXAMPLE = "python -m platform.sweep search_spaces/quickstart.yaml"


def parser() -> argparse.ArgumentParser:
    """Return the command line: flags say where and how much; what is trained is said in YAML."""
    command = argparse.ArgumentParser(
        prog="python -m platform.sweep",
        usage=f"{EXAMPLE} [--set NAME=VALUE ...] [--dry-run [--measure] [--run-code] | --json] [--verbose]",
        description="Search CPN's hyperparameters, confirm the winner, and carry it on to a segmentation network. "
        "The same command again continues where it stopped, and does nothing when all is done.",
    )
    command.add_argument("spec", type=Path, help="the search space, a YAML file")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="sets",
        help="any value by its dotted name: --set data.root=/data/VOC2012 --set budget.trials=40",
    )  # fmt: skip
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print the plan and its price, start nothing; where the sweep "
        "trains on a GPU and one is there, the price comes from a few measured steps",
    )
    command.add_argument(
        "--measure", action="store_true", help="with --dry-run: measure the steps on the CPU if on no GPU"
    )
    command.add_argument(
        "--run-code",
        action="store_true",
        help="with --dry-run: import your own network.backbone, without which its price is not counted",
    )
    command.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line on standard output for every event (trials, stages, verdict, summary), and "
        "nothing else there; what people are told goes to standard error",
    )
    command.add_argument(
        "--verbose",
        action="store_true",
        help="statistics of pruning and mask_free at the end too, which the report has (from 20 trials on)",
    )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0 when the sweep has a result, 1 when nothing succeeded, 2 for wrong input."""
    options = parser().parse_args(arguments)
    if options.measure and not options.dry_run:
        raise InputError("--measure: goes with --dry-run; add it, or leave --measure out")
    if options.run_code and not options.dry_run:
        raise InputError(
            "--run-code: goes with --dry-run, a sweep runs the code anyway; add it, or leave --run-code out"
        )
    if options.json and options.dry_run:
        raise InputError("--json: goes with a sweep that runs; leave out --dry-run, which prints a plan for people")
    from .base.provenance import shown_command
    from .config.spec import load_spec

    spec = load_spec(options.spec, options.sets)
    command = shown_command(options.spec, options.sets)
    if options.dry_run:
        from .plan.dry_run import print_plan

        print_plan(spec, command, options.measure, options.run_code)
        return 0
    from .sweeps.run_sweep import run_sweep

    terminal = JsonLines(own_stdout()) if options.json else Terminal()
    terminal.verbose = options.verbose
    return run_sweep(spec, command, terminal)


if __name__ == "__main__":
    run_command(main)
