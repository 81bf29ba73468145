import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.config.data import ScenesConfig
from cpn.core.errors import InputError
from cpn.core.files import read_json
from cpn.core.jpeg_warnings import JpegWarnings
from cpn.data.voc import open_pack
from cpn.sources import packing as module
from cpn.sources.packing import prepare
from cpn.sources.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "scenes"
    write_scenes(root, ScenesConfig(train=3, extra=1, val=2, size=32))
    return root


@pytest.fixture
def root(scenes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scenes, tmp_path / "data"))


def listed(root: Path, name: str = "train") -> Path:
    return root / "ImageSets/Segmentation" / f"{name}.txt"


def png(values: np.ndarray, mode: str = "P") -> bytes:
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([0] * 768)
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def refuse(root: Path, message: str, **options: object) -> None:
    """`prepare` refuses with one line that matches, and has written nothing."""
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        prepare(root, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert sorted(root.rglob("*")) == before


def test_second_call_does_nothing(root: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    first = prepare(root, progress=lambda *a: calls.append(a))
    assert calls[0] == ("checking", 1, 6) and calls[-1] == ("packing", 9, 9)
    calls.clear()
    inode = (root / "packed").stat().st_ino
    again = prepare(root, progress=lambda *a: calls.append(a))
    assert not calls and (root / "packed").stat().st_ino == inode and again.fingerprint == first.fingerprint


def test_a_touched_source_keeps_its_fingerprint(root: Path) -> None:
    first = prepare(root)
    inode = (root / "packed").stat().st_ino
    os.utime(root / "JPEGImages/train_00000.jpg", (1, 1))
    assert prepare(root).fingerprint == first.fingerprint
    assert (root / "packed").stat().st_ino != inode


def test_fingerprint_does_not_depend_on_the_place_or_the_order(root: Path, tmp_path: Path) -> None:
    first = prepare(root).fingerprint
    other = shutil.copytree(root, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("packed"))
    lines = listed(other).read_text().split()
    listed(other).write_text("\n".join(reversed(lines)))
    assert prepare(other).fingerprint == first


def rename_class(root: Path) -> None:
    for path in (root / "classes.txt", *(root / "Annotations").iterdir()):
        path.write_text(path.read_text().replace("robin", "wren"))


def change_label(root: Path) -> None:
    path = root / "Annotations/train_00000.xml"
    present = next(name for name in ("robin", "canary", "gecko") if f"<name>{name}<" not in path.read_text())
    added = f"<object><name>{present}</name><difficult>1</difficult></object></annotation>"
    path.write_text(path.read_text().replace("</annotation>", added))


def change_mask(root: Path) -> None:
    (root / "SegmentationClass/val_00000.png").write_bytes(png(np.full((32, 32), 255, np.uint8)))


def change_image(root: Path) -> None:
    path = root / "JPEGImages/train_00001.jpg"
    path.write_bytes((root / "JPEGImages/train_00002.jpg").read_bytes())


def shorten_list(root: Path) -> None:
    listed(root).write_text("train_00000\ntrain_00001\n")


@pytest.mark.parametrize("change", [rename_class, change_label, change_mask, change_image, shorten_list])
def test_fingerprint_sees_every_change_of_content(root: Path, change: Callable[[Path], None]) -> None:
    first = prepare(root).fingerprint
    change(root)
    assert prepare(root).fingerprint != first


def test_lists_packed_earlier_stay(root: Path) -> None:
    prepare(root, ["val"])
    inode = (root / "packed").stat().st_ino
    assert prepare(root, ["train"]).lists == ("train", "val")
    assert (root / "packed").stat().st_ino != inode
    inode = (root / "packed").stat().st_ino
    prepare(root, ["val"])
    assert (root / "packed").stat().st_ino == inode


def test_out_leaves_the_source_alone(root: Path, tmp_path: Path) -> None:
    before = sorted(root.rglob("*"))
    pack = prepare(root, out=tmp_path / "fast/disk")
    assert sorted(root.rglob("*")) == before
    assert open_pack(tmp_path / "fast/disk").fingerprint == pack.fingerprint and len(pack.split("val")) == 2


def test_difficult_objects_count_and_parts_do_not(root: Path) -> None:
    text = "<annotation><object><name>gecko</name><difficult>1</difficult><part><name>head</name></part></object>"
    (root / "Annotations/train_00000.xml").write_text(text + "<object><name> teal </name></object></annotation>")
    assert prepare(root).split("train").labels[0].tolist() == [0, 0, 1, 1, 0, 0]


def test_without_annotations_labels_come_from_masks(root: Path) -> None:
    expected = prepare(root, out=root / "a").split("train").labels
    shutil.rmtree(root / "Annotations")
    (root / "SegmentationClass/train_00000.png").write_bytes(png(np.array([[0, 3] * 16, [255, 6] * 16] * 16, np.uint8)))
    labels = prepare(root).split("train").labels
    assert labels[0].tolist() == [0, 0, 1, 0, 0, 1] and (labels[1:] == expected[1:]).all()


def test_two_paths_a_byte_order_mark_and_crlf(root: Path) -> None:
    text = "train_00001\r\n\r\n/JPEGImages/train_00000.jpg /SegmentationClassAug/train_00000.png\r\ntrain_00002.jpg\r\n"
    listed(root).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert prepare(root).split("train").ids == ["train_00001", "train_00000", "train_00002"]


def test_masks_of_sbd_are_never_packed(root: Path) -> None:
    (root / "SegmentationClassAug").mkdir()
    for name in ("train_00000", "train_00003"):
        (root / f"SegmentationClassAug/{name}.png").write_bytes(png(np.full((32, 32), 5, np.uint8)))
    (root / "SegmentationClass/train_00003.png").unlink()
    pack = prepare(root)
    for name in ("train", "trainaug"):
        mask = pack.split(name).mask(0)
        with Image.open(root / "SegmentationClass/train_00000.png") as picture:
            assert mask is not None and (mask == np.array(picture)).all() and not (mask == 5).all()
    assert pack.split("trainaug").mask(3) is None


def test_classes_default_to_voc(root: Path) -> None:
    (root / "classes.txt").unlink()
    refuse(root, r"train_0000\d.xml: object 1 is of unknown class .* \(or add it to classes.txt\)")


def test_root_is_missing_empty_or_another_layout(tmp_path: Path, root: Path) -> None:
    refuse(
        tmp_path / "nowhere", "nowhere: no such folder: .*VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk"
    )
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "empty is empty: get VOCtrainval_11-May-2012.tar")
    (tmp_path / "other/images").mkdir(parents=True)
    refuse(tmp_path / "other", "not in VOC 2012 layout .no folder JPEGImages and no ImageSets/Segmentation.: get VOC")
    (tmp_path / "above/VOCdevkit").mkdir(parents=True)
    shutil.move(root, tmp_path / "above/VOCdevkit/VOC2012")
    refuse(tmp_path / "above", "is the folder above the data set: give .*/above/VOCdevkit/VOC2012$")


def test_missing_lists(root: Path) -> None:
    listed(root, "trainaug").unlink()
    refuse(root, "trainaug.txt is missing: .*: copy train.txt to it .* or do without: --lists train val, then")
    refuse(
        root, "minival.txt is missing: add it, or choose with --lists among those there: train, val", lists=["minival"]
    )
    refuse(root, r"--lists \.\./train: a list is named by the file's stem", lists=["../train"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "train.txt is empty: write one image id per line"),
        (
            "train_00000\nghost\nspectre\n",
            r"train.txt line 2: there is no JPEGImages/ghost.jpg \(2 images of this list",
        ),
        ("train_00000\n\ntrain_00001\ntrain_00000\n", "train.txt line 4: train_00000 is already on line 1: delete one"),
        ("../secret\n", r"train.txt line 1: \.\./secret leaves the folder of the data set"),
        ("/JPEGImages/../../x.jpg /SegmentationClass/x.png\n", "line 1: .* leaves the folder"),
        ("..\\secret\n", "line 1: .* leaves the folder"),
        ("/JPEGImages/train_00000.jpg /SegmentationClass/train_00001.png\n", "line 1: .* names two different pictures"),
        ("train_00000 -1\n", "line 1: train_00000 -1 is neither an image id nor the two paths"),
    ],
)
def test_bad_lists(root: Path, text: str, message: str) -> None:
    listed(root).write_text(text)
    refuse(root, message)


