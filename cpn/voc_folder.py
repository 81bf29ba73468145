"""Reads and checks a folder in VOC 2012 layout. Everything that is wrong with it is one InputError; nothing is written.

JPEGImages/ID.jpg                  pictures (JPEG or PNG)
Annotations/ID.xml                 objects; a data set without this folder takes its labels from the masks
SegmentationClass/ID.png           masks as class indices, 255 = ignore; SegmentationClassAug/ where SBD was added
ImageSets/Segmentation/LIST.txt    one id per line, or the two paths /JPEGImages/ID.jpg /SegmentationClass/ID.png
classes.txt                        one foreground class per line; without it the 20 classes of VOC
"""

import difflib
import hashlib
import io
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cpn.errors import InputError
from cpn.voc import IGNORE, VOC_CLASSES, decode_image

GET_VOC = (
    "get VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, unpack it and give its "
    "VOCdevkit/VOC2012"
)
GET_TRAINAUG = (
    "write it from SBD (http://home.bharathh.info/pubs/codes/SBD/download.html): the ids of SBD train.txt and val.txt "
    "and of VOC train.txt, without those of VOC val.txt, each once (10582; the masks of SBD are not needed); "
    "or do without: --lists train val, then --set data.train=train"
)
EVALUATION_LISTS = ("val", "test")
"""Lists that nothing is trained on: here a picture may be without any class."""

_PICTURES = (".jpg", ".jpeg", ".png")
_UNREADABLE = (OSError, SyntaxError, ValueError, zlib.error, struct.error, Image.DecompressionBombError)
"""What PIL raises for broken files."""


@dataclass(frozen=True)
class Entry:
    """One line of a list, its files found."""

    name: str
    """The id."""
    where: str
    """List file and line, for messages."""
    image: Path
    mask: Path | None
    """None where the list needs no mask and there is none."""
    annotation: Path | None
    """None where the data set has no Annotations."""
    may_be_empty: bool
    """Whether a picture without any class is accepted."""


@dataclass(frozen=True)
class Checked:
    """What a checked entry holds."""

    entry: Entry
    classes: tuple[int, ...]
    """Classes present, 0..F-1, ascending."""
    image_digest: str
    """SHA-256 of the image file."""
    mask_digest: str | None
    """SHA-256 of the mask file."""
    size: int
    """Bytes of both files."""


def list_path(root: Path, name: str) -> Path:
    """The file of list `name`. InputError if the name could leave the folder."""
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".index"):
        raise InputError(f"--lists {name}: a list is named by the file's stem, for example train")
    return root / "ImageSets" / "Segmentation" / f"{name}.txt"


def check_layout(root: Path) -> None:
    """InputError unless `root` looks like VOC 2012."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder: give the folder of the data set, or {GET_VOC}")
    if not any(root.iterdir()):
        raise InputError(f"{root} is empty: {GET_VOC}")
    missing = [part for part in ("JPEGImages", "ImageSets/Segmentation") if not (root / part).is_dir()]
    if missing:
        for inner in ("VOCdevkit/VOC2012", "VOC2012"):
            if (root / inner / "JPEGImages").is_dir():
                raise InputError(f"{root} is the folder above the data set: give {root / inner}")
        raise InputError(f"{root} is not in VOC 2012 layout (no folder {' and no '.join(missing)}): {GET_VOC}")


def read_classes(root: Path) -> tuple[str, ...]:
    """The foreground class names, from classes.txt or VOC's."""
    path = root / "classes.txt"
    if not path.exists():
        return VOC_CLASSES
    names = [line for _, line in _lines(path)]
    if not names:
        raise InputError(f"{path} is empty: write one foreground class per line, or delete it for the classes of VOC")
    for at, name in enumerate(names):
        if name in names[:at]:
            raise InputError(f"{path}: class {name} is there twice: delete one")
    if "background" in names:
        raise InputError(f"{path}: background is mask value 0 and no class of its own: delete that line")
    if len(names) >= IGNORE:
        raise InputError(
            f"{path} has {len(names)} classes: a mask holds at most {IGNORE - 1}, for {IGNORE} means ignore"
        )
    return tuple(names)


def read_list(root: Path, name: str, scored: bool) -> list[Entry]:
    """The entries of list `name`. A scored list takes the masks of SegmentationClass and must have them all;
    another list takes those of SegmentationClassAug (SBD), else of SegmentationClass, else none."""
    path = list_path(root, name)
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        cure = GET_TRAINAUG if name == "trainaug" else f"add it, or choose with --lists among those there: {there}"
        raise InputError(f"{path} is missing: {cure}")
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        image_id = _image_id(line, f"{path} line {number}")
        if image_id in lines:
            raise InputError(
                f"{path} line {number}: {image_id} is already on line {lines[image_id]}: delete one of them"
            )
        lines[image_id] = number
    if not lines:
        raise InputError(f"{path} is empty: write one image id per line")
    images = _by_stem(root / "JPEGImages")
    with_xml = has_annotations(root)
    folders = ("SegmentationClass",) if scored else ("SegmentationClassAug", "SegmentationClass")
    entries = []
    for image_id, number in lines.items():
        where = f"{path} line {number}"
        if image_id not in images:
            missing = sum(other not in images for other in lines)
            more = f" ({missing} images of this list are missing)" if missing > 1 else ""
            raise InputError(f"{where}: there is no JPEGImages/{image_id}.jpg{more}: add it or delete the line")
        mask = next((file for part in folders if (file := root / part / f"{image_id}.png").is_file()), None)
        if mask is None and (scored or not with_xml):
            why = (
                "this list is scored and needs masks" if scored else "without Annotations the label comes from the mask"
            )
            raise InputError(
                f"{where}: there is no SegmentationClass/{image_id}.png, and {why}: add it or delete the line"
            )
        annotation = root / "Annotations" / f"{image_id}.xml" if with_xml else None
        if annotation is not None and not annotation.is_file():
            raise InputError(f"{where}: there is no Annotations/{image_id}.xml: add it or delete the line")
        entries.append(Entry(image_id, where, images[image_id], mask, annotation, name in EVALUATION_LISTS))
    return entries


