"""What a record does in the MLflow store: applies the events of `tracking.Recorder`, each of them harmless twice.

mlflow itself comes in as an argument, for only `tracking_client` imports it.
"""

import json
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

from cpn.core.checked import whole_png
from cpn.core.files import write_bytes

from ..base.tracking_uri import sqlite_path
from . import registry
from .in_mlflow import image_grid
from .in_mlflow.image_grid import image_name, write_image
from .in_mlflow.promotion_history import HistoryEntry, description
from .in_mlflow.pyfunc_folder import write_pyfunc
from .links import resolved
from .moved_store import FILES
from .origin import ORIGIN, Origin
from .owner import PLACE, REPLAYED, DeliveredRecords, own_experiment
from .spool import Event, Refused

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as description."""
_KIND = ("mlflow.experimentKind", "custom_model_development")
"""Without it MLflow may take the experiment for one about language models and show other pages."""
ACTIVE = 1
"""MLflow's ViewType.ACTIVE_ONLY, which its import would cost seconds to ask for."""
_BATCH = {"params": 100, "tags": 100, "metrics": 1000}
"""Rows per request that MLflow takes at most."""


class RunRow(NamedTuple):
    """One run as the store has it. Times are in seconds since 1970; metrics are the last value of each key."""

    uid: str
    run_id: str
    name: str
    status: str
    parent: str | None
    started: float
    ended: float | None
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