ALONE = "but train_00000.jpg: write train_00000 alone on its line, or delete the line"


@pytest.mark.parametrize(
    "line",
    [
        "train_00000,", "train_00000;train_00001", '"train_00000"', "['train_00000']", "train_00000 # the first",
        "train_00000 15", "15 train_00000", "train_00000|cat", "\u200btrain_00000", "train_00000\r", "- train_00000",
        "train_00000.npy", "train_00000.xml", "train_00000\rtrain_00001",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_line_that_holds_more_than_an_id(root: Path, line: str) -> None:
    listed(root).write_bytes(f"{line}\n".encode())
    if line == "train_00000\r":
        assert prepare(root, ["train"]).split("train").ids == ["train_00000"]
    else:
        refuse(root, f"train.txt line 1: there is no JPEGImages/.*{ALONE}")


def test_a_name_in_another_unicode_form_is_said(root: Path) -> None:
    os.rename(root / "JPEGImages/train_00000.jpg", root / "JPEGImages/caf\u00e9.jpg")
    listed(root).write_text("cafe\u0301\n")
    refuse(root, "but caf\u00e9.jpg: write the name as it is there, its letters are in another Unicode form")


@pytest.mark.parametrize("other", ["train_00000.XML", "Train_00000.xml"])
def test_an_annotation_of_nearly_the_name_is_said(root: Path, other: str) -> None:
    os.rename(root / "Annotations/train_00000.xml", root / "Annotations" / other)
    refuse(root, f"train.txt line 1: there is no Annotations/train_00000.xml, but {other} beside it: rename it")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png", "SegmentationClassAug"),
        ("C:\\photos\\{0}.JPG", "photos"),
        ("/other/{0}.jpg /more/{0}.png", "more, other"),
        ("/JPEGImages/{0}.jpg /SegmentationClass/{0}.png", None),
        ("{0}.jpg", None),
    ],
)
def test_folders_that_are_named_and_not_read_are_said(root: Path, line: str, named: str | None) -> None:
    listed(root).write_text(line.format("train_00000") + "\n")
    said = [note for note in prepare(root, ["train"]).notes() if "lines name files in" in note]
    assert len(said) == (named is not None)
    assert named is None or f"train: its lines name files in {named}, of which none is read" in said[0]


