from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from cpn.config.cam import CamConfig
from cpn.config.data import ScenesConfig
from cpn.config.network import NetworkConfig
from cpn.core.errors import InputError
from cpn.data.map_files import present_classes
from cpn.data.voc import Pack, Split, mask_of
from cpn.models.network import CPN, build_network
from cpn.run import score
from cpn.scoring import scale_scores
from cpn.scoring.cam import image_counts
from cpn.scoring.counts import load_counts, save_counts
from cpn.scoring.metrics import BETAS, iou, miou
from cpn.scoring.scale_scores import claim, counts_by_scale, curves, row_names, score_list, score_row, score_rows
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes

SMALL = {"backbone": "scene", "stage3_channels": 6, "stage4_channels": 7, "correlation_channels": 8}
CAM = CamConfig(scales=(0.5, 1.0))


@pytest.fixture(scope="module")
def network() -> CPN:
    torch.manual_seed(0)
    return build_network(NetworkConfig.model_validate(SMALL), 7).eval()


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("scale_scores") / "scenes"
    write_scenes(root, ScenesConfig(train=5, val=2, size=32))
    sorted((root / "SegmentationClass").glob("*.png"))[-1].unlink()
    return prepare(root, ["train", "val"], scored=[])


@pytest.fixture
def split(pack: Pack) -> Split:
    return next(s for s in map(pack.split, ("train", "val")) if all(s.mask(i) is not None for i in range(len(s))))


def silent(what: str, done: int, total: int) -> None:
    """No progress."""


def test_every_row_is_what_its_own_inference_counts(network: CPN, split: Split) -> None:
    present = present_classes(split.labels[0])
    counts = counts_by_scale(network, split.image(0), present, mask_of(split, 0), CAM, 7)
    assert row_names(CAM) == ["0.5", "1", "all"] and counts.shape == (3, len(BETAS), 3, 7)
    for row, scales in zip(counts, ((0.5,), (1.0,), (0.5, 1.0)), strict=True):
        alone = image_counts(network, split, 0, CAM.model_copy(update={"scales": scales}), 7)
        np.testing.assert_array_equal(row, alone)
    assert not np.array_equal(counts[0], counts[1]) and not np.array_equal(counts[1], counts[2])


def test_a_single_scale_has_no_row_of_all(network: CPN, split: Split) -> None:
    config = CamConfig(scales=(1.5,))
    assert row_names(config) == ["1.5"]
    present = present_classes(split.labels[0])
    assert len(counts_by_scale(network, split.image(0), present, mask_of(split, 0), config, 7)) == 1


def test_each_scale_is_shown_to_the_network_once(network: CPN, split: Split) -> None:
    calls: list[tuple[int, ...]] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape)))
    try:
        score_list(network, split.subset(split.ids[:2]), CAM, 7, silent)
    finally:
        handle.remove()
    assert calls == [(2, 3, 16, 16), (2, 3, 32, 32)] * 2


def test_an_image_without_classes_is_background(network: CPN, split: Split) -> None:
    truth = np.zeros((8, 9), np.uint8)
    counts = counts_by_scale(network, np.zeros((8, 9, 3), np.uint8), np.array([], np.int64), truth, CAM, 7)
    assert counts.shape == (3, len(BETAS), 3, 7)
    assert (counts[..., 0] == 72).all() and counts[..., 1:].max() == 0


def test_a_list_is_the_sum_of_its_images(network: CPN, split: Split) -> None:
    heard: list[tuple[str, int, int]] = []
    counts = score_list(network, split, CAM, 7, lambda *args: heard.append(args))
    assert counts.dtype == np.int64 and heard == [("scoring", i + 1, len(split)) for i in range(len(split))]
    np.testing.assert_array_equal(counts[2], score(network, split, CAM, 7))


