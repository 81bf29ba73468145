"""What a sweep holds on disk, and what of it can go: `python -m platform.gc quickstart`; `--delete` lets it go.

Kept: the promoted run and whatever MLflow's alias `champion` points at, the reference, the best `--keep-top`, trials
that can still be resumed, runs that another sweep of the folder needs, and of confirm runs all but the network. The
study, the records and MLflow's own copies are never touched. A deleted run is trained again if a sweep asks for it.
Superpixel maps belong to all sweeps on the same pictures, and take long to make: they go only with `--superpixels`.
"""

import argparse
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.checked import OF_RUN, SWEEP_WRITES
from cpn.errors import InputError, WorkError, run_command
from cpn.files import read_json

from . import mirror
from .lock import held, locked, read_driver
from .paths import MANIFEST, Storage, storage
from .status import study_of, sweep_names, sweep_paths

if TYPE_CHECKING:
    from .study import TrialRow

EXAMPLE = "python -m platform.gc quickstart"
CHAMPION = "champion"
MODEL, RESULT, CHECKPOINTS = "model.safetensors", "result.json", "checkpoints"
"""Names in the folder of a run, as cpn/run.py has them (which brings torch)."""
OF_STAGE = "delete its folder; a sweep that needs the stage makes it again"


@dataclass(frozen=True)
class Item:
    """One thing on disk."""

    path: str
    bytes: int
    why: str
    """Why it is kept, or why it can go."""


@dataclass
class Found:
    """What a sweep holds."""

    sweep: str
    keeps: list[Item] = field(default_factory=list)
    goes: list[Item] = field(default_factory=list)

    def keep(self, path: Path, why: str) -> None:
        """Note what stays."""
        self.keeps.append(Item(str(path), size(path), why))

    def part(self, folder: Path, why: str, without: Mapping[str, str]) -> None:
        """Note a folder that stays but for some of what is in it: name -> why that can go."""
        parts = [Item(str(folder / name), size(folder / name), said) for name, said in without.items()]
        there = [item for item in parts if Path(item.path).exists()]
        self.goes += there
        self.keeps.append(Item(str(folder), size(folder) - sum(item.bytes for item in there), why))

    def let_go(self, path: Path, why: str) -> None:
        """Note what can go."""
        self.goes.append(Item(str(path), size(path), why))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m platform.gc",
        usage=f"{EXAMPLE} [--keep-top K] [--superpixels] [--delete] [--storage FOLDER] [--uri URI] [--json]",
        description="Show what a sweep holds on disk and what of it can go. Deletes nothing without --delete.",
    )
    made.add_argument("name", help="the sweep's name")
    made.add_argument("--keep-top", type=int, default=3, metavar="K", help="best trials to keep (default: 3)")
    made.add_argument("--superpixels", action="store_true", help="let superpixel maps go, which all sweeps here share")
    made.add_argument("--delete", action="store_true", help="delete what can go, and say what it was")
    made.add_argument("--storage", default="sweeps", metavar="FOLDER", help="resources.storage (default: sweeps)")
    made.add_argument("--uri", metavar="URI", help="tracking.uri (default: that of the sweep)")
    made.add_argument("--json", action="store_true", help="as one JSON object, sizes in bytes")
    return made


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 for what is not there."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return sum(p.stat().st_size for p in files)


@dataclass(frozen=True)
class Book:
    """A sweep's trials and confirm runs that were ever started, with their run keys."""

    rows: list[tuple["TrialRow", str]]
    confirm: list[tuple["TrialRow", str]]


def book_of(store: Storage, name: str) -> Book:
    """Read a sweep's studies; which run a trial made is in its records from its start on, in the study from its end on.

    Raises InputError where the study cannot be read.
    """
    from .files import load_kept
    from .spool import waiting
    from .study import read_study, study_names

    paths = sweep_paths(store, name)
    url = study_of(store, load_kept(paths.spec) if paths.spec.exists() else {})
    there, told = study_names(url), waiting(paths.records, "nobody, who has taken none")
    begun = [event for event in told if event.get("kind") == "start" and {"uid", "tags"} <= event.keys()]
    keys = {event["uid"]: event["tags"].get("run_key") for event in begun}

    def rows(study: str) -> list[tuple["TrialRow", str]]:
        if study not in there:
            return []
        read = read_study(study, url)
        found = [(row, row.attrs.get("run_key") or keys.get(row.uid)) for row in read.rows()]
        read.close()
        return [(row, str(key)) for row, key in found if key]

    return Book(rows(name), rows(f"{name}.confirm"))


