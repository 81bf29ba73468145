"""Reads one of MS COCO's annotation files and checks it against itself and the pictures that lie there.

Nothing is lost on the way: what stands twice, or has no place in VOC's layout, is named by its own name and refused.
"""

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cpn.core.errors import InputError
from cpn.core.plain_file import folder_there, refuse_irregular
from cpn.data.voc import IGNORE
from cpn.sources.class_names import CLASS_NAME, LONGEST_CLASS, is_background, is_no_class, same_but_for_capitals
from cpn.sources.coco_masks import Annotation, extent, read_annotation, whole_number
from cpn.sources.image_ids import PICTURES, is_image_id, loose_name, pictures_by_name

GET_COCO = "get it from https://cocodataset.org/#download and unpack it there"


@dataclass(frozen=True)
class ImageJob:
    """One image and what is annotated in it."""

    source: Path
    height: int
    width: int
    annotations: list[Annotation]
    kinds: list[int]
    """Mask value of each annotation; IGNORE for one that says what is to be ignored."""
    file: str = ""
    """Its name in the annotation file, a path below the set's folder."""
    name: str = ""
    """Its id in the VOC layout."""


@dataclass(frozen=True)
class CocoSet:
    """One set, its annotations read and checked."""

    name: str
    classes: tuple[str, ...]
    """Names in the order of their category ids."""
    images: int
    """How many images it has."""
    jobs: list[ImageJob]
    """Those with annotations of classes, by name."""
    notes: tuple[str, ...] = ()
    """What was found that is odd without being wrong, one line each."""


def read_set(path: Path, name: str, folder: Path, masks: bool = True) -> CocoSet:
    """Read one annotation file and check it against itself and the names in the image folder.

    With `masks` some object has to have a shape: where all have boxes alone nothing is known of any pixel. The file is
    parsed whole, with polygons packed into arrays on the way: memory of about three times its size.
    InputError, one line, for what is missing, cut off or contradictory.
    """
    content = _parse(path)
    categories: dict[int, str] = {}
    for item in _items(path, content, "categories"):
        number = _number(path, "a category", item, "id")
        if number in categories:
            raise InputError(f"{path}: category id {number} stands twice: give each category its own")
        categories[number] = _category_name(path, number, item)
    without = {number for number, text in categories.items() if is_no_class(text)}
    values = {number: at for at, number in enumerate(sorted(categories.keys() - without), start=1)}
    _check_classes(path, [categories[number] for number in values])
    # Pixels of a category called void are to be ignored; those of one called background need no mark.
    ignored = {number for number in without if not is_background(categories[number])}
    images = _images(path, content)
    by_image: dict[int, list[Annotation]] = defaultdict(list)
    unused, boxes, total, odd = set(values), 0, 0, _Odd()
    for at, annotation in enumerate(_items(path, content, "annotations"), start=1):
        if not isinstance(annotation, Annotation):
            raise InputError(
                f"{path}: annotation {at} of the list has no image_id, category_id and segmentation: it is no file of "
                f"instances: {GET_COCO}"
            )
        if annotation.image not in images:
            raise InputError(
                f"{path}: annotation {annotation.number} is of image {annotation.image}, which is not there: add the "
                "image or delete the annotation"
            )
        if annotation.category not in categories:
            raise InputError(
                f"{path}: annotation {annotation.number} is of unknown category {annotation.category}: add it to "
                "`categories`"
            )
        if annotation.category in values or annotation.category in ignored:
            odd.look(path, annotation, *images[annotation.image][1:])
            by_image[annotation.image].append(annotation)
            unused.discard(annotation.category)
            boxes, total = boxes + annotation.shapeless, total + 1
    odd.refuse_shares(path)
    jobs = []
    folders = _Folders(folder)
    for image, annotations in by_image.items():
        file, height, width = images[image]
        if any(a.category in values for a in annotations):
            kinds = [values.get(a.category, IGNORE) for a in annotations]
            source = folders.find(path, image, file)
            jobs.append(ImageJob(source, height, width, annotations, kinds, file))
    if folders.missing:
        raise InputError(folders.sentence())
    if not jobs:
        raise InputError(f"{path} has no annotations of a class: {GET_COCO}")
    if masks and boxes == total:
        raise InputError(
            f"{path}: none of the {total} objects has a polygon or run lengths, only boxes, and a box says nothing of "
            "its pixels: export polygons, or give --no-masks for labels alone (objective=mask_free)"
        )
    names = tuple(categories[number] for number in values)
    never = [categories[number] for number in sorted(unused)]
    notes = _notes(name, boxes if masks else 0, total, [categories[n] for n in sorted(without)], never)
    return CocoSet(name, names, len(images), sorted(jobs, key=lambda job: job.file), (*notes, *odd.notes(name)))


