"""Views of a sweep's runs that MLflow's UI opens by an address: its ranked trials, its confirm runs, its stages.

MLflow 3 reads a view from the experiment's tag `mlflow.sharedViewState.NAME` and opens it where the address says
`viewStateShareKey=NAME`. An earlier MLflow ignores both.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from ...base.tracking_uri import sqlite_path, store_uri
from ...config.sweep_spec import SweepSpec
from ..client import connect, mlflow_module
from ..links import VIEW

TAG = "mlflow.sharedViewState."
LEADERBOARD = "leaderboard"
STAGE_METRICS = ("random_walk/miou_confirm", "random_walk/miou_train", "deeplab/miou_val", "deeplab/miou_val_crf")


def saved_views(spec: SweepSpec) -> dict[str, str]:
    """The experiment's tags that hold the views Leaderboard, Confirm and Stages of a sweep."""
    key, searched = spec.objective, [column("params", name) for name in spec.search]
    confirmed = [column("metrics", f"{key}_confirm_{end}") for end in ("mean", "low", "high")]
    shown = {
        "Leaderboard": (
            "tags.kind = 'trial'",
            column("metrics", key),
            [column("metrics", key), *confirmed, *searched, column("tags", "state")],
        ),
        "Confirm": (
            "tags.kind = 'confirm'",
            column("metrics", f"{key}_confirm"),
            [column("metrics", f"{key}_confirm"), column("tags", "confirms"), column("params", "train.seed"),
             column("tags", "state")],
        ),
        "Stages": (
            "tags.kind = 'stage'",
            "attributes.start_time",
            [column("metrics", name) for name in STAGE_METRICS],
        ),
    }  # fmt: skip
    return {
        f"{TAG}{name.lower()}": view(name, place, *told) for place, (name, told) in enumerate(shown.items(), start=1)
    }


def column(kind: str, name: str) -> str:
    """A column as MLflow's UI names it; orders too."""
    return f"{kind}.`{name}`"


def view(name: str, place: int, search: str, order: str, columns: list[str]) -> str:
    """A view as MLflow keeps it. The time of its making is its place in the list, so that it is the same each time."""
    state = {
        "searchFilter": search,
        "orderByKey": order,
        "orderByAsc": False,
        "selectedColumns": columns,
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": True,
    }
    return json.dumps({"name": name, "createdAt": place, "updatedAt": place, "state": json.dumps(state)})


def address_of(experiment_id: str, name: str = LEADERBOARD) -> str:
    """Where a view stands, behind the address of MLflow's UI."""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={name}&{VIEW}"


def newest_sweep(uri: str | None) -> tuple[str, str] | None:
    """Name and MLflow's id of the sweep that was started last in a store; None where none has views."""
    uri = store_uri(uri)
    path = sqlite_path(uri)
    if path is not None:
        return newest_in_file(path)
    mlflow, client = mlflow_module(), connect(uri)
    found: list[Any] = client.search_experiments(
        filter_string=f"tags.`{TAG}{LEADERBOARD}` LIKE '%'",
        order_by=["creation_time DESC"],
        max_results=1,
        view_type=mlflow.entities.ViewType.ACTIVE_ONLY,
    )
    return (str(found[0].name), str(found[0].experiment_id)) if found else None


def newest_in_file(path: Path) -> tuple[str, str] | None:
    """The same of an sqlite store, without MLflow, which takes seconds to import."""
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
