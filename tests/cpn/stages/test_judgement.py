"""The referee's numbers: those of `cpn.score` on our own maps, and of any method's files what they hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpn.config import config_from
from cpn.config.cam import CamConfig
from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.progress import silent
from cpn.data.map_files import load_maps, present_classes, save_maps
from cpn.data.voc import Pack, Split, encode_mask, mask_of
from cpn.models.network import build_network
from cpn.scoring.cam import multi_scale_maps
from cpn.scoring.metrics import BETAS, best_beta, curve_counts, hard_counts, miou
from cpn.scoring.prediction_files import find_predictions
from cpn.scoring.scale_scores import score_list
from cpn.scoring.selection import select_and_confirm
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes
from cpn.stages import judgement
from cpn.stages.crf_score import score_crf
from cpn.stages.judgement import LABELS, MAPS, WITH_BACKGROUND, Judged, judge, panel, summary, with_crf

CONFIG = config_from(
    {
        "network": {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8},
        "cam": {"scales": [1.0, 0.5]},
    },
    "test",
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("judge") / "scenes"
    write_scenes(root, ScenesConfig(train=9, val=2, size=32))
    return prepare(root, ["train"])


@pytest.fixture(scope="module")
def split(pack: Pack) -> Split:
    return pack.split("train")


@pytest.fixture(scope="module")
def network(pack: Pack) -> Any:
    torch.manual_seed(1)
    return build_network(CONFIG.network, len(pack.classes) + 1).eval()


@pytest.fixture(scope="module")
def own(split: Split, network: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """The classes and maps of each image."""
    present = [present_classes(labels) for labels in split.labels]
    return [(p, multi_scale_maps(network, split.image(i), p, CONFIG.cam)) for i, p in enumerate(present)]


def written(folder: Path, split: Split, own: Sequence[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Maps as another method would write them."""
    folder.mkdir(exist_ok=True)
    for name, (present, maps) in zip(split.ids, own, strict=True):
        np.savez(folder / f"{name}.npz", classes=present, maps=maps)
    return folder


def judged(folder: Path, split: Split, halved: bool = False) -> Judged:
    return judge(find_predictions(folder, split.ids), split, split.labels.shape[1] + 1, silent, halved)


@pytest.fixture(scope="module")
def exported(split: Split, own: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("maps"), split, own)


def test_the_counts_of_our_own_maps_are_those_of_score(exported: Path, split: Split, network: Any) -> None:
    found = judged(exported, split)
    wanted = score_list(network, split, CONFIG.cam, 7, silent)[-1]
    assert found.kind == MAPS and found.curve is not None and found.betas is not None
    np.testing.assert_array_equal(found.curve.sum(axis=0), wanted)
    assert found.betas[0] == best_beta(wanted)[0]
    for which, beta in enumerate(found.betas):
        np.testing.assert_array_equal(found.counts[which].sum(axis=0), wanted[BETAS.index(beta)])


def test_saved_maps_count_as_the_stages_read_them(tmp_path: Path, split: Split, own: Any) -> None:
    total = np.zeros((len(BETAS), 3, 7), np.int64)
    for index, (name, (present, maps)) in enumerate(zip(split.ids, own, strict=True)):
        save_maps(tmp_path / f"{name}.npz", maps, present)
        total += curve_counts(*load_maps(tmp_path / f"{name}.npz"), mask_of(split, index), 7)
    found = judged(tmp_path, split)
    assert found.curve is not None
    np.testing.assert_array_equal(found.curve.sum(axis=0), total)


@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_masks_agree_with_the_curve_in_every_precision(precision: str, tmp_path: Path, split: Split, own: Any) -> None:
    stepped = [(present, np.round(50 * maps).astype(precision) / 50) for present, maps in own]  # many ties with beta
    found = judged(written(tmp_path, split, stepped), split)
    assert found.curve is not None and found.betas is not None
    for which, beta in enumerate(found.betas):
        curve = found.curve.sum(axis=0)[BETAS.index(beta)]
        np.testing.assert_array_equal(found.counts[which].sum(axis=0), curve)


