"""Transfer files between a machine's folders and object storage: all code works in local folders.

With `resources.storage=FOLDER` that every node sees the folders are the storage, and nothing here does anything. With
s3://... `Storage.root` is this machine's own copy: a worker, a stage's task and the driver each fetch what they read,
work in it, and keep what they made under the same name. What is not kept is lost with the machine: of a run the epoch
since its last checkpoint, of a stage that goes image by image the share of one task.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpn.config import Config
from cpn.core import object_storage
from cpn.core.errors import WorkError
from cpn.core.files import digest, read_json, sync, unsealed, write_bytes
from cpn.core.run_files import CHECKPOINTS, MODEL, RESULT, epoch_folder, kept_names, position
from cpn.scoring.run_manifest import RunManifest

from .lock import birth
from .paths import MANIFEST, SHARED, Storage, SweepPaths

PATIENCE_S = 600.0
"""Seconds that a finished run or stage waits for object storage that has troubles."""
LOOK_S = 5.0
"""Seconds between two looks at a progress that is kept elsewhere."""
KEEP = 2
"""Checkpoints of a run that is going on."""

Say = Callable[[str], None]
Wanted = Callable[[str], bool]


def retry_or_raise(work: Callable[[], Any], say: Say = lambda _: None) -> Any:
    """Do what a sweep cannot do without, with patience. Raises WorkError when object storage stays away."""
    try:
        return object_storage.with_retries(work, PATIENCE_S, say)
    except OSError as error:
        if error.filename is not None:
            raise
        raise WorkError(
            f"object storage: {object_storage.explain(error)}; the same command goes on when it answers"
        ) from error


def upload(store: Storage, folder: Path, names: list[str] | None = None, part: str = object_storage.WHOLE) -> None:
    """Put files of a folder (all, or `names` in it) where they are kept, as one part that is whole or absent."""
    if store.url is not None:
        object_storage.push(folder, store.there(folder), names, part)


def download(store: Storage, folder: Path, wanted: Wanted | None = None, part: str | None = None) -> bool:
    """Fetch what is kept of a folder; whether anything is. Raises remote.Damaged when it is not what was written."""
    return store.url is None or object_storage.pull(store.there(folder), folder, wanted, part)


def download_run(store: Storage, folder: Path, say: Say) -> None:
    """Fetch a finished run; `say` hears, in a line, of one that is damaged there and therefore is not taken."""
    if store.url is not None and not (folder / RESULT).exists():
        try:
            retry_or_raise(lambda: object_storage.pull(store.there(folder), folder, None, object_storage.WHOLE), say)
        except object_storage.Damaged as error:
            (folder / RESULT).unlink(missing_ok=True)
            say(f"{error}; the run is not taken")


def download_epoch(store: Storage, run: Path, epoch: int, say: Say) -> list[Path]:
    """Return the pictures of a run's epoch, fetched where they are kept elsewhere; none where none were drawn."""
    folder = epoch_folder(run, epoch)
    if store.url is not None:
        try:
            for name in object_storage.sizes(store.there(folder)):
                if not (folder / name).exists():
                    write_bytes(folder / name, object_storage.read_object(f"{store.there(folder)}/{name}") or b"")
        except OSError as error:
            say(f"object storage: the pictures of epoch {epoch} are not shown ({object_storage.explain(error)})")
    return sorted(folder.glob("*.png"))


