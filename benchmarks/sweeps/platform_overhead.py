"""What a trial costs beyond its training: a sweep of ours against a bare Ray Train script of the same loop.

    python -m benchmarks platform_overhead --json

Both run the same trials on the CPU, one at a time, as commands in turns: `python -m platform.sweep`, and
benchmarks/sweeps/bare_trials.py, a TorchTrainer for each trial in a plain Tuner, with Ray as it comes. Ours and other
are CPU seconds a trial, of all processes that the command started: from the end of the first trial to the end of the
last, over the trials between, so that what a command does once is not in it. The bare script trains, measures miou and
writes the network; ours does that and what else a trial is (study, checkpoints, scores without masks, pictures,
records). `equal`: every trial's miou is the same number in both.

The same in seconds of the clock: `ours_s`, `other_s`, and `added_s`, of which less than 3 are promised. A trial here is
short; what is added does not grow with it. From the command to the first training step of its first trial:
`ours_until_ray`, `ours_until_trial`, `ours_until_step` (imports, data and study; Ray and Tune; placement, Ray Train's
worker and its imports), and the same of the other. `help_s` is what `python -m platform.sweep --help` takes,
`python_s` the empty interpreter; `help_imports` and `dry_run_imports` are which of torch, ray and mlflow either
imports: a dry run without ray among them starts none.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.comparison import Comparison
from benchmarks.services.processes import CHECKOUT
from benchmarks.sweeps.command_tree import Line, ended, watched

TARGET, TARGET_S = 1.3, 3.0
HEAVY = ("torch", "ray", "mlflow")
SIZES = {"trials": 4, "images": 150, "epochs": 6, "rounds": 2}
QUICK = {"trials": 2, "images": 32, "epochs": 2, "rounds": 1}
SEARCH = {"loss.w_tcp": {"float": [0.1, 10], "log": True}, "patches.p_h": {"float": [0.1, 0.5]}}


@dataclass(frozen=True)
class Side:
    """Measurements of one run of one command."""

    cpu: float
    """CPU seconds a trial."""
    wall: float
    """Seconds of the clock a trial."""
    until: Mapping[str, float]
    """Seconds from the command until Ray is asked for, and from each of these steps to the next: trial, step."""
    mious: tuple[float, ...]
    """Of the trials, in their order; NaN, which equals nothing, where one failed."""


def base_of(root: Path, images: int, epochs: int) -> dict[str, Any]:
    """Both sides' configuration."""
    return {
        "preset": ["official", "scenes"],
        "data": {"root": str(root), "train": "train", "score": "train", "val": "val"},
        "patches": {"draw": "bernoulli"},
        "network": {"weights": None},
        "train": {"epochs": epochs},
    }


def side(began: float, lines: Sequence[Line], images: int) -> Side:
    """Read off the lines of one command, which trains `images` in every epoch; `began` is when it was started."""
    ends = ended(lines)
    between = len(ends) - 1
    ray = next(line.at for line in lines if "starting Ray" in str(line.event.get("said", "")))
    trial = next(line.at for line in lines if line.event.get("event") == "trial_started")
    # The worker's clock at the end of its first epoch's steps, and how long they took.
    report = next(line.event for line in lines if "images_per_s" in line.event)
    step = float(report["time"]) - images / float(report["images_per_s"])
    return Side(
        cpu=(ends[-1].cpu - ends[0].cpu) / between,
        wall=(ends[-1].at - ends[0].at) / between,
        until={"ray": ray - began, "trial": trial - ray, "step": step - trial},
        mious=tuple(math.nan if line.event["value"] is None else float(line.event["value"]) for line in ends),
    )


def run_ours(folder: Path, base: Mapping[str, Any], trials: int, images: int) -> tuple[Side, list[dict[str, Any]]]:
    """A sweep in an empty folder, until its last trial has ended; and what each trial's values were."""
    from platform.base.paths import storage
    from platform.reports.snapshot import read_sweep

    spec = {
        "name": "overhead", "base": base, "search": SEARCH, "search_options": {"sampler": "random"},
        "budget": {"trials": trials}, "pruning": {"kind": "none"}, "confirm": {"top_k": 0},
        "promote": {"when": "better"}, "resources": {"gpus_per_worker": 0, "concurrent": 1},
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(spec))
    with watched([sys.executable, "-m", "platform.sweep", "sweep.yaml", "--json"], folder) as tree:
        lines = tree.until(lambda lines: len(ended(lines)) == trials)
    rows = read_sweep(storage(str(folder / "sweeps")), "overhead").rows
    return side(tree.began, lines, images), [row.values for row in rows]