def test_halved_maps_count_like_the_whole(exported: Path, tmp_path: Path, split: Split, own: Any) -> None:
    halved = written(tmp_path, split, [(present, maps / 2) for present, maps in own])
    whole, found = judged(exported, split), judged(halved, split, halved=True)
    assert whole.curve is not None and found.curve is not None
    np.testing.assert_array_equal(found.curve, whole.curve)
    names = [str(label) for label in range(7)]
    assert summary(judged(halved, split), split, names).all_below_half
    assert not summary(whole, split, names).all_below_half


def test_own_background_and_labels_give_the_mask_of_beta(
    exported: Path, tmp_path: Path, split: Split, own: Any
) -> None:
    beta = (judged(exported, split).betas or (0, 0))[0]
    both: list[Judged] = []
    labels = tmp_path / "labels"
    labels.mkdir()
    with_background = [
        (np.append(present, 0), np.append(maps, np.full((1, 32, 32), beta, np.float32), axis=0))
        for present, maps in own
    ]
    for name, (present, maps) in zip(split.ids, with_background, strict=True):
        label = np.append(0, present[:-1])[np.concatenate([maps[-1:], maps[:-1]]).argmax(axis=0)]
        (labels / f"{name}.png").write_bytes(encode_mask(label.astype(np.uint8)))
    both = [judged(written(tmp_path / "maps", split, with_background), split), judged(labels, split)]
    assert [one.kind for one in both] == [WITH_BACKGROUND, LABELS]
    with pytest.raises(InputError, match="--crf: .* holds score maps with background, and the CRF runs on"):
        with_crf(both[0], split, CONFIG.crf, silent)
    for one in both:
        assert one.betas is None and one.curve is None
        np.testing.assert_array_equal(one.counts, judged(exported, split).counts[[0, 0]])
        said = summary(one, split, [str(label) for label in range(7)]).to_json()
        assert "curve" not in said and all("beta" not in row for row in said["sets"])


def test_files_with_and_without_background_are_refused(tmp_path: Path, split: Split, own: Any) -> None:
    mixed = [own[0], (np.array([0]), own[1][1][:1]), *own[2:]]
    with pytest.raises(InputError, match=rf"{split.ids[1]}.npz: has a map of the background, unlike the first"):
        judged(written(tmp_path, split, mixed), split)
    with pytest.raises(InputError, match=rf"{split.ids[1]}.npz: has no map of the background"):
        judged(written(tmp_path, split, [mixed[1], own[1], *own[2:]]), split)


def test_hold_out_images_are_scored_with_the_others_beta(tmp_path: Path, split: Split) -> None:
    """Scores of .9 on the objects, and beside them .5 on the selection images and .7 on the hold-out ones."""
    select, confirm = select_and_confirm(split.ids, CamConfig())
    made = []
    for index in range(len(split)):
        present = present_classes(split.labels[index])
        objects = mask_of(split, index)[None] == present[:, None, None]
        made.append((present, np.where(objects, 0.9, 0.7 if index in confirm else 0.5)))
    found = judged(written(tmp_path, split, made), split)
    assert found.betas == (0.7, 0.5)
    said = summary(found, split, [str(label) for label in range(7)]).to_json()
    everything, held_out = said["sets"]
    assert (everything["images"], held_out["images"]) == (9, len(confirm)) and select and confirm
    assert found.curve is not None
    assert held_out["beta"] == best_beta(found.curve[0])[0] and held_out["t"] == held_out["beta"] / 2
    chosen = found.curve[1][BETAS.index(held_out["beta"])]
    assert held_out["miou"] == pytest.approx(100 * float(miou(chosen))) and held_out["miou"] < 30
    assert held_out["interval"][0] < held_out["miou"] < held_out["interval"][1]
    assert max(said["curve"]["all"]) == pytest.approx(everything["miou"])
    assert said["classes"]["1"].keys() == {"iou", "false_positive", "false_negative"}


