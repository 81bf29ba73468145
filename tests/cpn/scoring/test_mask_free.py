"""The value without masks: average precision by hand, agreement by hand, and a run on a data set that has none."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cpn.config import Config, config_from
from cpn.config.cam import CamConfig
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.run_files import SCORES
from cpn.data.voc import Pack
from cpn.models.network import build_network
from cpn.run import load_run, run
from cpn.scoring.finished_run import finished_run
from cpn.scoring.mask_free import MaskFreeScores, average_precision, load_scores, mask_free, parts, save_scores
from cpn.scoring.mask_free_scoring import image_scores, score_without_masks
from cpn.scoring.selection import select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

BASE: dict[str, Any] = {
    "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
    "patches": {"kind": "grid", "K": [4, 8]},
    "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
    "train": {"batch_size": 4, "epochs": 2},
    "cam": {"scales": [1.0], "beta": 0.5},
}


def slow_average_precision(scores: list[float], labels: list[int]) -> float:
    """From the definition: over the present images, the precision at the threshold that just lets each in."""
    found = []
    for score, label in zip(scores, labels, strict=True):
        if label:
            above = [other for other, at in zip(labels, scores, strict=True) if at >= score]
            found.append(sum(above) / len(above))
    return sum(found) / len(found) if found else math.nan


def test_average_precision_by_hand() -> None:
    # Ranked: present, absent, present. Precision at the present ones is 1 and 2/3.
    found = average_precision(np.array([0.2, 0.9, 0.5]), np.array([1.0, 1.0, 0.0]))
    assert float(found) == pytest.approx((1 + 2 / 3) / 2)
    assert float(average_precision(np.array([3.0, 2, 1]), np.array([1.0, 1, 0]))) == 1
    assert float(average_precision(np.array([1.0, 1, 1, 1]), np.array([1.0, 0, 0, 0]))) == 0.25  # no order, no credit
    assert np.isnan(average_precision(np.array([1.0, 2]), np.array([0.0, 0])))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=25))
def test_average_precision_is_the_slow_loops_also_with_weights(rows: list[tuple[int, int, int]]) -> None:
    scores, labels, weights = (list(column) for column in zip(*rows, strict=True))
    plain = average_precision(np.array(scores, float), np.array(labels, float))
    assert float(plain) == pytest.approx(slow_average_precision(scores, labels), nan_ok=True)
    repeated = [np.repeat(column, weights).tolist() for column in (scores, labels)]
    twice = average_precision(np.array(scores, float), np.array(labels, float), np.array([weights, [1] * len(rows)]))
    assert float(twice[0]) == pytest.approx(slow_average_precision(*repeated), nan_ok=True)
    assert float(twice[1]) == pytest.approx(float(plain), nan_ok=True)


def example() -> MaskFreeScores:
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.5, 0.3, 0]], np.float32)
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], np.float32)
    return MaskFreeScores(scores, labels, np.array([0.5, 0.7, np.nan], np.float32))


def test_the_value_by_hand() -> None:
    precision, mean = parts(example())
    assert float(precision) == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)  # the third class occurs nowhere
    assert float(mean) == pytest.approx(0.6)
    assert float(mask_free(example())) == pytest.approx(50 * (float(precision) + 0.6))


def test_a_bootstrap_draw_is_the_value_of_the_drawn_images() -> None:
    found = example()
    draws = np.array([[1, 1, 1], [2, 0, 1], [0, 1, 2]])
    values = mask_free(found, draws)
    assert values.shape == (3,) and values[0] == pytest.approx(float(mask_free(found)))
    for draw, value in zip(draws, values, strict=True):
        drawn = found.subset(np.repeat(np.arange(3), draw).tolist())
        assert value == pytest.approx(float(mask_free(drawn)))


def test_scores_come_back(tmp_path: Path) -> None:
    save_scores(tmp_path / "s.npz", ["a", "b", "c"], example())
    ids, again = load_scores(tmp_path / "s.npz")
    assert ids == ["a", "b", "c"] and len(again) == 3
    np.testing.assert_array_equal(again.scores, example().scores)
    np.testing.assert_array_equal(again.agreement, example().agreement)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mask_free") / "scenes"
    write_scenes(folder, ScenesConfig(train=12, val=4, size=32))
    return folder


@pytest.fixture(scope="module")
def pack(root: Path) -> Pack:
    """The same scenes without any mask."""
    bare = root.with_name("bare")
    shutil.copytree(root, bare, ignore=shutil.ignore_patterns("SegmentationClass", "packed*", ".packed*"))
    return prepare(bare, ["train", "val"])


@pytest.fixture(scope="module")
def config() -> Config:
    return config_from(BASE, "test")


def test_a_network_is_scored_on_its_own_maps(pack: Pack, config: Config) -> None:
    torch.manual_seed(0)
    network = build_network(config.network, len(pack.classes) + 1).eval()
    split = pack.split("train")
    found = score_without_masks(network, split, config.cam)
    assert found.scores.shape == found.labels.shape == (12, 6) and found.agreement.shape == (12,)
    assert ((found.agreement >= 0) & (found.agreement <= 1)).all() and 0 <= float(mask_free(found)) <= 100
    again, _ = image_scores(network, split, 3, config.cam)
    np.testing.assert_array_equal(again, found.scores[3])
    plain = score_without_masks(network, split, CamConfig(map="plain"))
    np.testing.assert_array_equal(plain.scores, found.scores)
    assert (plain.agreement != found.agreement).any()
    state = torch.get_rng_state()
    score_without_masks(network, split, config.cam)
    assert torch.equal(torch.get_rng_state(), state)  # training after it goes on as if it had not been


def test_a_run_without_masks_has_everything_but_miou(pack: Pack, config: Config, tmp_path: Path) -> None:
    heard: list[dict[str, float]] = []
    device = torch.device("cpu")
    result = run(config, pack, tmp_path / "run", cache=tmp_path, device=device, report=heard.append)
    assert set(result.metrics) == {"mask_free", "mask_free_confirm", "classification_map", "cp_agreement", "beta"}
    assert result.metrics["beta"] == 0.5 and (result.curve, result.iou) == (None, ())
    assert all("miou_epoch" not in entry and 0 <= entry["mask_free_epoch"] <= 100 for entry in heard)
    assert result == finished_run(tmp_path / "run") and SCORES in result.digests
    assert {p.name for p in (tmp_path / "run" / "pictures").iterdir()} == {"cam_panel.png", "loss_terms.png"}
    ids, kept = load_scores(tmp_path / "run" / SCORES)
    select, confirm = select_and_confirm(ids, config.cam)
    assert result.metrics["mask_free"] == pytest.approx(float(mask_free(kept.subset(select))))
    assert result.metrics["mask_free_confirm"] == pytest.approx(float(mask_free(kept.subset(confirm))))
    network, _, _ = load_run(tmp_path / "run" / "model.safetensors")
    np.testing.assert_array_equal(
        score_without_masks(network, pack.split("train"), config.cam).agreement, kept.agreement
    )


def test_miou_cannot_be_asked_of_a_list_without_masks(pack: Pack, config: Config, tmp_path: Path) -> None:
    device = torch.device("cpu")
    with pytest.raises(InputError, match="data.score: list 'train' has no masks, miou cannot be measured") as refused:
        run(config, pack, tmp_path / "run", cache=tmp_path, device=device, report=print, objective="miou")
    assert "--set objective=mask_free" in str(refused.value) and not (tmp_path / "run").exists()


def test_some_masks_are_worse_than_none(root: Path, tmp_path: Path) -> None:
    assert prepare(root, ["train"]).split("train").masked
    some = tmp_path / "some"
    shutil.copytree(root, some, ignore=shutil.ignore_patterns("packed*", ".packed*"))
    (some / "SegmentationClass" / f"{prepare(root, ['train']).split('train').ids[0]}.png").unlink()
    with pytest.raises(InputError, match="this list is scored and needs masks"):
        prepare(some, ["train"])
    with pytest.raises(InputError, match="has masks for 11 of 12 images"):
        prepare(some, ["train"], scored=[]).split("train").masked  # noqa: B018
