"""The scan of IRN's walk, on a CAM run that was never trained."""

import argparse
from pathlib import Path

import pytest

from benchmarks.photos import irn_walk
from cpn.config import config_from
from cpn.stages import pipeline
from tests.benchmarks.photos.test_walk_rule import untrained_run
from tests.cpn.stages.test_irn_stages import CONFIG


def test_the_scan_holds_what_the_stage_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"walk_beta": 5.0, "walk_logt": 6, "walk_threshold": 0.4, "map_power": "auto"}
    config = config_from({**CONFIG, "irn": {**CONFIG["irn"], **numbers}}, "test")
    parser = argparse.ArgumentParser()
    irn_walk.add_arguments(parser)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(untrained_run(tmp_path, config))
    result = irn_walk.run(options)
    assert (result["images"], result["beta"]) == (8, 0.5)
    row = list(irn_walk.product(irn_walk.EXPONENTS, irn_walk.LOGTS)).index((5.0, 6))
    column = irn_walk.THRESHOLDS.index(0.4)
    inputs = irn_walk.stages_of(options, {})
    pipeline.make_pseudo_labels(inputs, range(8), tmp_path / "labels")
    scores = pipeline.score_pseudo_labels(inputs, tmp_path / "labels")
    assert result["grid"]["confirm"][row][column] == pytest.approx(scores["miou_confirm"], abs=0.01)
    assert result["miou_best_select"] == max(map(max, result["grid"]["select"]))
    assert "| walk_beta, steps | 0.1 |" in capsys.readouterr().out
