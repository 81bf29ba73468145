"""Reads and checks a folder in VOC 2012 layout. Everything that is wrong with it is one InputError; nothing is written.

JPEGImages/ID.jpg                  pictures (JPEG or PNG)
Annotations/ID.xml                 objects; a data set without this folder takes its labels from the masks
SegmentationClass/ID.png           masks as class indices, 255 = ignore
ImageSets/Segmentation/LIST.txt    one id per line, or the two paths /JPEGImages/ID.jpg /SegmentationClass/ID.png
classes.txt                        1 to 254 foreground classes, one per line; without it the 20 of VOC

With background a mask can tell 255 classes, 0 to 254: 255 means ignore. SBD's masks (SegmentationClassAug) are never
read, only their names (cpn/sources/voc_lists.py). List `test` of VOC has pictures alone: neither labels nor masks are
read for it, and it serves prediction only; so does the `test` of another data set when none of its pictures has either.
"""

import hashlib
import io
import os
import re
import struct
import threading
import unicodedata
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cpn.core.errors import InputError
from cpn.core.opencv import cv2
from cpn.core.plain_file import MB, file_there, folder_there, is_there, read_input, refuse_irregular
from cpn.data.voc import IGNORE, decode_image, palette
from cpn.sources.image_ids import CONVERTIBLE, PICTURES, format_of, is_image_id, loose_name, pictures_by_name
from cpn.sources.voc_annotation import read_annotation
from cpn.sources.voc_lists import list_path, listed_ids

GET_VOC = (
    "get VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/, unpack it and give its "
    "VOCdevkit/VOC2012"
)
UNLABELLED = "test"
"""The list that may come without labels and masks; VOC keeps them back."""
EVALUATION_LISTS = ("val", UNLABELLED)
"""Lists that nothing is trained on: here a picture may be without any class."""

ENDING = r"\.(jpe?g|png|npy|npz|mat|xml|txt)$"
"""What a list may put behind an id beside the ending of its picture."""
MAX_BYTES = 256 * MB
"""The most bytes that a picture or a mask may have."""
MAX_PIXELS = 89_478_485
"""The most pixels that a picture may have: PIL's own limit, above which it suspects an attack."""
LARGE = 16_000_000
"""Pixels of a picture above which it is checked with no other large one beside it: a gigabyte for each thread, else."""
BLOCK_ROWS = 256
"""Rows of a mask that are counted at a time."""
BIT_DEPTH = 24
"""The byte of a PNG that says how many bits a value has."""
ORIENTATION = 0x0112
"""EXIF's tag for how a picture is to be turned when it is shown."""

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # a finding, not a line among the output
warnings.filterwarnings("ignore", ".*orrupt EXIF data", UserWarning)  # damaged EXIF asks for nothing: see `is_turned`

_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
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
    shape: tuple[int, int]
    """Height and width in pixels."""
    turned: bool
    """Whether EXIF says that the picture is to be turned."""
    mask_classes: tuple[int, ...] | None
    """Classes in the mask, 0..F-1, ascending; None where there is none."""
    ignored: float
    """Share of the mask's pixels that are IGNORE; 0 without a mask."""
    palette: str | None
    """A colour of the mask's palette that is neither VOC's nor grey, in words."""
    pixels: str
    """SHA-256 of the decoded picture: the same picture in another file has the same."""
    annotated_file: str | None = None
    """The image's file by its annotation, where that is another one."""
    annotated_size: tuple[int, int] | None = None
    """Height and width of the image by its annotation, where they are others."""


_LARGE_ALONE = threading.Lock()


