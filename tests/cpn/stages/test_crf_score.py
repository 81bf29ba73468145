from pathlib import Path

import numpy as np
import pytest

from cpn.config.crf import CrfConfig
from cpn.core.progress import Progress
from cpn.data.map_files import present_classes
from cpn.propagation.crf import dense_crf, with_background
from cpn.propagation.walk_rule import alpha_of
from cpn.run import load_run
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.metrics import hard_counts
from cpn.stages.crf_score import crf_row, score_crf
from tests.cpn.stages.made_stages import Made


def silent(what: str, done: int, total: int) -> None: ...


def scored(
    made: Made, beta: float, folder: Path | None = None, crf: CrfConfig | None = None, report: Progress = silent
):
    network, config, _ = load_run(made.inputs.model)
    split = made.inputs.pack.split("val")
    return score_crf(network, split, config.cam, crf or config.crf, beta, 7, report, folder)


def test_counts_are_those_of_the_crf_at_the_alpha_of_beta(made: Made) -> None:
    network, config, _ = load_run(made.inputs.model)
    split, expected = made.inputs.pack.split("val"), np.zeros((3, 7), np.int64)
    for index in range(len(split)):
        image, present = split.image(index), present_classes(split.labels[index])
        maps = multi_scale_maps(network, image, present, config.cam)
        scores = dense_crf(image, with_background(maps, alpha_of(0.4)), config.crf)
        expected += hard_counts(np.array([0, *present])[scores.argmax(0)], split.mask(index), 7)  # type: ignore[arg-type]
    counts = scored(made, 0.4)
    assert counts.dtype == np.int64 and np.array_equal(counts, expected)
    assert not np.array_equal(scored(made, 0.9), expected)


def test_what_was_counted_is_kept_for_this_beta_and_this_crf(made: Made, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []

    def kill(what: str, done: int, total: int) -> None:
        assert what == "CRF"
        reports.append((done, total))

    counts = scored(made, 0.4, tmp_path, report=kill)
    assert reports[-1] == (2, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert before and np.array_equal(scored(made, 0.4, tmp_path), counts)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    scored(made, 0.9, tmp_path)
    scored(made, 0.4, tmp_path, CrfConfig(iterations=1))
    assert len(list(tmp_path.glob("crf-*"))) == 3


def test_a_row_says_beta_in_three_ways_and_its_miou_in_percent() -> None:
    counts = np.array([[6, 2], [8, 4], [6, 6]])  # true positives, pixels of the masks, pixels of the truth
    row = crf_row("all", counts, 0.5, ("cat",))
    assert (row["scale"], row["beta"], row["alpha"]) == ("all, CRF", 0.5, pytest.approx(1.0))
    assert row["miou"] == pytest.approx(100 * (6 / 8 + 2 / 8) / 2)
