"""Machines that are not as a command needs them: full, read-only, taken, somebody else's, or with another clock."""

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from platform.base.lock import Driver, birth
from platform.base.tracking_uri import RECORDED

import torch

from cpn.core.files import write_json
from cpn.models.backbone import build_backbone
from tests.bad_input.case import Case, Make, both, nothing, spec, text_file, voc

DATA = "--set data.root=data"
SWEEP = f"platform.sweep s.yaml {DATA}"
SCENES = "platform.sweep s.yaml --set data.scenes.train=6 --set data.scenes.val=3"
TRAIN = f"platform.train --set preset=scenes --set network.weights=null {DATA}"
OUT = "cpn.prepare data --out out"
STATUS = "platform.status --json"
UI = "platform.ui --port {taken}"
SQLITE = b"SQLite format 3\0" + bytes(84)
TAKEN = text_file("", "taken")


def closed(part: str) -> Make:
    """Close a file or folder to everybody but its owner."""
    return lambda place: (place / part).chmod(0o700 if (place / part).is_dir() else 0o600)


def for_all(place: Path) -> None:
    """Everybody may write in the working folder."""
    place.chmod(0o777)


def seen(time: float) -> Make:
    """Give all files of the data set this time, in seconds since 1970."""

    def make(place: Path) -> None:
        voc()(place)
        for path in (place / "data").rglob("*"):
            os.utime(path, (time, time))

    return make


def driven(started: float, alive: bool = False) -> Make:
    """The record of a sweep's driver from that time: of this process, or of one before the machine started anew."""

    def make(place: Path) -> None:
        boot, ticks = birth(os.getpid()) or ("", 0)
        if not alive:
            boot = "another boot"
        record = Driver(socket.gethostname(), os.getpid(), boot, ticks, started, "python -m platform.sweep s.yaml")
        (place / "sweeps/small").mkdir(parents=True)
        (place / "sweeps/small/lock").touch()
        write_json(place / "sweeps/small/driver.json", asdict(record))

    return make


def store_without(table: str = "", name: str = "taken") -> Make:
    """A file of records, empty of them, that lacks one table."""

    def make(place: Path) -> None:
        with closing(sqlite3.connect(place / name)) as database:
            for each in sorted(RECORDED - {table}):
                column = "version_num" if each == "alembic_version" else "x"
                database.execute(f"CREATE TABLE {each} ({column} TEXT)")

    return make


def named(name: str) -> Make:
    """A sweep that was started, as its specification says."""

    def make(place: Path) -> None:
        spec(name=name)(place)
        (place / "sweeps" / name).mkdir(parents=True)
        os.rename(place / "s.yaml", place / "sweeps" / name / "spec.yaml")

    return make


def only(*names: str) -> Make:
    """Nothing is there but these."""

    def check(place: Path) -> None:
        assert {str(path.relative_to(place)) for path in place.rglob("*")} == set(names)

    return check


def packed(place: Path) -> None:
    assert (place / "data/packed/manifest.json").is_file()


def nothing_packed(place: Path) -> None:
    """But for the lock, which is not removed: another process may be waiting for it."""
    assert [path.name for path in (place / "data").glob("*packed*")] == [".packed.lock"]


def moved(part: str, to: str) -> Make:
    return lambda place: os.renames(place / part, place / to)


def right(name: str, command: str, make: Make, *words: str) -> Case:
    return Case(f"environment: {name}", command, words, make, code=0)


def wrong(name: str, command: str, make: Make, *words: str, code: int = 2, **more: object) -> Case:
    return Case(f"environment: {name}", command, words, make, code=code, **more)  # type: ignore[arg-type]


def storage(name: str, folder: str, *words: str) -> list[Case]:
    """A storage folder that cannot be, for every command that has one."""
    made = both(voc(), TAKEN)
    return [
        wrong(f"{name}, {kind}", f"{command}{folder}", made, key, *words)
        for kind, command, key in (
            ("sweep", f"{SWEEP} --set resources.storage=", "resources.storage: "),
            ("dry run", f"{SWEEP} --dry-run --set resources.storage=", "resources.storage: "),
            ("scenes", f"{SCENES} --set resources.storage=", "resources.storage: "),
            ("train", f"{TRAIN} --storage ", "--storage: "),
        )
    ]


