"""One sweep as it lies on disk, for the commands that show it. Reads only: a driver that runs is not disturbed."""

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cpn.config import Config, run_key, with_values
from cpn.core.checked import OF_RUN, SWEEP_WRITES, read_typed
from cpn.core.errors import InputError, to_stderr
from cpn.core.files import DamagedFile
from cpn.core.object_storage import is_url
from cpn.core.plain_file import folder_there
from cpn.core.run_files import RESULT
from cpn.scoring.run_manifest import RunManifest

from ..base.bucket_sync import with_published_state
from ..base.lock import FINISHED, STOPPED, driver_note, read_driver
from ..base.paths import Storage, SweepPaths, storage
from ..base.yaml_files import load_kept
from ..config.identity import as_begun
from ..config.sections import CONFIRM_STUDY
from ..config.spec import load_spec
from ..config.sweep_spec import SweepSpec
from ..plan.hours import HOURS_LOST, KeptHours, read_clock
from ..search.study import State, TrialRow, read_study
from ..search.study_store import COMES_BACK, existing_studies, shown
from ..search.sweep_summary import SweepSummary, missing_summary, read_summary
from ..search.trial_row import WORTH
from .sweep_status import study_of, sweep_names, sweep_paths


@dataclass(frozen=True)
class SweepSnapshot:
    """What a sweep has come to so far."""

    name: str
    store: Storage
    spec: SweepSpec
    rows: list[TrialRow]
    """Trials of the search by number."""
    again: list[TrialRow]
    """Confirm runs by number."""
    fingerprint: str
    """Of the data set."""
    state: str
    """running, stopped, finished or failed."""
    command: str | None = None
    """What started it last, and continues it."""
    summary: SweepSummary | None = None
    """What the sweep's last end wrote; None before the first."""
    remembered: dict[str, Any] = field(default_factory=dict)
    """Rungs at which pruning switched itself off: share -> words."""
    times: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """Unix seconds at which trials and confirm runs began and ended, by uid; None while one is open."""
    stopped: str | None = None
    """Why the search ended before its other limits, in words."""

    @property
    def so_far(self) -> str | None:
        """Why this is not the end, in words; None where it is."""
        done = sum(row.state.finished for row in self.rows)
        if self.summary is None:
            return f"{self.state}, {done} trials have ended and there is no verdict yet"
        counted = self.summary.ended
        if self.state != FINISHED or done != counted:
            return f"{self.state}; the verdict is the one of its last end, over {counted} of {done} ended trials"
        return None

    @cached_property
    def trial_hours(self) -> dict[str, float]:
        """Hours that each trial held its workers, by uid."""
        return {uid: seconds / 3600 for uid, seconds in self._clock.trials.items()}

    @cached_property
    def hours(self) -> float:
        """Wall-clock hours over all starts."""
        return self._clock.seconds / 3600

    @cached_property
    def _clock(self) -> KeptHours:
        """As it was kept: a budget.Clock would count on from there."""
        try:
            hours = read_clock(self.store.sweep(self.name).clock)
        except DamagedFile as error:
            say_once(str(error))
        except FileNotFoundError:
            if any(row.state.finished and row.reused_from is None for row in self.rows):
                say_once(f"{self.store.sweep(self.name).clock}: is missing, hours are not known; {HOURS_LOST}")
        else:
            counted = self.summary.hours if self.summary else 0.0
            if hours.seconds + 1 < 3600 * counted:
                clock = self.store.sweep(self.name).clock
                say_once(f"{clock}: holds fewer hours than the sweep's last end (an older copy?); {HOURS_LOST}")
            return hours
        return KeptHours(seconds=0.0)

    @cached_property
    def by_uid(self) -> dict[str, TrialRow]:
        """Trials and confirm runs by uid."""
        return {row.uid: row for row in (*self.rows, *self.again)}

    def config(self, row: TrialRow) -> Config:
        """Return the whole configuration of a trial."""
        return with_values(self.spec.base_config, row.values, f"trial {row.uid}")

    def folder(self, row: TrialRow) -> Path:
        """Return where a trial's run lies, whether it is there or not."""
        return self.store.run(row.run_key or run_key(self.config(row), self.fingerprint))

    def result(self, row: TrialRow) -> RunManifest | None:
        """Return the manifest of a trial's finished run; None where there is none."""
        return read_result(self.folder(row))


def read_result(folder: Path) -> RunManifest | None:
    """Return the manifest of a finished run; None where the folder holds none."""
    try:
        return read_typed(folder / RESULT, RunManifest, OF_RUN)
    except DamagedFile as error:
        say_once(f"{error}; what it says is left out")
        return None
    except OSError:
        return None


