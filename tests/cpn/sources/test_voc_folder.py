"""How many classes a data set may have, from the folder to a training step of every network that knows their number."""

from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpn.config import Config, config_from
from cpn.core.errors import InputError
from cpn.data.map_files import load_label, save_label
from cpn.data.superpixels import maps_for
from cpn.data.voc import IGNORE, Pack, encode_mask
from cpn.models.network import build_network
from cpn.scoring.cam import image_counts
from cpn.scoring.metrics import hard_counts, miou
from cpn.segmentation.deeplab import DeepLab, deeplab_job, predict
from cpn.sources import voc_folder
from cpn.sources.packing import prepare
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext
from cpn.training.training_job import fit

SILENT = TrainingContext(device=torch.device("cpu"), report=lambda _: None)
CONFIG = {
    "preset": "scenes",
    "data": {"train": "train", "crop": 32, "long_side": [28, 40], "workers": 0},
    "network": {
        "backbone": "scene",
        "weights": None,
        "stage3_channels": 4,
        "stage4_channels": 4,
        "correlation_channels": 4,
    },
    "train": {"epochs": 1, "batch_size": 2},
    "cam": {"scales": [1.0]},
    "deeplab": {"width": 4, "dilation": 2, "iterations": 1, "batch_size": 2, "scales": [1.0]},
}


