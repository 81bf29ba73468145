"""A sweep by mask_free without Ray: what is told, pruned, confirmed and said. With Ray: test_smoke_without_masks.py."""

import io
import math
import shutil
from pathlib import Path
from platform.base.paths import storage
from platform.base.terminal import Terminal
from platform.base.yaml_files import dump_yaml
from platform.cluster.inputs import check_objective
from platform.cluster.tune_searcher import StudyPruner, StudySearcher
from platform.config.sections import Pruning
from platform.config.spec import load_spec
from platform.reports.summary import ladder, mask_free_words, summarise, write_summary
from platform.reports.terminal_tables import print_summary
from platform.search.confirm import CAM_BASELINE, Confirmed, Verdict, bootstrap, confirmed, judge
from platform.search.study import State, TrialRow
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import spearmanr

from cpn.config import Config, config_from
from cpn.config.cam import CamConfig
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.run_files import SCORES
from cpn.data.voc import Pack
from cpn.scoring.mask_free import MaskFreeScores, mask_free, save_scores
from cpn.scoring.selection import select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages.stage_manifest import StageManifest
from tests.platform.search.test_study import make_study


def test_the_objective_is_recorded_and_in_the_identity(tmp_path: Path) -> None:
    study = make_study(tmp_path, "objective=mask_free")
    search = StudySearcher(study, 3)
    scheduler = StudyPruner(study, search, Pruning(audit=0), 0, 8)
    for name in "abc":
        config = search.suggest(name)
        assert isinstance(config, dict)
        trial: Any = SimpleNamespace(config=config)
        value = math.nan if name == "c" else 60.0
        decision = scheduler.on_trial_result(None, trial, {"epoch": 2, "mask_free_epoch": value, "miou_epoch": 10.0})
        assert decision == ("STOP" if name == "c" else "CONTINUE")
    search.on_trial_complete("a", {"epoch": 8, "mask_free": 70.0, "miou": 40.0, "beta": 0.5, "cp_agreement": 80.0})
    search.on_trial_complete("b", {"epoch": 8, "miou": 40.0})
    first, second, third = study.rows()
    assert (first.state, first.miou, first.reports) == (State.COMPLETE, 70.0, {2: 60.0})
    assert first.attrs == {"miou": 40.0, "cp_agreement": 80.0} and first.beta == 0.5
    assert (second.state, second.reason) == (State.FAIL, "ended without reporting mask_free")
    assert third.reason == "mask_free_epoch is nan after epoch 2"
    with pytest.raises(InputError, match="metric was 'mask_free', is 'miou'"):
        make_study(tmp_path)


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack]:
    """Scenes with masks, and the same without."""
    whole = tmp_path_factory.mktemp("objective") / "scenes"
    write_scenes(whole, ScenesConfig(train=6, val=2, size=32))
    bare = whole.with_name("bare")
    shutil.copytree(whole, bare, ignore=shutil.ignore_patterns("SegmentationClass"))
    return prepare(whole, ["train", "val"]), prepare(bare, ["train", "val"])


@pytest.fixture(scope="module")
def config() -> Config:
    return config_from({"data": {"train": "train", "score": "train"}}, "test")


def test_what_is_missing_is_said_before_anything_starts(packs: tuple[Pack, Pack], config: Config) -> None:
    whole, bare = packs
    said: list[str] = []
    check_objective(config, whole, "miou", said.append)
    assert said == []
    with pytest.raises(InputError, match="list 'train' has no masks.*--set objective=mask_free"):
        check_objective(config, bare, "miou", said.append)
    check_objective(config, bare, "mask_free", said.append)
    assert ["trained on" in said[0], "pseudo labels are made" in said[1], "list val" in said[2]] == [True] * 3
    apart = config_from({"data": {"train": "train", "score": "val"}}, "test")
    said.clear()
    check_objective(apart, whole, "mask_free", said.append)
    assert said == []


def scores(images: int, agreement: float, seed: int) -> MaskFreeScores:
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, 3)) < 0.5).astype(np.float32)
    noisy = (labels + rng.normal(0, 0.8, labels.shape)).astype(np.float32)
    return MaskFreeScores(noisy, labels, np.clip(rng.normal(agreement, 0.02, images), 0, 1).astype(np.float32))


