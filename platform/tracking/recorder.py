"""Runs, parameters, metrics, artifacts and the model registry, as the driver tells them.

`Recorder` belongs to the driver. Each call writes one event to the spool and returns; a thread replays the events into
MLflow, which is imported, and its sqlite store migrated, in that thread. A run is known by our own `uid` (tag `uid`).
Every event may be applied twice: it leaves the same rows.
"""

import getpass
import json
import logging
import math
import os
import time as clock
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from cpn.core.errors import InputError
from cpn.core.files import digest
from cpn.core.redact import redact, redacted

from ..base.tracking_uri import check_store as check_store
from ..base.tracking_uri import sqlite_path, store_uri
from ..base.tracking_uri import ui_command as ui_command
from .audit import ToldBefore, what_lacks
from .client import connect, mlflow_module, one_line
from .in_mlflow.promotion_history import SWEEP, Decision
from .origin import Origin, folder_origin
from .read import read_aliases as read_aliases
from .read import read_runs as read_runs
from .replay import Replay
from .spool import Event, Refused, Spool, StoreDown, Unfit
from .spool_index import SpoolIndex
from .store import RunRow as RunRow
from .store import Store

STATUSES = ("FINISHED", "FAILED", "KILLED")
MARK_EVERY = 10.0
"""Seconds between two marks in the store of how far it has come."""
REACH_S = 60.0
"""Seconds that a store is given to say whose the records of a name are."""
PATIENCE = 3
"""Attempts at an event that fails for no known reason while the store is alive; then it is set aside."""

_NOT_ACCEPTED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST",
                 "RESOURCE_ALREADY_EXISTS", "INVALID_STATE", "NOT_IMPLEMENTED")  # fmt: skip
_LONGEST_PARAM = 6000


def plain(value: Any) -> str:
    """Return a parameter's value as MLflow and Optuna keep it: [56, 112] is '56,112', None is 'none', True is
    'true'.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, list | tuple) for item in value)
        return (";" if nested else ",").join(plain(item) for item in value)
    text = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= _LONGEST_PARAM else text[: _LONGEST_PARAM - 3] + "..."


def spool_store(uri: str | None) -> str:
    """Return what a store is called in the spool's positions."""
    return digest(redact(store_uri(uri)))