class Store:
    """One sweep's experiment in the store; made if it is not there. Raises Refused, Unfit where it is another sweep's
    (owner.py), and whatever MLflow and the disk raise.

    `run_ids` maps our uid to MLflow's id. history.jsonl in `folder`, where the records are, is a copy of the model's
    promotion history.
    """

    def __init__(
        self,
        mlflow: Any,
        client: Any,
        uri: str,
        experiment: str,
        folder: Path,
        origin: Origin,
        delivered: DeliveredRecords,
        say: Callable[[str], None],
    ) -> None:
        self.mlflow = mlflow
        self.client = client
        self.folder = folder
        self.origin = origin
        self.again = False
        """Whether the current event was delivered before, to this store or to its predecessor."""
        existing, self.moved = own_experiment(mlflow, client, uri, experiment, origin, delivered, say)
        self.experiment_id = str(existing.experiment_id) if existing else self._made(uri, experiment)
        self.replayed: str | None = existing.tags.get(REPLAYED) if existing else None
        """The id of the last event that the store has taken, or of one shortly before it."""
        self.run_ids: dict[str, str] = {}
        named = run_names(uri, self.experiment_id)
        alike = named is None or len(dict(named)) < len(named)
        rows = run_rows(self.client, self.experiment_id) if alike else []
        self.run_ids |= {} if alike else dict(named or ())
        for row in sorted(rows, key=lambda row: -len(row.params) - len(row.metrics)):
            if row.uid in self.run_ids:  # a create call that was answered too late and sent again left an empty twin
                self.client.delete_run(row.run_id)
            self.run_ids.setdefault(row.uid, row.run_id)
        self.inherited: set[str] = set()
        """uids of runs that the store had while the spool knew nothing of them: it was lost."""

    def apply(self, event: Event) -> None:
        """Apply one event to MLflow; applying it again changes nothing."""
        kind = event["kind"]
        if kind == "start":
            self._start(event)
        elif kind == "experiment":
            for key, value in event["tags"].items():
                self.client.set_experiment_tag(self.experiment_id, key, self._text(key, value))
        elif kind == "reconcile":
            self._reconcile(event)
        elif kind == "point":
            self._keep(event["model"], registry.move(self.client, event, event["version"]))
        elif kind == "moved":
            self._keep(event["model"], registry.note(self.client, event, self.again))
        else:
            run_id = self.run_ids.get(event["uid"])
            if run_id is None:
                raise Refused("the store has no such run", again=True)
            getattr(self, f"_{kind}")(event, run_id)

    def answers(self) -> bool:
        """Return whether the store can be read at this moment."""
        try:
            self.client.get_experiment(self.experiment_id)
        except Exception:  # whatever MLflow, its client and the database raise
            return False
        return True

    def mark(self, event: Event) -> None:
        """Keep in the store how far it has come, so that one that was put back to a backup is known by it."""
        self.client.set_experiment_tag(self.experiment_id, REPLAYED, event["id"])
        self.replayed = event["id"]

    def restore(self, uids: Collection[str]) -> list[str]:
        """Restore runs that were deleted in MLflow; return the uids of those that could be restored."""
        deleted = run_rows(self.client, self.experiment_id, view=self.mlflow.entities.ViewType.DELETED_ONLY)
        restored = []
        for row in sorted(deleted, key=lambda row: -len(row.params) - len(row.metrics)):
            if row.uid in uids and row.uid not in self.run_ids:
                self.client.restore_run(row.run_id)
                self.run_ids[row.uid] = row.run_id
                restored.append(row.uid)
        return restored

    def model(self, name: str) -> registry.ModelState | None:
        """Return a registered model; None where there is none."""
        try:
            return registry.read_model(self.client, name)
        except self.mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _made(self, uri: str, name: str) -> str:
        path = sqlite_path(uri)
        home = (path.parent if path else Path.cwd()) / FILES / quote(name, safe="")
        server = uri.startswith(("http://", "https://"))  # which keeps artifacts where it wants
        tags = dict([_KIND, (ORIGIN, self.origin.id), (PLACE, self.origin.place)])
        place = None if server else home.as_uri()
        return str(self.client.create_experiment(name, artifact_location=place, tags=tags))

    def _start(self, event: Event) -> None:
        uid, tags = event["uid"], dict(event["tags"])
        if event["parent"] is not None:
            tags["parent_uid"] = event["parent"]
            if event["parent"] in self.run_ids:
                tags["mlflow.parentRunId"] = self.run_ids[event["parent"]]
        known = self.run_ids.get(uid)
        if known is None:
            first = {**tags, "uid": uid, "mlflow.runName": event["name"]}
            run = self.client.create_run(self.experiment_id, start_time=event["time"], tags=first)
            known = self.run_ids[uid] = str(run.info.run_id)
        run = self.client.get_run(known)
        if run.info.status in ("KILLED", "FAILED"):
            self.client.update_run(known, status="RUNNING")
        entities = self.mlflow.entities
        missing = [entities.Param(key, value) for key, value in event["params"].items() if key not in run.data.params]
        changed = [entities.RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
        self._batches(known, params=missing)
        self._batches(known, tags=changed)

    def _metrics(self, event: Event, run_id: str) -> None:
        metric, values = self.mlflow.entities.Metric, event["values"]
        if event.get("now") and event["uid"] in self.inherited:
            values = {key: value for key, value in values.items() if not self._known(event, run_id, key, float(value))}
        rows = [metric(key, float(value), event["time"], event["step"]) for key, value in values.items()]
        self._batches(run_id, metrics=rows)

    def _series(self, event: Event, run_id: str) -> None:
        metric = self.mlflow.entities.Metric
        rows = [metric(k, float(v), at, step) for step, values, at in event["points"] for k, v in values.items()]
        self._batches(run_id, metrics=rows)

    def _known(self, event: Event, run_id: str, key: str, wanted: float) -> bool:
        """Return whether the store has a value of that step, or this very one where it is a revision."""
        values = [item.value for item in self.client.get_metric_history(run_id, key) if item.step == event["step"]]
        return wanted in values if event.get("revise") else bool(values)

    def _tags(self, event: Event, run_id: str) -> None:
        tag = self.mlflow.entities.RunTag
        self._batches(run_id, tags=[tag(key, self._text(key, str(value))) for key, value in event["tags"].items()])

    def _text(self, key: str, value: str) -> str:
        """Return a tag's value; in a description links to runs become addresses."""
        return resolved(value, self.experiment_id, self.run_ids) if key == NOTE else value

    def _batches(self, run_id: str, **rows: list[Any]) -> None:
        for name, values in rows.items():
            for start in range(0, len(values), _BATCH[name]):
                self.client.log_batch(run_id, **{name: values[start : start + _BATCH[name]]})

    def _artifact(self, event: Event, run_id: str) -> None:
        path = self._path(event["path"])
        if not path.exists():
            raise Refused(f"{path} is gone")
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(run_id, str(path), event["folder"] or None)

    def _images(self, event: Event, run_id: str) -> None:
        pictures = {key: self._path(recorded) for key, recorded in event["images"].items()}
        if lost := [path for path in pictures.values() if not whole_png(path)]:
            raise Refused(f"{lost[0]} is gone or damaged")
        with TemporaryDirectory(prefix="cpn-images-") as folder:
            for key, path in pictures.items():
                write_image(path, Path(folder), image_name(event["uid"], key, event["step"], event["time"]))
            self.client.log_artifacts(run_id, folder, image_grid.FOLDER)
        self.client.set_tag(run_id, *image_grid.TAG)

    def _path(self, recorded: str) -> Path:
        """Resolve a path of the spool, relative to the folder of records or absolute."""
        return Path(os.path.normpath(self.folder / recorded))

    def _dataset(self, event: Event, run_id: str) -> None:
        entities = self.mlflow.entities
        source = json.dumps({"uri": event["source"]})
        data = entities.Dataset(event["name"], event["digest"], "local", source)
        role = entities.InputTag("mlflow.data.context", event["role"])
        self.client.log_inputs(run_id, datasets=[entities.DatasetInput(data, [role])])

    def _end(self, event: Event, run_id: str) -> None:
        self.client.set_terminated(run_id, event["status"], event["time"])

    def _reconcile(self, event: Event) -> None:
        for row in run_rows(self.client, self.experiment_id, "attributes.status = 'RUNNING'"):
            if row.uid not in event["alive"] and row.started * 1000 <= event["time"]:
                self.client.set_terminated(row.run_id, event["ended"].get(row.uid, "KILLED"), event["time"])

    def _register(self, event: Event, run_id: str) -> None:
        model, tags = event["model"], event["tags"]
        try:
            self.client.create_registered_model(model, tags={ORIGIN: self.origin.id})
        except self.mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            self._own(model)
        write = None
        if (recorded := event.get("checkpoint")) is not None:
            checkpoint = self._path(recorded)
            if not checkpoint.exists():
                raise Refused(f"{checkpoint} is gone")
            write = partial(write_pyfunc, self.mlflow, checkpoint, event["backbone"], tags)
        version = registry.register(self.client, event, run_id, write)
        self._keep(model, registry.move(self.client, event, version))

    def _own(self, model: str) -> None:
        """Sign a registered model without an owner. Raises Refused where it is another sweep's."""
        owner = self.client.get_registered_model(model).tags.get(ORIGIN)
        if owner not in (None, self.origin.id):
            raise Refused(f"registered model {model} is another sweep's; take another name: --set name=NEW")
        if owner is None:
            self.client.set_registered_model_tag(model, ORIGIN, self.origin.id)

    def _keep(self, model: str, history: Sequence[HistoryEntry]) -> None:
        """Write the copy of the history, and the table on the model's page where that says something else."""
        before = self.client.get_registered_model(model).description
        after = description(before, history)
        if after != (before or ""):
            self.client.update_registered_model(model, after)
        text = "".join(json.dumps(entry.to_json()) + "\n" for entry in history)
        write_bytes(self.folder / registry.HISTORY, text.encode())


def run_names(uri: str, experiment_id: str) -> list[tuple[str, str]] | None:
    """uid and MLflow's id of an experiment's runs, from the database itself: MLflow lists runs with all that they hold,
    which takes seconds a thousand. None for a server, or where that does not work.
    """
    if uri.startswith(("http://", "https://")):
        return None
    from sqlalchemy import NullPool, create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    query = text(
        "select tags.value, tags.run_uuid from tags join runs on runs.run_uuid = tags.run_uuid where tags.key = 'uid' "
        "and runs.experiment_id = :experiment and runs.lifecycle_stage = 'active'"
    )
    try:
        with create_engine(uri, poolclass=NullPool).connect() as connection:
            return [(str(uid), str(run)) for uid, run in connection.execute(query, {"experiment": int(experiment_id)})]
    except (SQLAlchemyError, ValueError):
        return None


def run_rows(client: Any, experiment_id: str, only: str = "", view: int = ACTIVE) -> list[RunRow]:
    """Return an experiment's runs that carry a uid, oldest first; `view` is one of MLflow's ViewType."""
    rows, token = [], None
    while True:
        page = client.search_runs([experiment_id], only, view, max_results=500, page_token=token)
        rows += [run_row(run) for run in page if "uid" in run.data.tags]
        token = page.token
        if not token:
            return sorted(rows, key=lambda row: (row.started, row.uid))


def run_row(run: Any) -> RunRow:
    """Return a run of MLflow's as we show it."""
    info, data = run.info, run.data
    ended = info.end_time / 1000 if info.end_time and info.status != "RUNNING" else None
    return RunRow(data.tags["uid"], info.run_id, info.run_name, info.status, data.tags.get("parent_uid"),
                  info.start_time / 1000, ended, dict(data.params), dict(data.metrics), dict(data.tags))  # fmt: skip