def named(sets: Sequence[CocoSet]) -> list[CocoSet]:
    """Return the sets with an id for every image, and a note about those that are not named like their file.

    The id is the file's name without its ending, a sub-folder's name before it. Where an image would take one that is
    taken, by the sets in the order of their names, its set's name stands before it, then its ending behind it. Raises
    InputError, naming both files, where that does not help.
    """
    taken: dict[str, str] = {}
    ids: dict[tuple[str, str], str] = {}
    for name, file in (
        (coco_set.name, j.file) for coco_set in sorted(sets, key=lambda coco_set: coco_set.name) for j in coco_set.jobs
    ):
        free = (text for text in (_id_of(name, file, level) for level in range(3)) if text not in taken)
        ids[name, file] = next(free, "")
        if not ids[name, file]:
            other = taken[_id_of(name, file, 2)]
            raise InputError(f"{file!r} of {name} would have the name of {other!r}: rename one of them")
        taken[ids[name, file]] = file
    result = []
    for coco_set in sets:
        jobs = sorted((replace(j, name=ids[coco_set.name, j.file]) for j in coco_set.jobs), key=lambda job: job.name)
        changed = [job for job in jobs if job.name != PurePosixPath(job.file).stem]
        shown = ", ".join(f"{job.file} is {job.name}" for job in changed[:3])
        line = f"note: {coco_set.name}: {len(changed)} images are named otherwise than their files ({shown})"
        result.append(replace(coco_set, jobs=jobs, notes=(*coco_set.notes, *([line] if changed else []))))
    return result


def _id_of(name: str, file: str, level: int) -> str:
    """Return the id of an image at a level of `named`."""
    path = PurePosixPath(file)
    text = str(path.with_suffix("")).replace("/", "_").strip()
    if level:
        text = f"{name}_{text}"
    if level == 2:
        text += "_" + path.suffix.removeprefix(".")
    if not is_image_id(text):  # what is left: it ends like a picture's file
        text = "_".join(text.rsplit(".", 1))
    return text


def _parse(path: Path) -> dict[str, Any]:
    """Return the file's JSON, annotations packed. In UTF-8, UTF-16 or UTF-32, with a byte order mark or without."""

    def compact(pairs: list[tuple[str, Any]]) -> Any:
        values = dict(pairs)
        if len(values) < len(pairs):
            twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
            raise InputError(f"{twice!r} stands twice in one object")
        annotated = "segmentation" in values or {"image_id", "category_id"} <= values.keys()
        return read_annotation(values) if annotated else values

    refuse_irregular(path)
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=compact)
    except InputError as error:
        raise InputError(f"{path}: {error}: get the file again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({' '.join(str(error).split())}): get it again") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is no file of instances: it is no object with `images`, `annotations`, `categories`: {GET_COCO}"
        )
    return content


def _items(path: Path, content: dict[str, Any], key: str) -> list[Any]:
    """Return one of the three lists."""
    items = content.get(key)
    if not isinstance(items, list):
        raise InputError(f"{path} is no file of instances: it has no list `{key}`: {GET_COCO}")
    if key != "annotations" and (odd := next((item for item in items if not isinstance(item, dict)), None)) is not None:
        raise InputError(f"{path}: `{key}` holds {str(odd)[:40]!r}, which is no object with an id: {GET_COCO}")
    return items