def has_annotations(root: Path) -> bool:
    """Whether labels come from XML files rather than from masks."""
    return any((root / "Annotations").glob("*.xml"))


def check_entry(entry: Entry, classes: Sequence[str]) -> Checked:
    """Decode the entry's files whole and read its label. InputError names the file that is wrong and the cure."""
    image_bytes = _read(entry.image)
    height, width = _check_image(entry, image_bytes)
    mask_bytes = _read(entry.mask) if entry.mask is not None else None
    present: Collection[int] = ()
    if mask_bytes is not None:
        values = _check_mask(entry, mask_bytes, (height, width), len(classes))
        present = {int(v) - 1 for v in np.unique(values) if v not in (0, IGNORE)}
    source = entry.mask
    if entry.annotation is not None:
        present, source = read_annotation(entry.annotation, classes), entry.annotation
    if not present and not entry.may_be_empty:
        raise InputError(f"{source} holds no object, and a training picture needs a class: delete {entry.where}")
    return Checked(
        entry,
        tuple(sorted(present)),
        hashlib.sha256(image_bytes).hexdigest(),
        None if mask_bytes is None else hashlib.sha256(mask_bytes).hexdigest(),
        len(image_bytes) + len(mask_bytes or b""),
    )


def read_annotation(path: Path, classes: Sequence[str]) -> set[int]:
    """The classes (0..F-1) of the objects in a VOC annotation, difficult ones included, as the image labels need."""
    try:
        root = ElementTree.fromstring(_read(path))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path} is not whole XML ({error}): get the file again") from error
    present = set()
    for number, item in enumerate(root.findall("object"), start=1):
        name = " ".join((item.findtext("name") or "").split())
        if not name:
            raise InputError(f"{path}: object {number} has no name: write its class")
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the classes are {', '.join(classes)}"
            raise InputError(f"{path}: object {number} is of unknown class {name}: {hint} (or add it to classes.txt)")
        present.add(classes.index(name))
    return present


def _check_image(entry: Entry, data: bytes) -> tuple[int, int]:
    """Height and width of a picture that decodes to its last row."""
    cure = f"get the file again or delete {entry.where}"
    if not data:
        raise InputError(f"{entry.image} has no bytes: {cure}")
    try:
        # PIL first: it refuses a picture that is cut off and says so, where OpenCV 4 fills the rest with grey.
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            picture.load()
        height, width = decode_image(data).shape[:2]
    except _UNREADABLE as error:
        raise InputError(f"{entry.image} is no whole JPEG or PNG picture ({_brief(error)}): {cure}") from error
    return height, width


def _check_mask(entry: Entry, data: bytes, shape: tuple[int, int], count: int) -> NDArray[np.uint8]:
    cure = f"correct it or delete {entry.where}"
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            picture.load()
            mode, values = picture.mode, np.array(picture)
    except _UNREADABLE as error:
        raise InputError(f"{entry.mask} is no whole PNG ({_brief(error)}): {cure}") from error
    if mode not in ("P", "L"):
        raise InputError(
            f"{entry.mask} is of mode {mode}: a mask holds class indices, save it as palette PNG (P) or grey (L)"
        )
    if values.shape != shape:
        size = f"{values.shape[1]}x{values.shape[0]}"
        raise InputError(f"{entry.mask} is {size}, its picture {shape[1]}x{shape[0]} pixels: {cure}")
    wrong = (values > count) & (values != IGNORE)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = int(values[row, column])
        raise InputError(
            f"{entry.mask} holds {found} at row {row}, column {column}: a mask holds 0 (background), "
            f"1 to {count} (classes) and {IGNORE} (ignore): {cure}"
        )
    return values


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): make it readable for this user") from error


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank; a byte order mark and CRLF are no matter."""
    try:
        text = _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _image_id(line: str, where: str) -> str:
    """The id in a list line: the line itself, or the stem that both of its paths share."""
    fields = line.replace("\\", "/").split()
    if any(part in ("..", ".") for field in fields for part in field.split("/")):
        raise InputError(f"{where}: {line} leaves the folder of the data set: write a plain image id")
    if len(fields) == 1 and "/" not in fields[0]:
        return Path(fields[0]).stem if Path(fields[0]).suffix.lower() in _PICTURES else fields[0]
    if len(fields) <= 2 and all("/" in field for field in fields):
        stems = {Path(field).stem for field in fields}
        if len(stems) == 1 and (stem := stems.pop()):
            return stem
        raise InputError(f"{where}: {line} names two different pictures: write the image and its own mask")
    raise InputError(f"{where}: {line} is neither an image id nor the two paths of image and mask: correct the line")


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _PICTURES:
            if path.stem in found:
                raise InputError(
                    f"{folder} holds {found[path.stem].name} and {path.name}: one id, so delete one of them"
                )
            found[path.stem] = path
    return found


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split()).replace("<_io.BytesIO object at ", "<bytes at ")
