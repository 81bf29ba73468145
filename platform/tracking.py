"""Runs, parameters, metrics, artifacts and the model registry: the only file that imports mlflow.

`Recorder` belongs to the driver. Each call writes one event to the spool and returns; a thread replays the events into
MLflow, which is imported, and its sqlite store migrated, in that thread. A run is known by our own `uid` (tag `uid`).
Every event may be applied twice: it leaves the same rows.
"""

import getpass
import json
import logging
import math
import os
import threading
import time as clock
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cpn.errors import InputError, WorkError
from cpn.files import digest

from .spool import Event, Refused, Replay, Spool, StoreDown
from .tracking_store import RunRow as RunRow
from .tracking_store import Store, run_rows
from .tracking_uri import check_store as check_store
from .tracking_uri import mask as mask
from .tracking_uri import masked, sqlite_path, store_uri
from .tracking_uri import ui_command as ui_command

STATUSES = ("FINISHED", "FAILED", "KILLED")
PATIENCE = 3
"""Attempts at an event that fails for no known reason while the store is alive; then it is set aside."""

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
}
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}
_NOT_ACCEPTED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST",
                 "RESOURCE_ALREADY_EXISTS", "INVALID_STATE", "NOT_IMPLEMENTED")  # fmt: skip
_LONGEST_PARAM = 6000
_lock = threading.Lock()