def tracking(name: str, uri: str, *words: str, make: Callable[[Path], None] = nothing, **more: object) -> Case:
    return wrong(f"records {name}", f"{SWEEP} --set tracking.uri={uri}", both(voc(), make), "tracking.uri: ", *words,
                 **more)  # fmt: skip


def study(name: str, url: str, *words: str, make: Callable[[Path], None] = nothing, **more: object) -> Case:
    return wrong(f"study {name}", f"{SWEEP} --set tracking.study={url}", both(voc(), make), "tracking.study: ", *words,
                 **more)  # fmt: skip


PLACES = [
    *storage("a file for the storage", "taken", "taken cannot be written", "choose another folder"),
    *storage("storage below a file", "taken/deeper", "taken/deeper cannot be written", "choose another folder"),
    *storage("storage in a read-only tree", "/proc/sweeps", "/proc/sweeps cannot be written", "choose another folder"),
    *(wrong(f"storage of a long name, {kind}", f"{command}{'x' * 300}", both(voc(), TAKEN), f"error: {key}: /",
            "is too long for the name of a file: give a shorter one")
      for kind, command, key in (("sweep", f"{SWEEP} --set resources.storage=", "resources.storage"),
                                 ("train", f"{TRAIN} --storage ", "--storage"))),
    wrong("a file for --out", "cpn.prepare data --out taken", both(voc(), TAKEN), "taken cannot be written (Not a",
          "give --out FOLDER"),
    wrong("--out below a file", "cpn.prepare data --out taken/x", both(voc(), TAKEN), "taken/x cannot be written",
          "give --out FOLDER"),
    wrong("--out in a read-only tree", "cpn.prepare data --out /proc/x", voc(), "/proc/x", "give --out FOLDER"),
    wrong("scenes over a file", "cpn.synthetic taken", TAKEN, "taken", "choose"),
    wrong("scenes below a file", "cpn.synthetic taken/x", TAKEN, "taken/x", "choose another folder"),
    wrong("scenes over other files", "cpn.synthetic data", voc(), "data is not empty", "choose a new folder"),
    wrong("scenes of no size", "cpn.synthetic out --size 0", nothing, "--size: ", "greater than or equal to 32"),
    wrong("scenes of no number", "cpn.synthetic out --train 0", nothing, "--train: ", "greater than or equal to 1"),
    wrong("scenes of half a number", "cpn.synthetic out --val 2.5", nothing, "--val: invalid int value", usage=True),
    wrong("scenes of a huge size", "cpn.synthetic out --size 1000000", nothing, "--size: ", "less than or equal to"),
    wrong("COCO that is not there", "cpn.coco coco out", nothing, "coco/annotations/instances_train2014.json",
          "is missing", "cocodataset.org"),
    wrong("COCO over other files", "cpn.coco data data", voc(), "instances_train2014.json", "is missing"),
    wrong("COCO's test set", "cpn.coco coco out --sets test2015", nothing, "--sets test2015", "begins with train"),
    wrong("COCO in fewer than no processes", "cpn.coco coco out --processes -1", nothing, "--processes -1", "give 0"),
    wrong("an archive of another name", "cpn.voc_submission m.safetensors --root data --out results.zip", voc(),
          "data", "is not prepared", "cpn.prepare"),
    wrong("no model to submit", "cpn.voc_submission --root data", voc(), "MODEL is missing", "or --check ARCHIVE"),
]  # fmt: skip

