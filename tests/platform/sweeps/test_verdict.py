"""What the confirm runs of the small sweep come to."""

from pathlib import Path
from platform.config.identity import StudyIdentity
from platform.search import confirm, study
from platform.search.confirm import CAM_BASELINE
from platform.sweeps.verdict import reach_verdict

import pytest

from cpn.config import with_values
from tests.platform.small_sweep import QUALITY, SmallSweep, recorded


def test_the_best_mean_wins_and_every_seed_is_kept(small_once: SmallSweep, tmp_path: Path) -> None:
    chosen = confirm.candidates(small_once.rows, 2)
    assert [row.uid for row in chosen] == ["small-0000", "small-0001", "small-0002"]
    again = study.read_study("small.confirm", f"sqlite:///{small_once.store.study}")
    with small_once.context(tmp_path / "records") as sweep:
        verdict, means, bounds = reach_verdict(sweep, chosen, again)
        said = {event["uid"] for event in recorded(tmp_path / "records", "metrics", "tags")}
        metrics = {event["uid"]: event["values"] for event in recorded(tmp_path / "records", "metrics")}
    assert verdict.winner == "small-0001" and verdict.tested
    assert means[CAM_BASELINE] == [50.0] * 3 and "mIoU" not in verdict.sentence
    assert [len(means[row.uid]) for row in chosen] == [3, 3, 3]
    for row in chosen:  # of 100 pixels a share q is right and the rest is wrong: intersection q, union 2 - q
        right = QUALITY[row.uid]
        assert sum(means[row.uid]) / 3 == pytest.approx(100 * right / (2 - right), abs=1)
    low, high = bounds["small-0002"].difference
    assert low < high < 0 and set(bounds) == set(means)
    low, high = bounds[CAM_BASELINE].mean
    assert low < 100 * 0.5 / 1.5 < high
    assert said == {row.uid for row in chosen}
    ends = [metrics["small-0001"][f"miou_confirm_{name}"] for name in ("low", "mean", "high")]
    assert ends == sorted(ends) and tuple(ends[::2]) == bounds["small-0001"].mean
    assert verdict.baseline.startswith("CPN against cam_baseline: +10.")


def test_the_verdict_names_extra_supervision(small_once: SmallSweep, tmp_path: Path) -> None:
    chosen = confirm.candidates(small_once.rows, 2)
    again = study.read_study("small.confirm", f"sqlite:///{small_once.store.study}")
    with small_once.context(tmp_path / "records") as sweep:
        sweep.config = with_values(sweep.config, {"instance_masks.folder": "/masks/sam"}, "test")
        verdict, _, _ = reach_verdict(sweep, chosen, again)
    assert "; with extra supervision: the instance masks of /masks/sam refine" in verdict.sentence


def test_without_confirm_runs_the_best_trial_is_taken(small_once: SmallSweep, tmp_path: Path) -> None:
    chosen = confirm.candidates(small_once.rows, 2)
    again = study.open_list("none", f"sqlite:///{tmp_path}/study.db", StudyIdentity())
    with small_once.context(tmp_path / "records") as sweep:
        verdict, means, bounds = reach_verdict(sweep, chosen, again)
    assert (verdict.winner, verdict.sentence) == ("small-0001", "not tested: nothing was confirmed")
    assert not verdict.better and not verdict.tested and (means, bounds) == ({CAM_BASELINE: []}, {})