def _number(path: Path, what: str, item: dict[str, Any], key: str) -> int:
    number = whole_number(item.get(key))
    if number is None:
        raise InputError(f"{path}: {what} has the {key} {str(item.get(key))[:40]}: a whole number is expected")
    return number


def _category_name(path: Path, number: int, item: dict[str, Any]) -> str:
    """Return a category's name without blanks around it. InputError for what is no text, and for a name of several
    lines, which would be another name in classes.txt.
    """
    name = item.get("name")
    if not isinstance(name, str):
        shown = json.dumps(name)[:40]
        raise InputError(
            f"{path}: category {number} has the name {shown}, which is no text: write its name in quotes, as in "
            '"name": "cat"'
        )
    if not name.strip().isprintable():
        raise InputError(
            f"{path}: category {number} has the name {name[:100]!r}: a name is one line of letters, digits and plain "
            "blanks: correct it"
        )
    return " ".join(name.split())


def _images(path: Path, content: dict[str, Any]) -> dict[int, tuple[str, int, int]]:
    """File name, height and width of each image by its id. An entry that stands twice, word for word, counts once."""
    images: dict[int, tuple[str, int, int]] = {}
    by_file: dict[str, int] = {}
    for item in _items(path, content, "images"):
        image = _number(path, "an image", item, "id")
        file = item.get("file_name")
        if not isinstance(file, str) or not file:
            raise InputError(f"{path}: image {image} has no file_name: write it")
        what = f"image {image} ({file[:100]!r})"
        height, width = (_number(path, what, item, key) for key in ("height", "width"))
        entry = file.replace("\\", "/"), height, width
        if height < 1 or width < 1:
            raise InputError(f"{path}: {what} is {entry[2]}x{entry[1]} pixels: write its width and height")
        other = images.setdefault(image, entry)
        if other != entry:
            raise InputError(
                f"{path}: image id {image} stands twice, for {other[0]!r} and {file!r}: its annotations could be of "
                "either: give each image its own id"
            )
        if by_file.setdefault(entry[0], image) != image:
            raise InputError(
                f"{path}: images {by_file[entry[0]]} and {image} are both {file!r}: give it one id and all its "
                "annotations that id"
            )
    return images


class _Odd:
    """What is odd about objects without being wrong: how many of each kind, and the first."""

    WORDS = {
        "thin": "polygons have fewer than three points and hold no pixel ({}): they are left out",
        "outside": "objects reach out of their image ({}): what is outside is left out",
        "box": "objects have a bbox without area or that is none ({}): their shape counts",
        "twice": "objects have an id that stands twice ({}): each counts",
    }

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}
        self._ids: set[int] = set()
        self._furthest = 0.0
        self._largest_side = 0

    def look(self, path: Path, annotation: Annotation, height: int, width: int) -> None:
        """Count what is odd about an object. InputError, naming the file, where none of it lies in its image."""
        self._count("thin", annotation, annotation.thin)
        self._count("box", annotation, annotation.odd_box)
        self._count("twice", annotation, annotation.number in self._ids)
        self._ids.add(annotation.number)
        place = extent(annotation)
        if place is None:
            return
        left, top, right, bottom = place
        self._furthest = max(self._furthest, right, bottom)
        self._largest_side = max(self._largest_side, height, width)
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise InputError(
                f"{path}: {annotation.named} lies outside of the image, which is {width}x{height} pixels: correct its "
                "coordinates, or the image's width and height, or delete it"
            )
        # COCO's own points lie up to a pixel outside.
        self._count("outside", annotation, min(left, top) < -1 or right > width + 1 or bottom > height + 1)

    def refuse_shares(self, path: Path) -> None:
        """Raise InputError where no object of any image reaches beyond its first pixel, as YOLO writes coordinates."""
        if 0 < self._furthest <= 1 < self._largest_side:
            raise InputError(
                f"{path}: no polygon or box reaches beyond {self._furthest:g}, so its coordinates are shares of the "
                "image, and COCO's are pixels: multiply x by the image's width and y by its height"
            )

    def notes(self, name: str) -> list[str]:
        """Return a line for each kind."""
        seen = [(kind, *self._found[kind]) for kind in self.WORDS if kind in self._found]
        return [f"note: {name}: {count} {self.WORDS[kind].format(f'first {first}')}" for kind, count, first in seen]

    def _count(self, kind: str, annotation: Annotation, more: int) -> None:
        if more:
            count, first = self._found.get(kind, (0, annotation.named))
            self._found[kind] = count + more, first