APART = [
    *(wrong(f"storage in {folder} of the data set, {kind}", f"{command}data/{folder}", voc(), key,
            "lies in the data set's folder", "choose another folder")
      for folder in ("packed", "JPEGImages", "SegmentationClass/deeper")
      for kind, command, key in (("sweep", f"{SWEEP} --set resources.storage=", "resources.storage: "),
                                 ("dry run", f"{SWEEP} --dry-run --set resources.storage=", "resources.storage: "),
                                 ("train", f"{TRAIN} --storage ", "--storage: "))),
    wrong("a sweep called as the pack beside it", f"{SWEEP} --dry-run --set resources.storage=data --set name=packed",
          voc(), "resources.storage: ", "data/packed lies in the data set's folder", "another name of the sweep"),
    wrong("data where runs are kept", "platform.sweep s.yaml --dry-run --set data.root=sweeps/runs/data", both(voc(),
          moved("data", "sweeps/runs/data")), "data.root: ", "lies in ", "where a sweep writes and deletes", "move"),
    wrong("data where the sweep's folder is", f"{SWEEP} --dry-run --set resources.storage=. --set name=data", voc(),
          "data.root: ", "where a sweep writes and deletes", "choose another resources.storage"),
    right("storage beside the folders of the data set", f"{SWEEP} --dry-run --set resources.storage=data", voc()),
    *(wrong(f"the folder of one sweep for the storage, {command}", f"platform.{command} --storage sweeps/small",
            both(spec(), driven(1.0)), "--storage: ", "sweeps/small is the folder of the sweep small", "give --storage")
      for command in ("status", "leaderboard small", "export small-0001", "promote --history")),
    wrong("the runs for the storage", "platform.status --storage sweeps/runs", both(spec(), driven(1.0),
          lambda place: (place / "sweeps/runs").mkdir()), "runs holds what all sweeps share", "give --storage /"),
]  # fmt: skip

FULL = [
    wrong("a disk that is full while packing", "cpn.prepare data", voc(), "data", "raise the limit", process=True,
          largest=2048, check=nothing_packed),
    wrong("a disk that is full while making scenes", "cpn.synthetic out --train 2 --val 1", nothing, "out", "cannot be",
          "make room", process=True, largest=100),
    wrong("a disk that is full while converting weights", "cpn.weights w.pth --backbone scene --out x.safetensors",
          lambda place: torch.save(build_backbone("scene").state_dict(), place / "w.pth"),
          "x.safetensors: File too large; raise the limit", code=1, process=True, largest=4096),  # seen only on writing
]  # fmt: skip

STORES = [
    tracking("in a read-only tree", "sqlite:////proc/mlflow.db", "sqlite:////proc/mlflow.db", "give another file"),
    tracking("in no folder", "sqlite:///absent/mlflow.db", "absent/mlflow.db cannot be written", "give another file"),
    tracking("in a folder", "sqlite:///.", "is a folder", "give another file"),
    tracking("by a path", "runs", "runs is no store; write sqlite:///FILE"),
    tracking("by ftp", "ftp://host/x", "is no store; write"),
    tracking("on no host", "http://", "names no host; write http://HOST:PORT"),
    tracking("on port many", "http://localhost:many", "write http://HOST:PORT"),
    tracking("in a text file", "sqlite:///taken", "is no sqlite file", make=text_file("hello\n" * 9, "taken")),
    tracking("in a file of another user", "sqlite:///taken", "cannot be written (Permission denied)",
             make=both(text_file(SQLITE, "taken"), closed("taken"), for_all), other_user=True),
    tracking("without a table", "sqlite:///taken", "taken: is damaged (it has no table runs); put it back from a copy",
             make=store_without("runs")),
    tracking("without a version", "sqlite:///taken", "taken: is damaged (its table alembic_version is empty); put it",
             make=store_without()),
    *(wrong(f"a {kind} for the records, {command}", f"platform.{command}", both(named("small"), make), "tracking.uri: ",
            *words)
      for kind, make, words in (
          ("folder", lambda place: (place / "mlflow.db").mkdir(), ("mlflow.db is a folder; name the file",)),
          ("store without a table", store_without("tags", "mlflow.db"), ("is damaged (it has no table tags); put it",)))
      for command in ("gc small", "promote --history")),
    study("by a path", "study.db", "'study.db' is no URL", "write sqlite:///FILE"),
    study("in a read-only tree", "sqlite:////proc/study.db", "sqlite:////proc/study.db cannot be written", "give"),
    study("below a file", "sqlite:///taken/x/study.db", "taken/x cannot be written", "choose", make=TAKEN),
    study("in a text file", "sqlite:///taken", "is no sqlite file", make=text_file("hello\n" * 9, "taken")),
    *(wrong(f"study {name} of a dry run", f"{SWEEP} --dry-run --set tracking.study={url}", both(voc(), TAKEN),
            "tracking.study: ", *words)
      for name, url, words in (("below a file", "sqlite:///taken/x/study.db", ("taken/x cannot be written", "choose")),
                               ("by a path", "study.db", ("'study.db' is no URL", "write sqlite:///FILE")))),
    wrong("a bucket without a database, dry run", f"{SWEEP} --dry-run --set resources.storage=s3://bucket/sweeps",
          voc(), "tracking.study: s3://bucket/sweeps cannot hold a database file; set CPN_STUDY_URL"),
    study("in a database nobody knows", "redis://127.0.0.1:1/x", "redis://127.0.0.1:1/x", "check the URL"),
    study("behind a password", "postgresql://me:secret@127.0.0.1:1/x", "://me:***@127.0.0.1:1/x", ";"),
]  # fmt: skip

