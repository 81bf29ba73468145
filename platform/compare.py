"""Two trials side by side: `python -m platform.compare quickstart-0000 quickstart-0003`, of one sweep or of two."""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cpn.config import to_dotted
from cpn.core.errors import run_command

from .base.paths import storage
from .base.terminal import Terminal

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from .reports.snapshot import SweepSnapshot
    from .search.study import TrialRow

EXAMPLE = "python -m platform.compare quickstart-0000 quickstart-0003"
METRICS = (
    "miou", "miou_fixed_beta", "miou_confirm", "miou_train", "beta",
    "mask_free", "mask_free_confirm", "classification_map", "cp_agreement",
)  # fmt: skip
POINTS = 12
"""Rows of a curve in the terminal; --json has all."""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    command_line = argparse.ArgumentParser(
        prog="python -m platform.compare",
        usage=f"{EXAMPLE} [--storage FOLDER] [--json]",
        description="Show how two trials, or confirm runs, of one sweep or of two of a storage folder differ: "
        "configuration, metrics, IoU by class, and the curves over epochs and over beta. Nothing is tested here: one "
        "run each says nothing about seeds; the leaderboard's confirmed means do.",
    )
    command_line.add_argument("first", metavar="A", help="a trial, as the leaderboard names it: quickstart-0000")
    command_line.add_argument("second", metavar="B", help="the trial that is compared with it")
    command_line.add_argument(
        "--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)"
    )
    command_line.add_argument("--json", action="store_true", help="one JSON object, with the whole curves")
    return command_line


def comparison(one: tuple["SweepSnapshot", "TrialRow"], two: tuple["SweepSnapshot", "TrialRow"]) -> dict[str, Any]:
    """Compare two trials as plain values; each pair is [A, B], with None for a missing value."""
    sides = [described(*one), described(*two)]
    return {
        "a": {name: sides[0][name] for name in ("uid", "state", "reason", "run", "data")},
        "b": {name: sides[1][name] for name in ("uid", "state", "reason", "run", "data")},
        "same_run": sides[0]["run"] == sides[1]["run"],
        "same_data": sides[0]["data"] == sides[1]["data"],
        "config": differing(sides[0]["config"], sides[1]["config"]),
        "metrics": paired([name for name in METRICS], sides, "metrics"),
        "iou": paired(merged(sides, "iou"), sides, "iou"),
        "epochs": paired(merged(sides, "epochs"), sides, "epochs"),
        "beta_curve": paired(merged(sides, "beta_curve"), sides, "beta_curve"),
    }


def described(sweep: "SweepSnapshot", row: "TrialRow") -> dict[str, Any]:
    """Describe one trial from the study, and from its run's manifest if the run is finished and exists."""

    result = sweep.result(row)
    recorded = {sweep.spec.objective: row.miou, "beta": row.beta, **row.attrs}
    metrics = {
        **(result.metrics if result else {}),
        **{name: recorded[name] for name in METRICS if recorded.get(name) is not None},
    }
    curve = result.curve if result else None
    points = zip(curve.beta, curve.miou, strict=True) if curve else ()
    names = ["background", *(result.classes if result else ())]
    return {
        "uid": row.uid,
        "state": row.state.name.lower(),
        "reason": row.reason,
        "run": sweep.folder(row).name,
        "data": sweep.fingerprint,
        "config": to_dotted(sweep.config(row)),
        "metrics": metrics,
        "iou": dict(zip(names, result.iou if result else (), strict=False)),
        "epochs": {str(epoch): value for epoch, value in row.reports.items()},
        "beta_curve": {f"{beta:.2f}": value for beta, value in points},
    }


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the dotted names whose values differ, with both values."""
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return {name: [first.get(name), second.get(name)] for name in names}


def merged(sides: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Merge the names of both sides, in order."""
    return list({**sides[0][key], **sides[1][key]})


def paired(names: Sequence[str], sides: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float | None]]:
    """Map each name that at least one side has to [A, B]."""
    both = {name: [side[key].get(name) for side in sides] for name in names}
    return {name: pair for name, pair in both.items() if pair != [None, None]}


def show(result: Mapping[str, Any], terminal: "Terminal", where: str) -> None:
    """Print the comparison as tables."""
    from .reports.ranking import short

    a, b = result["a"]["uid"], result["b"]["uid"]
    if result["same_run"]:
        terminal.say(f"{a} and {b} are the same run: configuration, seed and data are equal")
    if not result["same_data"]:
        terminal.say(
            f"the data differ ({result['a']['data']} and {result['b']['data']}): the numbers are not comparable"
        )
    for side in (result["a"], result["b"]):
        if side["state"] != "complete":
            terminal.say(f"{side['uid']}: {side['state']}" + (f", {side['reason']}" if side["reason"] else ""))
    rows = [[name, short(pair[0]), short(pair[1])] for name, pair in result["config"].items()]
    terminal.table("what differs in the configuration", ["name", a, b], rows, "" if rows else "nothing", left=1)
    table(terminal, "metrics, % (beta: 0 to 1.2)", "metric", result, "metrics", decimals={"beta": 2})
    table(terminal, "IoU by class, % (select)", "class", result, "iou")
    table(terminal, "while training, % (select, one scale)", "epoch", result, "epochs", thin=True)
    table(terminal, "mIoU over beta, % (select)", "beta", result, "beta_curve", thin=True)
    terminal.say(f"next: python -m platform.export {b}{where} > config.yaml")


def table(
    terminal: "Terminal", title: str, head: str, result: Mapping[str, Any], key: str, thin: bool = False,
    decimals: Mapping[str, int] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Print a table of pairs with their difference; a curve is thinned to some of its points."""
    pairs = list(result[key].items())
    if not pairs:
        return
    step = -(-len(pairs) // POINTS) if thin else 1
    some = pairs[::step] + ([pairs[-1]] if (len(pairs) - 1) % step else [])
    rows = []
    for name, (first, second) in some:
        places = decimals.get(name, 1)
        values = ["-" if value is None else f"{value:.{places}f}" for value in (first, second)]
        both = first is not None and second is not None
        rows.append([name, *values, f"{second - first:+.{places}f}" if both else "-"])
    caption = f"{len(some)} of {len(pairs)} points; all of them: --json" if len(some) < len(pairs) else ""
    terminal.table(title, [head, result["a"]["uid"], result["b"]["uid"], "second - first"], rows, caption, left=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 0; 2 for an unknown trial."""
    options = parser().parse_args(arguments)
    from .reports.snapshot import find_trial

    store = storage(options.storage, "--storage")
    result = comparison(find_trial(store, options.first), find_trial(store, options.second))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result, Terminal(), "" if options.storage == "sweeps" else f" --storage {shlex.quote(options.storage)}")
    return 0


if __name__ == "__main__":
    run_command(main)
