"""Where everything lies in the storage: the only file that knows these names.

sweeps/study.db                 the Optuna study of every sweep, unless tracking.study says otherwise
sweeps/runs/<run key>/          one CAM run (see cpn/run.py), shared by all sweeps that need it
sweeps/stages/<stage>-<key>/    one stage's output with its manifest
sweeps/cache/                   synthetic scenes and the weights of their pretrained proxy
sweeps/<sweep>/                 lock and driver, records spool, winner, report
sweeps/<sweep>/tune/            what Ray writes for itself; never read again

With resources.storage=s3://... runs, stages and cache are kept there under the same names; a machine's own copies of
them lie in its scratch folder (cpn/core/object_storage.py), and the sweep's folder is ./sweeps/<sweep> where the driver
was started.
"""

from dataclasses import dataclass
from pathlib import Path

from cpn.core import object_storage
from cpn.core.errors import InputError
from cpn.core.files import check_place, digest, full_path

MANIFEST = "manifest.json"
"""Written last into a stage's folder: it is done when this is there."""
SHARED = ("runs", "stages", "cache", "study.db", "study.db-wal", "study.db-shm")
"""What lies beside the sweeps' own folders."""
TAKEN = (*SHARED, "attempts", "mlflow.db", "mlartifacts", "mlruns")
"""What is written into a storage folder, or by MLflow into the working folder, which can be the same: no sweep can have
such a name, nor one that continues that of a database.
"""
DATA_FOLDERS = ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations", "ImageSets", "packed")
"""The folders of a data set, each of which holds its own files alone; `packed` is replaced when it is written anew."""


@dataclass(frozen=True)
class Storage:
    """The storage folder, absolute; on a cluster every node sees it under the same path. Or storage in a bucket."""

    root: Path
    url: str | None = None
    """Where runs, stages and cache are kept if not in `root`, which then is a copy on this machine (bucket_sync.py)."""
    home: Path | None = None
    """Where the sweeps' own folders lie if not in `root`."""

    @property
    def place(self) -> str:
        """Return where the storage lies, its URL or folder, as other machines are told."""
        return self.url or str(self.root)

    def there(self, path: Path) -> str:
        """Return where a path below `root`, or of a sweep's folder, is kept in the bucket."""
        base = self.root if path.is_relative_to(self.root) else self.sweeps
        return f"{self.url}/{path.relative_to(base).as_posix()}"

    def inside(self, path: Path) -> str:
        """Return the part of a path that is the same on every machine."""
        return path.relative_to(self.root).as_posix()

    @property
    def sweeps(self) -> Path:
        """Holds the sweeps' own folders."""
        return self.home or self.root

    @property
    def claims(self) -> Path:
        """Locks of runs that are being made (claims.py)."""
        return self.root / "runs" / ".claims"

    @property
    def study(self) -> Path:
        """The sqlite file of the Optuna studies."""
        return self.root / "study.db"

    @property
    def cache(self) -> Path:
        """Data and weights that can be made again."""
        return self.root / "cache"

    def run(self, key: str) -> Path:
        """Return the folder of one CAM run."""
        return self.root / "runs" / key

    def stage(self, stage: str, key: str) -> Path:
        """Return the folder of one stage's output."""
        return self.root / "stages" / f"{stage}-{key}"

    def train(self, sweep: str) -> Path:
        """Ray Train's own files of a sweep, on whatever node."""
        return (self.root / sweep if self.url else self.sweep(sweep).root) / "tune"

    def sweep(self, name: str) -> "SweepPaths":
        """Return the folder of one sweep."""
        return SweepPaths(self.sweeps / name)


@dataclass(frozen=True)
class SweepPaths:
    """The folder of one sweep."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the sweep's one driver."""
        return self.root / "lock"

    @property
    def driver(self) -> Path:
        """Which process that is, or was, and how it ended."""
        return self.root / "driver.json"

    @property
    def records(self) -> Path:
        """The spool of records on their way to MLflow."""
        return self.root / "records"

    @property
    def tune(self) -> Path:
        """Ray's own files."""
        return self.root / "tune"

    @property
    def spec(self) -> Path:
        """The sweep's specification as it ran last, for status and report."""
        return self.root / "spec.yaml"

    @property
    def clock(self) -> Path:
        """Wall-clock hours, and hours of each trial."""
        return self.root / "clock.json"

    @property
    def starts(self) -> Path:
        """Command, commit and versions of each start, for the report."""
        return self.root / "starts.json"

    @property
    def summary(self) -> Path:
        """Leaderboard, verdict, winner and stage metrics as JSON, written at the end."""
        return self.root / "summary.json"

    @property
    def panels(self) -> Path:
        """The trials' CAM panels beside cam_baseline, a folder for each."""
        return self.root / "panels"

    @property
    def table(self) -> Path:
        """What a search space with a `table` found, as JSON, written at the end."""
        return self.root / "table.json"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"


def storage(place: str, key: str = "resources.storage") -> Storage:
    """Return the storage folder made absolute (`~` is home), or storage in a bucket with this machine's own copy.

    Raises InputError, naming `key`, where the place can be no folder.
    """
    if not object_storage.is_url(place):
        return Storage(full_path(place, key).resolve())
    url = place.rstrip("/")
    return Storage(object_storage.scratch() / f"storage-{digest(url)}", url, Path("sweeps").resolve())


def check_storage(store: Storage, key: str) -> None:
    """Raise InputError, naming `key`, unless the storage can be written. Makes nothing."""
    check_place(store.sweeps, key)
    if store.url is not None:
        check_place(store.root, object_storage.SCRATCH)
        object_storage.check_url(store.url, key, write=True)


def is_taken(name: str) -> bool:
    """Return whether a storage folder keeps other things under a sweep's name, also where capitals make no other."""
    lower = name.lower()
    return lower in TAKEN or lower.startswith(("study.db", "mlflow.db"))


def check_apart_from_data(store: Storage, root: str | None, key: str, sweep: str | None = None) -> None:
    """Raise InputError, naming `key`, where the storage, or the folder of `sweep` in it, lies in a folder of the data
    set at `root`, or the data set in a folder that runs, stages or the sweep write. Its cache is left out: scenes lie
    there.
    """
    if root is None or "://" in root:
        return
    data = Path(root).resolve()
    places = [store.root] if sweep is None else [store.root, store.sweep(sweep).root]
    for folder in (data / name for name in DATA_FOLDERS):
        inside = [place for place in places if place.resolve().is_relative_to(folder.resolve())]
        if inside:
            raise InputError(
                f"{key}: {inside[0]} lies in the data set's folder {folder}, which holds its own files alone; choose "
                "another folder, e.g. sweeps, or another name of the sweep"
            )
    for written in (store.root / "runs", store.root / "stages", *places[1:]):
        if data.is_relative_to(written.resolve()):
            raise InputError(
                f"data.root: {data} lies in {written}, where a sweep writes and deletes; move the data set out of it, "
                f"or choose another {key}"
            )


def shortened(path: Path) -> Path:
    """Return the path from the working folder, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