def test_confirmation_reads_the_confirm_images_alone(tmp_path: Path) -> None:
    ids = [f"image{n}" for n in range(30)]
    found = scores(30, 0.5, 0)
    save_scores(tmp_path / SCORES, ids, found)
    row = TrialRow(1, "s-0001", State.COMPLETE, {}, 0, "search", 50.0)
    run = TrialRow(0, "s.confirm-0000", State.COMPLETE, {}, 0, "confirm", 50.0, attrs={"of": "s-0001"})
    (made,) = confirmed([row], [run], {run.uid: tmp_path}, CamConfig(), "mask_free")
    _, held_back = select_and_confirm(ids, CamConfig())
    assert made.mious == [pytest.approx(float(mask_free(found.subset(held_back))))]
    assert len(made.counts[0]) == len(held_back)


def test_the_verdict_is_reached_as_with_masks() -> None:
    def configuration(uid: str, agreement: float, first: int) -> Confirmed:
        seeds = [scores(200, agreement, first + s) for s in range(4)]
        return Confirmed(uid, {}, [float(mask_free(each)) for each in seeds], list(seeds))

    reference, better = configuration("s-0000", 0.5, 0), configuration("s-0001", 0.8, 10)
    draws = bootstrap(reference, 0)
    assert draws.shape == (4, 1000) and draws.mean() == pytest.approx(reference.mean, abs=0.5) and draws.std() > 0
    verdict = judge(reference, [better], 0)
    assert verdict.better and verdict.winner == "s-0001" and verdict.low is not None and verdict.low > 10
    same = judge(reference, [configuration("s-0002", 0.5, 20)], 0)
    assert not same.better


def rows(objective: str) -> list[TrialRow]:
    made = []
    for number, (miou, agreement) in enumerate([(50, 70), (55, 75), (53, 80), (60, 82), (41, 60)]):
        both = {"miou": float(miou), "mask_free": (90 + agreement) / 2, "classification_map": 90.0 - number}
        value = both.pop(objective)
        attrs = {**both, "cp_agreement": float(agreement), "mask_free_confirm": 70.0}
        role = "reference" if number == 0 else "search"
        made.append(TrialRow(number, f"s-{number:04d}", State.COMPLETE, {}, 0, role, value, 0.72, attrs=attrs))
    return made


@pytest.mark.parametrize("objective", ["miou", "mask_free"])
def test_where_masks_exist_the_two_orders_are_compared(objective: str) -> None:
    said = mask_free_words(rows(objective), objective)
    expected = spearmanr([50, 55, 53, 60, 41], [70, 75, 80, 82, 60]).statistic
    assert said is not None and f"rank correlation {expected:.2f} [" in said and "over 5 trials" in said
    assert f"cp_agreement {expected:.2f}" in said
    assert "too few" in str(mask_free_words(rows(objective)[:2], objective))
    bare = [TrialRow(0, "s-0000", State.COMPLETE, {}, 0, "search", 70.0, attrs={"classification_map": 90.0})]
    assert mask_free_words(bare, "mask_free") is None and mask_free_words([], "miou") is None


def test_the_summary_names_its_value_and_what_was_not_scored(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    search = {"patches.p_h": {"float": [0.1, 0.5]}}
    dump_yaml(path, {"name": "s", "search": search, "budget": {"trials": 6}, "objective": "mask_free"})
    means = {"s-0000": [69.0], "s-0003": [71.0, 72.0], CAM_BASELINE: [60.0, 62.0]}
    manifests = {s: StageManifest(stage=s, key="k", metrics={}) for s in ("crf", "random_walk", "deeplab")}
    verdict, pack = Verdict("s-0003", "beats the reference", True, True), cast(Any, SimpleNamespace(fingerprint="f"))
    trials = rows("mask_free")
    made = summarise(load_spec(path), pack, trials, [], means, verdict, trials[3], manifests, 0.5)
    assert made.metrics["mask_free_confirm"] == 71.5 and made.metrics["mask_free_confirm_cam_baseline"] == 61.0
    assert made.unscored == ("random_walk", "deeplab") and not any(name == "miou" for name in made.metrics)
    assert [value for _, _, value in ladder(made)] == [61.0, 71.5] + ["no masks"] * 4
    text = io.StringIO()
    print_summary(Terminal(Console(file=text, force_terminal=False, width=200)), made, [])
    said = text.getvalue()
    assert "mask_free (train, select)" in said and "miou (train" not in said and "mIoU %" not in said
    assert "best CAM, mean over fresh seeds, mask_free" in said and "rank correlation" not in said
    assert "no masks, of the select images" in made.note
    assert "None" not in made.note
    assert write_summary(storage(str(tmp_path)).sweep("s"), made)
