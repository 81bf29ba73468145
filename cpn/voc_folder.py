"""Reads and checks a folder in VOC 2012 layout. Everything that is wrong with it is one InputError; nothing is written.

JPEGImages/ID.jpg                  pictures (JPEG or PNG)
Annotations/ID.xml                 objects; a data set without this folder takes its labels from the masks
SegmentationClass/ID.png           masks as class indices, 255 = ignore
ImageSets/Segmentation/LIST.txt    one id per line, or the two paths /JPEGImages/ID.jpg /SegmentationClass/ID.png
classes.txt                        1 to 254 foreground classes, one per line; without it the 20 of VOC

With background a mask can tell 255 classes, 0 to 254: 255 means ignore. SBD's masks (SegmentationClassAug) are never
read, only their names (cpn/voc_lists.py). List `test` of VOC has pictures alone: neither labels nor masks are read for
it, and it serves prediction only; so does the `test` of another data set when none of its pictures has either.
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
from cpn.voc_lists import PICTURES, list_path, listed_ids, numbered_lines

GET_VOC = (
    "get VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, unpack it and give its "
    "VOCdevkit/VOC2012"
)
UNLABELLED = "test"
"""The list that may come without labels and masks; VOC keeps them back."""
EVALUATION_LISTS = ("val", UNLABELLED)
"""Lists that nothing is trained on: here a picture may be without any class."""

CLASS_NAME = re.compile(r"\w[\w .,()'&+-]*")
"""A class names metrics and pictures, so it has nothing that could be a path."""

_UNREADABLE = (OSError, SyntaxError, ValueError, zlib.error, struct.error, Image.DecompressionBombError)
"""What PIL raises for broken files."""


@dataclass(frozen=True)
class Entry:
    """One line of a list, its files found."""

    name: str
    """The id."""
    where: str
    """List file and line, or the file that put it into the list: for messages."""
    image: Path
    mask: Path | None
    """None where the list needs no mask and there is none."""
    annotation: Path | None
    """None where the data set has no Annotations."""
    labelled: bool
    """False where neither label nor mask is known; then both paths above are None."""
    may_be_empty: bool
    """Whether a picture without any class is accepted."""


@dataclass(frozen=True)
class Checked:
    """What a checked entry holds."""

    entry: Entry
    classes: tuple[int, ...] | None
    """Classes present, 0..F-1, ascending; None where the label is not known."""
    image_digest: str
    """SHA-256 of the image file."""
    mask_digest: str | None
    """SHA-256 of the mask file."""
    size: int
    """Bytes of both files."""


def check_layout(root: Path) -> None:
    """InputError unless `root` looks like VOC 2012."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder: give the folder of the data set, or {GET_VOC}")
    for folder in (root, *(root / part for part in ("JPEGImages", "Annotations", "SegmentationClass"))):
        try:
            empty = folder.is_dir() and not any(folder.iterdir())
        except OSError as error:
            raise InputError(f"{folder} cannot be read ({error.strerror}): make it readable for this user") from error
        if empty and folder == root:
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
    names = [line for _, line in numbered_lines(path)]
    if not names:
        raise InputError(f"{path} is empty: write one foreground class per line, or delete it for the classes of VOC")
    for at, name in enumerate(names):
        if not CLASS_NAME.fullmatch(name):
            raise InputError(
                f"{path}: class {name}: a name has letters, digits and spaces, for it names metrics and pictures: "
                "write it so"
            )
        if name in names[:at]:
            raise InputError(f"{path}: class {name} is there twice: delete one")
    if "background" in names:
        raise InputError(f"{path}: background is mask value 0 and no class of its own: delete that line")
    if len(names) >= IGNORE:
        raise InputError(
            f"{path} has {len(names)} classes: a mask can tell at most {IGNORE - 1} beside background, "
            f"for {IGNORE} means ignore"
        )
    return tuple(names)