def test_a_list_that_is_no_text(root: Path) -> None:
    listed(root).write_bytes(b"\xff\xfe\x00t")
    refuse(root, "train.txt is not UTF-8 text: save it as UTF-8")


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_picture_that_is_cut_off(root: Path, kept: float) -> None:
    path = root / "JPEGImages/train_00001.jpg"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refuse(root, r"train_00001.jpg is no whole JPEG or PNG picture \(.*\): get the file again or delete .*txt line 2")


def test_pictures_that_are_none(root: Path) -> None:
    path = root / "JPEGImages/val_00000.jpg"
    path.write_bytes(b"")
    refuse(root, "val_00000.jpg has no bytes: get the file again or delete .*val.txt line 1")
    path.write_bytes(b"<html>404</html>")
    refuse(root, r"val_00000.jpg is no whole JPEG or PNG picture \(web page by its content\): get the file")
    path.unlink()
    path.mkdir()
    refuse(root, "val_00000.jpg is a folder and cannot be read: put a file there")


def test_two_pictures_of_one_id(root: Path) -> None:
    (root / "JPEGImages/val_00000.png").write_bytes(png(np.zeros((32, 32), np.uint8)))
    refuse(root, "JPEGImages holds val_00000.jpg and val_00000.png: one id, so delete one of them")