class _Folders:
    """The names in the folders of a set, each folder listed once, and the pictures that are not there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.missing: list[Path] = []
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, source: Path, image: int, file: str) -> Path:
        """Return where a picture lies; one that is missing is remembered. InputError for a name that cannot be."""
        path = PurePosixPath(file)
        plain = file.isprintable() and not path.is_absolute() and all(p not in ("..", ".") for p in file.split("/"))
        if not plain or not path.stem.strip():
            raise InputError(
                f"{source}: image {image} has the file name {file!r}: a plain NAME.jpg is expected, or one below a "
                "sub-folder"
            )
        if path.suffix.lower() not in PICTURES:
            raise InputError(
                f"{source}: image {image} has the file name {file!r}: pictures are JPEG or PNG, and end so: convert it"
            )
        folder = self.root / path.parent
        if folder not in self._names:
            there = [p.name for p in folder.iterdir()] if folder_there(folder) else []
            self._names[folder] = {unicodedata.normalize("NFC", name): name for name in there}
            self._names[folder] |= {name: name for name in there}
        name = self._names[folder].get(path.name) or self._names[folder].get(unicodedata.normalize("NFC", path.name))
        if name is None:
            self.missing.append(folder / path.name)
        return folder / (name or path.name)

    def sentence(self) -> str:
        """Return what is said of the missing pictures, with a file that may have been meant."""
        first = self.missing[0]
        more = f" ({len(self.missing)} images of this set are missing)" if len(self.missing) > 1 else ""
        other = next(iter(pictures_by_name(first.parent).get(loose_name(first.stem), ())), None)
        if other is None:
            return f"{first} is missing{more}: {GET_COCO}"
        convert = Path(other).suffix.lower() not in PICTURES
        cure = "convert it to JPEG or PNG under that name" if convert else "write one of both names like the other"
        return f"{first} is missing{more}, but {other} is there: {cure}"


def _check_classes(path: Path, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"{path} has {len(names)} categories, and {twice!r} stands twice: 1 to {IGNORE - 1} of different names are "
            "expected"
        )
    for at, name in enumerate(names):
        if (twin := same_but_for_capitals(name, names[:at])) is not None:
            raise InputError(
                f"{path}: the categories {twin!r} and {name!r} are one name but for capitals, and would share files "
                "and metrics: rename one, or give its annotations the other's id"
            )
    if not names or len(names) >= IGNORE or not all(names):
        raise InputError(f"{path} has {len(names)} categories: 1 to {IGNORE - 1} of different names are expected")
    odd = next((name for name in names if not CLASS_NAME.fullmatch(name) or len(name) > LONGEST_CLASS), None)
    if odd is not None:
        raise InputError(
            f"{path} has the category {odd!r}: a name has letters, digits and spaces, {LONGEST_CLASS} characters at "
            "most: correct it"
        )


def _notes(name: str, boxes: int, total: int, without: Sequence[str], never: Sequence[str]) -> tuple[str, ...]:
    lines = []
    if without:
        lines.append(f"note: {name}: {', '.join(without)} is no class, and all others count from 1")
    if boxes:
        lines.append(
            f"note: {name}: {boxes} of {total} objects have a box and no shape: it is ignored in the masks, and a label"
        )
    if never:
        more = f" and {len(never) - 3} more" if len(never) > 3 else ""
        lines.append(f"note: {name}: no object of {', '.join(never[:3])}{more}")
    return tuple(lines)
