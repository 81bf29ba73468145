"""CPU seconds of the commands that look at a sweep, and of a finished sweep given again, beside their goals.

    python -m benchmarks looking --json                         # makes the smallest sweep that has all stages: minutes
    python -m benchmarks looking --sweep small.yaml --json      # a finished sweep of yours, in the folder where it ran

User and system seconds of a command and of all that it started: the median of `--rounds` fresh interpreters, after one
that fills the caches and compiles the modules. Goals: 1.5 of what reads the study alone, 4 of what opens MLflow's
store, 6 of the sweep. CPU seconds too depend on the machine, and grow where other work shares its caches.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.services.processes import CHECKOUT
from benchmarks.small_base import BASE
from cpn.core.errors import InputError, WorkError

STUDY_S, STORE_S, AGAIN_S = 1.5, 4.0, 6.0
SPACE = f"""\
name: small
{BASE}search:
  loss.w_tcp: {{float: [0.1, 10], log: true}}
budget: {{trials: 2}}
resources: {{gpus_per_worker: 0}}
confirm: {{top_k: 1, seeds: 1}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--sweep", type=Path, metavar="FILE.yaml", help="a finished sweep's search space")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each command (%(default)s)")


def commands(name: str, space: str) -> dict[str, tuple[float, list[str]]]:
    """What is measured: a name -> its goal in CPU seconds, and the module with its words."""
    first, second = f"{name}-0000", f"{name}-0001"
    return {
        "leaderboard": (STUDY_S, ["platform.leaderboard", name]),
        "compare": (STUDY_S, ["platform.compare", first, second]),
        "export": (STUDY_S, ["platform.export", first]),
        "status": (STUDY_S, ["platform.status"]),
        "history": (STORE_S, ["platform.promote", "--history"]),
        "gc": (STORE_S, ["platform.gc", name]),
        "rollback": (STORE_S, ["platform.rollback", name, "--to", "1", "--because", "measured", "--dry-run"]),
        "sweep_again": (AGAIN_S, ["platform.sweep", space]),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every command."""
    rounds = 1 if options.quick else options.rounds
    if rounds < 1:
        raise InputError(f"--rounds {rounds}: no number of rounds; give 1 or more")
    with ExitStack() as held:
        if options.sweep is None:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
            (folder / "small.yaml").write_text(SPACE)
            spent(["platform.sweep", "small.yaml"], folder)
            name, space = "small", "small.yaml"
        else:
            from platform.base.yaml_files import load_yaml

            folder, space = Path.cwd(), str(options.sweep)
            name = str(load_yaml(options.sweep).get("name"))
        measurements = {
            what: measured(goal, words, folder, rounds) for what, (goal, words) in commands(name, space).items()
        }
    for what, row in measurements.items():
        print(f"{what}: {row['cpu_s']:.2f} CPU s, goal {row['goal_s']:g}")
    return {"rounds": rounds, "commands": measurements, "above": above(measurements)}


def measured(goal: float, words: Sequence[str], folder: Path, rounds: int) -> dict[str, float]:
    """The median of a command beside its goal."""
    spent(words, folder)
    return {"cpu_s": round(statistics.median(spent(words, folder) for _ in range(rounds)), 2), "goal_s": goal}


def above(measurements: Mapping[str, Mapping[str, float]]) -> str:
    """The commands that miss their goal, or none."""
    return " ".join(what for what, row in measurements.items() if row["cpu_s"] >= row["goal_s"]) or "none"


def spent(words: Sequence[str], folder: Path) -> float:
    """CPU seconds of `python -m WORDS` in a folder, with those of all that it waited for. WorkError if it fails."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(filter(None, [str(CHECKOUT), own.get("PYTHONPATH")]))
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=folder, env={**own, "PYTHONPATH": path}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            last = "".join(output.read().decode(errors="replace").splitlines()[-1:])
            raise WorkError(f"{' '.join(words)} ended with exit code {process.returncode}: {last}")
    return usage.ru_utime + usage.ru_stime
