"""A judgement as an MLflow run: all its numbers and files, once."""

from collections.abc import Callable
from pathlib import Path
from platform.tracking.client import connect, mlflow_module
from platform.tracking.in_mlflow.judgement import EXPERIMENT, metrics, record_judgement
from typing import Any

import pytest

from cpn.scoring.judgement_scores import JudgementScores

CONTENT: dict[str, Any] = {
    "folder": "/data/theirs", "kind": "score maps", "halved": False, "list": "train", "images": 9, "data": "abc",
    "method": 3, "against": {"folder": "/data/ours", "kind": "labels", "halved": False},
    "sets": [
        {"set": "all", "crf": False, "images": 9, "miou": 45.0, "interval": [40.0, 50.0], "beta": 0.3, "t": 0.15,
         "other": 44.0, "difference": 1.0, "difference_interval": [-0.5, 2.5]},
        {"set": "hold-out", "crf": True, "images": 1, "miou": 47.0, "interval": None, "beta": 0.3, "t": 0.15,
         "other": 44.0, "difference": 3.0, "difference_interval": None},
    ],
    "classes": {"potted plant, (small)": {"iou": 40.0, "false_positive": 35.0, "false_negative": 25.0}},
    "errors": {"false_positive": 1.0, "false_negative": 2.0, "wrong_class": 3.0},
    "by_size": [{"size": "small", "from": 0, "to": 5, "regions": 0}, {"size": "large", "from": 20, "to": 100,
                "regions": 2, "iou": 61.0, "recall": 70.0}],
    "by_classes": [],
    "boundary": {"pixels": 5, "near": 30.0, "elsewhere": 10.0, "share_of_errors": 60.0},
    "curve": {"beta": [0.0, 0.3], "select": [10.0, 45.0], "hold-out": [11.0, 44.0], "all": [10.5, 44.5]},
}  # fmt: skip
SCORES = JudgementScores.model_validate(CONTENT)


def test_the_numbers_of_a_judgement() -> None:
    rows = {(name, step): value for name, step, value in metrics(SCORES)}
    assert (rows["all/miou", 0], rows["all/miou_low", 0], rows["all/difference_high", 0]) == (45.0, 40.0, 2.5)
    assert rows["hold_out_crf/miou", 0] == 47.0 and ("hold_out_crf/miou_low", 0) not in rows
    assert rows["iou/potted_plant___small_", 0] == 40.0 and rows["size_large/recall", 0] == 70.0
    assert [rows["curve/hold_out", step] for step in (0, 30)] == [11.0, 44.0]
    assert not any(name.startswith("size_small") for name, _ in rows)


def test_it_is_recorded_once(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    client = connect(new_store("store"))
    (tmp_path / "judge.json").write_text("{}")
    files = [tmp_path / "judge.json"]
    experiment, run, again = record_judgement(mlflow_module(), client, SCORES, files, tmp_path / "files")
    row = client.get_run(run)
    assert not again and client.get_experiment_by_name(EXPERIMENT).experiment_id == experiment
    assert (row.info.run_name, row.info.status) == ("theirs", "FINISHED")
    assert row.data.params["against.folder"] == "/data/ours" and row.data.metrics["all/miou"] == 45.0
    assert [point.step for point in client.get_metric_history(run, "curve/all")] == [0, 30]
    assert [file.path for file in client.list_artifacts(run)] == ["judge.json"]
    assert record_judgement(mlflow_module(), client, SCORES, files, tmp_path / "files") == (experiment, run, True)
    other = SCORES.model_copy(update={"folder": "/data/others"})
    assert record_judgement(mlflow_module(), client, other, files, tmp_path / "files")[1] != run


def test_one_that_broke_off_is_recorded_anew(tmp_path: Path, new_store: Callable[[str], str]) -> None:
    client = connect(new_store("store"))
    with pytest.raises(Exception, match="nothing"):
        record_judgement(mlflow_module(), client, SCORES, [tmp_path / "nothing.png"], tmp_path / "files")
    first = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])[0]
    assert first.info.status == "FAILED"
    _, run, again = record_judgement(mlflow_module(), client, SCORES, [], tmp_path / "files")
    assert run != first.info.run_id and not again
