"""Where everything lies under the storage folder: the only file that knows these names.

sweeps/study.db                 the Optuna study of every sweep, unless tracking.study says otherwise
sweeps/runs/<run key>/          one CAM run (see cpn/run.py), shared by all sweeps that need it
sweeps/stages/<stage>-<key>/    one stage's output with its manifest
sweeps/cache/                   synthetic scenes and the stand-in for ImageNet weights
sweeps/<sweep>/                 lock and driver, records spool, winner, report
sweeps/<sweep>/tune/            what Ray writes for itself; never read again
"""

from dataclasses import dataclass
from pathlib import Path

from cpn.files import check_place

MANIFEST = "manifest.json"
"""Written last into a stage's folder: it is done when this is there."""
SHARED = ("runs", "stages", "cache", "study.db", "study.db-wal", "study.db-shm")
"""What lies beside the sweeps' own folders: no sweep can have such a name."""


@dataclass(frozen=True)
class Storage:
    """The storage folder, absolute; on a cluster every node sees it under the same path."""

    root: Path

    @property
    def study(self) -> Path:
        """The sqlite file of the Optuna studies."""
        return self.root / "study.db"

    @property
    def cache(self) -> Path:
        """Data and weights that can be made again."""
        return self.root / "cache"

    def run(self, key: str) -> Path:
        """The folder of one CAM run."""
        return self.root / "runs" / key

    def stage(self, stage: str, key: str) -> Path:
        """The folder of one stage's output."""
        return self.root / "stages" / f"{stage}-{key}"

    def sweep(self, name: str) -> "SweepPaths":
        """The folder of one sweep."""
        return SweepPaths(self.root / name)


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
        """Hours by the clock and of each trial."""
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
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"


def storage(folder: str) -> Storage:
    """The storage folder made absolute."""
    return Storage(Path(folder).resolve())


def check_storage(store: Storage, key: str) -> None:
    """Raise InputError, naming `key`, unless the storage folder can be written or made. Makes nothing."""
    check_place(store.root, key)