class Recorder:
    """What the driver says about runs: kept at once in `folder`, told to the store at `uri` as it can be reached.

    One Recorder per folder at a time. `origin` is the sweep whose records these are, by default that of the folder:
    runs of another one under the same name are never touched (`check`). `warn` gets one line for each kind of trouble;
    nothing else here raises because a store is away. Times are seconds since 1970, now by default. Text is masked
    (`mask`) before it is written.
    """

    def __init__(
        self,
        folder: Path,
        uri: str | None,
        experiment: str,
        warn: Callable[[str], None] | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.uri = store_uri(uri)
        self.experiment = experiment
        path = sqlite_path(self.uri)
        self._new = path is not None and not path.exists()
        self._recall = SpoolIndex()
        self._spool = self._recall.spool = Spool(folder, spool_store(self.uri), self._recall.hear)
        self.origin = origin or folder_origin(folder)
        self._store: Store | None = None
        self._unfit: str | None = None
        self._failures: dict[str, int] = {}
        self._last: Event | None = None
        self._marked, self._told_to = 0.0, 0
        self._warn = warn or logging.getLogger(__name__).warning
        for trouble in self._spool.troubles:
            self._warn(trouble)
        self._replay = Replay(self._spool, self._apply, self._warn, self._connected, self._mark)

    def check(self, timeout_s: float = REACH_S) -> None:
        """Wait until the store has been reached, or is known to be away. Closes, and raises InputError in one line,
        where the records have no place in it: its experiment of this name is another sweep's, or it is a copy without
        its files.
        """
        if not self._new:  # a store that is made now has no experiments yet
            self._replay.reach(timeout_s)
        if self._unfit is not None:
            self._replay.stop(timeout_s=5.0)
            self._spool.close()
            raise InputError(self._unfit)

    @property
    def refused(self) -> int:
        """How many records MLflow would not take; they lie in refused.jsonl in the folder, with the reasons."""
        return self._spool.refused

    def start(
        self,
        uid: str,
        *,
        name: str,
        parent: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        time: float | None = None,
    ) -> None:
        """Begin a run under `parent` (a uid). A known uid gets new tags, and runs again if KILLED or FAILED."""
        values = {key: plain(value) for key, value in (params or {}).items()}
        own = {"mlflow.user": _user(), **(tags or {})}
        self._say("start", uid, time, name=name, parent=parent, params=values, tags=own)

    def metrics(
        self, uid: str, step: int, values: Mapping[str, float], time: float | None = None, revise: bool = False
    ) -> None:
        """Note metric values at a step. A key has one value per step: the first stays, unless `revise` adds a newer.

        So an epoch that a resumed trial goes through again is not there twice.
        """
        new = self._untold(step, values, set() if revise else self._recall.steps(uid))
        if new:
            more = {**({"now": True} if time is None else {}), **({"revise": True} if revise else {})}
            self._say("metrics", uid, time, step=step, values=new, **more)

    def series(self, uid: str, points: Sequence[tuple[int, Mapping[str, float], float]]) -> None:
        """Note metric values at many steps, each (step, values, time), as one record and one request to the store.

        A value that was told at its step stays.
        """
        recorded = self._recall.steps(uid)
        new = [
            (step, untold, int(1000 * at))
            for step, values, at in points
            if (untold := self._untold(step, values, recorded))
        ]
        if new:
            self._say("series", uid, points[-1][2], points=new)

    @staticmethod
    def _untold(
        step: int, values: Mapping[str, float], recorded: Collection[tuple[int, str]]
    ) -> dict[str, float | str]:
        """Return the values that are not `recorded`; those that JSON has no number for as text."""
        new = {key: float(value) for key, value in values.items() if (step, key) not in recorded}
        return {key: value if math.isfinite(value) else str(value) for key, value in new.items()}

    def tags(self, uid: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run; a later value replaces the earlier one."""
        self._say("tags", uid, None, tags=dict(tags))

    def note(self, uid: str, markdown: str) -> None:
        """Set the run's description (at most 8000 characters), shown as Markdown on its page.

        Links to runs by uid become addresses of the UI: see `tracking_links`.
        """
        self._say("tags", uid, None, tags={"mlflow.note.content": markdown})

    def describe(self, markdown: str) -> None:
        """Set the experiment's description, shown above its runs. Links as in `note`."""
        self._say("experiment", "", None, tags={"mlflow.note.content": markdown})

    def views(self, tags: Mapping[str, str]) -> None:
        """Set the views of the experiment's runs (saved_views.py)."""
        self._say("experiment", "", None, tags=dict(tags))

    @property
    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment, None while the store has not been reached."""
        return self._store.experiment_id if self._store else None

    def artifact(self, uid: str, path: Path, folder: str = "") -> None:
        """Copy a file, or all files of a folder, to the run's `folder`. It must stay on disk until it is replayed."""
        self._say("artifact", uid, None, path=self._from_here(path), folder=folder)

    def images(self, uid: str, step: int, pictures: Mapping[str, Path], time: float | None = None) -> None:
        """Note PNG images by key at a step, for MLflow's image grid. They must stay on disk until they are replayed.

        As with metrics a key has one image per step, the first.
        """
        recorded = self._recall.steps(uid)
        new = {key: self._from_here(path) for key, path in pictures.items() if (step, key) not in recorded}
        if new:
            self._say("images", uid, time, step=step, images=new)

    def dataset(self, uid: str, name: str, fingerprint: str, source: str, role: str = "training") -> None:
        """Link the data set that a run used: `fingerprint` is cut to the 36 characters that MLflow keeps."""
        self._say("dataset", uid, None, name=name, digest=fingerprint[:36], source=source, role=role)

    def end(self, uid: str, status: str, time: float | None = None) -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        if status not in STATUSES:
            raise ValueError(f"{status} is none of {', '.join(STATUSES)}")
        self._say("end", uid, time, status=status)

    def ended(self, uid: str) -> bool:
        """Return whether the run's end has been said since it was last started; the spool knows even if the store is
        away.
        """
        return uid in self._recall.ended

    def started(self, uid: str) -> bool:
        """Return whether the run has been begun from here."""
        return uid in self._recall.started

    def register(
        self,
        model: str,
        uid: str,
        folder: str,
        version_tags: Mapping[str, str],
        alias: str,
        reason: str,
        *,
        checkpoint: Path | None = None,
        backbone: str | None = None,
        decision: Decision | None = None,
    ) -> None:
        """Make a model version of the run's artifacts in `folder` and move `alias` to it, with an entry in the history.

        The version is known by its tags uid and digest (`version_tags["digest"]`, or one of uid and folder): the
        same checkpoint is registered once. With `checkpoint`, which must stay on disk until it is replayed, the version
        is an MLflow pyfunc that predicts masks; `backbone` is the user's own. the history keeps the `decision` too.
        """
        tags = {"digest": digest([uid, folder]), **version_tags, "uid": uid}
        decision = decision or Decision()
        by = decision.by or SWEEP
        first = {} if by in self._recall.registered else {"first": True}
        file = None if checkpoint is None else self._from_here(checkpoint)
        self._say("register", uid, None, model=model, folder=folder, tags=tags, alias=alias, reason=reason, who=_user(),
                  checkpoint=file, backbone=backbone, entry=decision.to_json(), **first)  # fmt: skip

    def registered(self, by: str) -> tuple[str, str] | None:
        """uid and digest of what `by` had registered last; the spool knows even if the store is away."""
        return self._recall.registered.get(by)

    def point(self, model: str, alias: str, version: str | None, reason: str, decision: Decision | None = None) -> None:
        """Move `alias` to an existing version (rollback, or back to where it was), with an entry in the history.

        None is the champion before the one that is there when the record reaches the store.
        """
        self._say("point", "", None, model=model, alias=alias, version=version, reason=reason, who=_user(),
                  entry=(decision or Decision()).to_json())  # fmt: skip

    def moved(
        self, model: str, alias: str, before: str | None, after: str | None, reason: str, decision: Decision
    ) -> None:
        """Write into the history that somebody has moved `alias` by hand, from and to a version or None."""
        self._say("moved", "", None, model=model, alias=alias, **{"from": before, "to": after}, reason=reason,
                  who=_user(), entry=decision.to_json())  # fmt: skip

    def reconcile(self, alive: set[str], ended: Mapping[str, str] | None = None) -> None:
        """End each run of the experiment that is RUNNING, not in `alive` and older than this call.

        Its status is `ended[uid]` where given, else KILLED.
        """
        self._say("reconcile", "", None, alive=sorted(alive), ended=dict(ended or {}))

    def flush(self, timeout_s: float) -> int:
        """Wait for the store to have everything; return how many records are still waiting. A dead store ends the wait.

        Records that MLflow refused no longer wait: see `refused`.
        """
        return self._replay.flush(timeout_s)

    def close(self, timeout_s: float = 30.0) -> int:
        """Flush, stop the thread, let go of the folder; return how many records wait for the next start."""
        pending = self._replay.flush(timeout_s)
        if pending == 0 and self._spool.retry_refused():  # the store may have mended itself since
            self._replay.notify()
            pending = self._replay.flush(timeout_s)
        self._replay.stop(timeout_s=5.0)
        self._spool.close()
        if self._spool.refused:
            self._warn(
                f"{self._spool.refused} records were refused: {self._spool.folder}/refused.jsonl has them with the "
                "reasons; delete it to hear no more of them"
            )
        return pending

    def run_id(self, uid: str) -> str | None:
        """MLflow's id of a run, None while the store does not have it yet."""
        return self._store.run_ids.get(uid) if self._store else None

    def runs(self) -> list[RunRow]:
        """Return the experiment's runs as the store has them now (`flush` first)."""
        return read_runs(self.uri, self.experiment, self.origin.id)

    def _from_here(self, path: Path) -> str:
        """Return a file's path from the spool, so that it holds in a project that is moved; whole where it lies
        elsewhere.
        """
        path, folder = path.absolute(), self._spool.folder.absolute()
        return os.path.relpath(path, folder) if path.is_relative_to(folder.parent.parent) else str(path)

    def _say(self, kind: str, uid: str, time: float | None, **content: Any) -> None:
        # A clock that was put back must not let the past look younger than this: `reconcile` would leave it running.
        stamp = max(int(1000 * clock.time()), self._recall.latest) if time is None else int(1000 * time)
        self._spool.append(redacted({"kind": kind, "uid": uid, "time": stamp, **content}))
        self._replay.notify()

    def _apply(self, event: Event) -> None:
        """Tell MLflow one event; sort its many ways to fail into Refused and StoreDown."""
        try:
            store = self._connected()
            store.again = self._spool.offset < self._told_to
            store.apply(event)
        except (Refused, StoreDown):
            raise
        except Exception as error:
            self._judge(event, error)
        self._failures.pop(event["id"], None)
        self._last = event
        if monotonic() - self._marked > MARK_EVERY:
            self._mark()

    def _mark(self) -> None:
        """Keep in the store how far it has come. Where that fails the mark lags, and what follows it is told again."""
        self._marked = monotonic()
        if self._store is not None and self._last is not None and self._last["id"] != self._store.replayed:
            with suppress(Exception):  # of whatever kind MLflow, its client, the database and the disk raise
                self._store.mark(self._last)
                self._spool.mark(self._last["id"])

    def _connected(self) -> Store:
        """Return the store, opened on first use and after it was away; what it lacks is told again."""
        if self._store is None:
            delivered = ToldBefore(self._spool)
            try:
                store = Store(mlflow_module(), connect(self.uri), self.uri, self.experiment, self._spool.folder,
                              self.origin, delivered, self._warn)  # fmt: skip
                if store.moved and store.replayed and not self._spool.offset:  # known by another URI so far
                    self._spool.rewind(self._spool.find(store.replayed) or 0)
                    delivered = ToldBefore(self._spool)
                lack = what_lacks(store, delivered)
            except StoreDown as error:
                self._unfit = str(error) if isinstance(error, Unfit) else None
                raise
            except Exception as error:
                raise StoreDown(f"tracking.uri: {self.uri} does not answer ({one_line(error)})") from error
            self._store, self._unfit = store, None
            for line in lack.lines:
                self._warn(line)
            for event in lack.anew:
                self._spool.append(redacted({**event, "time": max(int(1000 * clock.time()), self._recall.latest)}))
            self._told_to = max(self._told_to, self._spool.offset)
            if lack.offset is not None:
                self._spool.rewind(lack.offset)
        return self._store

    def _judge(self, event: Event, error: Exception) -> None:
        """Raise Refused or StoreDown for an error that MLflow, its client or the disk raised."""
        line = one_line(error)
        if getattr(error, "error_code", "") in _NOT_ACCEPTED or isinstance(error, KeyError | TypeError | ValueError):
            raise Refused(line) from error
        store, self._store = self._store, None  # what we know of its runs may be out of date
        failures = self._failures[event["id"]] = self._failures.get(event["id"], 0) + 1
        waits = any(words in line for words in ("database is locked", "disk is full", "disk I/O error"))
        if failures >= PATIENCE and not waits and store is not None and store.answers():
            raise Refused(line, again=True) from error
        raise StoreDown(f"tracking.uri: {self.uri} does not answer ({line})") from error


def _user() -> str:
    """Return who runs this; the user number where it has no name (a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
