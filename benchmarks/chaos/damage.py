"""Damages the files of a finished sweep one by one, and looks what the commands make of it.

    python -m benchmarks damage --json
    python -m benchmarks damage --files clock study.db --damages "one byte" --commands sweep report
    python -m benchmarks damage --base FOLDER --hours 2 --json

A small sweep on synthetic scenes runs first, in two starts (the first one's files are the older copies), and a second
run is promoted. Then each kind of file (benchmarks/chaos/damage_files.py) is damaged in each way, and each command is
run on the damaged folder, which is restored before every try. The commands are sweep (the same again), report,
leaderboard, promote, rollback and gc. What comes of a try, against the same command on the undamaged folder:

    same        exit code and outcome are the same: the damage was healed, or nothing needs the file
    told        a line names the file; an error's cure has then been followed, and the command came to the same
    silent      the outcome is another one and nothing was said
    unnamed     an error that does not name the file
    traceback   a traceback
    dead_end    the cure of an error was followed and the command still fails, or comes to something else

The whole grid takes hours. With `--base FOLDER` the sweep stays in FOLDER, and each try is a line of its tries.jsonl:
the same command goes on, and tries again only what was bad. The commands run in forked processes, which have the
imports behind them.
"""

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.damage_files import DAMAGES, KINDS, SWEEP, file_of
from benchmarks.small_base import BASE
from cpn.core.errors import InputError, run_command

SPEC = f"""name: smoke
{BASE}search:
  loss.w_tcp: {{float: [0.1, 10], log: true}}
budget: {{trials: 2}}
resources: {{gpus_per_worker: 0}}
confirm: {{top_k: 1, seeds: 1}}
"""
COMMANDS = {
    "sweep": "platform.sweep smoke.yaml",
    "report": "platform.report smoke",
    "leaderboard": "platform.leaderboard smoke --json",
    "promote": "platform.promote smoke-0000 --because again --json",
    "rollback": "platform.rollback smoke --because campaign --json",
    "gc": "platform.gc smoke --json",
}
"""Name -> module and words."""
BAD = ("silent", "unnamed", "traceback", "dead_end")
TRIES = "tries.jsonl"
"""The tries of earlier starts, a line each."""
REUSED = "reused"
"""The mark of a trial whose run was there already."""


@dataclass
class Try:
    """One damage of one file and what a command made of it."""

    file: str
    damage: str
    command: str
    came: str
    """same, told, silent, unnamed, traceback or dead_end."""
    line: str = ""
    """What was said of the file, or the last line of an error."""


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.out + self.err


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--files", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND", help="only these"
    )
    parser.add_argument("--damages", nargs="+", choices=list(DAMAGES), default=list(DAMAGES), metavar="DAMAGE")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="keep the sweep and all tries here, and go on")
    parser.add_argument("--hours", type=float, help="begin no further try after so many hours")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The campaign, as the module says."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    place = options.base.absolute() if options.base else Path(tempfile.mkdtemp(prefix="cpn-damage-"))
    try:
        if not (place / "whole").exists():
            make_base(place)
        preload()
        tries, left_out = campaign(place, options)
    finally:
        if options.base is None:
            shutil.rmtree(place, ignore_errors=True)
    print_table(tries)
    counts = Counter(each.came for each in tries)
    return {
        "tries": len(tries),
        **{name: counts[name] for name in ("same", "told", *BAD)},
        "left_out": left_out,
        "bad": [asdict(each) for each in tries if each.came in BAD],
        "all": [asdict(each) for each in tries],
    }


def make_base(place: Path) -> None:
    """Run the sweep in place/work, in two starts, and promote a second run; place/older and place/whole are copies."""
    work = place / "work"
    for folder in (work, place / "older", place / "half"):
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was ended
    work.mkdir(parents=True)
    (work / "smoke.yaml").write_text(SPEC)
    for words in (f"{COMMANDS['sweep']} --set budget.trials=1", COMMANDS["sweep"]):
        checked(words, work)
        if not (place / "older").exists():
            shutil.copytree(work, place / "older")
    winner = json.loads((work / f"sweeps/{SWEEP}/summary.json").read_bytes())["winner"]
    other = next(uid for uid in ("smoke-0000", "smoke-0001") if uid != winner)
    checked(f"platform.promote {other} --because campaign", work)
    shutil.copytree(work, place / "half")
    (place / "half").rename(place / "whole")