PORTS = [
    wrong("a port that is taken", UI, text_file(SQLITE, "mlflow.db"), "--port {taken}: the MLflow UI cannot listen on",
          "end what runs there, or --port"),
    wrong("port 0", "platform.ui --port 0", text_file(SQLITE, "mlflow.db"), "--port 0: no such port; give one from"),
    wrong("port 65536", "platform.ui --port 65536", text_file(SQLITE, "mlflow.db"), "--port 65536: no such port"),
    wrong("a port by name", "platform.ui --port http", nothing, "--port: invalid int value: 'http'", usage=True),
    wrong("no records yet", "platform.ui", nothing, "mlflow.db: no records here yet; run a sweep first"),
    wrong("records that are none", "platform.ui", text_file("hello\n" * 9, "mlflow.db"), "is no sqlite file", "give"),
    wrong("a folder of records", "platform.ui --uri sqlite:///.", nothing, "is a folder", "give another file"),
    wrong("the UI of records by a path", "platform.ui --uri runs", nothing, "--uri: runs is no store; write sqlite:///FILE"),
]  # fmt: skip

USERS = [
    wrong("a specification of another user", "platform.sweep s.yaml --dry-run", both(spec(), closed("s.yaml")),
          "s.yaml: cannot be read (Permission denied); check its permissions", other_user=True),
    wrong("data of another user", "cpn.prepare data", both(voc(), closed("data")), "data", "Permission denied",
          "readable for this user", other_user=True),
    wrong("data that only others may write", "cpn.prepare data", voc(), "data cannot be written (Permission denied)",
          "give --out FOLDER", other_user=True),
    wrong("a picture of another user", OUT, both(voc(), closed("data/JPEGImages/2007_000032.jpg"), for_all),
          "2007_000032.jpg cannot be read (Permission denied): make it readable for this user", other_user=True),
    wrong("a list of another user", OUT, both(voc(), closed("data/ImageSets/Segmentation/train.txt"), for_all),
          "train.txt cannot be read (Permission denied): make it readable", other_user=True),
    wrong("pictures of another user", "cpn.prepare data", both(voc(), closed("data/JPEGImages")), "JPEGImages",
          "Permission denied", "readable for this user", other_user=True),
    wrong("weights of another user", "cpn.weights w.pth", both(text_file(b"PK\3\4", "w.pth"), closed("w.pth")),
          "w.pth: cannot be read (Permission denied); check its permissions", other_user=True),
    wrong("storage of another user", f"{TRAIN} --storage mine", both(voc(), lambda place: (place / "mine").mkdir()),
          "--storage: ", "mine cannot be written (Permission denied); choose another folder", other_user=True),
]  # fmt: skip