def plain(value: Any) -> str:
    """A parameter's value as MLflow and Optuna keep it: [56, 112] is '56,112', None is 'none', True is 'true'."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, list | tuple) for item in value)
        return (";" if nested else ",").join(plain(item) for item in value)
    text = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= _LONGEST_PARAM else text[: _LONGEST_PARAM - 3] + "..."


def read_runs(uri: str | None, experiment: str) -> list[RunRow]:
    """All runs of an experiment that have a uid, oldest first; none if there is no such store or experiment.

    For commands beside the driver: creates and migrates nothing. WorkError, in one line, if the store does not answer.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return []
    client = _client(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        return run_rows(client, found.experiment_id) if found else []
    except _mlflow().MlflowException as error:
        raise WorkError(f"tracking.uri: {mask(uri)}: {_one_line(error)}") from error


def read_aliases(uri: str | None, alias: str) -> dict[str, dict[str, str]]:
    """The tags of the version that `alias` points at, for each registered model that has one.

    InputError if there is no such store, WorkError, in one line, if it does not answer. Creates and migrates nothing.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise InputError(f"--uri: {path}: no records here; go to the folder where the sweep ran, or name its store")
    client, found = _client(uri), {}
    try:
        token = None
        while True:
            page = client.search_registered_models(max_results=100, page_token=token)
            for model in page:
                if alias in model.aliases:
                    version = client.get_model_version_by_alias(model.name, alias)
                    found[str(model.name)] = {"version": str(version.version), **version.tags}
            token = page.token
            if not token:
                return found
    except _mlflow().MlflowException as error:
        raise WorkError(f"tracking.uri: {mask(uri)}: {_one_line(error)}") from error


def spool_store(uri: str | None) -> str:
    """What a store is called in the spool's positions."""
    return digest(mask(store_uri(uri)))


class Recorder:
    """What the driver says about runs: kept at once in `folder`, told to the store at `uri` as it can be reached.

    One Recorder per folder at a time. `warn` gets one line for each kind of trouble; nothing here raises because
    a store is away. Times are seconds since 1970, now by default. Text is masked (`mask`) before it is written.
    """

    def __init__(
        self, folder: Path, uri: str | None, experiment: str, warn: Callable[[str], None] | None = None
    ) -> None:
        self.uri = store_uri(uri)
        self.experiment = experiment
        self._spool = Spool(folder, store=spool_store(self.uri))
        self._told: set[tuple[str, int, str]] = set()
        self._ended: set[str] = set()
        self._latest = 0
        for event, _ in self._spool.read():
            self._remember(event or {})
        self._store: Store | None = None
        self._failures: dict[str, int] = {}
        self._warn = warn or logging.getLogger(__name__).warning
        self._replay = Replay(self._spool, self._apply, self._warn)

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
        new = {key: float(value) for key, value in values.items() if revise or (uid, step, key) not in self._told}
        if new:
            texts = {key: value if math.isfinite(value) else str(value) for key, value in new.items()}
            self._say("metrics", uid, time, step=step, values=texts)

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

    def artifact(self, uid: str, path: Path, folder: str = "") -> None:
        """Copy a file, or all files of a folder, to the run's `folder`. It must stay on disk until it is replayed."""
        self._say("artifact", uid, None, path=str(path.absolute()), folder=folder)

    def dataset(self, uid: str, name: str, fingerprint: str, source: str, role: str = "training") -> None:
        """Link the data set that a run used: `fingerprint` is cut to the 36 characters that MLflow keeps."""
        self._say("dataset", uid, None, name=name, digest=fingerprint[:36], source=source, role=role)

    def end(self, uid: str, status: str, time: float | None = None) -> None:
        """End a run: FINISHED, FAILED or KILLED."""
        if status not in STATUSES:
            raise ValueError(f"{status} is none of {', '.join(STATUSES)}")
        self._say("end", uid, time, status=status)

    def ended(self, uid: str) -> bool:
        """Whether the run's end has been said since it was last started; the spool knows even if the store is away."""
        return uid in self._ended

    def register(
        self, model: str, uid: str, folder: str, version_tags: Mapping[str, str], alias: str, reason: str
    ) -> None:
        """Make a model version of the run's artifacts in `folder` and move `alias` to it, with an entry in the history.

        The version is known by its tags uid and digest (`version_tags["digest"]`, or one of uid and folder): the
        same checkpoint is registered once.
        """
        tags = {"digest": digest([uid, folder]), **version_tags, "uid": uid}
        self._say("register", uid, None, model=model, folder=folder, tags=tags, alias=alias, reason=reason, who=_user())

    def point(self, model: str, alias: str, version: str, reason: str) -> None:
        """Move `alias` to an existing version (rollback, or a wish put back), with an entry in the history."""
        self._say("point", "", None, model=model, alias=alias, version=version, reason=reason, who=_user())

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
            self._warn(f"{self._spool.refused} records were refused: {self._spool.folder}/refused.jsonl")
        return pending

    def run_id(self, uid: str) -> str | None:
        """MLflow's id of a run, None while the store does not have it yet."""
        return self._store.run_ids.get(uid) if self._store else None

    def runs(self) -> list[RunRow]:
        """The experiment's runs as the store has them now (`flush` first)."""
        return read_runs(self.uri, self.experiment)

    def _say(self, kind: str, uid: str, time: float | None, **content: Any) -> None:
        # A clock that was put back must not let the past look younger than this: `reconcile` would leave it running.
        stamp = max(int(1000 * clock.time()), self._latest) if time is None else int(1000 * time)
        event = self._spool.append(masked({"kind": kind, "uid": uid, "time": stamp, **content}))
        self._remember(event)
        self._replay.notify()

    def _remember(self, event: Event) -> None:
        self._latest = max(self._latest, int(event.get("time", 0)))
        if event.get("kind") == "metrics":
            self._told.update((event["uid"], event["step"], key) for key in event["values"])
        elif event.get("kind") == "end":
            self._ended.add(event["uid"])
        elif event.get("kind") == "start":
            self._ended.discard(event["uid"])

    def _apply(self, event: Event) -> None:
        """Tell MLflow one event; sort its many ways to fail into Refused and StoreDown."""
        try:
            self._connected().apply(event)
        except (Refused, StoreDown):
            raise
        except Exception as error:
            self._judge(event, error)
        self._failures.pop(event["id"], None)

    def _connected(self) -> Store:
        """The store, opened on first use and after it was away."""
        if self._store is None:
            try:
                store = Store(_mlflow(), _client(self.uri), self.uri, self.experiment, self._spool.folder)
            except Exception as error:
                raise StoreDown(f"tracking.uri: {mask(self.uri)} does not answer ({_one_line(error)})") from error
            replayed = {event["uid"] for event, behind in self._spool.read()
                        if event and event["kind"] == "start" and behind <= self._spool.offset}  # fmt: skip
            self._store = store
            if replayed and replayed.isdisjoint(store.run_ids):
                self._spool.rewind()  # the store is another one than that of last time: tell it everything
        return self._store

    def _judge(self, event: Event, error: Exception) -> None:
        """Raise Refused or StoreDown for an error that MLflow, its client or the disk raised."""
        line = _one_line(error)
        if getattr(error, "error_code", "") in _NOT_ACCEPTED or isinstance(error, KeyError | TypeError | ValueError):
            raise Refused(line) from error
        store, self._store = self._store, None  # what we know of its runs may be out of date
        failures = self._failures[event["id"]] = self._failures.get(event["id"], 0) + 1
        waits = any(words in line for words in ("database is locked", "disk is full", "disk I/O error"))
        if failures >= PATIENCE and not waits and store is not None and store.answers():
            raise Refused(line, again=True) from error
        raise StoreDown(f"tracking.uri: {mask(self.uri)} does not answer ({line})") from error


def _mlflow() -> Any:
    """The mlflow package with our settings, imported on first use: it takes seconds. One thread imports at a time."""
    with _lock:
        os.environ.update(_SETTINGS)
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow
        import mlflow.entities

        return mlflow


def _client(uri: str) -> Any:
    """A client of tracking store and registry at `uri`."""
    return _mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)


def _user() -> str:
    """Who runs this; the user number where it has no name (a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _one_line(error: Exception) -> str:
    """An error without its line breaks, its passwords and most of its length."""
    text = " ".join(mask(f"{type(error).__name__}: {error}").split())
    return text if len(text) <= 300 else text[:297] + "..."
