"""What sweeps there are and how they stand: `python -m platform.status`. Reads studies and records, starts nothing."""

import argparse
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpn.checked import SWEEP_WRITES
from cpn.errors import InputError, run_command
from cpn.files import read_json

from .lock import FINISHED, RUNNING, STOPPED, driver_note, read_driver
from .mirror import as_seen
from .paths import SHARED, Storage, SweepPaths, storage

EXAMPLE = "python -m platform.status"


@dataclass(frozen=True)
class Status:
    """How one sweep stands. Numbers are None where its study cannot be read."""

    sweep: str
    state: str
    """running, stopped (the same command continues), finished or failed."""
    complete: int | None = None
    pruned: int | None = None
    failed: int | None = None
    unfinished: int | None = None
    """Started or waiting, and resumable."""
    budget: int | None = None
    """Trials that it may come to hold; None: other limits end it."""
    confirm_runs: int | None = None
    """Runs with fresh seeds that are complete."""
    objective: str = "miou"
    best: float | None = None
    """The best objective of a full-budget trial, percent, on the select images."""
    best_uid: str | None = None
    champion: str | None = None
    """The trial whose checkpoint the last end of the sweep promoted."""
    verdict: str | None = None
    host: str | None = None
    pid: int | None = None
    command: str | None = None
    """What started it last, and continues it."""
    notes: list[str] = field(default_factory=list)
    """What else there is to say: why it failed, or what could not be read."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m platform.status",
        usage=f"{EXAMPLE} [NAME ...] [--storage FOLDER] [--json]",
        description="Show the sweeps of a storage folder and how they stand: running, stopped, finished or failed, "
        "their trials, the best one and the champion.",
    )
    made.add_argument("names", nargs="*", metavar="NAME", help="only these sweeps")
    made.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    made.add_argument("--json", action="store_true", help="a JSON list, one object per sweep")
    return made


def sweep_names(store: Storage) -> list[str]:
    """The sweeps that have been started in a storage folder."""
    place = store.sweeps
    there = sorted(place.iterdir()) if place.is_dir() else []
    return [p.name for p in there if p.name not in SHARED and (p / store.sweep(p.name).lock.name).is_file()]


def sweep_paths(store: Storage, name: str) -> SweepPaths:
    """The folder of a sweep that has been started. Raises InputError when there is none of that name."""
    there = sweep_names(store)
    if name not in there:
        names = ", ".join(there) or "none"
        raise InputError(f"{name}: no such sweep in {store.place} (there are: {names}); --storage names the folder")
    return store.sweep(name)


def study_of(store: Storage, spec: dict[str, Any]) -> str:
    """The URL of a sweep's study. Raises InputError where its password was not kept and the environment has none."""
    said = (spec.get("tracking") or {}).get("study")
    url = said if said and "***" not in said else os.environ.get("CPN_STUDY_URL")
    if said and url is None:
        raise InputError(f"tracking.study: passwords are not kept; set CPN_STUDY_URL to the whole of {said}")
    return url or f"sqlite:///{store.study}"


def status(store: Storage, name: str) -> Status:
    """How one sweep stands, from its record, its study and its summary."""
    paths = sweep_paths(store, name)
    notes = [note for note in [driver_note(paths)] if note]
    driver, summary = read_driver(paths), _read(paths.summary, notes)
    stands = driver.stands if driver else FINISHED if summary else STOPPED
    found: dict[str, Any] = {"sweep": name, "state": stands, "notes": notes}
    if driver is not None:
        found |= {"host": driver.host, "pid": driver.pid, "command": driver.command or None}
        if driver.reason:
            found["notes"].append(driver.reason)
        if driver.state == RUNNING and not driver.alive:
            found["notes"].append(f"process {driver.pid} on {driver.host} was killed")
        if driver.alive and not driver.here:
            found["notes"].append(f"as its record says; {driver.host} cannot be looked at from here")
    try:
        from .files import load_kept

        spec = load_kept(paths.spec) if paths.spec.exists() else {}
        found |= _counts(study_of(store, spec), name)
        found["budget"] = (spec.get("budget") or {}).get("trials")
        promoted = (spec.get("promote") or {}).get("when", "always") == "always" or summary.get("better")
    except InputError as error:
        found["notes"].append(str(error))
        promoted = False
    if summary:
        found |= {"verdict": summary.get("verdict"), "champion": summary.get("winner") if promoted else None}
    return Status(**found)


