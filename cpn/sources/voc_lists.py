"""Which images a list of a VOC-layout folder names: read from its file, or for `trainaug` by rule from SBD's folder.

trainaug = the images of SBD and of VOC train, without those of VOC val: 10,582 (method.md (a)). Of SBD only the names
of its files are read: its masks enter neither training nor scoring.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from cpn.core.errors import InputError
from cpn.core.plain_file import MB, file_there, folder_there, is_there, read_input, refuse_irregular
from cpn.data.voc import VOC_CLASSES, Pack
from cpn.sources.image_ids import LONGEST_ID, PICTURES

SBD_FOLDERS = ("SegmentationClassAug", "benchmark_RELEASE/dataset/cls")
"""Where SBD's masks may lie in the data set: as PNGs, usually with VOC's own among them, or as its archive unpacks."""

_USUAL = {
    "augtrain": "trainaug",
    "trainaugmented": "trainaug",
    "trainsbd": "trainaug",
    "training": "train",
    "valid": "val",
    "validation": "val",
}

VOC_COUNTS = {"train": 1464, "val": 1449, "trainaug": 10582, "test": 1456}
"""Images of VOC 2012's segmentation lists."""

MAX_BYTES = 64 * MB
MAX_LINES = 2_000_000
"""The most that a list may have; ImageNet's has 1.3 million."""


def list_path(root: Path, name: str) -> Path:
    """Return the file of list `name`. InputError if the name could leave the folder."""
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".index"):
        raise InputError(f"--lists {name}: a list is named by the file's stem, for example train")
    return root / "ImageSets" / "Segmentation" / f"{name}.txt"


def has_list(root: Path, name: str) -> bool:
    """Return whether list `name` can be read: from its file, or by rule."""
    return file_there(list_path(root, name)) or (name == "trainaug" and sbd_folder(root) is not None)


def sbd_folder(root: Path) -> Path | None:
    """Return the folder with SBD's masks in the data set, if it is there and not empty."""
    return next((root / part for part in SBD_FOLDERS if _sbd_files(root / part)), None)


def listed_ids(root: Path, name: str) -> dict[str, str]:
    """Return the ids of list `name` in its order, and for each where it comes from, for messages.

    A list file always decides; without one `trainaug` is made by rule. InputError for a list that is not there, is
    empty, names an id twice, or has a line that is neither an id nor the two paths of image and mask.
    """
    path = list_path(root, name)
    if file_there(path):
        return _ids_of(path)
    if folder_there(path):
        raise InputError(f"{path} is a folder and cannot be read: put a file there")
    if name == "trainaug":
        folder = sbd_folder(root)
        if folder is None:
            refuse_irregular(path)
            if others := other_names(root, name):
                raise InputError(
                    f"{path} is missing, but {others[0]}.txt is there: rename it, or give --lists train {others[0]} "
                    f"val and then --set data.train={others[0]}"
                )
            raise InputError(f"{path} is missing: {_get_trainaug(root)}")
        return _trainaug(root, folder)
    refuse_irregular(path)
    if others := other_names(root, name):
        raise InputError(f"{path} is missing, but {others[0]}.txt is there: rename it, or choose it with --lists")
    there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
    raise InputError(f"{path} is missing: add it, or choose with --lists among those there: {there}")


def other_names(root: Path, name: str) -> list[str]:
    """Return lists that are there under another usual name of `name`: `train_aug` and `trainaug_id` for `trainaug`."""
    wanted = usual_name(name)
    names = sorted(path.stem for path in list_path(root, name).parent.glob("*.txt"))
    return [other for other in names if other != name and usual_name(other) == wanted]


def other_folders(root: Path, name: str) -> list[str]:
    """Folders that the lines of a list name beside JPEGImages and SegmentationClass, from which all is read."""
    path = list_path(root, name)
    lines = (line.replace("\\", "/") for _, line in numbered_lines(path)) if file_there(path) else ()
    named = {
        folder for line in lines for folder in re.findall(r"([^/\s]+)/[^/]*?\.(?:jpe?g|png)\b", line, re.IGNORECASE)
    }
    return sorted(named - {"JPEGImages", "SegmentationClass"})


def usual_name(name: str) -> str:
    """Return the name under which VOC's lists are known here, for one of its other usual forms; others in small
    letters.
    """
    bare = re.sub(r"[\W_]", "", re.sub(r"[\W_](ids?|list)$", "", name.lower()))
    return _USUAL.get(bare, bare)


def is_for_training(name: str) -> bool:
    """Return whether a list's name says that it is trained on: whatever is not for evaluation."""
    return not re.match(r"(mini)?(val|test|dev|eval)", name.lower())


