import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cpn import coco
from cpn.coco import convert, main
from cpn.config import config_from
from cpn.core.errors import InputError, WorkError
from cpn.data.superpixels import maps_for
from cpn.data.voc import IGNORE
from cpn.models.network import build_network
from cpn.sources.packing import prepare
from cpn.sources.voc_lists import listed_ids
from cpn.training.cam_training import train
from cpn.training.loop import TrainingContext

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 10, "name": "traffic  light"}]
WIDTH, HEIGHT = 40, 30


def square(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number: int, image: int, category: int, segmentation: object, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
    }


def runs(rows: slice, columns: slice) -> list[int]:
    """Run lengths of a rectangle, column by column."""
    mask = np.zeros((HEIGHT, WIDTH), int)
    mask[rows, columns] = 1
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths: list[int] = np.diff([0, *ends.tolist(), len(flat)]).tolist()
    return lengths if flat[0] == 0 else [0, *lengths]


TRAIN = [
    annotation(1, 9, 1, [square(2, 3, 12, 13)]),
    annotation(2, 9, 90, [square(4, 5, 8, 9)]),
    annotation(3, 25, 10, {"counts": runs(slice(5, 20), slice(10, 30)), "size": [HEIGHT, WIDTH]}),
    annotation(4, 25, 1, {"counts": runs(slice(0, 4), slice(0, 40)), "size": [HEIGHT, WIDTH]}, crowd=1),
    annotation(5, 30, 1, {"counts": runs(slice(3, 25), slice(3, 35)), "size": [HEIGHT, WIDTH]}, crowd=1),
    annotation(6, 34, 90, [square(1, 1, 20, 20), square(22, 22, 30, 28)]),
]
VAL = [annotation(7, 42, 10, [square(10, 10, 20, 20)]), annotation(8, 73, 1, [[0, 0, 0.2, 0, 0.2, 0.2]])]
IMAGES = {"train2014": [9, 25, 30, 34, 36], "val2014": [42, 73, 74]}


def file_name(name: str, image: int) -> str:
    return f"COCO_{name}_{image:012d}.jpg"


def write_set(root: Path, name: str, annotations: list[dict[str, Any]], **changes: Any) -> None:
    listed = [
        {"id": image, "file_name": file_name(name, image), "width": WIDTH, "height": HEIGHT} for image in IMAGES[name]
    ]
    content = {"info": {}, "images": listed, "annotations": annotations, "categories": CATEGORIES, **changes}
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / f"annotations/instances_{name}.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    for name, annotations in (("train2014", TRAIN), ("val2014", VAL)):
        write_set(root, name, annotations)
        (root / name).mkdir()
        for image in IMAGES[name]:
            pixels = np.random.default_rng(image).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / file_name(name, image))
    return root


def mask_of(out: Path, name: str, image: int) -> np.ndarray:
    with Image.open(out / "SegmentationClass" / file_name(name, image).replace("jpg", "png")) as picture:
        assert picture.mode == "P"
        return np.array(picture)


def refuse(root: Path, out: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        convert(root, out, **options)
    assert "\n" not in str(caught.value)


def test_masks_classes_and_lists(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "voc"
    read = convert(root, out)
    assert [(found.images, len(found.jobs)) for found in read] == [(5, 4), (3, 2)]
    assert (out / "classes.txt").read_text() == "person\ntraffic light\ntoothbrush\n"
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:13, 2:12], expected[5:9, 4:8] = 1, 3
    assert (mask_of(out, "train2014", 9) == expected).all()
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:20, 10:30], expected[:4] = 2, IGNORE
    assert (mask_of(out, "train2014", 25) == expected).all()
    assert (mask_of(out, "train2014", 34) == 3).sum() == 19 * 19 + 8 * 6
    assert not mask_of(out, "val2014", 73).any()
    ids = [f"COCO_train2014_{image:012d}" for image in (9, 25, 30, 34)]
    assert list(listed_ids(out, "train")) == list(listed_ids(out, "trainaug")) == ids
    assert list(listed_ids(out, "val")) == [f"COCO_val2014_{image:012d}" for image in (42, 73)]