def _counts(url: str, name: str) -> dict[str, Any]:
    """What the study of a sweep, and that of its confirm runs, hold."""
    from .study_store import connect, reachable

    with reachable(url):
        database = connect(url, create=False)
        ids = {study.study_name: study._study_id for study in database.get_all_studies()}
        if name not in ids:
            return {"complete": 0, "pruned": 0, "failed": 0, "unfinished": 0, "confirm_runs": 0}
        trials = database.get_all_trials(ids[name], deepcopy=False)
        identity = database.get_study_user_attrs(ids[name]).get("identity") or {}
        confirm = ids.get(f"{name}.confirm")
        again = [] if confirm is None else database.get_all_trials(confirm, deepcopy=False)
        database.remove_session()
    states = [trial.state.name for trial in trials]
    done = [(trial.value, -trial.number) for trial in trials if trial.state.name == "COMPLETE" and trial.values]
    best = max(done, default=None)
    return {
        "complete": states.count("COMPLETE"),
        "pruned": states.count("PRUNED"),
        "failed": states.count("FAIL"),
        "unfinished": states.count("RUNNING") + states.count("WAITING"),
        "confirm_runs": sum(trial.state.name == "COMPLETE" for trial in again),
        "objective": identity.get("metric", "miou"),
        "best": best[0] if best else None,
        "best_uid": f"{name}-{-best[1]:04d}" if best else None,
    }


def _read(path: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object, empty where there is none; `notes` takes up that it is damaged."""
    try:
        value = read_json(path, SWEEP_WRITES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        notes.append(str(error))
        return {}
    return value if isinstance(value, dict) else {}


def show(found: Sequence[Status], store: Storage) -> None:
    """The table, notes and the next command."""
    from .terminal import Terminal

    terminal = Terminal()
    rows = []
    for row in found:
        kinds = [("complete", row.complete), ("pruned", row.pruned), ("failed", row.failed)]
        kinds.append(("unfinished", row.unfinished))
        trials = ", ".join(f"{number} {kind}" for kind, number in kinds if number) or "none"
        trials = "-" if row.complete is None else trials + (f" of {row.budget}" if row.budget else "")
        best = "-" if row.best is None else f"{row.objective} {row.best:.1f} ({row.best_uid})"
        rows.append([row.sweep, row.state, trials, best, row.champion or "-"])
    terminal.table(f"sweeps in {store.place}", ["sweep", "state", "trials", "best (select)", "champion"], rows)
    for row in found:
        for note in row.notes:
            terminal.say(f"{row.sweep}: {note}")
    for row in found:
        if row.state == RUNNING:
            terminal.say(f"{row.sweep} runs as process {row.pid} on {row.host}; to stop it: {_stop(row, store)}")
        elif row.state != FINISHED and row.command:
            terminal.say(f"next: {row.command}")


def _stop(row: Status, store: Storage) -> str:
    where = "" if store == storage("sweeps") else f" --storage {shlex.quote(store.place)}"
    return f"python -m platform.stop {row.sweep}{where}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 0, 2 for a name or a folder that there is not."""
    given = parser().parse_args(arguments)
    store = as_seen(storage(given.storage))
    if store.url is None and not store.root.is_dir():
        raise InputError(f"--storage: {store.root} is no folder; run a sweep first, or name its resources.storage")
    found = [status(store, name) for name in given.names or sweep_names(store)]
    if given.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    elif found:
        show(found, store)
    else:
        print(f"no sweep in {store.place}; next: python -m platform.sweep search_spaces/quickstart.yaml")
    return 0


if __name__ == "__main__":
    run_command(main)