def reasons(
    book: Book, others: Mapping[str, Book], top: int, promoted: str | None, champions: Iterable[Mapping[str, str]]
) -> dict[str, str]:
    """Run key -> why the whole run is kept."""
    from .study import REFERENCE, State

    why: dict[str, str] = {}
    for row, key in [*book.rows, *book.confirm]:
        if not row.state.finished:
            why.setdefault(key, f"{row.uid} can be resumed")
    done = [(row, key) for row, key in book.rows if row.state is State.COMPLETE and row.miou is not None]
    for place, (row, key) in enumerate(sorted(done, key=lambda pair: (-(pair[0].miou or 0.0), pair[0].number))[:top]):
        why[key] = f"{row.uid}, number {place + 1} of the leaderboard"
    for row, key in book.rows:
        if row.role == REFERENCE:
            why[key] = f"{row.uid}, the reference"
    for name, other in others.items():
        for row, key in [*other.rows, *other.confirm]:
            if row.state is State.COMPLETE or not row.state.finished:
                why.setdefault(key, f"{row.uid} of sweep {name} needs it")
    for row, key in book.rows:
        if row.uid == promoted:
            why[key] = f"{row.uid}, promoted"
    uids = {row.uid: key for row, key in [*book.rows, *book.confirm]}
    for tags in champions:
        held = tags.get("run_key") or uids.get(tags.get("uid", ""))
        if held:
            why[held] = f"{tags.get('uid', held)}, MLflow's champion"
    return why


def look(
    store: Storage, name: str, top: int, champions: Iterable[Mapping[str, str]], superpixels: bool = False
) -> Found:
    """What a sweep holds and what of it can go, `superpixels` among it. Changes nothing."""
    book = book_of(store, name)
    others = {other: book_of(store, other) for other in sweep_names(store) if other != name}
    paths, found = store.sweep(name), Found(name)
    summary = read_json(paths.summary, SWEEP_WRITES) if paths.summary.exists() else {}
    why = reasons(book, others, top, summary.get("winner"), champions)
    confirm = {key: row for row, key in book.confirm if row.state.name == "COMPLETE"}
    made_by: dict[str, str] = {}
    for row, key in [*book.rows, *book.confirm]:
        folder = store.run(key)
        if key in made_by.values() or not folder.exists():
            continue
        made_by[_model_digest(folder) or f"unfinished {key}"] = key
        if key in why:
            found.keep(folder, why[key])
        elif key in confirm:
            found.part(
                folder,
                f"{row.uid}, a confirm run's results",
                {MODEL: f"{row.uid}, a confirm run's network", CHECKPOINTS: f"{row.uid}, which is finished"},
            )
        else:
            found.let_go(folder, f"{row.uid}, {row.state.name.lower()} and none of the best {top}")
    gone = {item.path for item in found.goes}
    for stage in sorted((store.root / "stages").glob("*")):
        key = made_by.get(_read(stage / MANIFEST, OF_STAGE).get("inputs", {}).get("model"), "")
        if key and str(store.run(key)) in gone:
            found.let_go(stage, f"made of run {key}, which goes")
        elif key:
            found.part(stage, f"made of run {key}", {CHECKPOINTS: "of a stage that is finished"})
    if paths.tune.exists():
        found.let_go(paths.tune, "what Ray wrote for itself")
    for maps in sorted((store.cache / "superpixels").glob("*")):
        if superpixels:
            found.let_go(maps, "superpixel maps, made again where a run needs them")
        else:
            found.keep(maps, "superpixel maps, for all sweeps on these pictures; --superpixels lets them go")
    if paths.records.exists():
        found.keep(paths.records, "records for MLflow")
    return found


