"""What commands beside the driver read in the store: runs, models, aliases. Creates and migrates nothing."""

from cpn.core.errors import InputError, WorkError
from cpn.core.plain_file import is_there
from cpn.core.redact import redact

from ..base.tracking_uri import sqlite_path, store_uri
from .client import connect, mlflow_module, one_line
from .origin import ORIGIN
from .registry import ModelState, read_model
from .store import RunRow, run_row, run_rows


def read_runs(uri: str | None, experiment: str, origin: str | None = None) -> list[RunRow]:
    """All runs of an experiment that have a uid, oldest first; none if there is no such store or experiment. With an
    `origin`, the id of a sweep, only of an experiment that is its own.

    For commands beside the driver: creates and migrates nothing. WorkError, in one line, if the store does not answer.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not is_there(path, "tracking.uri"):
        return []
    client = connect(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is None or found.tags.get(ORIGIN) != (origin or found.tags.get(ORIGIN)):
            return []
        return run_rows(client, found.experiment_id)
    except mlflow_module().MlflowException as error:
        raise WorkError(f"tracking.uri: {redact(uri)}: {one_line(error)}") from error


def read_aliases(uri: str | None, alias: str) -> dict[str, dict[str, str]]:
    """The tags of the version that `alias` points at, for each registered model that has one.

    InputError if there is no such store, WorkError, in one line, if it does not answer. Creates and migrates nothing.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not is_there(path, "tracking.uri"):
        raise InputError(f"--uri: {path}: no records here; go to the folder where the sweep ran, or name its store")
    client, found = connect(uri), {}
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
    except mlflow_module().MlflowException as error:
        raise WorkError(f"tracking.uri: {redact(uri)}: {one_line(error)}") from error


def read_model_state(uri: str | None, model: str) -> ModelState | None:
    """A registered model: aliases, versions, promotion history. None if there is no such store or model.

    WorkError, in one line, if the store does not answer. Creates and migrates nothing.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not is_there(path, "tracking.uri"):
        return None
    client = connect(uri)
    try:
        return read_model(client, model)
    except mlflow_module().MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise WorkError(f"tracking.uri: {redact(uri)}: {one_line(error)}") from error


def read_run(uri: str | None, run_id: str) -> RunRow | None:
    """One of our runs by MLflow's id; None if there is no such store or run, or it is none of ours.

    WorkError, in one line, if the store does not answer.
    """
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None and not is_there(path, "tracking.uri"):
        return None
    client = connect(uri)
    try:
        run = client.get_run(run_id)
    except mlflow_module().MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise WorkError(f"tracking.uri: {redact(uri)}: {one_line(error)}") from error
    return run_row(run) if "uid" in run.data.tags else None
