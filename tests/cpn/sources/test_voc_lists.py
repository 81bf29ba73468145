import shutil
from pathlib import Path

import numpy as np
import pytest

from cpn.config.data import DataConfig
from cpn.core.errors import InputError
from cpn.data.loader import TrainingSamples
from cpn.data.voc import IGNORE, encode_mask
from cpn.sources.packing import prepare
from cpn.sources.voc_lists import has_list, list_warnings, listed_ids
from tests.cpn.small_voc import EXTRA, LISTS, write_small_voc

TRAINAUG = sorted([*LISTS["train"], *EXTRA])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_small_voc(tmp_path / "VOCdevkit/VOC2012")
    return tmp_path / "VOCdevkit/VOC2012"


def listed(root: Path, name: str) -> Path:
    return root / f"ImageSets/Segmentation/{name}.txt"


def test_trainaug_by_rule_is_sbd_and_train_without_val(root: Path) -> None:
    before = sorted(root.rglob("*"))
    ids = listed_ids(root, "trainaug")
    assert list(ids) == TRAINAUG and not set(ids) & set(LISTS["val"])
    assert ids[EXTRA[0]].endswith(f"SegmentationClassAug/{EXTRA[0]}.png")
    assert sorted(root.rglob("*")) == before
    # Whoever converted SBD alone has no file for some of VOC's train images: they belong to the list all the same.
    (root / f"SegmentationClassAug/{LISTS['train'][0]}.png").unlink()
    assert list(listed_ids(root, "trainaug")) == TRAINAUG
    assert listed_ids(root, "trainaug")[LISTS["train"][0]].endswith("train.txt line 1")


def test_the_archive_of_sbd_serves_as_well(root: Path) -> None:
    shutil.rmtree(root / "SegmentationClassAug")
    folder = root / "benchmark_RELEASE/dataset/cls"
    folder.mkdir(parents=True)
    for image_id in [*EXTRA, *LISTS["val"]]:
        (folder / f"{image_id}.mat").write_bytes(b"not read")
    assert list(listed_ids(root, "trainaug")) == TRAINAUG


def test_a_list_file_goes_before_the_rule(root: Path) -> None:
    listed(root, "trainaug").write_text(f"{EXTRA[1]}\n")
    assert list(listed_ids(root, "trainaug")) == [EXTRA[1]]


def test_without_sbd_the_message_says_where_it_goes(root: Path) -> None:
    shutil.rmtree(root / "SegmentationClassAug")
    (root / "SegmentationClassAug").mkdir()  # an empty folder is none
    assert not has_list(root, "trainaug") and has_list(root, "train")
    with pytest.raises(InputError) as caught:
        prepare(root)
    text = str(caught.value)
    assert "\n" not in text and "trainaug.txt is missing" in text and "Semantic Boundaries Dataset" in text
    assert str(root / "SegmentationClassAug") in text and "(10582)" in text and "--lists train val" in text


def test_the_rule_needs_both_lists(root: Path) -> None:
    listed(root, "val").unlink()
    with pytest.raises(InputError, match="val.txt is missing"):
        listed_ids(root, "trainaug")


def test_sbd_images_without_a_picture_are_named_by_file(root: Path) -> None:
    (root / f"JPEGImages/{EXTRA[0]}.jpg").unlink()
    with pytest.raises(
        InputError, match=f"Aug/{EXTRA[0]}.png: there is no JPEGImages/{EXTRA[0]}.jpg: .* delete the file"
    ):
        prepare(root)


def test_sbd_added_later_is_seen_and_earlier_lists_stay(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "SegmentationClassAug", tmp_path / "aside")
    assert prepare(root, ["train", "val"]).lists == ("train", "val")
    shutil.move(tmp_path / "aside", root / "SegmentationClassAug")
    first = prepare(root)
    assert first.split("trainaug").ids == TRAINAUG
    (root / f"SegmentationClassAug/{EXTRA[2]}.png").unlink()
    second = prepare(root)
    assert second.split("trainaug").ids == sorted(set(TRAINAUG) - {EXTRA[2]})
    assert second.fingerprint != first.fingerprint
    assert prepare(root, ["val"]).lists == ("train", "trainaug", "val")


def test_masks_are_the_original_ones_and_labels_come_from_xml(root: Path) -> None:
    pack = prepare(root)
    for name in ("train", "val"):
        split = pack.split(name)
        for index in range(len(split)):
            mask = split.mask(index)
            assert mask is not None and (mask == IGNORE).sum() == 8  # SBD's have no border
    trainaug = pack.split("trainaug")
    masks = [trainaug.mask(index) for index in range(len(trainaug))]
    assert [mask is not None for mask in masks] == [name in LISTS["train"] for name in TRAINAUG]
    assert trainaug.labels.sum() == 5 and trainaug.labels[TRAINAUG.index(EXTRA[1])].argmax() == 7  # a difficult one


