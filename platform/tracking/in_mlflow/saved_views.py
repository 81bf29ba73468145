"""Views of a sweep's runs that MLflow's UI opens by an address: its ranked trials, its confirm runs, its stages.

MLflow 3 reads a view from the experiment's tag `mlflow.sharedViewState.NAME` and opens it where the address says
`viewStateShareKey=NAME`. An earlier MLflow ignores both.
"""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `platform.ui --help` needs an address of this file, and not what a specification imports
    from ...config.sweep_spec import SweepSpec

VIEW = "workflowType=machine_learning"
"""MLflow 3 opens on pages for language models unless its address says this."""
TAG = "mlflow.sharedViewState."
LEADERBOARD = "leaderboard"
STAGE_METRICS = ("random_walk/miou_confirm", "random_walk/miou_train", "deeplab/miou_val", "deeplab/miou_val_crf")


def saved_views(spec: "SweepSpec") -> dict[str, str]:
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
