"""COCO's annotation files and archives for the VOC server: what a foreign hand may have written into them."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

from cpn.sources.packing import prepare
from tests.bad_input.case import Case, Make, both, text_file, voc

COCO = "cpn.coco coco out --sets train2014 --processes 0"
CHECK = "cpn.voc_submission --check results.tgz --root data"
FOLDER = "results/VOC2012/Segmentation/comp5_test_cls"
JSON = "coco/annotations/instances_train2014.json"
IMAGE = {"id": 9, "file_name": "a.jpg", "height": 6, "width": 8}
SQUARE = [1, 1, 5, 1, 5, 4]
OBJECT: dict[str, Any] = {"id": 1, "image_id": 9, "category_id": 1, "iscrowd": 0, "segmentation": [SQUARE]}


def coco(image: dict[str, Any] | None = None, name: str = "person", **changes: Any) -> Make:
    """A set of one picture and one object, which is changed."""
    content = {
        "images": [{**IMAGE, **(image or {})}],
        "categories": [{"id": 1, "name": name}],
        "annotations": [{**OBJECT, **changes}],
    }

    def make(place: Path) -> None:
        (place / "coco/annotations").mkdir(parents=True)
        (place / "coco/train2014").mkdir()
        Image.new("RGB", (8, 6)).save(place / "coco/train2014/a.jpg")
        (place / JSON).write_text(json.dumps(content))

    return make


def runs(counts: object, size: object) -> Make:
    return coco(segmentation={"counts": counts, "size": size})


def archive(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, size: int | None = None) -> Make:
    """A packed small VOC 2012 and results.tgz with these members."""

    def make(place: Path) -> None:
        voc()(place)
        prepare(place / "data", ["train", "val", "test"])
        with tarfile.open(place / "results.tgz", "w:gz") as file:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, "/etc/passwd", len(content) if size is None else size
                file.addfile(member, io.BytesIO(content + bytes(member.size - len(content))))

    return make


def wrong(name: str, command: str, make: Make, *words: str, **more: Any) -> Case:
    return Case(f"archives: {name}", command, words, make, **more)


ANNOTATIONS = [
    wrong("JSON without end", COCO, both(coco(), text_file("[" * 100_000, JSON)), JSON, "get it again"),
    wrong("JSON with a key twice among many", COCO, both(coco(), text_file(
          "{" + "".join(f'"k{at}": 1, ' for at in range(200_000)) + '"x": 1, "x": 2}', JSON)), "'x' stands twice"),
    wrong("JSON that is cut off", COCO, both(coco(), text_file('{"images": [', JSON)), JSON, "cannot be read as JSON"),
    wrong("JSON of zero bytes", COCO, both(coco(), text_file("", JSON)), JSON, "cannot be read as JSON", "get it"),
    wrong("a list for JSON", COCO, both(coco(), text_file("[]", JSON)), JSON, "is no file of instances"),
    wrong("a picture that leaves the folder", COCO, coco({"file_name": "../../x.jpg"}), JSON, "'../../x.jpg'", "plain"),
    wrong("a picture by its path", COCO, coco({"file_name": "/etc/x.jpg"}), JSON, "'/etc/x.jpg'", "plain NAME.jpg"),
    wrong("a picture that is not there", COCO, coco({"file_name": "b.jpg"}), "b.jpg is missing", "cocodataset.org"),
    wrong("a picture of a billion pixels", COCO, coco({"height": 10**9}), "a.jpg is 8x6", "get it again",
          check=lambda place: None),  # pictures are opened one by one, as their masks are written
    wrong("a height that is a word", COCO, coco({"height": "six"}), JSON, "has the height six: a whole number"),
    wrong("a class that leaves the folder", COCO, coco(name="../x"), JSON, "'../x'", "letters"),
    wrong("an object of no class", COCO, coco(category_id=7), JSON, "annotation 1 is of unknown category 7"),
    wrong("an object of class one half", COCO, coco(category_id=0.5), JSON, "have to be whole numbers"),
    wrong("a polygon that is cut off", COCO, coco(segmentation=[[1, 2, 3]]), JSON, "polygon of 3 numbers is cut off"),
    wrong("a polygon of words", COCO, coco(segmentation=[["a", "b"] * 3]), JSON, "annotation 1 of image 9"),
    wrong("a polygon of NaN", COCO, coco(segmentation=[[float("nan")] * 6]), JSON, "annotation 1 of image 9"),
    wrong("a segmentation that is a word", COCO, coco(segmentation="x"), JSON, "neither polygons nor run lengths"),
    wrong("a size of nothing", COCO, runs([48], [None, 8]), JSON, "annotation 1 of image 9"),
    wrong("a polygon of truths", COCO, coco(segmentation=[[True] * 6]), JSON, "a polygon is a list of numbers"),
    wrong("a polygon of endless numbers", COCO, coco(segmentation=[[10**400] * 6]), JSON, "a polygon is a list of num"),
    wrong("a box of endless numbers", COCO, coco(segmentation=[], bbox=[10**400] * 4), JSON, "its bbox is [1000"),
    wrong("a box of truths", COCO, coco(segmentation=[], bbox=[True] * 4), JSON, "its bbox is [True"),
    wrong("a run of truth", COCO, runs([True, 47], [6, 8]), "annotation 1 of image 9: its run True is no whole number",
          check=lambda place: None),
    wrong("a size of truths", COCO, runs([1], [True, True]), JSON, "neither polygons nor run lengths"),
    wrong("a compressed run without end", COCO, runs("o" * 10_000_000, [6, 8]), "annotation 1 of image 9: a compressed "
          "run length has more than 12 characters", check=lambda place: None),
    wrong("a size of words", COCO, runs([48], ["a", 8]), JSON, "get"),
]  # fmt: skip

ARCHIVES = [
    wrong("a member that leaves the folder", CHECK, archive(("../../x.png", b"")), "../../x.png", "only ID.png files"),
    wrong("a member by its path", CHECK, archive(("/etc/x.png", b"")), "/etc/x.png: only ID.png files"),
    wrong("a member that is a link", CHECK, archive((f"{FOLDER}/2008_000006.png", b""), kind=tarfile.SYMTYPE),
          "2008_000006.png: only ID.png files"),
    wrong("a member without end", CHECK, archive((f"{FOLDER}/2008_000006.png", b""), size=2**27), "2008_000006.png",
          "134217728 bytes", "write the archive again"),
    wrong("a member that is no picture", CHECK, archive((f"{FOLDER}/2008_000006.png", b"x")), "is no whole PNG",
          "write the archive again"),
    wrong("an archive without masks", CHECK, archive(), "lacks 2 of the 2 masks", "write the archive again"),
    wrong("an archive that is none", CHECK, both(archive(), text_file("x" * 99, "results.tgz")), "is no whole .tgz"),
    wrong("an archive that is not there", CHECK.replace("results", "no"), archive(), "no.tgz is no whole .tgz"),
]  # fmt: skip

CASES = [*ANNOTATIONS, *ARCHIVES]