def test_the_folder_is_packed_and_trained_on(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "voc"
    convert(root, out)
    pack = prepare(out)
    assert pack.classes == ("person", "traffic light", "toothbrush")
    # A crowd's class is a label, and so is that of an object without a pixel.
    assert pack.split("trainaug").labels.tolist() == [[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert pack.split("val").labels.tolist() == [[0, 1, 0], [1, 0, 0]]
    mask = pack.split("train").mask(2)
    assert mask is not None and set(np.unique(mask)) == {0, IGNORE}
    config = config_from(
        {
            "preset": "scenes",
            "data": {"train": "trainaug", "crop": 32, "long_side": [28, 40], "workers": 0},
            "network": {"backbone": "scene", "weights": None},
            "train": {"epochs": 1, "batch_size": 4},
        },
        "test",
    )
    torch.manual_seed(0)
    network = build_network(config.network, 4)
    split = pack.split("trainaug")
    maps = maps_for(config, split, tmp_path)
    (entry,) = train(
        network, split, config, TrainingContext(device=torch.device("cpu"), report=lambda entry: None), maps
    )
    assert np.isfinite(entry["loss_total"])


@pytest.mark.parametrize("images", ["link", "symlink", "copy"])
def test_pictures_are_linked_or_copied(root: Path, tmp_path: Path, images: coco.Images) -> None:
    convert(root, tmp_path / "voc", images=images)
    source = root / "train2014" / file_name("train2014", 9)
    target = tmp_path / "voc/JPEGImages" / source.name
    assert target.read_bytes() == source.read_bytes()
    assert target.is_symlink() == (images == "symlink")
    assert (target.stat().st_ino == source.stat().st_ino) == (images != "copy")
    assert len(list((tmp_path / "voc/JPEGImages").iterdir())) == 6


def test_images_may_lie_in_a_folder_of_the_lists_name(root: Path, tmp_path: Path) -> None:
    (root / "images").mkdir()
    shutil.move(root / "val2014", root / "images/val2014")
    convert(root, tmp_path / "voc", sets=["val2014"])
    assert [path.stem for path in (tmp_path / "voc/ImageSets/Segmentation").iterdir()] == ["val"]


def test_it_goes_on_where_it_was_stopped(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(root, tmp_path / "whole")
    out, calls = tmp_path / "voc", 0
    original = coco.image_mask

    def stop(*arguments: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(coco, "image_mask", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(root, out)
    assert len(list((out / "SegmentationClass").iterdir())) == 2 and not (out / "classes.txt").exists()
    reports: list[tuple[str, int, int]] = []
    convert(root, out, report=lambda *a: reports.append(a))
    assert calls == 3 + 4 and reports[-1] == ("writing val2014", 2, 2) and reports[3] == ("writing train2014", 4, 4)

    def files(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    assert files(out) == files(tmp_path / "whole")


def test_processes_write_the_same_and_their_errors_arrive(root: Path, tmp_path: Path) -> None:
    convert(root, tmp_path / "one")
    convert(root, tmp_path / "two", processes=2)
    for path in (tmp_path / "one/SegmentationClass").iterdir():
        assert path.read_bytes() == (tmp_path / "two/SegmentationClass" / path.name).read_bytes()
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "val2014" / file_name("val2014", 73))
    refuse(root, tmp_path / "three", "73.jpg is 40x31 pixels, its annotations are for 40x30: get it again", processes=1)


def test_files_that_are_missing(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "voc"
    (root / "train2014" / file_name("train2014", 9)).unlink()
    refuse(root, out, r"000000000009.jpg is missing: get it from https://cocodataset.org")
    (root / "train2014" / file_name("train2014", 25)).unlink()
    refuse(root, out, r"jpg is missing \(2 images of this set are missing\)")
    shutil.rmtree(root / "train2014")
    refuse(root, out, "coco/train2014: no such folder, nor .*coco/images/train2014")
    (root / "annotations/instances_val2014.json").unlink()
    refuse(root, out, "instances_val2014.json is missing: get it from")
    assert not out.exists()


def test_sets(root: Path, tmp_path: Path) -> None:
    refuse(root, tmp_path / "o", "--sets test2014: a set begins with train or val", sets=["test2014"])
    refuse(root, tmp_path / "o", "--sets ../train: a set begins with", sets=["../train"])
    refuse(root, tmp_path / "o", "give one train set and one val set at most", sets=["train2014", "train2017"])


def change_categories(root: Path) -> None:
    write_set(root, "val2014", VAL, categories=[{"id": 1, "name": "person"}, {"id": 10, "name": "lamp"}])


def cut_off(root: Path) -> None:
    path = root / "annotations/instances_train2014.json"
    path.write_text(path.read_text()[:-40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut_off, "instances_train2014.json cannot be read as JSON .*: get it again"),
        (change_categories, "instances_val2014.json has other categories than .*instances_train2014.json"),
        (lambda r: write_set(r, "train2014", [annotation(1, 9, 2, [])]), "annotation 1 is of unknown category 2"),
        (lambda r: write_set(r, "train2014", [annotation(1, 99, 1, [])]), "annotation 1 is of image 99, which is not"),
        (
            lambda r: write_set(r, "train2014", [annotation(1, 9, 1, [[1, 2, 3, 4, 5]])]),
            "instances_train2014.json: annotation 1 of image 9: a polygon of 5 numbers is cut off",
        ),
        (lambda r: write_set(r, "train2014", []), "instances_train2014.json has no annotations"),
        (lambda r: write_set(r, "train2014", TRAIN, images=[{"id": 9}]), "image 9 has no file_name: write it"),
        (lambda r: write_set(r, "train2014", TRAIN, images=5), "is no file of instances: it has no list `images`"),
        (
            lambda r: write_set(r, "train2014", [{"caption": "a dog", "id": 3}]),
            "annotation 1 of the list has no image_id, category_id and segmentation: it is no file of instances",
        ),
        (lambda r: write_set(r, "train2014", TRAIN, categories=[]), "has 0 categories: 1 to 254 of different names"),
        (
            lambda r: write_set(r, "train2014", TRAIN, categories=[*CATEGORIES, {"id": 2, "name": "person"}]),
            "has 4 categories, and 'person' stands twice: 1 to 254 of different names",
        ),
        (
            lambda r: write_set(
                r, "train2014", TRAIN[:2], images=[{"id": 9, "file_name": "../x.jpg", "width": 40, "height": 30}]
            ),
            "image 9 has the file name '../x.jpg': a plain NAME.jpg",
        ),
    ],
)
def test_annotation_files_that_are_wrong(
    root: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(root)
    refuse(root, tmp_path / "voc", message)
    assert not (tmp_path / "voc").exists()


def test_pictures_and_masks_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    short = annotation(1, 9, 1, {"counts": [5, 5], "size": [HEIGHT, WIDTH]})
    write_set(root, "train2014", [short])
    refuse(root, tmp_path / "a", "000009.jpg: annotation 1 of image 9: its runs do not add up to the 1200 pixels")
    (root / "train2014" / file_name("train2014", 9)).write_bytes(b"<html>")
    refuse(root, tmp_path / "b", "000009.jpg is no picture")


def test_a_link_to_another_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(source: Path, target: Path) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(os, "link", other_disk)
    refuse(
        root, tmp_path / "voc", r"cannot be a hard link to .* \(Invalid cross-device link\): give --images symlink or"
    )


def test_a_folder_that_holds_something_else(root: Path, tmp_path: Path) -> None:
    refuse(root, root, "coco is not empty and holds no conversion of COCO: give a new folder")
    convert(root, tmp_path / "voc")
    refuse(root, tmp_path / "voc", "holds the conversion of other annotation files", sets=["train2014"])
    write_set(root, "val2014", VAL[:1])
    refuse(root, tmp_path / "voc", "holds the conversion of other annotation files: give a new folder or delete this")


def test_command_says_what_it_left_out_and_what_comes_next(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(root), str(tmp_path / "voc"), "--processes", "0"])
    text = capsys.readouterr().out
    assert "train2014: 5 images, 4 with annotations make train and trainaug; 1 left out\n" in text
    assert "val2014: 3 images, 2 with annotations make val; 1 left out\n" in text and "3 classes\n" in text
    assert text.endswith(f"next: python -m cpn.prepare {tmp_path}/voc\n")
    for count, message in (
        (-1, "--processes -1: give 0"),
        (100_000, r"--processes 100000: .* cores; give \d+ at most"),
    ):
        with pytest.raises(InputError, match=message):
            main([str(root), str(tmp_path / "voc"), "--processes", str(count)])


def test_a_full_disk_is_one_line_and_the_rest_is_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = coco.write_bytes, []

    def full(path: Path, data: bytes) -> None:
        if len(written) == 5:
            raise OSError(28, os.strerror(28), str(path))
        written.append(path)
        original(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(coco, "write_bytes", full)
        with pytest.raises(InputError, match=r"\.png cannot be read or written \(No space left on device\): make room"):
            main([str(root), str(tmp_path / "voc"), "--processes", "0"])
    main([str(root), str(tmp_path / "voc"), "--processes", "0"])
    assert len(list((tmp_path / "voc/SegmentationClass").iterdir())) == 6


def die(job: coco.ImageJob) -> None:
    os._exit(1)


def test_a_process_that_is_killed_is_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="a process that draws masks was killed, .*: go on with fewer --processes"):
        list(coco._spread(die, [coco.ImageJob(root, 1, 1, [], [])], 1))
