"""What a sweep holds on disk, and what of it can go: `python -m platform.gc quickstart`; `--delete` lets it go.

Kept: the promoted run and whatever MLflow's alias `champion` points at, the reference, the best `--keep-top`, trials
that can still be resumed, runs that another sweep of the folder needs, and of confirm runs all but the network. The
study, the records and MLflow's own copies are never touched. A deleted run is trained again if a sweep asks for it.
Superpixel maps belong to all sweeps on the same pictures, and take long to make: they go only with `--superpixels`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.checked import OF_RUN
from cpn.core.errors import WorkError
from cpn.core.files import DamagedFile, read_json
from cpn.core.run_files import CHECKPOINTS, MODEL, RESULT

from ..base import bucket_sync
from ..base.lock import is_driven, read_driver
from ..base.paths import MANIFEST, Storage, SweepPaths, shortened
from ..base.yaml_files import load_kept
from ..reports.snapshot import older_study, older_summary
from ..reports.sweep_status import study_of, sweep_names, sweep_paths
from ..search.sweep_summary import missing_summary, read_summary
from ..tracking.spool import waiting

if TYPE_CHECKING:
    from ..search.study import TrialRow
CHAMPION = "champion"
OF_STAGE = "delete its folder; a sweep that needs the stage makes it again"


@dataclass(frozen=True)
class Item:
    """One thing on disk."""

    path: str
    bytes: int
    why: str
    """Why it is kept, or why it can go."""


@dataclass
class DiskUse:
    """What a sweep holds."""

    sweep: str
    keeps: list[Item] = field(default_factory=list)
    goes: list[Item] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """Manifests that are damaged, a summary that is lost, older copies: each with its cure."""

    def keep(self, path: Path, why: str) -> None:
        """Record a file or folder that is kept."""
        self.keeps.append(Item(str(path), size(path), why))

    def keep_damaged(self, folder: Path, why: str, damaged: DamagedFile) -> None:
        """Record a folder that is kept because its manifest, which says what can go, is damaged."""
        self.keep(folder, why)
        self.warnings.append(f"{damaged}; until then its folder is kept")

    def part(self, folder: Path, why: str, without: Mapping[str, str]) -> None:
        """Record a folder that is kept except for the entries of `without`: name -> why it can be deleted."""
        parts = [Item(str(folder / name), size(folder / name), reason) for name, reason in without.items()]
        existing = [item for item in parts if Path(item.path).exists()]
        self.goes += existing
        self.keeps.append(Item(str(folder), size(folder) - sum(item.bytes for item in existing), why))

    def let_go(self, path: Path, why: str) -> None:
        """Record a file or folder that can be deleted."""
        self.goes.append(Item(str(path), size(path), why))


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 for what is not there."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return sum(p.stat().st_size for p in files)


@dataclass(frozen=True)
class RunIndex:
    """A sweep's trials and confirm runs that were ever started, with their run keys."""

    rows: list[tuple["TrialRow", str]]
    confirm: list[tuple["TrialRow", str]]
    ended: int = 0
    """Trials that have ended, with a run or without."""


def index_runs(store: Storage, name: str) -> RunIndex:
    """Read a sweep's studies; which run a trial made is in its records from its start on, in the study from its end on.

    Raises InputError where the study cannot be read.
    """
    from ..search.study import read_study
    from ..search.study_store import study_names

    paths = sweep_paths(store, name)
    url = study_url(store, paths)
    studies, events = study_names(url), waiting(paths.records, None)
    starts = [event for event in events if event.get("kind") == "start" and {"uid", "tags"} <= event.keys()]
    keys = {event["uid"]: event["tags"].get("run_key") for event in starts}

    def rows(study: str) -> list["TrialRow"]:
        if study not in studies:
            return []
        opened = read_study(study, url)
        trial_rows = opened.rows()
        opened.close()
        return trial_rows

    def with_keys(trial_rows: Iterable["TrialRow"]) -> list[tuple["TrialRow", str]]:
        pairs = [(row, row.run_key or keys.get(row.uid)) for row in trial_rows]
        return [(row, str(key)) for row, key in pairs if key]

    trials = rows(name)
    ended = sum(row.state.finished for row in trials)
    return RunIndex(with_keys(trials), with_keys(rows(f"{name}.confirm")), ended)


def study_url(store: Storage, paths: SweepPaths) -> str:
    """Return where a sweep's study is, by its kept specification."""
    return study_of(store, load_kept(paths.spec) if paths.spec.exists() else {})


def reasons(
    runs: RunIndex,
    others: Mapping[str, RunIndex],
    top: int,
    promoted: str | None,
    champions: Iterable[Mapping[str, str]],
) -> dict[str, str]:
    """Map the run key of each run that is kept whole to the reason."""
    from ..search.study import REFERENCE, State

    why: dict[str, str] = {}
    for row, key in [*runs.rows, *runs.confirm]:
        if not row.state.finished:
            why.setdefault(key, f"{row.uid} can be resumed")
    done = [(row, key) for row, key in runs.rows if row.state is State.COMPLETE and row.miou is not None]
    for place, (row, key) in enumerate(sorted(done, key=lambda pair: (-(pair[0].miou or 0.0), pair[0].number))[:top]):
        why[key] = f"{row.uid}, number {place + 1} of the leaderboard"
    for row, key in runs.rows:
        if row.role == REFERENCE:
            why[key] = f"{row.uid}, the reference"
    for name, other in others.items():
        for row, key in [*other.rows, *other.confirm]:
            if row.state is State.COMPLETE or not row.state.finished:
                why.setdefault(key, f"{row.uid} of sweep {name} needs it")
    for row, key in runs.rows:
        if row.uid == promoted:
            why[key] = f"{row.uid}, promoted"
    uids = {row.uid: key for row, key in [*runs.rows, *runs.confirm]}
    for tags in champions:
        champion_key = tags.get("run_key") or uids.get(tags.get("uid", ""))
        if champion_key:
            why[champion_key] = f"{tags.get('uid', champion_key)}, MLflow's champion"
    return why