def check_layout(root: Path) -> None:
    """InputError unless `root` looks like VOC 2012."""
    if not folder_there(root):
        raise InputError(f"{root}: no such folder: give the folder of the data set, or {GET_VOC}")
    for folder in (root, *(root / part for part in ("JPEGImages", "Annotations", "SegmentationClass"))):
        if is_there(folder) and not folder_there(folder):
            raise InputError(f"{folder} is no folder: put the folder of that name there, or take the file away")
        try:
            empty = folder_there(folder) and not any(folder.iterdir())
        except OSError as error:
            raise InputError(f"{folder} cannot be read ({error.strerror}): make it readable for this user") from error
        if empty and folder == root:
            raise InputError(f"{root} is empty: {GET_VOC}")
    missing = [part for part in ("JPEGImages", "ImageSets/Segmentation") if not folder_there(root / part)]
    if missing:
        for inner in ("VOCdevkit/VOC2012", "VOC2012"):
            if (root / inner / "JPEGImages").is_dir():
                raise InputError(f"{root} is the folder above the data set: give {root / inner}")
        raise InputError(f"{root} is not in VOC 2012 layout (no folder {' and no '.join(missing)}): {GET_VOC}")


def read_list(root: Path, name: str, scored: bool) -> list[Entry]:
    """Return the entries of list `name`. A scored list must have all its masks, or none of them beside Annotations;
    another list takes those that are there.
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
    masks = (root / "SegmentationClass" / f"{image_id}.png" for image_id in lines if image_id in images)
    if scored and with_xml and not any(map(file_there, masks)):
        scored = False  # a data set without masks (cpn/scoring/mask_free.py); what needs masks says so when asked
    beside = pictures_by_name(root / "SegmentationClass") if labelled else {}
    entries = []
    for image_id, where in lines.items():
        if image_id not in images:
            missing = sum(other not in images for other in lines)
            more = f" ({missing} images of this list are missing)" if missing > 1 else ""
            raise InputError(_without_picture(root, image_id, where, more, images))
        if not is_image_id(image_id):
            raise InputError(f"{where}: {image_id} is no name for an image: rename {images[image_id]}")
        mask = root / "SegmentationClass" / f"{image_id}.png" if labelled else None
        if mask is not None and not file_there(mask):
            refuse_irregular(mask)
            for other in beside.get(loose_name(image_id), ()):
                if not other.lower().endswith((".jpg", ".jpeg")):  # such may be made to be looked at
                    raise InputError(f"{where}: there is no {mask}, but {other} beside it: {_as_png(other)}")
            mask = None
        if mask is None and labelled and (scored or not with_xml):
            why = (
                "this list is scored and needs masks" if scored else "without Annotations the label comes from the mask"
            )
            raise InputError(
                f"{where}: there is no SegmentationClass/{image_id}.png, and {why}: add it or delete the {_what(where)}"
            )
        annotation = root / "Annotations" / f"{image_id}.xml" if with_xml and labelled else None
        if annotation is not None and not file_there(annotation):
            refuse_irregular(annotation)
            missing_xml = f"{where}: there is no Annotations/{image_id}.xml"
            if (nearly := _xml_like(annotation)) is not None:
                raise InputError(f"{missing_xml}, but {nearly} beside it: rename it")
            raise InputError(f"{missing_xml}: add it or delete the {_what(where)}")
        may_be_empty = name in EVALUATION_LISTS
        entries.append(Entry(image_id, where, images[image_id], mask, annotation, labelled, may_be_empty))
    return entries


def has_annotations(root: Path) -> bool:
    """Return whether labels come from XML files rather than from masks."""
    return any((root / "Annotations").glob("*.xml"))


def check_entry(entry: Entry, classes: Sequence[str]) -> Checked:
    """Decode the entry's files whole and read its label. InputError names the file that is wrong and the cure."""
    image_bytes = read_input(entry.image, MAX_BYTES)
    with _LARGE_ALONE if _pixels(image_bytes) > LARGE else nullcontext():
        return _check_files(entry, classes, image_bytes)


