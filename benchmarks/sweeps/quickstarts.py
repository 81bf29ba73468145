"""Whether `make sweep` shows CPN: the quickstart's whole sweep again and again, with other scenes and training seeds.

    python -m benchmarks quickstarts --json
    python -m benchmarks quickstarts --count 3 --keep build/quickstarts

Sweep i draws its scenes from data seed FIRST + i, and trains and searches with seed FIRST + i; everything else is
search_spaces/quickstart.yaml. No value of that file was chosen on these seeds. Compared are confirmed means: the winner
and cam_baseline ran again with fresh seeds, and both are scored on images that no choice had looked at.

A finished sweep is read and not run again, and an unfinished one is resumed. One after the other, each with all the
cores; `hours` are wall-clock hours over all starts of a sweep. The interval is Student's t over the sweeps, at 95 %.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.photos.goals import t_interval
from benchmarks.services.processes import CHECKOUT
from benchmarks.sweeps.command_tree import NOT_OURS
from cpn.core.errors import InputError, WorkError

if TYPE_CHECKING:
    from platform.search.sweep_summary import SweepSummary

SPACE = CHECKOUT / "search_spaces" / "quickstart.yaml"
FIRST = 100
"""The first data and training seed."""
SMALL = (
    "budget.trials=2",
    "data.scenes.train=24",
    "data.scenes.val=8",
    "train.epochs=1",
    "confirm.seeds=1",
    "deeplab.iterations=10",
)
"""What --quick sets: to see that it runs, and no more."""


@dataclass(frozen=True)
class Ended:
    """Result of a finished quickstart; mIoU in percent, on the confirm images."""

    seed: int
    baseline: float
    """Mean over cam_baseline's fresh seeds."""
    winner: float
    """Mean over the winner's fresh seeds."""
    hours: float
    words: str
    """The sweep's own line `CPN against cam_baseline`."""

    @property
    def gain(self) -> float:
        """Points of the winner above cam_baseline."""
        return self.winner - self.baseline


def ended(seed: int, summary: "SweepSummary") -> Ended:
    """Read what is compared off a sweep's summary. Raises WorkError where one of the two did not run again."""
    from platform.search.confirm import CAM_BASELINE

    means = {}
    for uid in (CAM_BASELINE, summary.winner):
        if not summary.confirmed.get(uid):
            raise WorkError(f"{name_of(seed)}: {uid} has no finished confirm run; delete the sweep and run it again")
        means[uid] = statistics.fmean(summary.confirmed[uid])
    words = summary.against_baseline or ""
    return Ended(seed, means[CAM_BASELINE], means[summary.winner], summary.hours, words)


def name_of(seed: int) -> str:
    """Return the name of the sweep with this seed."""
    return f"quickstart-seed{seed}"


def command(seed: int, keep: Path, more: Sequence[str] = ()) -> list[str]:
    """The sweep with this seed, everything that it makes in `keep`; `more` are further KEY=VALUE."""
    values = [f"name={name_of(seed)}", f"resources.storage={keep}"]
    values += [f"{key}={seed}" for key in ("data.scenes.seed", "train.seed", "search_options.seed")]
    sets = [word for value in (*values, *more) for word in ("--set", value)]
    return [sys.executable, "-m", "platform.sweep", str(SPACE), *sets]


def result(seed: int, keep: Path) -> Ended | None:
    """Read the result of the sweep with this seed; None while it has not ended."""
    from platform.search.sweep_summary import read_summary

    summary = read_summary(keep / name_of(seed) / "summary.json")
    return None if summary is None else ended(seed, summary)


def run_one(seed: int, keep: Path, more: Sequence[str]) -> Ended:
    """Run or resume one sweep; its lines go to keep/NAME.log. Raises WorkError where it fails."""
    log = keep / f"{name_of(seed)}.log"
    own = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    with log.open("a", encoding="utf-8") as lines:
        code = subprocess.run(command(seed, keep, more), stdout=lines, stderr=lines, env=own, cwd=CHECKOUT).returncode
    outcome = result(seed, keep)
    if code or outcome is None:
        raise WorkError(f"{name_of(seed)}: ended with exit code {code}; see {log}")
    return outcome


def table(rows: Sequence[Ended]) -> str:
    """Markdown: a line for each sweep."""
    lines = ["| seed | cam_baseline | winner | gain | minutes | the sweep's own words |", "|---" * 6 + "|"]
    for row in rows:
        cells = f"{row.seed} | {row.baseline:.1f} | {row.winner:.1f} | {row.gain:+.1f} | {60 * row.hours:.1f}"
        lines.append(f"| {cells} | {row.words} |")
    return "\n".join(lines)


def account(rows: Sequence[Ended]) -> dict[str, Any]:
    """In how many sweeps the winner was above cam_baseline, and the mean gain with its interval over the sweeps."""
    gains = [row.gain for row in rows]
    bounds = t_interval(gains)
    return {
        "sweeps": len(rows),
        "above": sum(gain > 0 for gain in gains),
        "gain": statistics.fmean(gains),
        "interval": None if bounds is None else list(bounds),
        "longest_minutes": max(60 * row.hours for row in rows),
    }


def in_words(totals: dict[str, Any]) -> str:
    """The account in one line."""
    bounds = totals["interval"]
    shown = "one sweep, no interval" if bounds is None else f"[{bounds[0]:+.1f}, {bounds[1]:+.1f}]"
    above = f"CPN above cam_baseline in {totals['above']} of {totals['sweeps']} quickstarts"
    return f"{above}, mean gain {totals['gain']:+.1f} {shown}, the longest took {totals['longest_minutes']:.1f} minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--count", type=int, default=10, help="how many quickstarts (%(default)s)")
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed (%(default)s)")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("build/quickstarts"),
        metavar="DIR",
        help="everything that is made (%(default)s)",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing, and print the table."""
    if options.count < 1 or options.first < 0:
        raise InputError("--count, --first: give at least one quickstart and a seed of 0 or more")
    keep = (options.keep / "quick" if options.quick else options.keep).resolve()
    keep.mkdir(parents=True, exist_ok=True)
    seeds = range(options.first, options.first + (1 if options.quick else options.count))
    rows: list[Ended] = []
    ran, began = 0, time.monotonic()
    for seed in seeds:
        outcome = result(seed, keep)
        if outcome is None:
            outcome = run_one(seed, keep, SMALL if options.quick else ())
            ran += 1
        rows.append(outcome)
        left = (seeds[-1] - seed) * (time.monotonic() - began) / max(ran, 1) / 60
        print(f"{len(rows)} of {len(seeds)}  {outcome.words}  at most {left:.0f} min left", flush=True)
    totals = account(rows)
    print(f"\n{table(rows)}\n\n{in_words(totals)}")
    print(f"next: python -m platform.leaderboard {name_of(seeds[0])} --storage {keep}", flush=True)
    return {**totals, "rows": [vars(row) | {"gain": row.gain} for row in rows]}