def run_other(
    folder: Path, base: Mapping[str, Any], values: Sequence[Mapping[str, Any]], images: int
) -> Side:  # fmt: skip
    """Run the bare script with equal trials."""
    settings = {"base": base, "score": True, "folder": str(folder)}
    settings["trials"] = [{"values": own, "workers": 1} for own in values]
    (folder / "given.json").write_text(json.dumps(settings))
    with watched([sys.executable, "-m", "benchmarks.sweeps.bare_trials", "given.json"], folder) as tree:
        lines = tree.until(lambda lines: len(ended(lines)) == len(values))
    return side(tree.began, lines, images)


def imported(trace: str) -> set[str]:
    """The top-level modules of what `python -X importtime` printed."""
    rows = [row.rpartition("|")[2].strip() for row in trace.splitlines() if row.startswith("import time:")]
    return {name.partition(".")[0] for name in rows}


def heavy_imports(arguments: Sequence[str], folder: Path) -> str:
    """List which of HEAVY `python -m ...` imports: names, or none."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=folder, env=plain_environment(), capture_output=True, text=True, check=True)
    modules = imported(done.stderr)
    return " ".join(name for name in HEAVY if name in modules) or "none"


def plain_environment() -> dict[str, str]:
    """This process's environment with the checkout first."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def quickest(arguments: Sequence[str], folder: Path, times: int = 3) -> float:
    """Seconds of the clock that `python ...` takes, the least of some."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=plain_environment(), capture_output=True, check=True
        )  # fmt: skip
        taken.append(time.perf_counter() - began)
    return min(taken)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Both in turns."""
    from cpn.config.data import ScenesConfig
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes

    sizes = QUICK if options.quick else SIZES
    ours: list[Side] = []
    other: list[Side] = []
    with tempfile.TemporaryDirectory(prefix="cpn-overhead-") as place:
        root = Path(place)
        write_scenes(root / "scenes", ScenesConfig(train=sizes["images"], val=4))
        pack = prepare(root / "scenes", ["train", "val"])
        base = base_of(root / "scenes", sizes["images"], sizes["epochs"])
        seen = len(pack.split("train")) // 8 * 8  # the last short batch is dropped
        for at in range(sizes["rounds"]):
            folders = [root / f"ours{at}", root / f"other{at}"]
            for folder in folders:
                folder.mkdir()
            own_side, values = run_ours(folders[0], base, sizes["trials"], seen)
            ours.append(own_side)
            other.append(run_other(folders[1], base, values, seen))
            print(f"round {at + 1}: ours {side_words(ours[-1])}; bare {side_words(other[-1])}", flush=True)
        help_words = ["-m", "platform.sweep", "--help"]
        imports = {
            "help_imports": heavy_imports(help_words, root),
            "dry_run_imports": heavy_imports(
                ["-m", "platform.sweep", str(folders[0] / "sweep.yaml"), "--dry-run"], root
            ),
            "help_s": quickest(help_words, root),
            "python_s": quickest(["-c", "pass"], root),
        }
    return summary(ours, other) | imports


def side_words(one: Side) -> str:
    """Describe a side in words."""
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one.until.items())
    return f"{one.cpu:.2f} CPU s, {one.wall:.2f} s a trial ({steps} s before the first step)"


def summary(ours: Sequence[Side], other: Sequence[Side]) -> dict[str, Any]:
    """Compute the medians over the rounds, and the overhead."""

    def middle(sides: Sequence[Side], name: str) -> float:
        return statistics.median(getattr(one, name) for one in sides)

    def until(sides: Sequence[Side], name: str) -> float:
        return statistics.median(one.until[name] for one in sides)

    steps = {
        f"{who}_until_{name}": until(sides, name)
        for who, sides in (("ours", ours), ("other", other))
        for name in ("ray", "trial", "step")
    }
    wall = {"ours_s": middle(ours, "wall"), "other_s": middle(other, "wall")}
    more = {**wall, "added_s": wall["ours_s"] - wall["other_s"], "target_added_s": TARGET_S, **steps}
    pairs = [
        (a, b)
        for own_side, other_side in zip(ours, other, strict=True)
        for a, b in zip(own_side.mious, other_side.mious, strict=True)
    ]
    equal = all(a == b for a, b in pairs)
    return Comparison(middle(ours, "cpu"), middle(other, "cpu"), "CPU s a trial", equal, TARGET, more).result()