def _check_files(entry: Entry, classes: Sequence[str], image_bytes: bytes) -> Checked:
    """`check_entry`, the image file read. No more than one decoded picture is held at a time."""
    cure = f"get the file again or delete {entry.where}"
    image, turned = _check_picture(entry.image, image_bytes, cure)
    shape, pixels = (image.shape[0], image.shape[1]), hashlib.sha256(repr(image.shape).encode())
    pixels.update(np.ascontiguousarray(image).data)
    del image
    mask_bytes = read_input(entry.mask, MAX_BYTES) if entry.mask is not None else None
    present: Collection[int] | None = () if entry.labelled else None
    in_mask, ignored, odd_colour, annotation = None, 0.0, None, None
    if mask_bytes is not None:
        counts, odd_colour = _check_mask(entry, mask_bytes, shape, turned, classes)
        in_mask = tuple(int(v) - 1 for v in np.flatnonzero(counts) if v not in (0, IGNORE))
        present, ignored = in_mask, float(counts[IGNORE] / counts.sum())
    source, why = entry.mask, f" (0 and {IGNORE} alone, and {IGNORE} means ignore)" if ignored else ""
    if entry.annotation is not None:
        annotation = read_annotation(entry.annotation, classes)
        present, source, why = annotation.classes, entry.annotation, ""
    if present is not None and not present and not entry.may_be_empty:
        raise InputError(f"{source} holds no object{why}, and a training picture needs a class: delete {entry.where}")
    return Checked(
        entry,
        None if present is None else tuple(sorted(present)),
        hashlib.sha256(image_bytes).hexdigest(),
        None if mask_bytes is None else hashlib.sha256(mask_bytes).hexdigest(),
        len(image_bytes) + len(mask_bytes or b""),
        shape,
        turned,
        in_mask,
        ignored,
        odd_colour,
        pixels.hexdigest(),
        annotation.file if annotation is not None and not _is_file_of(entry.name, annotation.file) else None,
        annotation.size if annotation is not None and annotation.size != shape else None,
    )


def _is_file_of(name: str, file: str | None) -> bool:
    """Return whether an annotation's file name can be that of the image with an id; some tools leave the ending out."""
    return file is None or loose_name(name) in (loose_name(file), loose_name(Path(file).stem))


def decode_whole(source: Path | str, data: bytes, cure: str) -> NDArray[np.uint8]:
    """Return a JPEG or PNG picture that decodes to its last row: RGB, uint8 (H, W, 3), as `cpn.data.voc.decode_image`
    has it.

    InputError, naming `source` and `cure`, for anything else.
    """
    _check_picture(source, data, cure)
    return decode_image(data)


def _check_picture(source: Path | str, data: bytes, cure: str) -> tuple[NDArray[np.uint8], bool]:
    """Return a picture that decodes whole, (H, W, 3) in OpenCV's order, and whether EXIF turns it. InputError for
    others.
    """
    if not data:
        raise InputError(f"{source} has no bytes: {cure}")
    try:
        # PIL first: it refuses a picture that is cut off and says so, where OpenCV 4 fills the rest with grey.
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(f"{picture.width * picture.height} pixels, at most {MAX_PIXELS} are read")
            _refuse_animation(source, picture)
            turned = is_turned(picture)
            picture.draft("L", (1, 1))  # a JPEG's data are read to their end also at an eighth of the size
            picture.load()
            del picture  # its pixels, before OpenCV makes them once more
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise ValueError("not a JPEG or PNG image")
    except _UNREADABLE as error:
        kind = format_of(data)
        if kind not in (None, "JPEG", "PNG"):
            raise InputError(
                f"{source} is no whole JPEG or PNG picture ({kind} by its content): {_convert(kind, cure)}"
            ) from error
        raise InputError(f"{source} is no whole JPEG or PNG picture ({_brief(error)}): {cure}") from error
    _refuse_dark(source, data, image)
    return image.astype(np.uint8, copy=False), turned


def _refuse_dark(source: Path | str, data: bytes, image: NDArray[np.generic]) -> None:
    """Raise InputError for a PNG of 16 bits a channel that uses 12 of them at most: read by its upper 8 it is black."""
    if not data.startswith(b"\x89PNG") or data[24] != 16 or image.max() >= 16:  # byte 24 of a PNG is its depth
        return
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if deep is not None and (largest := int(deep.max())):
        raise InputError(
            f"{source} has 16 bits a channel and no value above {largest} of 65535, so that it is read as black: "
            "scale its values to 0 to 255 and save it with 8 bits a channel"
        )