def find_deletable(
    store: Storage, name: str, top: int, champions: Iterable[Mapping[str, str]], superpixels: bool = False
) -> DiskUse:
    """List what a sweep holds on disk and what of it can be deleted, with `superpixels` also the maps. Read-only."""
    runs = index_runs(store, name)
    others = {other: index_runs(store, other) for other in sweep_names(store) if other != name}
    paths, use = store.sweep(name), DiskUse(name)
    summary = read_summary(paths.summary)
    if older := older_study(runs.ended, summary, study_url(store, paths)):
        use.warnings.append(f"{older}; until then runs of its lost trials are kept")
    if lost := missing_summary(paths) or older_summary(runs.ended, summary, paths):
        use.warnings.append(f"{lost}; until then the promoted run is unknown, and all complete ones are kept")
        top = len(runs.rows)
    why = reasons(runs, others, top, summary.winner if summary else None, champions)
    confirm = {key: row for row, key in runs.confirm if row.state.name == "COMPLETE"}
    made_by: dict[str, str] = {}
    seen: set[str] = set()
    for row, key in [*runs.rows, *runs.confirm]:
        folder = store.run(key)
        if key in seen or not folder.exists():
            continue
        seen.add(key)
        try:
            made_by[_model_digest(folder) or f"unfinished {key}"] = key
        except DamagedFile as damaged:
            use.keep_damaged(folder, f"{row.uid}, whose {RESULT} is damaged", damaged)
            continue
        if key in why:
            use.keep(folder, why[key])
        elif key in confirm:
            use.part(
                folder,
                f"{row.uid}, a confirm run's results",
                {MODEL: f"{row.uid}, a confirm run's network", CHECKPOINTS: f"{row.uid}, which is finished"},
            )
        else:
            use.let_go(folder, f"{row.uid}, {row.state.name.lower()} and none of the best {top}")
    deletable = {item.path for item in use.goes}
    for stage in sorted((store.root / "stages").glob("*")):
        if not (stage / MANIFEST).exists():
            use.keep(stage, f"unfinished, for it has no {MANIFEST}")
            continue
        try:
            key = made_by.get(_read(stage / MANIFEST, OF_STAGE).get("inputs", {}).get("model"), "")
        except DamagedFile as damaged:
            use.keep_damaged(stage, f"its {MANIFEST} is damaged", damaged)
            continue
        if key and str(store.run(key)) in deletable:
            use.let_go(stage, f"made of run {key}, which goes")
        elif key:
            use.part(stage, f"made of run {key}", {CHECKPOINTS: "of a stage that is finished"})
    if paths.tune.exists():
        use.let_go(paths.tune, "what Ray wrote for itself")
    for maps in sorted((store.cache / "superpixels").glob("*")):
        if superpixels:
            use.let_go(maps, "superpixel maps, made again where a run needs them")
        else:
            use.keep(maps, "superpixel maps, for all sweeps on these pictures; --superpixels lets them go")
    if paths.records.exists():
        use.keep(paths.records, "records for MLflow")
    return use


def delete(use: DiskUse, store: Storage) -> None:
    """Delete what can be deleted, each renamed first, so that nothing half deleted looks whole."""
    for item in use.goes:
        if not Path(item.path).resolve().is_relative_to(store.root):  # a link that somebody laid
            raise WorkError(f"{item.path}: leads out of {store.root}; nothing was deleted, mend the link")
    for item in use.goes:
        bucket_sync.delete(Path(item.path))


def check_quiet(store: Storage, name: str, uri: str | None) -> None:
    """Raise WorkError while something still needs the files: another driver, or records on their way."""
    from ..tracking.recorder import spool_store

    for other in sweep_names(store):
        driver = read_driver(store.sweep(other))
        if driver is None and is_driven(store.sweep(other)):
            raise WorkError(f"{other}: runs, though its driver.json is damaged, and may take up any run; stop it")
        if driver is not None and driver.alive:
            raise WorkError(f"{other}: runs (process {driver.pid} on {driver.host}) and may take up any run; stop it")
    late = [e for e in waiting(store.sweep(name).records, spool_store(uri)) if e.get("kind") == "artifact"]
    if late:
        raise WorkError(
            f"{name}: {len(late)} files have not reached the tracking store; start the sweep again when it answers"
        )


def megabytes(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _model_digest(folder: Path) -> str | None:
    """Return the digest of a finished run's network, as its manifest has it."""
    value = _read(folder / RESULT, OF_RUN).get("digests", {}).get(MODEL)
    return None if value is None else str(value)


def _read(path: Path, cure: str) -> dict[str, Any]:
    """Read a manifest, empty where there is none. DamagedFile: what it belongs to, and so what can go, is unknown."""
    try:
        value = read_json(path, cure)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(path: str) -> str:
    return str(shortened(Path(path)))
