"""Write synthetic scenes in VOC 2012 layout: `python -m cpn.synthetic FOLDER`."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError, run_command
from cpn.sources.creatures import (
    CREATURES,
)
from cpn.sources.scenes import write_scenes


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    defaults = ScenesConfig()
    command = argparse.ArgumentParser(
        prog="python -m cpn.synthetic",
        usage="python -m cpn.synthetic build/scenes --train 150 --val 60 --size 64 --seed 0",
        description="Write synthetic scenes in VOC 2012 layout to a new folder.",
    )
    command.add_argument("root", type=Path, help="the folder to make")
    for name, kind in (("train", int), ("extra", int), ("val", int), ("size", int), ("trace", float), ("seed", int)):
        meaning = ScenesConfig.model_fields[name].description
        command.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help=f"{meaning} (%(default)s)")
    command.add_argument(
        "--classes", nargs="+", default=list(CREATURES), metavar="NAME",
        help="2 to 6 names: a data set with other classes (%(default)s)",
    )  # fmt: skip
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: write scenes to a folder."""
    options = parser().parse_args(arguments)
    values = {name: getattr(options, name) for name in ScenesConfig.model_fields}
    try:
        config = ScenesConfig(**values)
    except ValueError as error:
        first = error.errors()[0] if hasattr(error, "errors") else {"loc": ("",), "msg": str(error)}
        raise InputError(f"--{first['loc'][0]}: {first['msg']}") from error
    write_scenes(options.root, config, options.classes)
    print(f"wrote {config.train + config.extra} training and {config.val} validation scenes to {options.root}")
    print(f"next: python -m cpn.prepare {shlex.quote(str(options.root))}")


if __name__ == "__main__":
    run_command(main)
