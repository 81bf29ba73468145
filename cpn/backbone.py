"""Check a backbone of your own: `python -m cpn.backbone --check my_networks.mobile:backbone`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cpn.core.errors import InputError, run_command
from cpn.models.backbone import BACKBONES, EXAMPLE

MOST_CLASSES = 254
"""Of a data set, beside background and ignore."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.backbone",
        usage=f"{EXAMPLE} [--weights FILE] [--classes N] [--json]",
        description="Hold a backbone to what the networks above it ask: shapes, layers, frozen parameters, batch norm, "
        "gradients, scale of its maps, memory and cost. Run it before a sweep with a backbone of your own.",
        epilog="docs/own_backbone.md shows how to write one.",
    )
    command.add_argument(
        "--check",
        required=True,
        metavar="NAME",
        help=f"package.module:factory, timm:NAME, or one of {', '.join(BACKBONES)}",
    )
    command.add_argument(
        "--weights", metavar="FILE", help="pretrained weights that it will start from (network.weights)"
    )
    command.add_argument(
        "--classes", type=int, default=20, metavar="N", help="foreground classes, for the cost (default: 20)"
    )
    command.add_argument("--json", action="store_true", help="print one line of JSON per check and nothing else")
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: see --help."""
    options = parser().parse_args(arguments)
    if options.classes < 1:
        raise InputError(f"--classes {options.classes}: no number of classes; give 1 or more")
    if options.classes > MOST_CLASSES:
        raise InputError(f"--classes {options.classes}: a mask tells {MOST_CLASSES} classes apart; give that at most")

    from cpn.cost.backbone_check import check

    check(options.check, options.weights, options.classes, options.json)
    return 0


if __name__ == "__main__":
    run_command(main)