def checked(words: str, work: Path) -> None:
    """Run a command that has to succeed."""
    print(f"python -m {words}", flush=True)
    done = subprocess.run([sys.executable, "-m", *shlex.split(words)], cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"python -m {words}: ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def preload() -> None:
    """Import what the commands need, before they are forked."""
    import platform.gc
    import platform.leaderboard
    import platform.promote
    import platform.report
    import platform.rollback
    import platform.sweep  # noqa: F401
    from platform.reports.html import figures  # noqa: F401
    from platform.tracking.client import mlflow_module

    mlflow_module()


def campaign(place: Path, options: argparse.Namespace) -> tuple[list[Try], int]:
    """Every try that was asked for; and how many were left out: no such file, not to be damaged so, no time."""
    keys = keys_of(place)
    earlier = earlier_tries(place / TRIES)
    undamaged: dict[str, tuple[Ended, Any]] = {}
    tries, left_out, began = [], 0, time.monotonic()
    for kind, damage, name in product(options.files, options.damages, options.commands):
        if (before := earlier.get((kind, damage, name))) and before.came not in BAD:
            tries.append(before)
            continue
        if options.hours is not None and time.monotonic() - began > 3600 * options.hours:
            left_out += 1
            continue
        if name not in undamaged:
            restore(place)
            ended = command(COMMANDS[name], place / "work")
            undamaged[name] = ended, outcome(name, ended, place / "work")
        restore(place)
        path = file_of(kind, place / "work", keys)
        if path is None or not DAMAGES[damage](path, place / "older" / path.relative_to(place / "work")):
            left_out += 1
            continue
        came, line = one_try(name, path, place / "work", *undamaged[name])
        tries.append(Try(kind, damage, name, came, line))
        with (place / TRIES).open("a") as file:
            print(json.dumps(asdict(tries[-1])), file=file)
        print(f"{kind:26} {damage:11} {name:12} {came:10} {line[:160]}", flush=True)
    return tries, left_out


def earlier_tries(path: Path) -> dict[tuple[str, str, str], Try]:
    """The last try of each file, damage and command that an earlier start made."""
    lines = path.read_text().splitlines() if path.exists() else []
    tries = [Try(**json.loads(line)) for line in lines]
    return {(each.file, each.damage, each.command): each for each in tries}


def one_try(name: str, path: Path, work: Path, before: Ended, expected: Any) -> tuple[str, str]:
    """Run a command on a folder in which `path` is damaged; return the verdict and the line that shows it."""
    ended = command(COMMANDS[name], work)
    naming_line = next((line for line in (ended.err + ended.out).splitlines() if named(path, line)), "")
    if ended.traceback:
        return "traceback", (ended.err.strip() or ended.out.strip()).splitlines()[-1]
    if ended.code == before.code and outcome(name, ended, work) == expected:
        return ("told" if naming_line.startswith("warning: ") else "same"), naming_line
    if ended.code == 0:
        return ("told" if naming_line else "silent"), naming_line
    error = ended.err.strip().splitlines()[-1] if ended.err.strip() else ""
    if not naming_line:
        return "unnamed", error
    if not follow(naming_line, path, work):
        return "dead_end", f"no cure: {naming_line}"
    again = command(COMMANDS[name], work)
    if again.code == before.code and outcome(name, again, work) == expected:
        return "told", naming_line
    return "dead_end", f"{naming_line} -> {again.code}: {again.err.strip()[-300:]}"


def named(path: Path, line: str) -> bool:
    """Whether a line names the file, or the folder of a run or stage that it lies in."""
    return path.name in line or (path.parent.name in line and path.parent.parent.name in ("runs", "stages", "panels"))


def follow(line: str, path: Path, work: Path) -> bool:
    """Do what an error's line says; False where it says nothing that can be done."""
    done = False
    if shell := re.search(r"\((mv [^)]*)\)", line):
        for words in shell[1].split(";"):
            subprocess.run(shlex.split(words), cwd=work, check=False)
        done = True
    elif re.search(r"delete its folder|delete \S*/", line):
        shutil.rmtree(path.parent, ignore_errors=True)
        done = True
    elif "delete it" in line:
        path.unlink(missing_ok=True)
        done = True
    elif "move it away" in line:
        path.rename(path.with_name(path.name + ".away"))
        done = True
    for words in re.findall(r"python -m (cpn\.prepare [^;,]*)", line):
        command(words.strip(), work)
        done = True
    if "platform.export" in line:
        uid = next(iter(re.findall(r"smoke(?:\.confirm)?-\d{4}", line)), f"{SWEEP}-0000")
        exported = command(f"platform.export {uid}", work)
        (work / "run.yaml").write_text(exported.out)
        command("platform.train run.yaml --threads 1", work)
        done = True
    if re.search("sweep's command again|sweep's next start|once more", line):
        command(COMMANDS["sweep"], work)
        done = True
    return done or "same command again" in line


def command(words: str, work: Path) -> Ended:
    """Run a command in a forked process."""
    out, err = work.parent / "out.txt", work.parent / "err.txt"
    module, *rest = shlex.split(words)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.chdir(work)
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = [module, *rest]
        code = 1
        try:
            main = importlib.import_module(module).main
            run_command(main)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), out.read_text(errors="replace"), err.read_text(errors="replace"))