class Attempt:
    """One attempt at a run on this machine: its folder, and bringing home what it has come to."""

    def __init__(self, folder: Path, url: str | None, writes: bool, say: Say) -> None:
        self.folder = folder
        self._url, self._writes, self._say = url, writes, say
        self._kept: set[str] = set()

    def fetch(self) -> None:
        """Bring here the finished run, or the newest whole checkpoint to go on from."""
        if self._url is None:
            return
        for part in self._places():
            try:
                if object_storage.pull(
                    f"{self._url}{part}", self.folder / part.lstrip("/"), None, object_storage.WHOLE
                ):
                    self._kept.add(part)
                    return
            except object_storage.Damaged as error:
                shutil.rmtree(self.folder / part.lstrip("/"), ignore_errors=True)
                self._say(f"{error}; going on from what was kept before it")

    def _places(self) -> Iterator[str]:
        """Yield the run itself, then its checkpoints from the newest on, below its URL."""
        yield ""
        for name in sorted(object_storage.folders(f"{self._url}/{CHECKPOINTS}"), key=position, reverse=True):
            yield f"/{CHECKPOINTS}/{name}"

    def saved(self) -> None:
        """Upload the newest checkpoint. An error is reported, and the next checkpoint is tried again."""
        if self._url is None or not self._writes:
            return
        place = self.folder / CHECKPOINTS
        newest = max((path.name for path in place.glob("epoch_*")), key=position, default=None)
        if newest is None or f"/{CHECKPOINTS}/{newest}" in self._kept:
            return
        try:
            object_storage.push(place / newest, f"{self._url}/{CHECKPOINTS}/{newest}")
            there = object_storage.folders(f"{self._url}/{CHECKPOINTS}")
            for old in set(there) - kept_names(there, newest, KEEP):
                object_storage.remove(f"{self._url}/{CHECKPOINTS}/{old}")
        except OSError as error:
            self._say(f"object storage: the checkpoint {newest} is not kept ({object_storage.explain(error)})")
            return
        self._kept.add(f"/{CHECKPOINTS}/{newest}")

    def drawn(self, epoch: int) -> None:
        """Upload the pictures of an epoch, for the driver to show. An error is reported; nothing else needs them."""
        if self._url is None or not self._writes:
            return
        try:
            for picture in sorted(epoch_folder(self.folder, epoch).glob("*.png")):
                name = picture.relative_to(self.folder).as_posix()
                object_storage.write_object(f"{self._url}/{name}", picture.read_bytes())
        except OSError as error:
            self._say(f"object storage: the pictures of epoch {epoch} are not kept ({object_storage.explain(error)})")

    def done(self, result: RunManifest) -> RunManifest:
        """Upload the finished run, and return its result; that of another sweep if it finished the same run first."""
        url = self._url
        if url is None or not self._writes or "" in self._kept:
            return result
        counted: RunManifest = object_storage.with_retries(
            lambda: self._adopt_or_upload(url, result), PATIENCE_S, self._say
        )
        return counted

    def _adopt_or_upload(self, url: str, result: RunManifest) -> RunManifest:
        from cpn.scoring.finished_run import finished_run

        other_folder = self.folder.with_name(f"{self.folder.name}.theirs")
        try:
            if object_storage.pull(url, other_folder, None, object_storage.WHOLE) and (
                other_result := finished_run(other_folder)
            ):
                self.folder = other_folder
                return other_result
        except object_storage.Damaged:
            pass  # ours takes its place
        object_storage.push(self.folder, url)
        object_storage.remove(f"{url}/{CHECKPOINTS}")
        return result


@contextmanager
def attempt(store: Storage, key: str, writes: bool, say: Say) -> Iterator[Attempt]:
    """Make an attempt at the run `key`; only the process that `writes`, rank 0, fetches and keeps anything.

    In object storage each attempt has a folder of its own that goes when it ends: what counts is what was kept, the
    same for all of a trial's workers wherever they run.
    """
    if store.url is None:
        yield Attempt(store.run(key), None, writes, say)
        return
    attempts = store.root / "attempts"
    delete_dead_attempts(attempts)
    _, ticks = birth(os.getpid()) or ("", 0)
    folder = attempts / f"{os.getpid()}-{ticks}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
        new_attempt = Attempt(folder / key, store.there(store.run(key)), writes, say)
        if writes:  # the others get what there is to go on from from this one
            object_storage.with_retries(new_attempt.fetch, PATIENCE_S, say)
        yield new_attempt
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def delete_dead_attempts(attempts: Path) -> None:
    """Remove the folders of attempts whose processes were killed."""
    for folder in attempts.glob("*-*-*"):
        pid, ticks, _ = folder.name.split("-")
        lives = birth(int(pid))
        if lives is None or str(lives[1]) != ticks:
            shutil.rmtree(folder, ignore_errors=True)


def put_shared(store: Storage, place: Path, value: bytes) -> None:
    """Write a small file that processes on all machines can read."""
    if store.url is None:
        write_bytes(place, value)
    else:
        object_storage.write_object(store.there(place), value)


def get_shared(store: Storage, place: Path) -> bytes | None:
    """Read a file that `put_shared` wrote; None if there is none."""
    if store.url is not None:
        return object_storage.read_object(store.there(place))
    return place.read_bytes() if place.exists() else None


def download_proxy(store: Storage, config: Config) -> None:
    """Download the pretrained proxy, if the configuration asks for it."""
    from cpn.training.pretrained_proxy import standin_path

    path = standin_path(store.cache)
    if store.url is not None and config.network.weights == "scenes" and not path.exists():
        download(store, store.cache, lambda name: name == path.name, path.stem)


def upload_proxy(store: Storage, config: Config) -> None:
    """Upload the pretrained proxy, if the configuration asks for it."""
    from cpn.training.pretrained_proxy import standin_path

    if config.network.weights == "scenes":
        upload(store, store.cache, [standin_path(store.cache).name], standin_path(store.cache).stem)


