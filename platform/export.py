"""A trial's whole configuration as YAML: `python -m platform.export quickstart-0003 > config.yaml`. It trains again."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cpn.errors import run_command

from .paths import storage

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from .reading import Reading
    from .study import TrialRow

EXAMPLE = "python -m platform.export quickstart-0003 > config.yaml"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m platform.export",
        usage=f"{EXAMPLE}   [--storage FOLDER] [--json]",
        description="Print the whole configuration of a trial, or confirm run, as YAML, every value written out. "
        "python -m platform.train config.yaml trains it again; on the CPU, with --threads 1, to the same miou.",
    )
    made.add_argument("uid", metavar="TRIAL", help="the trial, as the leaderboard names it: quickstart-0003")
    made.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    made.add_argument("--json", action="store_true", help="one JSON object: the trial and its config")
    return made


def config_yaml(sweep: "Reading", row: "TrialRow") -> str:
    """The configuration as YAML under comments that say whose it is and what it reached."""
    from cpn.config import METHOD_VERSION

    from .curve import searched_range
    from .files import yaml_text
    from .tracking_uri import masked

    config = sweep.config(row)
    reached = row.state.name.lower()
    if row.miou is not None:
        beta = "" if row.beta is None else f" at beta {row.beta:.2f}"
        reached = f"{sweep.spec.objective} {row.miou:.2f} % ({config.data.score}, select){beta}"
    lines = [
        f"trial {row.uid} of sweep {sweep.name}: {reached}",
        f"seed {config.train.seed}, data {sweep.fingerprint}, method version {METHOD_VERSION}",
    ]
    within = searched_range(sweep.spec.search)
    if within is not None:
        lines.append(f"the sweep took beta within {within[0]:g} and {within[1]:g}; a run alone takes the best of all")
    one = "" if sweep.spec.resources.gpus_per_worker else " --threads 1"  # on the CPU a trial has one
    lines.append(f"train it again: python -m platform.train config.yaml{one}")
    return "".join(f"# {line}\n" for line in lines) + yaml_text(masked(config.model_dump(mode="json")))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 0, 2 for a trial that there is not."""
    given = parser().parse_args(arguments)
    from .reading import find_trial

    sweep, row = find_trial(storage(given.storage), given.uid)
    if given.json:
        print(json.dumps(exported(sweep, row), indent=2))
    else:
        print(config_yaml(sweep, row), end="")
    return 0


def exported(sweep: "Reading", row: "TrialRow") -> dict[str, Any]:
    """The same as plain values."""
    from .tracking_uri import masked

    return {
        "uid": row.uid,
        "sweep": sweep.name,
        "state": row.state.name.lower(),
        "objective": {"name": sweep.spec.objective, "value": row.miou},
        "beta": row.beta,
        "fingerprint": sweep.fingerprint,
        "run": sweep.folder(row).name,
        "config": masked(sweep.config(row).model_dump(mode="json")),
    }


if __name__ == "__main__":
    run_command(main)
