"""What MLflow's charts open with: mIoU and losses by epoch, then scores as bars, then the search; the rest is folded.

MLflow 3 keeps the charts of a page as a state of its own form, in the saved view of an experiment's runs
(saved_views.py) or in the browser (first_page.py). Metrics that are not named here it adds itself, at the end of the
section of their name. Left alone it sorts all by name: IoU by class first, a dot each, and `lr` before `miou`.
"""

from collections.abc import Sequence
from typing import Any

from .image_grid import SECTION as CAMS

EPOCH_SCORES = ("miou_epoch", "mask_free_epoch")
LOSSES = ("loss_total", "loss_cls", "loss_tcp", "loss_cpcr", "loss_amp", "loss_er", "loss_ecr")
"""Terms of the CAM networks' losses; those that a run does not have are not shown."""
SCORES = ("miou_confirm", "miou_train", "miou_fixed_beta", "mask_free_confirm")
GRID_HEIGHT, ROW_HEIGHT = 150, 150
"""Pixels of a grid without its images, and of each of them."""
MODEL, SYSTEM = "Model metrics", "System metrics"
"""MLflow's own sections: of keys without a slash, and of those that begin with `system/`."""

Charts = dict[str, Any]


def experiment_charts(
    objective: str, searched: Sequence[str], stages: Sequence[str] = (), images: Sequence[str] = (), epochs: int = 1
) -> Charts:
    """Return the charts of an experiment's runs: by epoch, scores, and `searched` names against the objective.
    `images` are the keys of what is drawn after each of so many epochs.
    """
    by_epoch, scores, search = (section(name) for name in ("By epoch", "Scores", "Search"))
    bars = [objective, *(f"{objective}_confirm_{end}" for end in ("mean", "low", "high")), *SCORES, *stages]
    lines = dict.fromkeys([f"{objective}_epoch", *EPOCH_SCORES, *LOSSES])
    cards = [*(line(key, by_epoch) for key in lines), *(bar(key, scores) for key in dict.fromkeys(bars))]
    own = [by_epoch, scores]
    if images:
        own.insert(1, {**section(CAMS), "columns": 1, "cardHeight": GRID_HEIGHT + ROW_HEIGHT * len(images)})
        cards += grids(images, epochs, own[1])
    if not searched:
        return state(own, cards)
    return state([*own, search], [*cards, parallel(objective, searched, search)])


def run_charts() -> Charts:
    """Return the charts of one run's page, of whatever kind it is."""
    epochs = section("By epoch")
    return {**state([epochs], [line(key, epochs) for key in ("miou_epoch", "loss_total")]), "autoRefreshEnabled": True}


def state(own: Sequence[Charts], cards: Sequence[Charts]) -> Charts:
    """MLflow's state: our sections before its own, which are folded but for that of what we do not name."""
    own = [*own, section(MODEL), section("iou", False), section(SYSTEM, False)]
    return {"compareRunCharts": list(cards), "compareRunSections": own, "isAccordionReordered": True}


def section(name: str, unfolded: bool = True) -> Charts:
    """Return a section; `isReordered` has MLflow add what is new at its end, and not before the first of a
    later name.
    """
    return {"uuid": f"section {name}", "name": name, "display": unfolded, "isReordered": True}


def line(key: str, within: Charts) -> Charts:
    """Return a metric over the epochs."""
    return {
        **card("LINE", key, within),
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "selectedXAxisMetricKey": "",
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def bar(key: str, within: Charts) -> Charts:
    """Return a metric as one bar a run."""
    return card("BAR", key, within)


def grids(keys: Sequence[str], epochs: int, within: Charts) -> list[Charts]:
    """Return one grid, images by runs, with a slider over epochs, which stands at the last one.

    MLflow adds a grid of its own for each image that it finds in none alone, before the first epoch and with all of a
    run's parameters: these are there already, and deleted.
    """
    together = [grid(keys, epochs, within)] if len(keys) > 1 else []
    return [*together, *({**grid([key], epochs, within), "deleted": bool(together)} for key in keys)]


def grid(keys: Sequence[str], epochs: int, within: Charts) -> Charts:
    """Return images of each run at a step."""
    shown = {"imageKeys": list(keys), "step": epochs, "showRunParams": False}
    return {**card("IMAGE", " ".join(keys), within), **shown, "metricKey": ""}


def parallel(objective: str, searched: Sequence[str], within: Charts) -> Charts:
    """Return the searched values of each run against its score."""
    selection = {"selectedParams": list(searched), "selectedMetrics": [objective], "showAllRuns": False}
    return {**card("PARALLEL", "", within), **selection, "uuid": "search"}


def card(kind: str, key: str, within: Charts) -> Charts:
    """Return what charts of all kinds have. `isGenerated` would let MLflow make a line of a bar."""
    return {
        "type": kind,
        "uuid": f"{kind.lower()} {key}",
        "metricKey": key,
        "metricSectionId": within["uuid"],
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    }