def download_stage(store: Storage, folder: Path) -> None:
    """Fetch what the driver reads of a finished stage: manifest, network, pictures. Its maps and labels stay there."""
    if (
        store.url is not None
        and retry_or_raise(lambda: object_storage.listing(store.there(folder), object_storage.WHOLE)) is not None
    ):
        retry_or_raise(
            lambda: download(store, folder, lambda name: name in (MANIFEST, MODEL) or name.startswith("pictures/"))
        )


def download_work(store: Storage, work: Path, wanted: Wanted | None = None) -> None:
    """Download the uploaded files of an unfinished stage into its work folder; they lie under the stage's own name."""
    if store.url is not None:
        retry_or_raise(lambda: object_storage.pull(store.there(work.with_suffix("")), work, wanted))


def upload_work(store: Storage, work: Path, names: list[str], part: str) -> None:
    """Upload files of an unfinished stage as one part of it. The part with the manifest completes the stage."""
    if store.url is not None:
        url = store.there(work.with_suffix(""))
        retry_or_raise(lambda: object_storage.push(work, url, names, part))


def finish_stage(store: Storage, work: Path, folder: Path) -> None:
    """Give a stage whose manifest is written its name, and let its checkpoints go."""
    upload_work(store, work, [MANIFEST], object_storage.WHOLE)
    if store.url is None:
        work.rename(folder)
    else:
        download_stage(store, folder)
        shutil.rmtree(work, ignore_errors=True)
    drop(store, folder, CHECKPOINTS)


def stems(store: Storage, work: Path) -> set[str]:
    """Return the images that are done of a stage which is being made elsewhere; here its task looks for itself."""
    listed = None if store.url is None else object_storage.listing(store.there(work.with_suffix("")))
    return {name.rpartition(".")[0] for name in listed or {} if name.endswith((".npz", ".png"))}


def training(store: Storage, work: Path) -> Attempt:
    """Return a stage's training, whose checkpoints are kept as a run's are."""
    return Attempt(work, store.there(work.with_suffix("")) if store.url else None, True, lambda _: None)


class Watched:
    """A small JSON file that another machine writes, looked at now and then."""

    def __init__(self, store: Storage, work: Path, name: str) -> None:
        self._path = work / name
        self._url = None if store.url is None else f"{store.there(work.with_suffix(''))}/{name}"
        self._seen, self._looked = None, 0.0

    def read(self) -> Any:
        """Return what it holds; None while there is none."""
        if self._url is None:
            with suppress(FileNotFoundError, ValueError):  # only progress
                self._seen = read_json(self._path)
            return self._seen
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            with suppress(OSError, ValueError):  # only progress: the next look may see more
                data = object_storage.read_object(self._url)
                self._seen = None if data is None else unsealed(data, self._url)
        return self._seen


@contextmanager
def publish_state(store: Storage, paths: SweepPaths, say: Say) -> Iterator[Callable[[], None]]:
    """Keep who drives a sweep, its specification and its summary where other machines see them, at the end too.

    Gives what does so now. Trouble is said in a line: nothing depends on it but what others are told.
    """

    def tell() -> None:
        files = (paths.lock, paths.driver, paths.spec, paths.summary)
        try:
            upload(store, paths.root, [path.name for path in files if path.exists()], "state")
        except OSError as error:
            stands = f"other machines do not see how {paths.root.name} stands"
            say(f"object storage: {stands}: {object_storage.explain(error)}")

    if store.url is None:
        yield lambda: None
        return
    try:
        yield tell
    finally:
        tell()


def with_published_state(store: Storage) -> Storage:
    """Return the storage as a command on any machine sees it: what `known_to_all` kept, beside what lies here."""
    if store.url is None:
        return store
    object_storage.check_url(store.url, "--storage", write=False)
    home = object_storage.scratch() / f"seen-{digest(store.url)}"
    for name in object_storage.folders(store.url):
        if name not in SHARED:
            object_storage.pull(f"{store.url}/{name}", home / name, None, "state")
    return replace(store, home=home)


def drop(store: Storage, folder: Path, name: str) -> int:
    """Delete a file or folder of a run, here and where it is kept; the bytes that were freed there."""
    path, freed = folder / name, 0
    if store.url is not None and name == CHECKPOINTS:
        freed = sum(object_storage.sizes(store.there(path)).values())
        object_storage.remove(store.there(path))
    elif store.url is not None:
        freed = object_storage.forget(store.there(folder), name)
    elif path.exists() and not path.resolve().is_relative_to(store.root):  # a link that somebody laid
        raise WorkError(f"{path}: leads out of {store.root}; mend the link")
    else:
        freed = sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())
    if path.exists():
        delete(path)
    return freed


def delete(path: Path) -> None:
    """Delete a file or folder: under another name first, so that nothing half deleted looks whole."""
    away = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    path.rename(away)
    sync(path.parent)
    if away.is_dir() and not away.is_symlink():
        shutil.rmtree(away)
    else:
        away.unlink()