def write(root: Path, count: int) -> None:
    """A data set of `count` classes, whose pictures hold the first and the last of them."""
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    names = [f"kind {at}" for at in range(1, count + 1)]
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    ids = [f"p{at}" for at in range(4)]
    for name in ("train", "val"):
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids) + "\n")
    for at, image_id in enumerate(ids):
        pixels = np.random.default_rng(at).integers(0, 256, (32, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/{image_id}.jpg")
        mask = np.zeros((32, 32), np.uint8)
        mask[4:12], mask[20:28], mask[12:14] = 1, min(count, 254), IGNORE
        (root / f"SegmentationClass/{image_id}.png").write_bytes(encode_mask(mask))
        objects = "".join(f"<object><name>{names[kind]}</name></object>" for kind in (0, -1))
        (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")


@pytest.fixture(scope="module", params=[1, 2, 254])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    root = tmp_path_factory.mktemp("classes") / "data"
    write(root, request.param)
    return prepare(root, ["train", "val"])


@pytest.fixture
def config() -> Config:
    return config_from(CONFIG, "test")


def test_labels_and_masks_keep_the_first_and_the_last_class(pack: Pack) -> None:
    count = len(pack.classes)
    split = pack.split("train")
    mask = split.mask(0)
    assert split.labels.shape == (4, count) and np.flatnonzero(split.labels[0]).tolist() == sorted({0, count - 1})
    assert mask is not None and set(np.unique(mask)) == {0, 1, count, IGNORE}


@pytest.mark.parametrize("objective", ["cpn", "seam", "classification"])
def test_the_cam_network_learns_and_is_scored(pack: Pack, config: Config, objective: str, tmp_path: Path) -> None:
    classes = len(pack.classes) + 1
    torch.manual_seed(0)
    network = build_network(config.network, classes)
    settings = config.train.model_copy(update={"objective": objective})
    before = network.fc8.weight.detach().clone()
    config, split = config.model_copy(update={"train": settings}), pack.split("train")
    maps = maps_for(config, split, tmp_path)
    (entry,) = train(network, split, config, SILENT, maps)
    assert np.isfinite(entry["loss_total"]) and not torch.equal(before, network.fc8.weight)
    counts = image_counts(network.eval(), pack.split("val"), 0, config.cam, classes)
    truth = pack.split("val").mask(0)
    assert truth is not None and counts.shape[1:] == (3, classes)
    assert counts[0, 2].tolist() == np.bincount(truth[truth != IGNORE], minlength=classes).tolist()


def test_the_segmentation_network_learns(pack: Pack, config: Config, tmp_path: Path) -> None:
    split, classes = pack.split("train"), len(pack.classes) + 1

    class Labelled:
        def __len__(self) -> int:
            return len(split)

        def image(self, index: int, /) -> np.ndarray:
            return split.image(index)

        def label(self, index: int, /) -> np.ndarray:
            mask = split.mask(index)
            assert mask is not None
            return mask

    torch.manual_seed(0)
    network = DeepLab(build_network(config.network, classes).backbone, classes, config.deeplab)
    (entry,) = fit(deeplab_job(network, Labelled(), config.deeplab, config.data, seed=0), SILENT)
    assert np.isfinite(entry["loss_total"])
    with torch.no_grad():
        network.cls_conv.bias[-1] = 50.0
    for label in predict(network.eval(), split.image(0), config.deeplab):
        assert (label == classes - 1).all() and label.dtype == np.uint8
    save_label(tmp_path / "label.png", label)
    assert (load_label(tmp_path / "label.png") == classes - 1).all()
    truth = split.mask(0)
    assert truth is not None and 0 <= float(miou(hard_counts(label, truth, classes))) <= 1


def test_255_classes_and_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "many", 255)
    with pytest.raises(InputError, match="classes.txt has 255 classes: a mask can tell at most 254 beside background"):
        prepare(tmp_path / "many", ["train", "val"])
    write(tmp_path / "none", 1)
    (tmp_path / "none/classes.txt").write_text("\n")
    with pytest.raises(InputError, match="classes.txt is empty: write one foreground class per line"):
        prepare(tmp_path / "none", ["train", "val"])


def test_254_is_a_class_only_where_there_are_as_many(tmp_path: Path) -> None:
    write(tmp_path / "data", 253)
    path = tmp_path / "data/SegmentationClass/p2.png"
    path.write_bytes(encode_mask(np.full((32, 32), 254, np.uint8)))
    with pytest.raises(InputError, match=r"p2.png holds 254 at row 0, column 0: .* 1 to 253 \(classes\) and 255"):
        prepare(tmp_path / "data", ["train", "val"])


def test_a_mask_is_counted_in_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that the height is no multiple of: each pixel counts once, and a wrong value is found where it stands."""
    monkeypatch.setattr(voc_folder, "BLOCK_ROWS", 7)
    write(tmp_path / "a", 2)
    assert prepare(tmp_path / "a", ("train",)).split("train").labels.sum() == 8
    mask = np.zeros((32, 32), np.uint8)
    mask[31, 5] = 9
    (tmp_path / "a/SegmentationClass/p3.png").write_bytes(encode_mask(mask))
    with pytest.raises(InputError, match="p3.png holds 9 at row 31, column 5"):
        prepare(tmp_path / "a", ("train",))


def test_large_pictures_are_decoded_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that are both within the check of a picture would meet at the barrier."""
    write(tmp_path, 2)
    monkeypatch.setattr(voc_folder, "LARGE", 32 * 32 - 1)
    meeting, check = Barrier(2), voc_folder._check_picture

    def checked(*given: Any) -> Any:
        with pytest.raises(BrokenBarrierError):
            meeting.wait(0.2)
        return check(*given)

    monkeypatch.setattr(voc_folder, "_check_picture", checked)
    prepare(tmp_path, ("train",))


@pytest.mark.parametrize("part", ["JPEGImages", "SegmentationClass"])
def test_an_animated_png_is_refused(part: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, 2)
    mode, file = ("RGB", root / "JPEGImages/p1.png") if part == "JPEGImages" else ("L", root / f"{part}/p1.png")
    if mode == "RGB":
        (root / "JPEGImages/p1.jpg").unlink()
    first, second = Image.new(mode, (32, 32)), Image.new(mode, (32, 32), 1)
    first.save(file, save_all=True, append_images=[second])
    with pytest.raises(InputError, match=f"{part}/p1.png is an animation of 2 images: save one of them as a PNG"):
        prepare(root, ["train"])


def test_previews_within_a_jpeg_are_no_animation(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root, 2)
    file = root / "JPEGImages/p1.jpg"
    Image.new("RGB", (32, 32)).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    assert len(prepare(root, ["train"]).split("train")) == 4
