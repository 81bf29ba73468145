"""Annotation files as tools write them: nothing is lost on the way to `cpn.prepare`, and what is wrong is named."""

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cpn.coco import convert, main
from cpn.core.errors import InputError
from cpn.data.voc import IGNORE
from cpn.sources.coco_file import named
from cpn.sources.packing import prepare

WIDTH, HEIGHT = 24, 20
POLYGON = [[4, 4, 14, 4, 14, 12, 4, 12]]
Content = dict[str, dict[str, Any]]
Change = Callable[[Content, Path], object]


def picture(path: Path, seed: int, kind: str | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, kind, **options)


def write(root: Path, change: Change) -> Path:
    """Two pictures in train2014, one in val2014, an object of 4 to 14, 4 to 12 in each; changed."""
    content: Content = {}
    for at, (name, files) in enumerate((("train2014", ["a1.jpg", "a2.jpg"]), ("val2014", ["b1.jpg"]))):
        for number, file in enumerate(files):
            picture(root / name / file, 10 * at + number)
        content[name] = {
            "images": [{"id": i, "file_name": f, "height": HEIGHT, "width": WIDTH} for i, f in enumerate(files, 1)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": i, "bbox": [4, 4, 10, 8], "segmentation": POLYGON}
                for i in range(1, len(files) + 1)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
    change(content, root)
    (root / "annotations").mkdir()
    for name, value in content.items():
        text = value["text"] if "text" in value else json.dumps(value).encode()
        (root / f"annotations/instances_{name}.json").write_bytes(text)
    return root


def rename(new: str, source: str = "train2014/a1.jpg", image: int = 0) -> Change:
    """Another file name, in the file and on the disk."""

    def change(content: Content, root: Path) -> None:
        name = source.split("/")[0]
        (root / name / new).parent.mkdir(parents=True, exist_ok=True)
        os.replace(root / source, root / name / new)
        content[name]["images"][image]["file_name"] = new

    return change


def both(*changes: Change) -> Change:
    return lambda content, root: [change(content, root) for change in changes]


def image(at: int = 0, **values: Any) -> Change:
    return lambda content, root: content["train2014"]["images"][at].update(values)


def annotation(at: int = 0, **values: Any) -> Change:
    return lambda content, root: content["train2014"]["annotations"][at].update(values)


def category(at: int = 0, **values: Any) -> Change:
    return lambda content, root: [part["categories"][at].update(values) for part in content.values()]


def added(key: str, **values: Any) -> Change:
    return lambda content, root: [part[key].append(values) for part in content.values()]


def without(key: str, part: str | None = None, at: int = 0) -> Change:
    def change(content: Content, root: Path) -> None:
        values = content["train2014"] if part is None else content["train2014"][part][at]
        del values[key]

    return change


def encoded(encoding: str) -> Change:
    def change(content: Content, root: Path) -> None:
        text = json.dumps(content["train2014"], ensure_ascii=False).encode(encoding)
        content["train2014"]["text"] = text

    return change


def text(of: str) -> Change:
    return lambda content, root: content["train2014"].update(text=of.encode())


def on_disk(make: Callable[[Path], object], name: str = "train2014/a1.jpg") -> Change:
    def change(content: Content, root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return change


def saved_as(kind: str) -> Callable[[Path], None]:
    return lambda path: picture(path, 0, kind)


def beside(ending: str, kind: str) -> Callable[[Path], None]:
    return lambda path: picture(path.with_suffix(ending), 0, kind)


def with_exif(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (HEIGHT, WIDTH)).save(buffer, "JPEG", exif=exif)
    path.write_bytes(buffer.getvalue())


def every_category_up(content: Content, root: Path) -> None:
    """Ids from 0 on, a category `background` first: cat is 1 and dog 2 as before."""
    for part in content.values():
        part["categories"].insert(0, {"id": 0, "name": "background"})


def as_text(content: Content, root: Path) -> None:
    """Ids as some exporters write them."""
    part = content["train2014"]
    for item in (*part["images"], *part["annotations"], *part["categories"]):
        item["id"] = str(item["id"])
    for item in part["annotations"]:
        item["image_id"], item["category_id"] = float(item["image_id"]), str(item["category_id"])


KEPT: dict[str, tuple[Change, list[str], list[str]]] = {
    "as it is": (lambda content, root: None, ["a1", "a2"], ["b1"]),
    "PNG": (both(rename("a1.png"), on_disk(saved_as("PNG"), "train2014/a1.png")), ["a1", "a2"], ["b1"]),
    "a JPEG called .png": (rename("a1.png"), ["a1", "a2"], ["b1"]),
    ".jpeg": (rename("a1.jpeg"), ["a1", "a2"], ["b1"]),
    "capitals": (rename("A1.JPG"), ["A1", "a2"], ["b1"]),
    "blanks": (rename("my cat 1.jpg"), ["a2", "my cat 1"], ["b1"]),
    "blanks at its ends": (rename(" a 1 .jpg"), ["a 1", "a2"], ["b1"]),
    "other letters and signs": (rename("Kätzchen (1) & Co, 猫.jpg"), ["Kätzchen (1) & Co, 猫", "a2"], ["b1"]),
    "dots": (rename("a.1.x.jpg"), ["a.1.x", "a2"], ["b1"]),
    "two endings": (rename("a1.png.rf.0f3.jpg"), ["a1.png.rf.0f3", "a2"], ["b1"]),
    "an ending within": (rename("a1.png.jpg"), ["a1_png", "a2"], ["b1"]),
    "a sub-folder": (rename("cats/a1.jpg"), ["a2", "cats_a1"], ["b1"]),
    "a sub-folder of Windows": (
        both(rename("cats/a1.jpg"), image(file_name="cats\\a1.jpg")), ["a2", "cats_a1"], ["b1"],
    ),
    "equal names in two folders": (both(rename("x/a.jpg"), rename("y/a.jpg", "train2014/a2.jpg", 1)),
                                   ["x_a", "y_a"], ["b1"]),
    "equal names in two sets": (rename("a1.jpg", "val2014/b1.jpg"), ["a1", "a2"], ["val2014_a1"]),
    "equal names but for the folder's bar": (both(rename("x/a.jpg"), rename("x_a.jpg", "train2014/a2.jpg", 1)),
                                             ["train2014_x_a", "x_a"], ["b1"]),
    "equal names but for the ending": (rename("a1.png", "train2014/a2.jpg", 1), ["a1", "train2014_a1"], ["b1"]),
    "a category background": (every_category_up, ["a1", "a2"], ["b1"]),
    "a category background by another word": (added("categories", id=5, name="Hintergrund"), ["a1", "a2"], ["b1"]),
    "a category background in between": (added("categories", id=5, name="_background_"), ["a1", "a2"], ["b1"]),
    "an image entry twice, word for word": (
        lambda content, root: content["train2014"]["images"].append(dict(content["train2014"]["images"][0])),
        ["a1", "a2"], ["b1"],
    ),
    "ids as text and floats": (as_text, ["a1", "a2"], ["b1"]),
    "a byte order mark": (encoded("utf-8-sig"), ["a1", "a2"], ["b1"]),
    "UTF-16": (encoded("utf-16"), ["a1", "a2"], ["b1"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "train", "val"), KEPT.values(), ids=list(KEPT))
def test_every_object_keeps_its_picture_and_its_class(
    tmp_path: Path, change: Change, train: list[str], val: list[str]
) -> None:
    root = write(tmp_path / "c", change)
    convert(root, tmp_path / "o")
    pack = prepare(tmp_path / "o")
    assert pack.classes == ("cat", "dog") and pack.split("train").ids == train and pack.split("val").ids == val
    found = {}
    for name in ("train", "val"):
        split = pack.split(name)
        for at in range(len(split)):
            mask = split.mask(at)
            assert mask is not None
            kind = int(split.labels[at].argmax()) + 1
            assert (
                set(np.unique(mask)) == {0, kind} and (mask[4:12, 4:14] == kind).all() and split.labels[at].sum() == 1
            )
            found[split.image(at).tobytes()] = kind
    assert len(found) == 3 and sorted(found.values()) == [1, 1, 2]  # three pictures, none of them twice


def shares(content: dict[str, Any], _: Path) -> None:
    """Write every polygon as YOLO does, in shares of the image's sides."""
    for item in content["train2014"]["annotations"]:
        item["segmentation"] = [[0.2, 0.2, 0.7, 0.2, 0.7, 0.6, 0.2, 0.6]]


REFUSED: dict[str, tuple[Change, str]] = {
    "an id twice": (
        added("images", id=1, file_name="a2.jpg", height=HEIGHT, width=WIDTH),
        "train2014.json: image id 1 stands twice, for 'a1.jpg' and 'a2.jpg': .*: give each image its own id",
    ),
    "a picture of two ids": (
        added("images", id=7, file_name="a1.jpg", height=HEIGHT, width=WIDTH), "images 1 and 7 are both 'a1.jpg'",
    ),
    "a category id twice": (added("categories", id=2, name="hen"), "category id 2 stands twice"),
    "a category name twice": (added("categories", id=3, name="dog"), "3 categories, and 'dog' stands twice"),
    "a key twice": (text('{"images": [], "images": [], "annotations": []}'), "'images' stands twice in one object"),
    "boxes alone": (
        lambda content, root: [a.update(segmentation=[]) for a in content["train2014"]["annotations"]],
        "none of the 2 objects has a polygon or run lengths, only boxes, .*: export polygons, or give --no-masks",
    ),
    "no segmentation at all": (
        lambda content, root: [a.pop("segmentation") for a in content["train2014"]["annotations"]], "only boxes, and a",
    ),
    "segmentation null": (
        lambda content, root: [a.update(segmentation=None) for a in content["train2014"]["annotations"]], "only boxes",
    ),
    "captions": (
        lambda content, root: content["train2014"].update(annotations=[{"id": 1, "image_id": 1, "caption": "a cat"}]),
        "annotation 1 of the list has no image_id, category_id and segmentation: it is no file of instances",
    ),
    "no images": (without("images"), "it has no list `images`"),
    "no annotations": (without("annotations"), "it has no list `annotations`"),
    "no categories": (without("categories"), "it has no list `categories`"),
    "images of numbers": (lambda content, root: content["train2014"].update(images=[1]), "`images` holds '1', which"),
    "a list": (text("[]"), "is no file of instances: it is no object with `images`"),
    "a number": (text("7"), "is no file of instances: it is no object"),
    "an image without name": (without("file_name", "images"), "image 1 has no file_name: write it"),
    "an image without id": (without("id", "images"), "an image has the id None: a whole number is expected"),
    "an image without height": (without("height", "images"), r"image 1 .'a1.jpg'. has the height None: a whole"),
    "an image of no width": (image(width=0), r"image 1 .'a1.jpg'. is 0x20 pixels: write its width and height"),
    "a category without id": (without("id", "categories"), "a category has the id None"),
    "a category without name": (without("name", "categories"), "category 1 has the name null, which is no text"),
    "a category of no name": (category(name=" "), "has 2 categories: 1 to 254 of different names"),
    "a category called null": (category(name=None), "category 1 has the name null, which is no text: write its name"),
    "a category called 5": (category(name=5), "category 1 has the name 5, which is no text: write its name in quotes"),
    "a category called true": (category(name=True), "category 1 has the name true, which is no text"),
    "a category called NaN": (category(name=float("nan")), "category 1 has the name NaN, which is no text"),
    "a category with two names": (category(name=["cat"]), "category 1 has the name ..cat.., which is no text"),
    **{f"a category with {ascii(sign)}": (category(name=f"sea{sign}gull"), "category 1 has the name 'sea.*is one line")
       for sign in "\n\r\t\x0b\x00\x85\xa0\u2028\u200b"},
    "an annotation without category": (without("category_id", "annotations"), "have to be whole numbers"),
    "an annotation of image true": (annotation(image_id=True), "have to be whole numbers"),
    "an object right of the image": (
        annotation(segmentation=[[30, 4, 40, 4, 40, 12]]),
        "train2014.json: annotation 1 of image 1 lies outside of the image, which is 24x20 pixels: correct its",
    ),
    "an object left of the image": (annotation(segmentation=[[-9, 4, -1, 4, -1, 12]]), "lies outside of the image"),
    "an object above the image": (annotation(segmentation=[[1, -9, 9, -9, 9, -1]]), "lies outside of the image"),
    "an object below the image": (annotation(segmentation=[[1, 20, 9, 20, 9, 30]]), "lies outside of the image"),
    "a box outside of the image": (annotation(segmentation=[], bbox=[24, 2, 5, 5]), "lies outside of the image"),
    "coordinates as shares": (shares, "no polygon or box reaches beyond 0.7, .* are shares of the image"),
    "boxes as shares": (
        lambda content, root: [
            a.update(segmentation=[], bbox=[0.1, 0.2, 0.5, 0.5]) for a in content["train2014"]["annotations"]
        ],
        "no polygon or box reaches beyond 0.7, so its coordinates are shares of the image",
    ),
    "iscrowd as text": (annotation(iscrowd="0"), "train2014.json: annotation 1 of image 1: iscrowd is '0': write 0"),
    "a polygon of NaN": (annotation(segmentation=[[1, 2, float("nan"), 2, 9, 9]]), "none of them NaN or infinite"),
    "no shape and a box without area": (annotation(segmentation=[], bbox=[4, 4, 0, 8]), "its bbox is .4, 4, 0, 8."),
    "a picture beside as BMP": (
        on_disk(beside(".bmp", "BMP")), "a1.jpg is missing, but a1.bmp is there: convert it to JPEG or PNG",
    ),
    "a picture beside as TIFF": (on_disk(beside(".tif", "TIFF")), "but a1.tif is there: convert it to JPEG or PNG"),
    "a picture beside in capitals": (on_disk(beside(".JPG", "JPEG")), "but a1.JPG is there: write one of both names"),
    "a picture as PNG": (on_disk(beside(".png", "PNG")), "but a1.png is there: write one of both names like"),
    "a file name with .bmp": (image(file_name="a1.bmp"), "'a1.bmp': pictures are JPEG or PNG, and end so: convert it"),
    "a file name without ending": (image(file_name="a1"), "'a1': pictures are JPEG or PNG"),
    "a file name that leaves the folder": (image(file_name="../a1.jpg"), "a plain NAME.jpg is expected"),
    "a file name that leaves it backwards": (image(file_name="..\\a1.jpg"), "a plain NAME.jpg is expected"),
    "a file name with half a letter": (image(file_name="\ud800.jpg"), "a plain NAME.jpg is expected"),
    "a file name with a line break": (image(file_name="a\n1.jpg"), "a plain NAME.jpg is expected"),
    "a file name that is a number": (image(file_name=7), "image 1 has no file_name"),
    "WebP called .jpg": (
        on_disk(saved_as("WEBP")), r"a1.jpg is no picture that is read \(WebP by its content\): convert it to JPEG",
    ),
    "GIF called .jpg": (on_disk(saved_as("GIF")), "GIF by its content.: convert it to JPEG or PNG"),
    "TIFF called .jpg": (on_disk(saved_as("TIFF")), "TIFF by its content.: convert it to JPEG or PNG"),
    "a web page called .jpg": (
        on_disk(lambda path: path.write_bytes(b"<!DOCTYPE html>")), "web page by its content.: get it again",
    ),
    "a pipe called .jpg": (on_disk(os.mkfifo), "a1.jpg is a pipe"),
    "endless zeros called .jpg": (on_disk(lambda path: path.symlink_to("/dev/zero")), "a1.jpg is a device"),
    "a picture that EXIF turns": (on_disk(with_exif), "a1.jpg is 20x24 pixels, .* for 24x20: its EXIF turns it"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_would_be_lost_is_refused_by_its_name(tmp_path: Path, change: Change, message: str) -> None:
    root = write(tmp_path / "c", change)
    with pytest.raises(InputError, match=message) as caught:
        convert(root, tmp_path / "o")
    said = str(caught.value)
    assert "\n" not in said and "Error" not in said and "object has no attribute" not in said


THIN = [[1, 1], [1, 1, 5, 5]]
ODD: dict[str, tuple[Change, str, int]] = {
    "polygons of one and two points": (
        annotation(segmentation=[*POLYGON, *THIN]),
        "2 polygons have fewer than three points and hold no pixel .first annotation 1 of image 1.: they are left out",
        80,
    ),
    "nothing but polygons of one and two points": (annotation(segmentation=THIN), "2 polygons have fewer than", 0),
    "an object that reaches out of the image": (
        annotation(segmentation=[[4, -8, 14, -8, 14, 12, 4, 12]]),
        "1 objects reach out of their image .first annotation 1 of image 1.: what is outside is left out",
        120,
    ),
    "a box of no width beside a shape": (
        annotation(bbox=[4, 4, 0, 8]), "1 objects have a bbox without area or that is none .first annotation 1 of", 80,
    ),
    "a box of negative height beside a shape": (annotation(bbox=[4, 4, 10, -8]), "1 objects have a bbox without", 80),
    "an annotation id that stands twice": (
        lambda content, root: content["train2014"]["annotations"][1].update(id=1),
        "1 objects have an id that stands twice .first annotation 1 of image 2.: each counts", 80,
    ),
    "a box of NaN beside a shape": (annotation(bbox=[4, 4, 10, float("nan")]), "1 objects have a bbox without", 80),
}  # fmt: skip


@pytest.mark.parametrize(("change", "note", "pixels"), ODD.values(), ids=list(ODD))
def test_what_is_odd_is_counted_and_said(tmp_path: Path, change: Change, note: str, pixels: int) -> None:
    (found, other) = convert(write(tmp_path / "c", change), tmp_path / "o")
    assert len([line for line in found.notes if re.search(note, line)]) == 1 and not other.notes[1:]
    split = prepare(tmp_path / "o").split("train")
    mask = split.mask(0)
    assert mask is not None and (mask == 1).sum() == pixels and split.labels[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("box", "ignored"), [([4, 4, 10, 8], 80), ([4.5, 4.5, 9, 7], 80), (None, HEIGHT * WIDTH), ([-5, -5, 9, 7], 8)]
)
def test_a_box_without_polygon_is_ignored_and_a_label(tmp_path: Path, box: object, ignored: int) -> None:
    root = write(tmp_path / "c", annotation(1, segmentation=[], bbox=box))
    (found, _) = convert(root, tmp_path / "o")
    assert any("1 of 2 objects have a box and no shape" in line for line in found.notes)
    split = prepare(tmp_path / "o").split("train")
    mask = split.mask(1)
    assert mask is not None and (mask == IGNORE).sum() == ignored and split.labels[1].tolist() == [0, 1]


def test_a_category_of_what_is_to_be_ignored(tmp_path: Path) -> None:
    def change(content: Content, root: Path) -> None:
        added("categories", id=9, name="void")(content, root)
        content["train2014"]["annotations"].append(
            {"id": 9, "image_id": 1, "category_id": 9, "segmentation": [[0, 0, 24, 0, 24, 6, 0, 6]]}
        )

    convert(write(tmp_path / "c", change), tmp_path / "o")
    split = prepare(tmp_path / "o").split("train")
    mask = split.mask(0)
    assert mask is not None and (mask[:4] == IGNORE).all() and (mask[4:12, 4:14] == 1).all()
    assert split.labels[0].tolist() == [1, 0] and split.labels.shape == (2, 2)


def test_labels_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def boxes(content: Content, root: Path) -> None:
        for part in content.values():
            for item in part["annotations"]:
                item["segmentation"] = []

    root = write(tmp_path / "c", boxes)
    for _ in range(2):
        main([str(root), str(tmp_path / "my o"), "--processes", "0", "--no-masks"])
        assert capsys.readouterr().out.endswith(f"next: python -m cpn.prepare '{tmp_path}/my o'\n")
    pack = prepare(tmp_path / "my o")
    assert not pack.split("train").masked and pack.split("train").labels.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(InputError, match="holds the conversion of other annotation files"):
        convert(root, tmp_path / "my o")
    with pytest.raises(InputError, match="only boxes"):
        convert(root, tmp_path / "other")


def test_other_names_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(write(tmp_path / "c", rename("cats/a1.jpg"))), str(tmp_path / "o"), "--processes", "0"])
    said = capsys.readouterr().out
    assert "note: train2014: 1 images are named otherwise than their files (cats/a1.jpg is cats_a1)\n" in said
    assert "note: val2014: no object of dog\n" in said


def test_names_that_cannot_be_told_apart(tmp_path: Path) -> None:
    (found, other) = convert(write(tmp_path / "c", lambda content, root: None), tmp_path / "o")
    job = found.jobs[0]
    jobs = [
        type(job)(job.source, 1, 1, [], [], file) for file in ("a.jpg", "a.png", "a.PNG", "a.jpeg", "a .png", "a  .png")
    ]
    assert [j.name for j in named([type(found)("t", (), 1, jobs[:2])])[0].jobs] == ["a", "t_a"]
    with pytest.raises(InputError, match="'a  .png' of t would have the name of 'a .png': rename one"):
        named([type(found)("t", (), 1, jobs)])