def test_bad_masks(root: Path) -> None:
    path = root / "SegmentationClass/train_00002.png"
    good = path.read_bytes()
    path.write_bytes(png(np.zeros((31, 32), np.uint8)))
    refuse(root, "train_00002.png is 32x31, its picture 32x32 pixels: correct it or delete .*train.txt line 3")
    values = np.zeros((32, 32), np.uint8)
    values[4, 9] = 7
    path.write_bytes(png(values))
    refuse(
        root, r"train_00002.png holds 7 at row 4, column 9: a mask holds 0 \(background\), 1 to 6 \(classes\) and 255"
    )
    path.write_bytes(png(np.zeros((32, 32, 3), np.uint8), "RGB"))
    refuse(root, "train_00002.png is of mode RGB: .* write each colour's index .* save it as grey PNG")
    path.write_bytes(png(np.full((32, 32), 128, np.uint8), "L"))
    refuse(root, "train_00002.png holds 128 at row 0")
    path.write_bytes(good[:80])
    refuse(root, "train_00002.png is no whole PNG")
    path.write_bytes(png(np.full((32, 32), 6, np.uint8), "L"))
    prepare(root)


def test_a_missing_mask(root: Path) -> None:
    (root / "SegmentationClass/val_00001.png").unlink()
    refuse(root, "val.txt line 2: there is no SegmentationClass/val_00001.png, and this list is scored and needs masks")
    assert prepare(root, ["val"], scored=()).split("val").mask(1) is None
    shutil.rmtree(root / "packed")
    shutil.rmtree(root / "Annotations")
    refuse(root, "without Annotations the label comes from the mask: add it", lists=["val"], scored=())


def test_bad_annotations(root: Path) -> None:
    path = root / "Annotations/train_00000.xml"
    path.write_text("<annotation><object>")
    refuse(root, r"train_00000.xml is not whole XML \(no element found")
    path.write_text("<annotation><object><name>canery</name></object></annotation>")
    refuse(root, "object 1 is of unknown class canery: did you mean canary?")
    path.write_text("<annotation><object><name>zzz</name></object></annotation>")
    refuse(root, "unknown class zzz: the classes are robin, canary, gecko, teal, bluetit, flamingo")
    path.write_text("<annotation><object/></annotation>")
    refuse(root, "train_00000.xml: object 1 has no name")
    path.unlink()
    refuse(root, "train.txt line 1: there is no Annotations/train_00000.xml: add it")


def test_a_picture_without_any_class(root: Path) -> None:
    (root / "Annotations/val_00000.xml").write_text("<annotation/>")
    assert not prepare(root).split("val").labels[0].any()
    (root / "Annotations/train_00003.xml").write_text("<annotation/>")
    shutil.rmtree(root / "packed")
    refuse(root, "train_00003.xml holds no object, and a training picture needs a class: delete .*trainaug.txt line 4")


def test_bad_class_files(root: Path) -> None:
    path = root / "classes.txt"
    names = path.read_text()
    for text, message in (
        ("", "classes.txt is empty: write one foreground class per line"),
        ("robin\nrobin\n", "classes.txt: class robin is there twice"),
        ("background\n" + names, "background is mask value 0"),
        (
            "\n".join(f"c{i}" for i in range(255)),
            "has 255 classes: a mask can tell at most 254 beside background, for 255 means",
        ),
    ):
        path.write_text(text)
        refuse(root, message)


