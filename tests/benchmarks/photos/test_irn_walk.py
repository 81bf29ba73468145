"""The scan of IRN's walk, on a CAM run that was never trained."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photos import irn_walk
from cpn.config import config_from
from cpn.data.map_files import save_maps
from cpn.stages import pipeline
from tests.benchmarks.photos.test_walk_rule import untrained_run
from tests.cpn.stages.test_irn_stages import CONFIG


def test_the_scan_holds_what_the_stage_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"walk_beta": 10.0, "walk_logt": 5, "walk_threshold": 0.4, "map_power": "auto"}
    config = config_from({**CONFIG, "irn": {**CONFIG["irn"], **numbers}}, "test")
    parser = argparse.ArgumentParser()
    irn_walk.add_arguments(parser)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(untrained_run(tmp_path, config))
    inputs = irn_walk.stages_of(options, {})
    for index, name in enumerate(inputs.split.ids):  # maps that walk: the masks, fading from left to right
        present, mask = np.flatnonzero(inputs.split.labels[index]) + 1, inputs.split.mask(index)
        maps = np.stack([np.where(mask == kind, 0.9, 0.3) * np.linspace(0.4, 1, 32) for kind in present])
        save_maps(inputs.folders["cam"] / f"{name}.npz", maps, present)
    result = irn_walk.run(options)
    assert (result["images"], result["beta"]) == (8, 0.5)
    row = list(irn_walk.product(irn_walk.EXPONENTS, irn_walk.LOGTS)).index((10.0, 5))
    column = irn_walk.THRESHOLDS.index(0.4)
    pipeline.make_pseudo_labels(inputs, range(8), tmp_path / "labels")
    scores = pipeline.score_pseudo_labels(inputs, tmp_path / "labels")
    assert result["grid"]["confirm"][row][column] == pytest.approx(scores["miou_confirm"], abs=0.01)
    assert len(set(result["grid"]["confirm"][row])) > 3, "the thresholds part the pixels"
    assert result["miou_best_select"] == max(map(max, result["grid"]["select"]))
    assert "| walk_beta, steps | 0.1 |" in capsys.readouterr().out
