"""What MLflow's charts open with. That MLflow shows it so: tests/browser/test_mlflow_ui.py."""

from collections.abc import Mapping
from platform.tracking.in_mlflow.charts import MODEL, SYSTEM, experiment_charts, run_charts
from typing import Any


def keys_in(charts: Mapping[str, Any], name: str) -> list[str]:
    """The metrics of a section, in order."""
    (uuid,) = [section["uuid"] for section in charts["compareRunSections"] if section["name"] == name]
    return [card["metricKey"] for card in charts["compareRunCharts"] if card["metricSectionId"] == uuid]


def test_epochs_stand_first_and_classes_are_folded() -> None:
    charts = experiment_charts("miou", ["patches.S_N"], ["deeplab/miou_val"])
    assert keys_in(charts, "By epoch")[:4] == ["miou_epoch", "mask_free_epoch", "loss_total", "loss_cls"]
    assert keys_in(charts, "Scores")[:2] == ["miou", "miou_confirm_mean"] and "deeplab/miou_val" in keys_in(
        charts, "Scores"
    )
    shown = {section["name"]: section["display"] for section in charts["compareRunSections"]}
    assert list(shown) == ["By epoch", "Scores", "Search", MODEL, "iou", SYSTEM]
    assert not shown["iou"] and not shown[SYSTEM] and charts["isAccordionReordered"]
    assert "lr" not in {card["metricKey"] for card in charts["compareRunCharts"]}


def test_the_search_is_shown_only_where_there_is_one() -> None:
    (search,) = [
        card for card in experiment_charts("miou", ["a", "b"])["compareRunCharts"] if card["type"] == "PARALLEL"
    ]
    assert (search["selectedParams"], search["selectedMetrics"]) == (["a", "b"], ["miou"])
    charts = experiment_charts("mask_free", [])
    assert "Search" not in {section["name"] for section in charts["compareRunSections"]}
    assert keys_in(charts, "By epoch")[0] == "mask_free_epoch" and keys_in(charts, "Scores")[0] == "mask_free"


def test_images_are_one_grid_that_stands_at_the_last_epoch() -> None:
    charts = experiment_charts("miou", ["a"], images=["cam/x", "cam/y"], epochs=8)
    names = [section["name"] for section in charts["compareRunSections"]]
    assert names[:3] == ["By epoch", "cam", "Scores"], "the section that MLflow makes of the keys"
    grids = [card for card in charts["compareRunCharts"] if card["type"] == "IMAGE"]
    assert [(card["imageKeys"], card["deleted"]) for card in grids] == [
        (["cam/x", "cam/y"], False), (["cam/x"], True), (["cam/y"], True),
    ]  # fmt: skip
    assert {(card["step"], card["showRunParams"]) for card in grids} == {(8, False)}
    one = experiment_charts("miou", ["a"], images=["cam/x"])["compareRunCharts"]
    assert [card["deleted"] for card in one if card["type"] == "IMAGE"] == [False]
    assert "cam" not in {section["name"] for section in experiment_charts("miou", ["a"])["compareRunSections"]}


def test_every_card_has_its_own_name_and_section() -> None:
    images = experiment_charts("miou", ["a"], images=["cam/x", "cam/y"])
    for charts in (images, experiment_charts("miou", ["a"]), experiment_charts("mask_free", []), run_charts()):
        cards, sections = charts["compareRunCharts"], {each["uuid"] for each in charts["compareRunSections"]}
        assert len({card["uuid"] for card in cards}) == len(cards)
        assert {card["metricSectionId"] for card in cards} <= sections
