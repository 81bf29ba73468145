"""What commands beside the driver read in the store: runs, models, aliases. Creates and migrates nothing."""

from contextlib import closing
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError, WorkError
from cpn.core.plain_file import folder_there, is_there

from ..base.tracking_uri import check_schema, check_whole, sqlite_path, store_uri
from .client import connect, mlflow_module, one_line
from .in_mlflow.saved_views import LEADERBOARD, TAG
from .origin import ORIGIN
from .registry import ModelState, read_model
from .store import RunRow, run_row, run_rows


def read_runs(uri: str | None, experiment: str, origin: str | None = None) -> list[RunRow]:
    """Return all runs of an experiment that have a uid, oldest first; none if there is no such store or experiment.
    With an `origin`, the id of a sweep, only of an experiment that is its own.

    For commands beside the driver: creates and migrates nothing. WorkError, in one line, if the store does not answer.
    """
    uri = store_uri(uri)
    if _is_absent(uri):
        return []
    client = connect(uri)
    try:
        existing = client.get_experiment_by_name(experiment)
        if existing is None or existing.tags.get(ORIGIN) != (origin or existing.tags.get(ORIGIN)):
            return []
        return run_rows(client, existing.experiment_id)
    except mlflow_module().MlflowException as error:
        raise WorkError(f"tracking.uri: {uri}: {one_line(error)}") from error


def read_aliases(uri: str | None, alias: str) -> dict[str, dict[str, str]]:
    """Return the tags of the version that `alias` points at, for each registered model that has one.

    InputError if there is no such store, WorkError, in one line, if it does not answer. Creates and migrates nothing.
    """
    uri = store_uri(uri)
    if _is_absent(uri):
        raise InputError(
            f"--uri: {sqlite_path(uri)}: no records here; go to the folder where the sweep ran, or name its store; if "
            "they are lost, give the sweep's command again, which sends them anew"
        )
    client, tags_by_model = connect(uri), {}
    try:
        token = None
        while True:
            page = client.search_registered_models(max_results=100, page_token=token)
            for model in page:
                if alias in model.aliases:
                    version = client.get_model_version_by_alias(model.name, alias)
                    tags_by_model[str(model.name)] = {"version": str(version.version), **version.tags}
            token = page.token
            if not token:
                return tags_by_model
    except mlflow_module().MlflowException as error:
        raise WorkError(f"tracking.uri: {uri}: {one_line(error)}") from error


def read_model_state(uri: str | None, model: str) -> ModelState | None:
    """Return a registered model: aliases, versions, promotion history. None if there is no such store or model.

    WorkError, in one line, if the store does not answer. Creates and migrates nothing.
    """
    uri = store_uri(uri)
    if _is_absent(uri):
        return None
    client = connect(uri)
    try:
        return read_model(client, model)
    except mlflow_module().MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise WorkError(f"tracking.uri: {uri}: {one_line(error)}") from error


def read_run(uri: str | None, run_id: str) -> RunRow | None:
    """Return one of our runs by MLflow's id; None if there is no such store or run, or it is none of ours.

    WorkError, in one line, if the store does not answer.
    """
    uri = store_uri(uri)
    if _is_absent(uri):
        return None
    client = connect(uri)
    try:
        run = client.get_run(run_id)
    except mlflow_module().MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise WorkError(f"tracking.uri: {uri}: {one_line(error)}") from error
    return run_row(run) if "uid" in run.data.tags else None


def _is_absent(uri: str) -> bool:
    """Return whether a store is an sqlite file that is not there or empty, in which MLflow would make its tables.

    Raises DamagedFile for a damaged one, InputError for a folder and for one of another version of MLflow.
    """
    path = sqlite_path(uri)
    if path is None:
        return False
    if not is_there(path, "tracking.uri") or path.stat().st_size == 0:
        return True
    if folder_there(path, "tracking.uri"):
        raise InputError(f"tracking.uri: {path} is a folder; name the file of the store")
    check_schema(path, uri, "tracking.uri")
    check_whole(path, "tracking.uri")
    return False


def newest_sweep(uri: str | None) -> tuple[str, str] | None:
    """Name and MLflow's id of the sweep that was started last in a store; None where none has views."""
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None:
        return newest_in_file(path)
    mlflow, client = mlflow_module(), connect(uri)
    experiments: list[Any] = client.search_experiments(
        filter_string=f"tags.`{TAG}{LEADERBOARD}` LIKE '%'",
        order_by=["creation_time DESC"],
        max_results=1,
        view_type=mlflow.entities.ViewType.ACTIVE_ONLY,
    )
    return (str(experiments[0].name), str(experiments[0].experiment_id)) if experiments else None


def newest_in_file(path: Path) -> tuple[str, str] | None:
    """Return the newest of an sqlite store, without MLflow, which takes seconds to import."""
    import sqlite3

    asked = (
        "select experiments.name, experiments.experiment_id from experiments join experiment_tags using (experiment_id)"
        " where experiment_tags.key = ? and lifecycle_stage = 'active' order by creation_time desc limit 1"
    )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            row = database.execute(asked, (f"{TAG}{LEADERBOARD}",)).fetchone()
    except sqlite3.OperationalError:  # a store that holds no tables yet; what is damaged is said by whoever opens it
        return None
    return None if row is None else (str(row[0]), str(row[1]))