def list_warnings(pack: Pack) -> list[str]:
    """List what is odd about the lists of a packed data set without being wrong, one line each.

    VOC's own lists have published sizes; images of `val` in a training list would be trained on; and images of `train`
    that `trainaug` lacks would be scored without a pseudo label.
    """
    ids = {name: set(pack.split(name).ids) for name in pack.lists}
    warnings = []
    if pack.classes == VOC_CLASSES:
        for name, expected in VOC_COUNTS.items():
            if name in ids and len(ids[name]) != expected:
                warnings.append(f"{name} has {len(ids[name])} images, that of VOC 2012 has {expected}")
    for name in sorted(filter(is_for_training, ids), key=lambda name: (len(name), name)):
        for other in sorted(name for name in ids if not is_for_training(name)):
            if both := ids[name] & ids[other]:
                warnings.append(
                    f"{len(both)} images of {other} are also in {name} (such as {min(both)}): they would be trained on"
                )
    if "trainaug" in ids and (lost := ids.get("train", set()) - ids["trainaug"]):
        warnings.append(
            f"{len(lost)} images of train are not in trainaug (such as {min(lost)}): they get no pseudo label"
        )
    return warnings


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank; a byte order mark and CRLF are no matter. InputError for other than UTF-8."""
    try:
        text = read_input(path, MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    if text.count("\n") > MAX_LINES:
        raise InputError(f"{path} has more than {MAX_LINES} lines: give the right file")
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _ids_of(path: Path) -> dict[str, str]:
    numbers: dict[str, int] = {}
    for number, line in numbered_lines(path):
        image_id = _image_id(line, f"{path} line {number}")
        if image_id in numbers:
            raise InputError(
                f"{path} line {number}: {image_id} is already on line {numbers[image_id]}: delete one of them"
            )
        numbers[image_id] = number
    if not numbers:
        raise InputError(f"{path} is empty: write one image id per line")
    return {image_id: f"{path} line {number}" for image_id, number in numbers.items()}


def _trainaug(root: Path, folder: Path) -> dict[str, str]:
    """Return the rule, in the order of the ids: VOC publishes none for this list."""
    train, val = (listed_ids(root, name) for name in ("train", "val"))
    paths = {path.stem: str(path) for path in _sbd_files(folder)} | train
    return {image_id: paths[image_id] for image_id in sorted(paths.keys() - val.keys())}


def _sbd_files(folder: Path) -> list[Path]:
    there = folder_there(folder)  # a folder that is a link to nowhere is no folder without files
    return [path for path in folder.glob("*") if path.suffix in (".png", ".mat")] if there else []


def _get_trainaug(root: Path) -> str:
    if is_there(root / "classes.txt"):  # a data set with classes of its own, to which SBD says nothing
        return (
            "it lists the images to train on: copy train.txt to it where there are no more, or do without: "
            "--lists train val, then --set data.train=train"
        )
    return (
        "VOC has no such list, it is made by rule from SBD, the Semantic Boundaries Dataset: unpack its benchmark.tgz "
        f"(http://home.bharathh.info/pubs/codes/SBD/download.html) in {root}, or put its masks as PNGs into "
        f"{root / SBD_FOLDERS[0]} (only their names are read), or write the list: the ids of SBD and of VOC train "
        "without those of VOC val (10582); or do without: --lists train val, then --set data.train=train"
    )


def _image_id(line: str, where: str) -> str:
    """Return the id in a list line: the line itself, or the stem that both of its paths share. Names may hold
    blanks.
    """
    line = line.replace("\\", "/")
    both = re.fullmatch(r"(.*/.*\.(?:jpg|jpeg|png))\s+(\S*/.*)", line, re.IGNORECASE)
    fields: Sequence[str] = both.groups() if both else (line,)
    if any(part in ("..", ".") for field in fields for part in field.split("/")):
        raise InputError(f"{where}: {line} leaves the folder of the data set: write a plain image id")
    stems = {_stem(field) for field in fields}
    if len(stems) > 1:
        raise InputError(f"{where}: {line} names two different pictures: write the image and its own mask")
    if len((stem := stems.pop()).encode()) > LONGEST_ID:
        raise InputError(
            f"{where}: the id {stem} has {len(stem.encode())} bytes, and a file's name holds {LONGEST_ID} beside its "
            "ending: correct the line, or rename the picture"
        )
    if not stem:
        raise InputError(
            f"{where}: {line} is neither an image id nor the two paths of image and mask: correct the line"
        )
    return stem


def _stem(field: str) -> str:
    """Return the id in one name or path."""
    name = field.rsplit("/", 1)[-1]
    return Path(name).stem if Path(name).suffix.lower() in PICTURES else name