def test_what_lies_in_sbds_folder_is_never_read(root: Path) -> None:
    first = prepare(root).fingerprint
    for path in (root / "SegmentationClassAug").iterdir():
        path.write_bytes(b"no PNG")
    (root / "packed/manifest.json").unlink()
    assert prepare(root).fingerprint == first


def test_the_test_list_has_pictures_alone(root: Path) -> None:
    (root / f"Annotations/{LISTS['test'][0]}.xml").write_text("<annotation><object><name>head</name></object>")
    pack = prepare(root, ["test"])
    split = pack.split("test")
    assert split.ids == LISTS["test"] and not split.labelled and np.isnan(split.labels).all()
    assert split.mask(0) is None and split.image(1).shape == (14, 20, 3)
    assert prepare(root, ["val"]).split("val").labelled
    assert np.isnan(prepare(root, ["val"]).split("test").subset(LISTS["test"][:1]).labels).all()


def test_packing_the_test_list_leaves_the_fingerprint(root: Path, tmp_path: Path) -> None:
    first = prepare(root).fingerprint
    later = prepare(root, ["test"])
    assert later.lists == ("test", "train", "trainaug", "val") and later.fingerprint == first
    assert prepare(root, ["train", "val"], out=tmp_path / "other").fingerprint != first


def test_nothing_is_trained_or_scored_on_the_test_list(root: Path) -> None:
    split = prepare(root, ["test"]).split("test")
    with pytest.raises(InputError, match="data.train: the images of list 'test' have no labels; give trainaug or"):
        TrainingSamples(split, DataConfig(), None, 0)
    with pytest.raises(
        InputError, match="test.txt: this list is to be scored and has no masks: score val, and for"
    ) as e:
        prepare(root, ["train", "test"], scored=["train", "test"])
    assert "\n" not in str(e.value)


def test_a_test_list_of_other_classes_may_have_labels(root: Path) -> None:
    (root / "classes.txt").write_text(NAMES)
    assert not prepare(root, ["test"]).split("test").labelled
    for at, image_id in enumerate(LISTS["test"]):
        (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{OBJECTS[at]}</annotation>")
    split = prepare(root, ["test"]).split("test")
    assert split.labelled and split.labels.sum(1).tolist() == [1, 0]
    (root / f"Annotations/{LISTS['test'][1]}.xml").unlink()
    with pytest.raises(InputError, match=f"test.txt line 2: there is no Annotations/{LISTS['test'][1]}.xml"):
        prepare(root, ["test"])


def test_other_sizes_than_the_published_are_pointed_out(root: Path) -> None:
    assert list_warnings(prepare(root, ["train", "test"])) == [
        "train has 2 images, that of VOC 2012 has 1464",
        "test has 2 images, that of VOC 2012 has 1456",
    ]


def test_the_right_sizes_bring_no_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = prepare(root)
    monkeypatch.setattr("cpn.sources.voc_lists.VOC_COUNTS", {"train": 2, "val": 2, "trainaug": 5, "test": 2})
    assert list_warnings(pack) == []


def test_lists_that_overlap_wrongly_are_pointed_out(root: Path) -> None:
    listed(root, "trainaug").write_text("\n".join([*EXTRA, LISTS["train"][1], LISTS["val"][1]]))
    (root / "classes.txt").write_text(NAMES)  # other classes: no published sizes
    assert list_warnings(prepare(root)) == [
        "1 images of val are also in trainaug (such as 2007_000042): they would be trained on",
        "1 images of train are not in trainaug (such as 2007_000032): they get no pseudo label",
    ]


@pytest.mark.parametrize("above", ["", "VOCdevkit"])
def test_the_folder_above_is_told_the_right_one(root: Path, tmp_path: Path, above: str) -> None:
    with pytest.raises(InputError, match=f"is the folder above the data set: give {root}$"):
        prepare(tmp_path / above)


def test_sbd_masks_do_not_serve_where_labels_come_from_masks(root: Path) -> None:
    shutil.rmtree(root / "Annotations")
    with pytest.raises(InputError, match=r"there is no SegmentationClass/\d+_\d+.png, and without Annotations the"):
        prepare(root)
    for image_id in EXTRA:
        (root / f"SegmentationClass/{image_id}.png").write_bytes(encode_mask(np.full((14, 20), 2, np.uint8)))
    assert prepare(root).split("trainaug").labels[:, 1].sum() == 1 + len(EXTRA)


NAMES = "\n".join(
    ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "unicorn"]
)
OBJECTS = ["<object><name>unicorn</name></object>", ""]