def _refuse_animation(source: Path | str | None, picture: Image.Image) -> None:
    """Raise InputError for an animated PNG, of which only one image would be read. A JPEG's others are its previews."""
    frames = getattr(picture, "n_frames", 1)
    if picture.format == "PNG" and frames > 1:
        raise InputError(f"{source} is an animation of {frames} images: save one of them as a PNG of its own")


def _pixels(data: bytes) -> int:
    """How many pixels a picture has by its header; 0 where nothing is recognised."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as picture:
            return picture.width * picture.height
    except _UNREADABLE:
        return 0


def _convert(kind: str | None, cure: str) -> str:
    """Return the cure for a file of a known kind: a picture of another format is converted."""
    return "convert it to JPEG or PNG" if kind in CONVERTIBLE else cure


def is_turned(picture: Image.Image) -> bool:
    """Return whether EXIF asks for a turned or mirrored picture; damaged EXIF asks for nothing."""
    try:
        return picture.getexif().get(ORIENTATION, 1) not in (0, 1)
    except _UNREADABLE:
        return False


def _check_mask(
    entry: Entry, data: bytes, shape: tuple[int, int], turned: bool, classes: Sequence[str]
) -> tuple[NDArray[np.int64], str | None]:
    """Pixels of each of the 256 values in a mask, and a colour of its palette that is neither VOC's nor grey."""
    cure = f"correct it or delete {entry.where}"
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            _refuse_animation(entry.mask, picture)
            if (picture.height, picture.width) != shape:
                raise InputError(_other_size(entry, picture.size, shape, turned, cure))
            picture.load()
            mode, values = picture.mode, np.array(picture)
            colours = picture.getpalette() if mode == "P" else None
    except _UNREADABLE as error:
        kind = format_of(data)
        reason = _brief(error) if kind in (None, "PNG") else f"{kind} by its content"
        raise InputError(f"{entry.mask} is no whole PNG ({reason}): {cure}") from error
    if mode not in ("P", "L"):
        raise InputError(f"{entry.mask} is of mode {mode}: {_mask_cure(mode, classes)}")
    if mode == "L" and data[BIT_DEPTH] < 8:
        spread = 255 // (2 ** data[BIT_DEPTH] - 1)
        raise InputError(
            f"{entry.mask} is a grey PNG of {data[BIT_DEPTH]} bits, whose values are shades (1 is read as {spread}): "
            f"{_mask_cure(mode, classes)}"
        )
    counts = np.zeros(256, np.int64)
    for rows in range(0, len(values), BLOCK_ROWS):  # bincount makes 8 bytes of each value
        counts += np.bincount(values[rows : rows + BLOCK_ROWS].ravel(), minlength=256)
    wrong = np.flatnonzero(counts[len(classes) + 1 : IGNORE]) + len(classes) + 1
    if wrong.size:
        row, column = np.argwhere(np.isin(values, wrong))[0]
        value = int(values[row, column])
        raise InputError(
            f"{entry.mask} holds {value} at row {row}, column {column}: a mask holds 0 (background), "
            f"1 to {len(classes)} (classes) and {IGNORE} (ignore): {cure}"
        )
    return counts, None if colours is None else _odd_colour(colours, np.flatnonzero(counts))


def _other_size(entry: Entry, size: tuple[int, int], shape: tuple[int, int], turned: bool, cure: str) -> str:
    """Return what is said of a mask that does not fit its picture."""
    if turned and size == shape:
        cure = "the picture's EXIF turns it, and masks belong to the pixels as they are stored: save the picture turned"
    return f"{entry.mask} is {size[0]}x{size[1]}, its picture {shape[1]}x{shape[0]} pixels: {cure}"