def read_sweep(store: Storage, name: str) -> SweepSnapshot:
    """Read a sweep. Raises InputError in one line when there is none of that name, or its study cannot be read."""
    check_store(store)
    store = with_published_state(store)
    paths = sweep_paths(store, name)
    if not paths.spec.exists():
        raise InputError(f"{paths.spec}: is not there; the sweep stopped before it began, start it once more")
    load_kept(paths.spec)  # a damaged one has another cure than one that a person wrote
    try:
        spec = load_spec(paths.spec)
    except InputError as error:
        raise DamagedFile(paths.spec, SWEEP_WRITES, str(error).removeprefix(f"{paths.spec}: ")) from None
    if store.url is None and is_url(spec.resources.storage):  # of the runs this machine has what it fetched
        store = replace(storage(spec.resources.storage), home=store.root)
    return read_with(spec, store, study_of(store, {"tracking": {"study": spec.tracking.study}}))


def read_with(spec: SweepSpec, store: Storage, url: str) -> SweepSnapshot:
    """Read the sweep of a specification from the study at `url` and its folder in `store`."""
    name, paths = spec.name, store.sweep(spec.name)
    summary = read_summary(paths.summary)
    try:
        trials = read_study(name, url)
    except InputError:
        if (lost := older_study(0, summary, url)) and name not in existing_studies(url):
            raise InputError(lost) from None
        raise
    rows, identity, off = trials.rows(), trials.identity(), trials.remembered("pruning").get("off", {})
    times, stopped = trials.times(), trials.remembered(WORTH).get("words")
    trials.close()
    spec = as_begun(spec, identity)
    try:
        runs = read_study(name + CONFIRM_STUDY, url)
    except DamagedFile:
        raise
    except InputError:  # the database has just answered: there is none yet
        again = []
    else:
        again = runs.rows()
        times |= runs.times()
        runs.close()
    ended = sum(row.state.finished for row in rows)
    if older := older_study(ended, summary, url):
        say_once(older)
    if note := driver_note(paths):
        say_once(note)
    if lost := missing_summary(paths) or older_summary(ended, summary, paths):
        say_once(lost)
    fingerprint = identity.data
    driver = read_driver(paths)
    state = driver.stands if driver else FINISHED if summary else STOPPED
    command = driver.command if driver else None
    return SweepSnapshot(name, store, spec, rows, again, fingerprint, state, command, summary, off, times, stopped)


def older_study(ended: int, summary: SweepSummary | None, url: str) -> str | None:
    """Return what there is to say of a study that holds fewer ended trials than the sweep's last end counted; else
    None.
    """
    counted = summary.ended if summary else 0
    if ended >= counted:
        return None
    return (
        f"{shown(url)}: holds {ended} ended trials where the sweep's last end counted {counted} (an older copy?); "
        f"give the sweep's command again: {COMES_BACK}"
    )


def older_summary(ended: int, summary: SweepSummary | None, paths: SweepPaths) -> str | None:
    """Say that a finished sweep's summary counts fewer trials than its study, in one line with the cure; else None."""
    last = read_driver(paths)
    if summary is None or not summary.trials or summary.ended >= ended or last is None or last.stands != FINISHED:
        return None
    return f"{paths.summary}: counts {summary.ended} of {ended} ended trials (an older copy?); {SWEEP_WRITES}"


@cache
def say_once(line: str) -> None:
    """Warn on standard error, once in a process."""
    to_stderr(line)


def check_store(store: Storage) -> None:
    """Raise InputError unless the storage folder is there."""
    if store.url is None and not folder_there(store.root, "--storage"):
        raise InputError(f"--storage: {store.root} is no folder; run a sweep first, or name its resources.storage")


def find_trial(store: Storage, uid: str) -> tuple[SweepSnapshot, TrialRow]:
    """Return a trial, or confirm run, of any sweep in the storage folder. Raises InputError in one line when there is
    none.
    """
    check_store(store)
    store = with_published_state(store)
    study, dash, number = uid.rpartition("-")
    name = study.removesuffix(CONFIRM_STUDY)
    if not dash or not number.isdigit() or name not in sweep_names(store):
        there = ", ".join(sweep_names(store)) or "none"
        raise InputError(
            f"{uid}: no trial of a sweep in {store.place} (sweeps: {there}); a trial is NAME-0003, see "
            "python -m platform.leaderboard NAME"
        )
    sweep = read_sweep(store, name)
    row = sweep.by_uid.get(uid)
    if row is None:
        rows = sweep.again if study.endswith(CONFIRM_STUDY) else sweep.rows
        last = f"the last one is {rows[-1].uid}" if rows else "it has none yet"
        raise InputError(f"{uid}: no such trial; {last}")
    return sweep, row


def best_trial(sweep: SweepSnapshot) -> TrialRow | None:
    """Return the winner; before the first end the best one on the select images; None where none has finished."""
    winner = sweep.by_uid.get(sweep.summary.winner) if sweep.summary else None
    done = [row for row in sweep.rows if row.state is State.COMPLETE and row.miou is not None]
    return winner or max(done, key=lambda row: (row.miou or 0.0, -row.number), default=None)
