"""A trial's whole configuration as YAML: `python -m platform.export quickstart-0003 > config.yaml`. It trains again."""

import argparse
import json
from collections.abc import Sequence

from cpn.core.errors import run_command

from .base.paths import storage
from .reports.trial_config import config_yaml, exported

EXAMPLE = "python -m platform.export quickstart-0003 > config.yaml"


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m platform.export",
        usage=f"{EXAMPLE}   [--storage FOLDER] [--json]",
        description="Print the whole configuration of a trial, or confirm run, as YAML, every value written out. "
        "python -m platform.train config.yaml trains it again; on the CPU, with --threads 1, to the same miou.",
    )
    command.add_argument("uid", metavar="TRIAL", help="the trial, as the leaderboard names it: quickstart-0003")
    command.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    command.add_argument("--json", action="store_true", help="one JSON object: the trial and its config")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0, 2 for a trial that there is not."""
    options = parser().parse_args(arguments)
    from .reports.snapshot import find_trial

    sweep, row = find_trial(storage(options.storage, "--storage"), options.uid)
    if options.json:
        print(json.dumps(exported(sweep, row), indent=2))
    else:
        print(config_yaml(sweep, row), end="")
    return 0


if __name__ == "__main__":
    run_command(main)