def _mask_cure(mode: str, classes: Sequence[str]) -> str:
    """Return how a mask in another mode becomes one of indices. Saving colours as a palette PNG would number
    them anew.
    """
    values = f"0 background, 1 {classes[0]}, {f'2 {classes[1]}, ' if len(classes) > 1 else ''}... {IGNORE} ignore"
    if mode in ("RGB", "RGBA"):
        return (
            f"a mask holds class indices and no colours: write each colour's index ({values}) and save it as grey PNG "
            "(L); a conversion to a palette numbers colours by how often they occur (docs/own_data.md has the lines)"
        )
    return f"a mask holds class indices of 8 bits ({values}): save it as grey PNG (L)"


def _odd_colour(colours: Sequence[int], used: NDArray[np.intp]) -> str | None:
    """Return the first used index whose colour is neither VOC's nor its grey level, in words."""
    table = np.array(colours, np.int64).reshape(-1, 3)
    for kind in (palette().astype(np.int64), np.arange(256)[:, None].repeat(3, 1)):
        odd = [at for at in used if 0 < at < min(len(table), IGNORE) and (table[at] != kind[at]).any()]
        if not odd:
            return None
    red, green, blue = table[odd[0]].tolist()
    return f"{int(odd[0])} is ({red}, {green}, {blue})"


def _is_labelled(root: Path, ids: Collection[str]) -> bool:
    """Return whether any image has a label or a mask. VOC's test images never count: what XML they have is for other
    tasks.
    """
    parts = ("Annotations/{}.xml", "SegmentationClass/{}.png")
    own_classes = is_there(root / "classes.txt")
    return own_classes and any(file_there(root / part.format(image_id)) for image_id in ids for part in parts)


def _without_picture(root: Path, image_id: str, where: str, more: str, images: Mapping[str, Path]) -> str:
    """Return what is said of a listed image that is not there, with the file that may have been meant."""
    others = pictures_by_name(root / "JPEGImages").get(loose_name(image_id))
    if others:
        convert = Path(others[0]).suffix.lower() not in PICTURES
        how = "convert it to JPEG or PNG" if convert else "write the name as it is there"
        if not convert and unicodedata.normalize("NFC", Path(others[0]).stem) == unicodedata.normalize("NFC", image_id):
            how += ", its letters are in another Unicode form (accents apart or not)"
        return f"{where}: there is no JPEGImages/{image_id}.jpg{more}, but {others[0]}: {how}"
    if re.fullmatch(r"\S+\s+(-1|0|1)", image_id):
        return (
            f"{where}: {image_id} is neither an image id nor the two paths of image and mask (a list for "
            "classification?): write the id alone"
        )
    there = f"{where}: there is no JPEGImages/{image_id}.jpg{more}"
    parts = (re.sub(ENDING, "", part) for part in re.split(r"[^\w.-]+", image_id))
    if (inside := next((part for part in parts if part in images), None)) is not None:
        return f"{there}, but {images[inside].name}: write {inside} alone on its line, or delete the {_what(where)}"
    return f"{there}: add it or delete the {_what(where)}"


def _xml_like(path: Path) -> str | None:
    """Return an annotation of the same name but for capitals and Unicode forms; None where there is none."""
    wanted = loose_name(path.name)
    return next((name for name in sorted(os.listdir(path.parent)) if loose_name(name) == wanted), None)


def _as_png(name: str) -> str:
    """Return the cure for a mask under another name."""
    return "rename it" if Path(name).suffix.lower() == ".png" else "save its class indices as PNG"


def _what(where: str) -> str:
    """Return whether an image is in its list by a line or, by rule, by a file."""
    return "line" if " line " in where else "file"


def _by_stem(folder: Path) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURES:
            if path.stem in by_stem:
                raise InputError(
                    f"{folder} holds {by_stem[path.stem].name} and {path.name}: one id, so delete one of them"
                )
            by_stem[path.stem] = path
    return by_stem


def _brief(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):  # its words name an object in memory
        return "what it holds is not recognised"
    return " ".join(str(error).split())