@pytest.mark.parametrize("killed_at", [1, 3, 4, 5])
def test_a_killed_scoring_goes_on(
    network: CPN, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(scale_scores, "CHUNK", 2)
    whole = score_list(network, split, CAM, 7, silent)

    def kill(what: str, done: int, total: int) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_list(network, split, CAM, 7, kill, tmp_path)
    heard: list[tuple[str, int, int]] = []
    again = score_list(network, split, CAM, 7, lambda *args: heard.append(args), tmp_path)
    np.testing.assert_array_equal(again, whole)
    left = len(split) - (killed_at - 1) // 2 * 2
    assert heard == [("scoring" if left == len(split) else "scoring the rest", i + 1, left) for i in range(left)]
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["000000.npz", "000002.npz", "000004.npz"]
    heard.clear()
    third = score_list(network, split, CAM, 7, lambda *args: heard.append(args), tmp_path)
    np.testing.assert_array_equal(third, whole)
    assert heard == []


@pytest.mark.parametrize("damage", ["torn", "no archive", "other images", "a bit", "a header"])
def test_a_damaged_file_is_named(network: CPN, split: Split, tmp_path: Path, damage: str) -> None:
    score_list(network, split, CAM, 7, silent, tmp_path)
    part = tmp_path / "parts" / "000000.npz"
    if damage == "torn":
        part.write_bytes(part.read_bytes()[:-30])
    elif damage == "a bit":  # inside the packed counts, behind the names
        with ZipFile(part) as archive:
            start = archive.getinfo("counts.npy").header_offset
        data = bytearray(part.read_bytes())
        data[start + 60] ^= 0xFF
        part.write_bytes(data)
    elif damage == "a header":
        with ZipFile(part, "w") as archive:
            text = b"{'descr': '<i4', 'fortran_order': False, 'shape': (3,"
            archive.writestr("ids.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
    elif damage == "no archive":
        part.write_bytes(b"nothing")
    else:
        ids, counts = load_counts(part)
        save_counts(part, ids[::-1], counts)
    with pytest.raises(InputError) as refused:
        score_list(network, split, CAM, 7, silent, tmp_path)
    assert str(part) in str(refused.value) and "delete it" in str(refused.value) and "\n" not in str(refused.value)


def test_an_image_without_mask_is_named(pack: Pack) -> None:
    split, index = next((s, i) for s in map(pack.split, ("train", "val")) for i in range(len(s)) if s.mask(i) is None)
    with pytest.raises(InputError) as refused:
        mask_of(split, index)
    assert split.ids[index] in str(refused.value) and "--list" in str(refused.value)


SETTINGS: dict[str, Any] = {"checkpoint": "ab", "scales": [0.5, 1.0], "flip": True}


def test_a_folder_belongs_to_one_scoring(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "score"
    claim(folder, SETTINGS)
    (folder / "parts").mkdir()
    claim(folder, SETTINGS)
    with pytest.raises(InputError, match="another scales; give a folder of its own"):
        claim(folder, SETTINGS | {"scales": [1.0]})


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "counts.npz").write_bytes(b"of a run")
    with pytest.raises(InputError, match="holds other files"):
        claim(tmp_path / "run", SETTINGS)
    with pytest.raises(InputError, match="cannot be used"):
        claim(tmp_path / "run" / "counts.npz", SETTINGS)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="is damaged .*delete .*broken, and all is scored again"):
        claim(tmp_path / "broken", SETTINGS)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["counts.npz"]


def test_a_row_by_hand() -> None:
    # 100 pixels, 60 background, 30 fox, 10 cat. At beta 0.1: 50 of background right, 20 of fox, 5 of cat.
    counts = np.zeros((len(BETAS), 3, 3), np.int64)
    counts[:, 2] = [60, 30, 10]
    counts[:, 1] = [100, 0, 0]
    counts[:, 0] = [60, 0, 0]
    counts[5, :2] = [[50, 20, 5], [55, 35, 10]]
    counts[30, :2] = [[55, 10, 0], [80, 20, 0]]  # beta 0.6, the best of the released grid
    row = score_row("1", counts, ("fox", "cat"))
    background, fox, cat = 50 / 65, 20 / 45, 5 / 15
    assert row["scale"] == "1" and (row["beta"], row["t"]) == (0.1, 0.05)
    assert row["miou"] == pytest.approx(100 * (background + fox + cat) / 3)
    assert (row["beta_released_grid"], row["t_released_grid"]) == (0.6, 0.3)
    assert row["miou_released_grid"] == pytest.approx(100 * (55 / 85 + 10 / 40 + 0) / 3)
    assert row["iou_background"] == pytest.approx(100 * background)
    assert row["iou_foreground"] == pytest.approx(100 * (fox + cat) / 2)
    assert row["precision"] == pytest.approx(100 * 25 / 45) and row["recall"] == pytest.approx(100 * 25 / 40)
    assert row["iou"] == pytest.approx({"background": 100 * background, "fox": 100 * fox, "cat": 100 * cat})


def test_nothing_found_and_nothing_there_are_zero() -> None:
    counts = np.zeros((len(BETAS), 3, 2), np.int64)
    row = score_row("1", counts, ("fox",))
    assert row["precision"] == row["recall"] == row["miou"] == 0


def test_rows_and_curves_belong_together(network: CPN, pack: Pack, split: Split) -> None:
    counts = score_list(network, split, CAM, 7, silent)
    rows, lines = score_rows(counts, CAM, pack.classes), curves(counts, CAM)
    assert [row["scale"] for row in rows] == list(lines) == ["0.5", "1", "all"]
    for row, part in zip(rows, counts, strict=True):
        line = lines[row["scale"]]
        assert row["miou"] == pytest.approx(100 * line.max()) and line[BETAS.index(row["beta"])] == line.max()
        assert row["miou_released_grid"] == pytest.approx(100 * line[20:60].max())
        assert np.mean(list(row["iou"].values())) == pytest.approx(row["miou"])
        classes = len(pack.classes)
        assert (row["iou_background"] + classes * row["iou_foreground"]) / (classes + 1) == pytest.approx(row["miou"])
        np.testing.assert_array_equal(line, miou(part))
        assert list(row["iou"].values()) == pytest.approx(100 * iou(part[BETAS.index(row["beta"])]))
