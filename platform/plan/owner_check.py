"""Ask whether a start of a sweep would be refused because of whose the records of its name are. Makes nothing."""

from functools import cached_property
from pathlib import Path

from cpn.core.checked import unsealed_line
from cpn.core.errors import InputError

from ..base.paths import storage
from ..base.tracking_uri import sqlite_path, store_uri
from ..config.sweep_spec import SweepSpec
from ..search.study import existing_study, study_url
from ..tracking.client import connect, mlflow_module, one_line
from ..tracking.origin import Origin, expected_origin
from ..tracking.owner import judge
from ..tracking.spool import EVENTS, Unfit


class ToldOnDisk:
    """What the records in a folder tell of the time before, read without taking the folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / EVENTS

    @cached_property
    def begun(self) -> set[tuple[str, int]]:
        """uid and time, in ms, of each start of a run."""
        events = map(unsealed_line, self._lines())
        return {(event["uid"], event["time"]) for event in events if event and event.get("kind") == "start"}

    def has(self, event_id: str) -> bool:
        """Return whether there is the record."""
        return any(line.startswith(f'{{"id":"{event_id}"'.encode()) for line in self._lines())

    def __bool__(self) -> bool:
        return bool(self._lines())

    def _lines(self) -> list[bytes]:
        data = self._file.read_bytes() if self._file.exists() else b""
        return [line for line in data.splitlines(keepends=True) if line.endswith(b"\n")]


def check_owner(spec: SweepSpec) -> str | None:
    """Ask the tracking store whether the sweep may write there. Returns a line where it could not be asked.

    Raises InputError, in the words of `Recorder.check`, where the experiment of its name is another sweep's, or it is a
    copy without its files.
    """
    uri = store_uri(spec.tracking.uri)
    path = sqlite_path(uri)
    if path is not None and not (path.exists() and path.stat().st_size):
        return None  # the start makes this store, so it has no experiments yet
    folder = storage(spec.resources.storage).sweep(spec.name).records
    try:
        judge(mlflow_module(), connect(uri), uri, spec.name, _origin(spec, folder), ToldOnDisk(folder))
    except Unfit as error:
        raise InputError(str(error)) from None
    except mlflow_module().MlflowException as error:
        return f"tracking.uri: {uri} was not asked whose experiment {spec.name!r} is ({one_line(error)})"
    return None


def _origin(spec: SweepSpec, folder: Path) -> Origin:
    url = study_url(spec)
    study = existing_study(spec.name, url)
    try:
        return expected_origin(study, url, folder)
    finally:
        if study is not None:
            study.close()