def test_a_method_against_itself_and_against_the_truth(exported: Path, tmp_path: Path, split: Split) -> None:
    for index, name in enumerate(split.ids):
        truth = mask_of(split, index)
        (tmp_path / f"{name}.png").write_bytes(encode_mask(np.where(truth == 255, 0, truth)))
    found, truth = judged(exported, split), judged(tmp_path, split)
    names = [str(label) for label in range(7)]
    for row in summary(found, split, names, found).to_json()["sets"]:
        assert row["difference"] == 0 and row["difference_interval"] == [0, 0]
    said = summary(truth, split, names, found).to_json()
    assert said["against"]["kind"] == MAPS and said["sets"][0]["miou"] == pytest.approx(100)
    assert said["sets"][0]["difference"] == pytest.approx(100 - said["sets"][0]["other"])
    assert said["boundary"]["near"] == 0 and sum(said["errors"].values()) == 0
    low, high = said["sets"][0]["difference_interval"]
    assert low < said["sets"][0]["difference"] < high
    assert len(panel(truth, split, names, found)) > 10_000


def test_the_difference_is_paired(split: Split, exported: Path) -> None:
    """Two methods that differ by the same in every image: each moves with the images drawn, their difference hardly."""
    found = judged(exported, split)
    worse = found.counts.copy()
    worse[..., 0, :] -= worse[..., 0, :] // 10  # every class of every image hits a tenth less
    other = Judged(found.files, False, MAPS, found.betas, found.curve, worse, found.boundary)
    row = summary(found, split, [str(label) for label in range(7)], other).to_json()["sets"][0]
    (low, high), (first, last) = row["interval"], row["difference_interval"]
    assert last - first < (high - low) / 4


def test_labels_are_counted_as_they_are(tmp_path: Path, split: Split) -> None:
    rng = np.random.default_rng(0)
    total = np.zeros((3, 7), np.int64)
    for index, name in enumerate(split.ids):
        label = rng.integers(7, size=(32, 32)).astype(np.uint8)
        (tmp_path / f"{name}.png").write_bytes(encode_mask(label))
        total += hard_counts(label, mask_of(split, index), 7)
    np.testing.assert_array_equal(judged(tmp_path, split).counts[0].sum(axis=0), total)


def test_memory_that_does_not_suffice_names_the_image(
    exported: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(judgement, "curve_counts", full)
    with pytest.raises(Exception, match=rf"{split.ids[0]}: out of memory at 32x32 pixels"):
        judged(exported, split)


def test_the_crf_counts_are_those_of_score(exported: Path, split: Split, network: Any) -> None:
    found = with_crf(replace(judged(exported, split), betas=(0.4, 0.8)), split, CONFIG.crf, silent)
    assert found.crf is not None and found.betas is not None
    for which, beta in enumerate(found.betas):
        wanted = score_crf(network, split, CONFIG.cam, CONFIG.crf, beta, 7, silent)
        np.testing.assert_array_equal(found.crf[which].sum(axis=0), wanted)
    said = summary(found, split, [str(label) for label in range(7)], judged(exported, split)).to_json()
    assert [(row["set"], row["crf"]) for row in said["sets"]] == [
        ("all", False), ("hold-out", False), ("all", True), ("hold-out", True),
    ]  # fmt: skip
    behind = said["sets"][2]
    assert behind["miou"] == pytest.approx(100 * float(miou(found.crf[0].sum(axis=0))))
    assert behind["other"] == pytest.approx(said["sets"][0]["miou"]), "the other has no CRF, and is compared as it is"


def test_the_crf_takes_scores_beyond_0_and_1(tmp_path: Path, split: Split, own: Any) -> None:
    """Scores that some methods give: -0.1 counts as 0, and 1.1 as 1."""
    wide = [(present, 1.2 * maps - np.float32(0.1)) for present, maps in own]
    cut = [(present, np.clip(maps, 0, 1)) for present, maps in wide]
    (tmp_path / "cut").mkdir()
    found = [judged(written(tmp_path, split, wide), split), judged(written(tmp_path / "cut", split, cut), split)]
    betas = (0.4, 0.8)
    behind = [with_crf(replace(one, betas=betas), split, CONFIG.crf, silent).crf for one in found]
    assert behind[0] is not None and behind[1] is not None
    np.testing.assert_array_equal(behind[0], behind[1])
