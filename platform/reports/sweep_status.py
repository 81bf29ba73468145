"""The state of each sweep in a storage folder, read from its study and records."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError
from cpn.core.files import DamagedFile

from ..base.lock import FINISHED, RUNNING, STOPPED, driver_note, read_driver
from ..base.paths import SHARED, Storage, SweepPaths
from ..base.yaml_files import load_kept
from ..config.identity import StudyIdentity
from ..config.sections import Resources
from ..plan.hours import hours_unit, read_hours
from ..search.sweep_summary import SweepSummary, missing_summary, read_summary
from ..search.trial_row import WORTH


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
    stopped: str | None = None
    """Why the search ended before its other limits, in words."""
    phase: str | None = None
    """While it runs: search, confirm, or the stage after them."""
    phase_done: int | None = None
    """Runs of this phase that have ended."""
    phase_runs: int | None = None
    """All runs of this phase; None where no number ends it."""
    seconds_left: float | None = None
    """Of the whole sweep, while it runs; None while it is unknown."""
    hours: float | None = None
    """What its trials have used: GPU-hours, or hours of trials on the CPU."""
    hours_unit: str = "GPU-hours"
    host: str | None = None
    pid: int | None = None
    command: str | None = None
    """What started it last, and continues it."""
    notes: list[str] = field(default_factory=list)
    """What else there is to say: why it failed, or what could not be read."""


def sweep_names(store: Storage) -> list[str]:
    """Return the sweeps that have been started in a storage folder: any file that a start writes first tells it.

    Raises InputError where the folder is a part of a storage folder: that of one sweep, or of runs.
    """
    if names := _sweeps_in(store.sweeps):
        return names
    here, above = store.sweeps, store.sweeps.parent
    if (here.name in SHARED or SweepPaths(here).driver.is_file()) and _sweeps_in(above):
        what = "holds what all sweeps share" if here.name in SHARED else f"is the folder of the sweep {here.name}"
        raise InputError(f"--storage: {here} {what}, and a storage folder holds such folders; give --storage {above}")
    return []


def _sweeps_in(place: Path) -> list[str]:
    names = [path.name for path in sorted(place.iterdir()) if path.name not in SHARED] if place.is_dir() else []
    return [name for name in names if any(file.is_file() for file in first_files(SweepPaths(place / name)))]


def first_files(paths: SweepPaths) -> tuple[Path, Path, Path]:
    """Return the files that a start writes before it works."""
    return paths.lock, paths.driver, paths.spec


def sweep_paths(store: Storage, name: str) -> SweepPaths:
    """Return the folder of a sweep that has been started. Raises InputError when there is none of that name."""
    there = sweep_names(store)
    if name not in there:
        names = ", ".join(there) or "none"
        raise InputError(f"{name}: no such sweep in {store.place} (there are: {names}); --storage names the folder")
    return store.sweep(name)


def study_of(store: Storage, spec: dict[str, Any]) -> str:
    """Return the URL of a sweep's study. Raises InputError where its password was not kept and the environment has
    none.
    """
    kept_url = (spec.get("tracking") or {}).get("study")
    url = kept_url if kept_url and "***" not in kept_url else os.environ.get("CPN_STUDY_URL")
    if kept_url and url is None:
        raise InputError(f"tracking.study: passwords are not kept; set CPN_STUDY_URL to the whole of {kept_url}")
    return url or f"sqlite:///{store.study}"


def stored_uri(store: Storage, name: str) -> str | None:
    """Return the tracking URI that a sweep ran with last. Raises InputError where its password was not kept."""
    path = store.sweep(name).spec
    uri = (load_kept(path).get("tracking") or {}).get("uri") if path.exists() else None
    if uri and "***" in uri:
        raise InputError("--uri: the password of tracking.uri was not kept; give the whole URI")
    return None if uri is None else str(uri)


def status(store: Storage, name: str) -> Status:
    """Return how one sweep stands, from its record, its study and its summary."""
    paths = sweep_paths(store, name)
    notes = [note for note in [driver_note(paths)] if note]
    driver, summary = read_driver(paths), _summary(paths.summary, notes)
    stands = driver.stands if driver else FINISHED if summary else STOPPED
    fields: dict[str, Any] = {"sweep": name, "state": stands, "notes": notes}
    if driver is not None:
        fields |= {"host": driver.host, "pid": driver.pid, "command": driver.command or None}
        if driver.reason:
            fields["notes"].append(driver.reason)
        if driver.state == RUNNING and not driver.alive:
            fields["notes"].append(f"process {driver.pid} on {driver.host} was killed")
        if driver.alive and not driver.here:
            fields["notes"].append(f"as its record says; {driver.host} cannot be looked at from here")
    try:
        spec = load_kept(paths.spec) if paths.spec.exists() else {}
        runs = driver is not None and driver.state == RUNNING and driver.alive
        notes += [lost] if (lost := missing_summary(paths)) else []
        fields |= _hours(paths.clock, spec, runs, fields["notes"])
        fields |= _counts(study_of(store, spec), name)
        fields["budget"] = (spec.get("budget") or {}).get("trials")
        promoted = (spec.get("promote") or {}).get("when", "always") == "always" or (
            summary is not None and summary.better
        )
    except InputError as error:
        fields["notes"].append(str(error))
        promoted = False
    if summary:
        fields |= {"verdict": summary.verdict, "champion": summary.winner if promoted else None}
    return Status(**fields)


def _hours(path: Path, spec: dict[str, Any], runs: bool, notes: Sequence[str]) -> dict[str, Any]:
    """Return the hours in a sweep's clock file, and how far it is; the remaining time has fallen since that was
    written.
    """
    try:
        clock = read_hours(path)
    except DamagedFile as error:
        return {"notes": [*notes, str(error)]}
    resources = Resources.model_validate(spec.get("resources") or {})
    gpus = resources.workers * resources.gpus_per_worker
    hours = sum(clock.trials.values()) / 3600
    fields = {"hours": hours * (gpus or 1), "hours_unit": hours_unit(gpus)}
    progress = clock.progress if runs else None
    if progress is None:
        return fields
    left = None if progress.left is None else max(0.0, progress.left - max(0.0, time.time() - progress.at))
    return fields | {
        "phase": progress.phase,
        "phase_done": progress.done,
        "phase_runs": progress.runs,
        "seconds_left": left,
    }


def _counts(url: str, name: str) -> dict[str, Any]:
    """Return what the study of a sweep, and that of its confirm runs, hold."""
    from ..search.study_store import check_direction, connect, reachable, understood

    with reachable(url), understood(url):
        database = connect(url, create=False)
        ids = {study.study_name: study._study_id for study in database.get_all_studies()}
        if name not in ids:
            return {"complete": 0, "pruned": 0, "failed": 0, "unfinished": 0, "confirm_runs": 0}
        trials = database.get_all_trials(ids[name], deepcopy=False)
        attributes = database.get_study_user_attrs(ids[name])
        check_direction(database.get_study_directions(ids[name]), attributes, name, url)
        identity = StudyIdentity.read(attributes.get("identity") or {}, f"{url}: study {name!r}")
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
        "stopped": (attributes.get(WORTH) or {}).get("words"),
        "objective": identity.metric,
        "best": best[0] if best else None,
        "best_uid": f"{name}-{-best[1]:04d}" if best else None,
    }


def _summary(path: Path, notes: list[str]) -> SweepSummary | None:
    """Read a sweep's summary, None where there is none; `notes` takes up that it is damaged."""
    try:
        return read_summary(path)
    except (OSError, ValueError) as error:
        notes.append(str(error))
        return None