def restore(place: Path) -> None:
    """Make work what the undamaged sweep left; what has size and time of its copy there stays."""
    work, whole = place / "work", place / "whole"
    work.mkdir(exist_ok=True)
    for path in sorted(work.rglob("*"), reverse=True):
        copy = whole / path.relative_to(work)
        if path.is_dir() and not path.is_symlink():
            if not copy.is_dir():
                path.rmdir()
        elif not copy.is_file() or stamp(path) != stamp(copy):
            path.unlink()
    for copy in sorted(whole.rglob("*")):
        path = work / copy.relative_to(whole)
        if copy.is_dir():
            path.mkdir(exist_ok=True)
        elif not path.exists():
            shutil.copy2(copy, path)


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file."""
    status = path.lstat()
    return status.st_size, status.st_mtime_ns


def keys_of(place: Path) -> dict[str, str]:
    """The run keys of the winner and of a confirm run of its configuration."""
    from platform.base.paths import storage
    from platform.reports.snapshot import read_sweep

    # A copy: the open study keeps files beside itself, which come and go while `whole` is copied.
    with tempfile.TemporaryDirectory(dir=place) as copy:
        shutil.copytree(place / "whole", copy, dirs_exist_ok=True)
        sweep = read_sweep(storage(str(Path(copy) / "sweeps")), SWEEP)
        assert sweep.summary is not None
        winner = sweep.by_uid[sweep.summary.winner]
        confirm = next(row for row in sweep.again if row.attrs.get("of") == winner.uid)
        return {"winner": sweep.folder(winner).name, "confirm": sweep.folder(confirm).name}


def outcome(name: str, ended: Ended, work: Path) -> Any:
    """Read a command's result, without times and sizes."""
    if ended.code != 0:
        return ended.code
    if name == "sweep":
        result = json.loads((work / f"sweeps/{SWEEP}/summary.json").read_bytes())
        compared = ("verdict", "winner", "leaderboard", "metrics", "trials", "confirm_runs", "stage_failed")
        return without({key: result[key] for key in compared})
    if name == "report":
        return (work / f"sweeps/{SWEEP}/leaderboard.md").read_text().replace(f", {REUSED}", "")
    result = json.loads(ended.out)
    if name == "gc":  # confirm runs that come back from the records may have changed their numbers among themselves
        return {
            part: sorted((item["path"], re.sub(r"\.confirm-\d{4}", ".confirm", item["why"])) for item in result[part])
            for part in ("keeps", "goes")
        }
    return without(result)


def without(value: Any) -> Any:
    """Plain values without hours and what else differs from start to start, and without the mark of a run that was
    taken over: the cure of a lost study says that its trials get it.
    """
    if isinstance(value, dict):
        left = {k: without(v) for k, v in value.items() if not re.search("hours|seconds|waiting|folder|model", k)}
        return left
    return [without(item) for item in value if item != REUSED] if isinstance(value, list) else value


def print_table(tries: list[Try]) -> None:
    """Print the verdict of each kind of file, by damage: the worst over the commands."""
    order = ("same", "told", *BAD)
    table = Table("file", *DAMAGES)
    for kind in dict.fromkeys(each.file for each in tries):
        cells = []
        for damage in DAMAGES:
            came = [each.came for each in tries if (each.file, each.damage) == (kind, damage)]
            cells.append(max(came, key=order.index) if came else "-")
        table.add_row(kind, *cells)
    Console(width=120).print(table)