CLOCKS = [
    Case("environment: data from the year 2100", "cpn.prepare data", ("fingerprint",), seen(4102444800), 0, packed),
    Case("environment: data from 1970", "cpn.prepare data", ("fingerprint",), seen(0), 0, packed),
    *(
        Case(f"environment: a sweep {how}, begun in {year}", STATUS, (f'"state": "{state}"',), driven(at, alive), 0)
        for how, alive, state in (("that runs", True, "running"), ("that was killed", False, "stopped"))
        for year, at in ((2100, 4102444800), (1970, 0))
    ),
    Case(
        "environment: a sweep to stop, begun in 2100", "platform.stop small", ("does not run",), driven(4102444800), 0
    ),
    Case("environment: data from before 1970", "cpn.prepare data", ("fingerprint",), seen(-86400), 0, packed),
]

NUMBERS = [
    wrong("a watch that sleeps for ever", "platform.promote --watch --every inf", nothing, "--every inf: give seconds "
          "above 0, and 86400 (a day) at most"),
    wrong("a watch without a number", "platform.promote --watch --every nan", nothing, "--every nan: give seconds"),
    wrong("a million threads", f"{TRAIN} --threads 1000000", voc(), "--threads 1000000: this machine has", "at most"),
    wrong("threads beyond all numbers", f"{TRAIN} --threads {10**30}", voc(), f"--threads {10**30}: this", "at most"),
    wrong("redraws for years", "platform.meta.__main__ small --resamples 1000000000", nothing,
          "--resamples 1000000000: would take days; give 10000 at most"),
    wrong("classes beyond all masks", "cpn.backbone --check scene --classes 1000000000", nothing,
          "--classes 1000000000: a mask tells 254 classes apart; give that at most"),
]  # fmt: skip

BENCHMARKS = [
    wrong("no such benchmark", "benchmarks.__main__ loser", nothing, "loser: no such topic; take", "winner"),
    wrong("too few sweeps", "benchmarks.__main__ winner --sweeps 0", nothing, "--sweeps: 0 is too few; give at least"),
    wrong("a step on no device", "benchmarks.__main__ single_gpu --steps 0", nothing, "--steps", "above 0"),
    wrong("an option of no benchmark", "benchmarks.__main__ winner --fast", nothing, "unrecognized", usage=True),
]  # fmt: skip

PROCESSES = [
    wrong("a real process: sweep", "platform.sweep absent.yaml", nothing, "absent.yaml: no such file", process=True),
    wrong("a real process: data", "cpn.prepare nowhere", nothing, "nowhere: no such folder", process=True),
    wrong("a real process: the UI", "platform.ui", nothing, "no records here yet", process=True),
]

BUCKETS = [
    wrong("a bucket without a database", f"{SWEEP} --set resources.storage=s3://bucket/sweeps", voc(),
          "tracking.study: s3://bucket/sweeps cannot hold a database file; set CPN_STUDY_URL"),
    wrong("another kind of bucket", f"{SWEEP} --set resources.storage=gs://bucket/sweeps", voc(),
          "resources.storage: write a folder, or s3://BUCKET/PREFIX"),
    wrong("data in a bucket that cannot be", "platform.sweep s.yaml --set data.root=s3://Bucket/voc", voc(),
          "data.root: s3://Bucket/voc: not a usable URL", "write s3://BUCKET/PREFIX"),
    wrong("packing to a bucket that cannot be", "cpn.prepare data --out s3://", voc(), "s3://: not a usable URL"),
    wrong("gc of a bucket", "platform.gc small --storage s3://bucket/sweeps", nothing,
          "--storage: s3://bucket/sweeps is no folder", "resources.keep_top"),
    wrong("a negative number of networks", f"{SWEEP} --set resources.keep_top=-1", voc(), "resources.keep_top: "),
]  # fmt: skip

CASES = [*BUCKETS, *APART, *PLACES, *FULL, *STORES, *PORTS, *USERS, *CLOCKS, *NUMBERS, *BENCHMARKS, *PROCESSES]
