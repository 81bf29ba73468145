"""Data sets whose parts contradict each other: each is refused or said, with counts and examples."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cpn.core.errors import InputError
from cpn.data.voc import IGNORE, encode_mask, open_pack
from cpn.prepare import main
from cpn.sources.packing import prepare

NAMES = ["cat", "dog", "hen"]
KINDS = {"a1": 1, "a2": 2, "a3": 3, "a4": 1, "a5": 2, "b1": 1, "b2": 2, "b3": 3}
LISTS = {"train": ["a1", "a2", "a3"], "trainaug": ["a1", "a2", "a3", "a4", "a5"], "val": ["b1", "b2", "b3"]}
SIZE = (20, 24)
Change = Callable[[Path], object]


def write(root: Path) -> Path:
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    for name, ids in LISTS.items():
        lines(root, name, *ids)
    for at, (image_id, kind) in enumerate(KINDS.items()):
        pixels = np.random.default_rng(at).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/{image_id}.jpg")
        put(root, image_id, square(kind))
        label(root, image_id, NAMES[kind - 1])
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def square(value: int, rest: int = 0) -> np.ndarray:
    mask = np.full(SIZE, rest, np.uint8)
    mask[4:12, 5:15] = value
    return mask


def put(root: Path, image_id: str, mask: np.ndarray) -> None:
    (root / f"SegmentationClass/{image_id}.png").write_bytes(encode_mask(mask))


def label(root: Path, image_id: str, *names: str) -> None:
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    (root / f"Annotations/{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")


def lines(root: Path, name: str, *ids: str) -> None:
    (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids) + "\n")


def classes(*names: str) -> Change:
    return lambda root: (root / "classes.txt").write_text("\n".join(names) + "\n")


def masks(of: Callable[[int], np.ndarray], *ids: str) -> Change:
    """Other masks, made from the class of the image."""

    def change(root: Path) -> None:
        for image_id in ids or KINDS:
            put(root, image_id, of(KINDS[image_id]))

    return change


def by_frequency(root: Path) -> None:
    """Colours saved as a palette PNG by PIL: indices by how often they occur."""
    for path in (root / "SegmentationClass").iterdir():
        with Image.open(path) as mask:
            picture = mask.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
        picture.save(path)


def palette_of(colours: list[int], mode: str = "P") -> Change:
    def change(root: Path) -> None:
        for path in (root / "SegmentationClass").iterdir():
            with Image.open(path) as mask:
                picture = Image.fromarray(np.array(mask))
            if mode == "P":
                picture.putpalette(colours)
            picture.save(path)

    return change


def both(*changes: Change) -> Change:
    return lambda root: [change(root) for change in changes]


def without_annotations(root: Path) -> None:
    shutil.rmtree(root / "Annotations")


def turned(orientation: int, *ids: str) -> Change:
    def change(root: Path) -> None:
        for image_id in ids:
            with Image.open(root / f"JPEGImages/{image_id}.jpg") as picture:
                exif = picture.getexif()
                exif[0x0112] = orientation
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", exif=exif)
            (root / f"JPEGImages/{image_id}.jpg").write_bytes(buffer.getvalue())

    return change


def enlarge(image_id: str, times: int) -> Change:
    def change(root: Path) -> None:
        size = SIZE[1] * times, SIZE[0] * times
        with Image.open(root / f"JPEGImages/{image_id}.jpg") as picture:
            larger = picture.resize(size)
        larger.save(root / f"JPEGImages/{image_id}.jpg")
        put(root, image_id, square(KINDS[image_id]).repeat(times, 0).repeat(times, 1))

    return change


def same_image(first: str, second: str) -> Change:
    return lambda root: shutil.copyfile(root / f"JPEGImages/{first}.jpg", root / f"JPEGImages/{second}.jpg")


def saved_anew(first: str, second: str, ending: str) -> Change:
    """Make `second` the pixels of `first` in a file of another kind."""

    def change(root: Path) -> None:
        (root / f"JPEGImages/{second}.jpg").unlink()
        with Image.open(root / f"JPEGImages/{first}.jpg") as picture:
            picture.save(root / f"JPEGImages/{second}{ending}")

    return change


def commented(first: str, second: str) -> Change:
    """Make `second` the JPEG of `first` with a comment in it."""

    def change(root: Path) -> None:
        data = (root / f"JPEGImages/{first}.jpg").read_bytes()
        (root / f"JPEGImages/{second}.jpg").write_bytes(data[:2] + b"\xff\xfe\x00\x06cafe" + data[2:])

    return change


def move(source: str, target: str) -> Change:
    return lambda root: (root / source).rename(root / target)


def image_by_annotation(image_id: str, file: str, width: int, height: int) -> Change:
    """An annotation that names a file and a size."""

    def change(root: Path) -> None:
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        objects = f"<object><name>{NAMES[KINDS[image_id] - 1]}</name></object>"
        text = f"<annotation><filename>{file}</filename>{size}{objects}</annotation>"
        (root / f"Annotations/{image_id}.xml").write_text(text)

    return change


def zeros_in_scan(image_id: str) -> Change:
    """Zeros in the second half of a JPEG, as a damaged disk leaves them."""

    def change(root: Path) -> None:
        path = root / f"JPEGImages/{image_id}.jpg"
        data = bytearray(path.read_bytes())
        data[-100:-20] = bytes(80)
        path.write_bytes(data)

    return change


REFUSED: dict[str, tuple[Change, str]] = {
    "white objects": (
        masks(lambda kind: square(IGNORE)),
        r"a1.png: none of the 3 masks of list train holds a class, .*: 255 means ignore: write the value .*1 cat",
    ),
    "white objects, labels from masks": (
        both(masks(lambda kind: square(IGNORE)), without_annotations),
        r"a1.png holds no object \(0 and 255 alone, and 255 means ignore\)",
    ),
    "white objects in val alone": (
        masks(lambda kind: square(IGNORE), "b1", "b2", "b3"), "b1.png: none of the 3 masks of list val holds a class",
    ),
    "masks that are ignore all over": (
        masks(lambda kind: square(IGNORE, IGNORE)), "none of the 3 masks of list train holds a class, .*255 means",
    ),
    "masks without any object": (
        masks(lambda kind: square(0)), "none of the 3 masks of list train holds a class, .*: draw the objects in",
    ),
    "most masks without any object": (
        masks(lambda kind: square(0), "a1", "a3"),
        r"a1.png: 2 of 3 masks of list train contradict .*a1: annotation cat, mask nothing; a3: .*: draw the objects",
    ),
    "masks of val without any object, labels from masks": (
        both(masks(lambda kind: square(0), "b1", "b2", "b3"), without_annotations),
        "b1.png: none of the 3 masks of list val",
    ),
    "another order of classes.txt": (
        classes("hen", "cat", "dog"),
        r"a1.png: 3 of 3 masks of list train contradict .*a1: annotation cat, mask hen.*value 1 is hen by classes.txt "
        "and cat by the annotations",
    ),
    "two classes of three exchanged": (classes("dog", "cat", "hen"), "2 of 3 masks of list train contradict"),
    "colours numbered by their frequency": (by_frequency, "a2.png: 2 of 3 masks of list train .*how often they occur"),
    "values from 0 on": (masks(lambda kind: square(kind - 1)), "3 of 3 masks of list train contradict"),
    "one class for all objects": (masks(lambda kind: square(1)), "2 of 3 masks of list train contradict"),
    "annotations of other classes": (
        lambda root: [label(root, image_id, "hen") for image_id in ("a1", "a2")],
        "2 of 3 masks of list train contradict their annotations .a1: annotation hen, mask cat; a2: annotation hen",
    ),
    "a mask on its side, for EXIF turns the picture": (
        both(turned(6, "a1"), lambda root: put(root, "a1", square(1).T)),
        "a1.png is 20x24, its picture 24x20 pixels: the picture's EXIF turns it, .*: save the picture turned",
    ),
    "a mask in capitals": (
        move("SegmentationClass/a4.png", "SegmentationClass/a4.PNG"),
        "trainaug.txt line 4: there is no .*a4.png, but a4.PNG beside it: rename it",
    ),
    "a mask as TIFF": (
        move("SegmentationClass/a2.png", "SegmentationClass/a2.tif"), "but a2.tif beside it: save its class indices",
    ),
    "a picture as BMP": (
        move("JPEGImages/a2.jpg", "JPEGImages/a2.bmp"),
        "train.txt line 2: there is no JPEGImages/a2.jpg, but a2.bmp: convert it to JPEG or PNG",
    ),
    "a picture in other capitals": (
        move("JPEGImages/a2.jpg", "JPEGImages/A2.jpg"), "no JPEGImages/a2.jpg, but A2.jpg: write the name as it is",
    ),
    "trainaug by its usual name": (
        move("ImageSets/Segmentation/trainaug.txt", "ImageSets/Segmentation/train_aug.txt"),
        "trainaug.txt is missing, but train_aug.txt is there: rename it, or give --lists train train_aug val and then "
        "--set data.train=train_aug",
    ),
    "val by another name": (
        move("ImageSets/Segmentation/val.txt", "ImageSets/Segmentation/validation.txt"),
        "val.txt is missing, but validation.txt is there: rename it",
    ),
    **{
        f"{name} as a class": (classes(name, *NAMES), "is no class of its own, background is mask value 0 .*: delete")
        for name in ("background", "_background_", "Background", "__background__", "BACKGROUND", "void", "Void",
                     "__ignore__", "ignore", "unlabeled", "bg", "0 background", "Hintergrund")
    },
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_contradictions_are_refused_in_one_line(root: Path, change: Change, message: str) -> None:
    change(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError, match=message) as caught:
        prepare(root)
    assert "\n" not in str(caught.value) and sorted(root.rglob("*")) == before


NOTHING: Change = lambda root: None  # noqa: E731
SAID: dict[str, tuple[Change, str]] = {
    "all is well": (NOTHING, "trainaug: masks and annotations name the same classes in 5 of 5 images"),
    "one mask of another class": (
        masks(lambda kind: square(3), "a1"),
        "warning: train: 1 of 3 masks hold a class that their annotation does not name (a1: annotation cat, mask hen)",
    ),
    "one annotation of another class": (
        lambda root: label(root, "b2", "hen"),
        "warning: val: 1 of 3 masks hold a class that their annotation does not name (b2: annotation hen, mask dog)",
    ),
    "one mask without object": (
        masks(lambda kind: square(0), "a2"),
        "warning: train: 1 of 3 masks hold no object though their annotation names one (a2: annotation dog, mask "
        "nothing)",
    ),
    "a mask that lacks a class": (
        lambda root: label(root, "a1", "cat", "hen"),
        "note: train: 1 of 3 masks lack a class that their annotation names (a1: annotation cat and hen, mask cat)",
    ),
    "one mask that is ignore all over": (
        masks(lambda kind: square(IGNORE, IGNORE), "b1"), "warning: val: 1 of 3 masks are ignore (255) all over (such "
        "as b1)",
    ),
    "a palette of one's own": (
        palette_of([0, 0, 0, 12, 30, 40] + [7] * 762),
        "note: train: 3 of 3 masks have a palette that is neither VOC's nor a grey ramp (such as a1: 1 is (12, 30, "
        "40)): index 1 is the first class whatever its colour",
    ),
    "a class that never occurs": (
        classes(*NAMES, "yak"), "note: val: 1 class (yak) in no mask: each counts 0 in this list's mIoU",
    ),
    "a class that is in no label": (classes(*NAMES, "yak"), "note: trainaug: 1 class (yak) in no image"),
    "the same image in train and val": (
        same_image("b2", "a5"),
        "warning: 1 images that are evaluated are trained on under another name (b2 of val is a5 of trainaug)",
    ),
    "the same image in train and val, as PNG": (
        saved_anew("b2", "a5", ".png"),
        "warning: 1 images that are evaluated are trained on under another name (b2 of val is a5 of trainaug)",
    ),
    "the same image in train and val, with a comment": (
        commented("b2", "a5"),
        "warning: 1 images that are evaluated are trained on under another name (b2 of val is a5 of trainaug)",
    ),
    "the same image twice": (same_image("a1", "a4"), "note: 1 images are there under two names (a1 is a4)"),
    **{
        f"EXIF orientation {at}": (turned(at, "a1", "b1"), "note: 2 images have an EXIF orientation (such as a1, b1)")
        for at in (2, 3, 6, 8)
    },
    "one image much larger": (
        enlarge("a2", 4),
        "warning: 1 of 8 images have more than 8 times the pixels of the median (0.00048 megapixels), the "
        "largest is a2 of 96x80",
    ),
    "val in trainaug": (
        lambda root: lines(root, "trainaug", *LISTS["trainaug"], "b3"),
        "warning: 1 images of val are also in trainaug (such as b3): they would be trained on",
    ),
    "trainaug in two forms": (
        lambda root: lines(root, "train_aug", "a1"), "note: there is also train_aug.txt, another name for trainaug",
    ),
    "JPEG data that are damaged": (
        zeros_in_scan("a4"), "warning: 1 of 8 images decode with a warning, so their JPEG data are damaged (a4: ",
    ),
    "an annotation of another file": (
        image_by_annotation("a2", "b7.jpg", SIZE[1], SIZE[0]),
        "warning: train: 1 of 3 annotations name another file than their image (a2: b7.jpg): look whether",
    ),
    "an annotation of another size": (
        image_by_annotation("b2", "b2.jpg", 640, 480),
        "warning: val: 1 of 3 annotations give another size than their image has (b2: 640x480, image 24x20): look",
    ),
    "masks under other names": (
        lambda root: [p.rename(p.with_name(f"{p.stem}_mask.png")) for p in (root / "SegmentationClass").iterdir()],
        "warning: SegmentationClass has 8 pictures, such as a1_mask.png, and none is named ID.png after an image of",
    ),
    "annotations of another kind": (
        lambda root: [p.rename(p.with_suffix(".json")) for p in (root / "Annotations").iterdir()],
        "warning: Annotations has no .xml, only such as a1.json, which is not read: the labels are those of the masks",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "line"), SAID.values(), ids=list(SAID))
def test_what_is_odd_is_said_once_and_again(
    root: Path, change: Change, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(root)
    for _ in range(2):  # the second time nothing is packed, and the lines are those of the manifest
        main([str(root)])
        assert sum(said.startswith(line) for said in capsys.readouterr().out.splitlines()) == 1


QUIET: dict[str, Change] = {
    "VOC's palette": NOTHING,
    "a grey ramp": palette_of(np.arange(256).repeat(3).tolist()),
    "grey masks": palette_of([], "L"),
    "a border that is ignored": masks(lambda kind: square(kind, IGNORE)),
    "an orientation that turns nothing": turned(1, "a1"),
    "an image twice as large": enlarge("a2", 2),
    "an annotation of its image": image_by_annotation("a1", "/data/A1.JPG", SIZE[1], SIZE[0]),
    "an annotation without size": image_by_annotation("a1", "a1", 0, 0),
}


@pytest.mark.parametrize("change", QUIET.values(), ids=list(QUIET))
def test_what_is_right_brings_no_line(root: Path, change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    change(root)
    main([str(root)])
    said = capsys.readouterr().out
    assert "warning: " not in said and "note: " not in said


def test_names_with_blanks_dots_and_letters(root: Path) -> None:
    for old, new in (("a1", "my cat 1"), ("a2", "hen.2 (copy)"), ("b1", "Ünï cöde")):
        for part, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("Annotations", "xml")):
            (root / part / f"{old}.{ending}").rename(root / part / f"{new}.{ending}")
    lines(root, "train", "my cat 1", "/JPEGImages/hen.2 (copy).jpg /SegmentationClass/hen.2 (copy).png", "a3.jpg")
    lines(root, "trainaug", "/JPEGImages/my cat 1.jpg", "a4")
    lines(root, "val", "Ünï cöde", "b2")
    pack = prepare(root)
    assert pack.split("train").ids == ["my cat 1", "hen.2 (copy)", "a3"]
    assert pack.split("trainaug").ids == ["my cat 1", "a4"] and pack.split("val").ids == ["Ünï cöde", "b2"]
    assert open_pack(root).split("train").mask(1) is not None