def fail_with(code: int) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "data is full: make room, or give --out FOLDER and then --set data.root=FOLDER"),
        (errno.EDQUOT, "data is over quota: make room, or give --out"),
        (errno.EROFS, "data is read-only: give --out FOLDER"),
        (errno.EACCES, "data may not be written by this user: give --out"),
    ],
)
def test_failing_writes(root: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str) -> None:
    monkeypatch.setattr(module, "_sync", fail_with(code))
    with pytest.raises(InputError, match=message):
        prepare(root)
    assert [path.name for path in root.glob("*packed*")] == [".packed.lock"]


def test_a_bug_is_not_taken_for_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_sync", fail_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        prepare(root)


def test_room_and_rights_are_looked_at_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(root)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5))
        with pytest.raises(InputError, match="packing needs 0 MB and 0 MB are free: make room, or give --out FOLDER"):
            prepare(root)
    (root / ".packed.lock").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda dir: fail_with(errno.EACCES)())
        refuse(root, "data cannot be written .Permission denied.: give --out FOLDER and then --set data.root=FOLDER")
    (root / "file").write_text("")
    refuse(root, "file cannot be written .Not a directory.: give --out FOLDER", out=root / "file")


def test_a_source_that_changes_while_it_is_packed(root: Path) -> None:
    def disturb(what: str, done: int, total: int) -> None:
        if (what, done) == ("packing", 1):
            change_image(root)

    with pytest.raises(InputError, match="train_00001.jpg changed while it was being packed: run the command again"):
        prepare(root, progress=disturb)
    assert not (root / "packed").exists()


def test_leftovers_of_a_killed_run_are_removed(root: Path) -> None:
    (root / ".packed.0123.tmp").mkdir()
    (root / ".packed.0123.old").mkdir()
    prepare(root)
    assert [path.name for path in root.glob(".packed.*")] == [".packed.lock"]


def test_a_pack_can_lie_behind_a_link(root: Path, tmp_path: Path) -> None:
    (disk := tmp_path / "disk" / "large").mkdir(parents=True)
    (root / "packed").symlink_to(disk)
    (disk.parent / ".large.0123.tmp").mkdir()
    (root / ".packed.0123.old").symlink_to(disk)
    prepare(root)
    assert (root / "packed").is_symlink() and (disk / "manifest.json").exists()
    assert [path.name for path in root.glob(".packed.*")] == [".packed.lock"] and list(disk.parent.iterdir()) == [disk]


@pytest.mark.parametrize("part", ["packed", "ImageSets/Segmentation/train.txt"])
def test_what_is_of_another_kind_is_named(root: Path, part: str) -> None:
    if (root / part).exists():
        (root / part).unlink()
        (root / part).mkdir()
        said = "train.txt is a folder and cannot be read: put a file there"
    else:
        (root / part).touch()
        said = "packed is a file, and the packed images lie there as a folder: move it away, or give --out FOLDER"
    with pytest.raises(InputError, match=said):
        prepare(root)


def test_an_unreadable_pack_is_replaced(root: Path) -> None:
    first = prepare(root).fingerprint
    (root / "packed/manifest.json").write_text("{")
    assert prepare(root).fingerprint == first


def test_damaged_jpeg_data_are_found_by_a_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JpegWarnings", JpegWarnings)
    path = root / "JPEGImages/train_00001.jpg"
    data = path.read_bytes()
    path.write_bytes(data[:-80] + bytes(60) + data[-20:])
    prepare(root)
    assert any("train_00001: " in line for line in read_json(root / "packed/manifest.json")["notes"])


PACK = """
import sys
from pathlib import Path
from cpn.sources.packing import prepare
prepare(Path(sys.argv[1]), progress=lambda what, done, total: print(f"{what} {done} of {total}"))
"""


def test_two_at_once(root: Path) -> None:
    command = [sys.executable, "-c", PACK, str(root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    texts = [process.communicate(timeout=110)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], texts
    assert sum("packing 9 of 9" in text for text in texts) == 1
    assert read_json(root / "packed/manifest.json")["lists"]["trainaug"]["rows"] == 4