def read_list(root: Path, name: str, scored: bool) -> list[Entry]:
    """The entries of list `name`. A scored list must have all its masks, or none of them beside Annotations; another
    list takes those that are there.
    """
    lines = listed_ids(root, name)
    images = _by_stem(root / "JPEGImages")
    with_xml = has_annotations(root)
    labelled = name != UNLABELLED or _is_labelled(root, lines)
    if scored and not labelled:
        raise InputError(
            f"{list_path(root, name)}: this list is to be scored and has no masks: score val, and for this one "
            "write predictions with python -m cpn.voc_submission"
        )
    if scored and with_xml and not any((root / "SegmentationClass" / f"{name}.png").is_file() for name in lines):
        scored = False  # a data set without masks, see cpn/mask_free.py; what needs masks says so when it is asked for
    entries = []
    for image_id, where in lines.items():
        if image_id not in images:
            missing = sum(other not in images for other in lines)
            more = f" ({missing} images of this list are missing)" if missing > 1 else ""
            raise InputError(
                f"{where}: there is no JPEGImages/{image_id}.jpg{more}: add it or delete the {_what(where)}"
            )
        mask = root / "SegmentationClass" / f"{image_id}.png" if labelled else None
        if mask is not None and not mask.is_file():
            mask = None
        if mask is None and labelled and (scored or not with_xml):
            why = (
                "this list is scored and needs masks" if scored else "without Annotations the label comes from the mask"
            )
            raise InputError(
                f"{where}: there is no SegmentationClass/{image_id}.png, and {why}: add it or delete the {_what(where)}"
            )
        annotation = root / "Annotations" / f"{image_id}.xml" if with_xml and labelled else None
        if annotation is not None and not annotation.is_file():
            raise InputError(f"{where}: there is no Annotations/{image_id}.xml: add it or delete the {_what(where)}")
        may_be_empty = name in EVALUATION_LISTS
        entries.append(Entry(image_id, where, images[image_id], mask, annotation, labelled, may_be_empty))
    return entries


def has_annotations(root: Path) -> bool:
    """Whether labels come from XML files rather than from masks."""
    return any((root / "Annotations").glob("*.xml"))


def check_entry(entry: Entry, classes: Sequence[str]) -> Checked:
    """Decode the entry's files whole and read its label. InputError names the file that is wrong and the cure."""
    image_bytes = _read(entry.image)
    cure = f"get the file again or delete {entry.where}"
    height, width = decode_whole(entry.image, image_bytes, cure).shape[:2]
    mask_bytes = _read(entry.mask) if entry.mask is not None else None
    present: Collection[int] | None = () if entry.labelled else None
    if mask_bytes is not None:
        values = _check_mask(entry, mask_bytes, (height, width), len(classes))
        present = {int(v) - 1 for v in np.unique(values) if v not in (0, IGNORE)}
    source = entry.mask
    if entry.annotation is not None:
        present, source = read_annotation(entry.annotation, classes), entry.annotation
    if present is not None and not present and not entry.may_be_empty:
        raise InputError(f"{source} holds no object, and a training picture needs a class: delete {entry.where}")
    return Checked(
        entry,
        None if present is None else tuple(sorted(present)),
        hashlib.sha256(image_bytes).hexdigest(),
        None if mask_bytes is None else hashlib.sha256(mask_bytes).hexdigest(),
        len(image_bytes) + len(mask_bytes or b""),
    )


def read_annotation(path: Path, classes: Sequence[str]) -> set[int]:
    """The classes (0..F-1) of the objects in a VOC annotation, difficult ones included, as the image labels need."""
    data = _read(path)
    if b"<!ENTITY" in data:
        raise InputError(f"{path} defines entities, which could multiply or read other files: take its DOCTYPE away")
    try:
        root = ElementTree.fromstring(data)
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


def decode_whole(source: Path | str, data: bytes, cure: str) -> NDArray[np.uint8]:
    """A JPEG or PNG picture that decodes to its last row: RGB, uint8 (H, W, 3), as `cpn.voc.decode_image` has it.

    InputError, naming `source` and `cure`, for anything else.
    """
    if not data:
        raise InputError(f"{source} has no bytes: {cure}")
    try:
        # PIL first: it refuses a picture that is cut off and says so, where OpenCV 4 fills the rest with grey.
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            picture.load()
        return decode_image(data)
    except _UNREADABLE as error:
        raise InputError(f"{source} is no whole JPEG or PNG picture ({_brief(error)}): {cure}") from error


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


def _is_labelled(root: Path, ids: Collection[str]) -> bool:
    """Whether any image has a label or a mask. VOC's test images never count: what XML they have is for other tasks."""
    parts = ("Annotations/{}.xml", "SegmentationClass/{}.png")
    own_classes = (root / "classes.txt").exists()
    return own_classes and any((root / part.format(image_id)).is_file() for image_id in ids for part in parts)


def _what(where: str) -> str:
    """Whether an image is in its list by a line or, by rule, by a file."""
    return "line" if " line " in where else "file"


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURES:
            if path.stem in found:
                raise InputError(
                    f"{folder} holds {found[path.stem].name} and {path.name}: one id, so delete one of them"
                )
            found[path.stem] = path
    return found


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split()).replace("<_io.BytesIO object at ", "<bytes at ")