def delete(found: Found, store: Storage) -> None:
    """Delete what can go: each under another name first, so that nothing half deleted looks whole."""
    for item in found.goes:
        if not Path(item.path).resolve().is_relative_to(store.root):  # a link that somebody laid
            raise WorkError(f"{item.path}: leads out of {store.root}; nothing was deleted, mend the link")
    for item in found.goes:
        mirror.delete(Path(item.path))


def check_quiet(store: Storage, name: str, uri: str | None) -> None:
    """Raise WorkError while something still needs the files: another driver, or records on their way."""
    from .spool import waiting
    from .tracking import spool_store

    for other in sweep_names(store):
        driver = read_driver(store.sweep(other))
        if driver is None and held(store.sweep(other)):
            raise WorkError(f"{other}: runs, though its driver.json is damaged, and may take up any run; stop it")
        if driver is not None and driver.alive:
            raise WorkError(f"{other}: runs (process {driver.pid} on {driver.host}) and may take up any run; stop it")
    late = [e for e in waiting(store.sweep(name).records, spool_store(uri)) if e.get("kind") == "artifact"]
    if late:
        raise WorkError(
            f"{name}: {len(late)} files have not reached the tracking store; start the sweep again when it answers"
        )


def show(found: Found, deleted: bool, command: str) -> None:
    """The tables and what to type next."""
    from .terminal import Terminal

    terminal = Terminal()
    for title, items in (("kept", found.keeps), ("deleted" if deleted else "can go", found.goes)):
        rows = [[item.why, _short(item.path), megabytes(item.bytes)] for item in items]
        total = megabytes(sum(item.bytes for item in items))
        terminal.table(f"{found.sweep}: {title}, {total}", ["why", "what", "size"], rows)
    if deleted or not found.goes:
        terminal.say("next: python -m platform.status")
    else:
        terminal.say(f"nothing was deleted; to let it go: {command} --delete")


def megabytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit code 0; 1 while the sweep's files are still needed, 2 for a wrong name or store."""
    given = parser().parse_args(arguments)
    if given.keep_top < 0:
        raise InputError(f"--keep-top {given.keep_top}: no number of trials; give 0 or more")
    store = storage(given.storage)
    if store.url is not None:
        raise InputError(
            f"--storage: {store.url} is no folder; in a bucket a sweep itself lets go of what nothing needs when it "
            "ends (resources.keep_top), more can be deleted there by hand"
        )
    paths = sweep_paths(store, given.name)
    if not paths.spec.exists():
        raise InputError(f"{paths.spec}: is not there, so nobody knows which runs are the sweep's; start it once more")
    from .files import load_kept
    from .tracking import read_aliases

    uri = given.uri or (load_kept(paths.spec).get("tracking") or {}).get("uri")
    if uri and "***" in uri:
        raise InputError("--uri: the password of tracking.uri was not kept; give the whole URI")
    champions = read_aliases(uri, CHAMPION).values()
    with locked(paths, given.name) if given.delete else nullcontext():
        if given.delete:
            check_quiet(store, given.name, uri)
        found = look(store, given.name, given.keep_top, champions, given.superpixels)
        if given.delete:
            delete(found, store)
    if given.json:
        totals = {name: sum(i.bytes for i in items) for name, items in (("kept", found.keeps), ("goes", found.goes))}
        print(json.dumps({**asdict(found), "bytes": totals, "deleted": given.delete}, indent=2))
    else:
        more = [f"--keep-top {given.keep_top}"] if given.keep_top != 3 else []
        more += ["--superpixels"] if given.superpixels else []
        more += [f"--storage {shlex.quote(given.storage)}"] if given.storage != "sweeps" else []
        show(found, given.delete, " ".join([f"python -m platform.gc {given.name}", *more]))
    return 0


def _model_digest(folder: Path) -> str | None:
    """The digest of a finished run's network, as its manifest has it."""
    value = _read(folder / RESULT, OF_RUN).get("digests", {}).get(MODEL)
    return None if value is None else str(value)


def _read(path: Path, cure: str) -> dict[str, Any]:
    """A manifest, empty where there is none. DamagedFile: what it belongs to, and so what can go, is not known."""
    try:
        value = read_json(path, cure)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(path: str) -> str:
    from .summary import shortened

    return str(shortened(Path(path)))


if __name__ == "__main__":
    run_command(main)
