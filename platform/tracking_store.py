"""What a record does in the MLflow store: applies the events of `tracking.Recorder`, each of them harmless twice.

mlflow itself comes in as an argument, for only `tracking_client` imports it.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from cpn.files import write_bytes

from . import tracking_registry as registry
from .pyfunc_folder import write_pyfunc
from .spool import Event, Refused
from .tracking_links import resolved
from .tracking_uri import sqlite_path

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as description."""
_KIND = ("mlflow.experimentKind", "custom_model_development")
"""Without it MLflow may take the experiment for one about language models and show other pages."""
_BATCH = 100
"""Rows per request: MLflow takes at most 100 parameters or tags at once."""


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
    """One experiment in the store; made if it is not there. Raises Refused, and whatever MLflow and the disk raise.

    `run_ids` maps our uid to MLflow's id. history.jsonl in `folder` is a copy of the model's promotion history.
    """

    def __init__(self, mlflow: Any, client: Any, uri: str, experiment: str, folder: Path) -> None:
        self.mlflow = mlflow
        self.client = client
        self.history_file = folder / registry.HISTORY
        self.experiment_id = self._experiment(uri, experiment)
        self.run_ids: dict[str, str] = {}
        rows = run_rows(self.client, self.experiment_id)
        for row in sorted(rows, key=lambda row: -len(row.params) - len(row.metrics)):
            if row.uid in self.run_ids:  # a create call that was answered too late and sent again left an empty twin
                self.client.delete_run(row.run_id)
            self.run_ids.setdefault(row.uid, row.run_id)

    def apply(self, event: Event) -> None:
        """Tell MLflow one event; the same event again changes nothing."""
        kind = event["kind"]
        if kind == "start":
            self._start(event)
        elif kind == "experiment":
            for key, value in event["tags"].items():
                self.client.set_experiment_tag(self.experiment_id, key, self._text(key, value))
        elif kind == "reconcile":
            self._reconcile(event)
        elif kind == "point":
            self._keep(registry.move(self.client, event, event["version"]))
        elif kind == "moved":
            self._keep(registry.note(self.client, event))
        else:
            run_id = self.run_ids.get(event["uid"])
            if run_id is None:
                raise Refused("the store has no such run", again=True)
            getattr(self, f"_{kind}")(event, run_id)

    def answers(self) -> bool:
        """Whether the store can be read at this moment."""
        try:
            self.client.get_experiment(self.experiment_id)
        except self.mlflow.MlflowException:
            return False
        return True

    def _experiment(self, uri: str, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            path = sqlite_path(uri)
            home = (path.parent if path else Path.cwd()) / "mlartifacts" / quote(name, safe="")
            server = uri.startswith(("http://", "https://"))  # which keeps artifacts where it wants
            place = None if server else home.as_uri()
            return str(self.client.create_experiment(name, artifact_location=place, tags=dict([_KIND])))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

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
        metric = self.mlflow.entities.Metric
        rows = [metric(key, float(value), event["time"], event["step"]) for key, value in event["values"].items()]
        self._batches(run_id, metrics=rows)

    def _tags(self, event: Event, run_id: str) -> None:
        tag = self.mlflow.entities.RunTag
        self._batches(run_id, tags=[tag(key, self._text(key, str(value))) for key, value in event["tags"].items()])

    def _text(self, key: str, value: str) -> str:
        """A tag's value; in a description links to runs become addresses."""
        return resolved(value, self.experiment_id, self.run_ids) if key == NOTE else value

    def _batches(self, run_id: str, **rows: list[Any]) -> None:
        for name, values in rows.items():
            for start in range(0, len(values), _BATCH):
                self.client.log_batch(run_id, **{name: values[start : start + _BATCH]})

    def _artifact(self, event: Event, run_id: str) -> None:
        path = Path(event["path"])
        if not path.exists():
            raise Refused(f"{path} is gone")
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(run_id, str(path), event["folder"] or None)

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
            self.client.create_registered_model(model)
        except self.mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        write = None
        if event.get("checkpoint") is not None:
            checkpoint = Path(event["checkpoint"])
            if not checkpoint.exists():
                raise Refused(f"{checkpoint} is gone")
            write = partial(write_pyfunc, self.mlflow, checkpoint, event["backbone"], tags)
        version = registry.register(self.client, event, run_id, write)
        self._keep(registry.move(self.client, event, version))

    def _keep(self, history: Sequence[registry.Entry]) -> None:
        write_bytes(self.history_file, "".join(json.dumps(entry) + "\n" for entry in history).encode())


def run_rows(client: Any, experiment_id: str, only: str = "") -> list[RunRow]:
    """An experiment's runs that carry a uid, oldest first."""
    rows, token = [], None
    while True:
        page = client.search_runs([experiment_id], only, max_results=500, page_token=token)
        rows += [run_row(run) for run in page if "uid" in run.data.tags]
        token = page.token
        if not token:
            return sorted(rows, key=lambda row: (row.started, row.uid))


def run_row(run: Any) -> RunRow:
    """A run of MLflow's as we show it."""
    info, data = run.info, run.data
    ended = info.end_time / 1000 if info.end_time and info.status != "RUNNING" else None
    return RunRow(data.tags["uid"], info.run_id, info.run_name, info.status, data.tags.get("parent_uid"),
                  info.start_time / 1000, ended, dict(data.params), dict(data.metrics), dict(data.tags))  # fmt: skip
