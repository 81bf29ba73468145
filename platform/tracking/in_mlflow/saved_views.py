"""Views of a sweep's runs that MLflow's UI opens by an address: its ranked trials, its confirm runs, its stages.

MLflow 3 reads a view from the experiment's tag `mlflow.sharedViewState.NAME` and opens it where the address says
`viewStateShareKey=NAME`. An earlier MLflow ignores both.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .charts import experiment_charts

if TYPE_CHECKING:  # `platform.ui --help` needs an address of this file, and not what a specification imports
    from ...config.sweep_spec import SweepSpec

VIEW = "workflowType=machine_learning"
"""MLflow 3 opens on pages for language models unless its address says this."""
CHARTS = "compareRunsMode=CHART"
"""In the address of a view: its charts in place of its table."""
TAG = "mlflow.sharedViewState."
LEADERBOARD = "leaderboard"
PACKED = "deflate;"
"""Begins a state that is compressed."""
LAST_METRIC = "deeplab/miou_val"
STAGE_METRICS = ("random_walk/miou_confirm", "random_walk/miou_train", LAST_METRIC, "deeplab/miou_val_crf")
ALWAYS = {"attributes.`Run Name`": 190, "runDateAndNestInfo": 140}
"""Columns that MLflow's table begins with, whatever is chosen, and their widths in pixels."""
WIDTHS = {"metrics": 90, "tags": 120, "params": 95}
"""Pixels of columns of a kind at least: a state, or the trial that a run confirms, is longer than a number."""
LETTER, AROUND = 7, 20
"""Pixels of a letter of a column's head, and around the head."""


def saved_views(spec: "SweepSpec", images: Sequence[str] = ()) -> dict[str, str]:
    """Return the experiment's tags that hold the views Leaderboard, Confirm and Stages of a sweep, with the keys of the
    `images` that its runs draw after each epoch.
    """
    from ...config.space.domains import drawn

    key, drawn_names = spec.objective, list(drawn(spec.search))
    epochs = spec.base_config.train.epochs
    charts = experiment_charts(key, drawn_names, STAGE_METRICS, images, epochs)
    shown = {
        "Leaderboard": (
            "tags.kind = 'trial'",
            column("metrics", key),  # the state before the values: a window of 1280 pixels ends among them
            [column("metrics", key), column("metrics", f"{key}_confirm_mean"), column("tags", "state"),
             *(column("params", name) for name in drawn_names)],
        ),
        "Confirm": (
            "tags.kind = 'confirm'",
            column("metrics", f"{key}_confirm"),
            [column("metrics", f"{key}_confirm"), column("tags", "confirms"), column("tags", "state"),
             column("params", "train.seed")],
        ),
        "Stages": (
            "tags.kind = 'stage'",
            column("metrics", LAST_METRIC),  # by start, MLflow folds the stages under the sweep's run
            [column("metrics", name) for name in STAGE_METRICS],
        ),
    }  # fmt: skip
    return {
        f"{TAG}{name.lower()}": view(name, place, *settings, charts)
        for place, (name, settings) in enumerate(shown.items(), start=1)
    }


def column(kind: str, name: str) -> str:
    """Return a column as MLflow's UI names it; orders too."""
    return f"{kind}.`{name}`"


def width(name: str) -> int:
    """Return the pixels of a column as `column` names it, with room for its head."""
    kind, _, head = name.partition(".")
    return max(WIDTHS[kind], LETTER * len(head.strip("`")) + AROUND)


def view(name: str, place: int, search: str, order: str, columns: list[str], charts: Mapping[str, Any]) -> str:
    """Return a view as MLflow keeps it. The time of its making is its place in the list, so that it is the same each
    time.
    """
    state = {
        "searchFilter": search,
        "orderByKey": order,
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": [*ALWAYS, *columns, "duration"],
        "columnWidths": {**ALWAYS, **{name: width(name) for name in columns}},
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": True,
        **charts,
    }
    return json.dumps({"name": name, "createdAt": place, "updatedAt": place, "state": packed(state)})


def packed(state: Mapping[str, Any]) -> str:
    """Return a state as MLflow takes it where it is long; a tag's value has 5,000 characters in databases of
    MLflow 2.
    """
    return PACKED + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def address_of(experiment_id: str, name: str = LEADERBOARD, charts: bool = False) -> str:
    """Return where a view stands, its table or its charts, behind the address of MLflow's UI."""
    mode = f"&{CHARTS}" if charts else ""
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={name}{mode}&{VIEW}"
