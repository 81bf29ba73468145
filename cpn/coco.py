"""Writes MS COCO in VOC layout, so that `cpn.prepare` packs it like any other data set.

    python -m cpn.coco /data/coco /data/coco_voc

Read are annotations/instances_SET.json and the images in SET/ or images/SET/. The categories become classes 1, 2, ...
in the order of their ids (80 of them); the train set becomes lists `train` and `trainaug`, the val set `val`. Images
without any annotation are left out of all lists, as is usual for COCO in weakly supervised segmentation: the label
would be empty. A class that only a crowd shows counts as label (crowds are IGNORE in the mask), like VOC's difficult
objects. The same command goes on after a stop.
"""

import argparse
import errno
import json
import os
import re
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import escape

from PIL import Image

from cpn.coco_masks import Annotation, image_mask, read_annotation
from cpn.errors import InputError, WorkError, run_command
from cpn.files import file_digest, read_json, whole_file, write_bytes, write_json
from cpn.progress import Progress, shown_progress, silent
from cpn.voc import IGNORE, encode_mask
from cpn.voc_folder import CLASS_NAME

SETS = ("train2014", "val2014")
LISTS = {"train": ("train", "trainaug"), "val": ("val",)}
"""Lists that a set becomes, by what its name begins with."""

MARKER = "coco.json"
"""Says of which annotation files the folder is made."""

Images = Literal["link", "symlink", "copy"]

GET_COCO = "get it from https://cocodataset.org/#download and unpack it there"


@dataclass(frozen=True)
class ImageJob:
    """One image and what is annotated in it."""

    source: Path
    height: int
    width: int
    annotations: list[Annotation]
    kinds: list[int]
    """Mask value of each annotation."""

    @property
    def name(self) -> str:
        """Its id in the VOC layout."""
        return self.source.stem


@dataclass(frozen=True)
class CocoSet:
    """One set, its annotations read and checked."""

    name: str
    classes: tuple[str, ...]
    """Names in the order of their category ids."""
    images: int
    """How many images it has."""
    jobs: list[ImageJob]
    """Those with annotations, by name."""


def convert(
    root: Path,
    out: Path,
    sets: Sequence[str] = SETS,
    images: Images = "link",
    processes: int = 0,
    report: Progress = silent,
) -> list[CocoSet]:
    """Write the sets of COCO at `root` to `out` in VOC layout; returns what was read. Resumes itself.

    `images` says how pictures get there: hard links, symbolic links, or copies. With `processes` 0 all is done in this
    one. InputError in one line for anything missing, cut off or contradictory.
    """
    by_list = _lists_of(sets)
    files = {name: root / "annotations" / f"instances_{name}.json" for name in sets}
    for path in files.values():
        if not path.is_file():
            raise InputError(f"{path} is missing: {GET_COCO}")
    marker = {"sets": {name: file_digest(path) for name, path in files.items()}}
    _refuse_other(out, marker)
    read = [read_set(path, name, image_folder(root, name)) for name, path in files.items()]
    if len({found.classes for found in read}) != 1:
        raise InputError(f"{files[sets[1]]} has other categories than {files[sets[0]]}: use sets of one data set")
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (out / part).mkdir(parents=True, exist_ok=True)
    write_json(out / MARKER, marker)
    for found in read:
        work = partial(convert_image, out=out, classes=found.classes, images=images)
        for done, _ in enumerate(_spread(work, found.jobs, processes), start=1):
            report(f"writing {found.name}", done, len(found.jobs))
    write_bytes(out / "classes.txt", ("\n".join(read[0].classes) + "\n").encode())
    for found in read:
        for name in by_list[found.name]:
            ids = "\n".join(job.name for job in found.jobs) + "\n"
            write_bytes(out / "ImageSets" / "Segmentation" / f"{name}.txt", ids.encode())
    return read


def image_folder(root: Path, name: str) -> Path:
    """Where the images of a set lie. InputError if nowhere."""
    for folder in (root / name, root / "images" / name):
        if folder.is_dir():
            return folder
    raise InputError(f"{root / name}: no such folder, nor {root / 'images' / name}: {GET_COCO}")


def read_set(path: Path, name: str, folder: Path) -> CocoSet:
    """Read one annotation file and check it against itself and the names in the image folder.

    The file is parsed whole, with polygons packed into arrays on the way: memory of about three times its size.
    """

    def compact(values: dict[str, Any]) -> Any:
        return read_annotation(values) if "segmentation" in values else values

    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_hook=compact)
    except InputError as error:
        raise InputError(f"{path}: {error}: get the file again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({' '.join(str(error).split())}): get it again") from error
    try:
        pictures = {int(item["id"]): item for item in content["images"]}
        categories = {int(item["id"]): " ".join(str(item["name"]).split()) for item in content["categories"]}
        annotations = content["annotations"]
        by_image: dict[int, list[Annotation]] = defaultdict(list)
        for annotation in annotations:
            by_image[annotation.image].append(annotation)
        sizes = {key: (str(p["file_name"]), int(p["height"]), int(p["width"])) for key, p in pictures.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no file of instances ({type(error).__name__}: {error}): {GET_COCO}") from error
    _check_classes(path, list(categories.values()))
    values = {category: at for at, category in enumerate(sorted(categories), start=1)}
    there = {entry.name for entry in os.scandir(folder)}
    jobs = []
    for image, found in by_image.items():
        if image not in sizes:
            raise InputError(f"{path}: annotation {found[0].number} is of image {image}, which is not there")
        unknown = next((a for a in found if a.category not in values), None)
        if unknown is not None:
            raise InputError(f"{path}: annotation {unknown.number} is of unknown category {unknown.category}")
        file, height, width = sizes[image]
        if not re.fullmatch(r"[\w-][\w.-]*\.jpg", file):
            raise InputError(f"{path}: image {image} has the file name {file!r}: a plain NAME.jpg is expected")
        jobs.append(ImageJob(folder / file, height, width, found, [values[a.category] for a in found]))
    missing = [job.source for job in jobs if job.source.name not in there]
    if missing:
        more = f" ({len(missing)} images of this set are missing)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]} is missing{more}: {GET_COCO}")
    if not jobs:
        raise InputError(f"{path} has no annotations: {GET_COCO}")
    names = tuple(categories[category] for category in sorted(categories))
    return CocoSet(name, names, len(pictures), sorted(jobs, key=lambda job: job.name))


def convert_image(job: ImageJob, out: Path, classes: Sequence[str], images: Images) -> None:
    """Write annotation, picture and mask of one image. InputError names the picture.

    The mask comes last: where it is there, all three are whole and nothing is done.
    """
    target = out / "SegmentationClass" / f"{job.name}.png"
    if target.exists():
        return
    try:
        with Image.open(job.source) as picture:
            width, height = picture.size
    except OSError as error:
        raise InputError(f"{job.source} is no picture ({' '.join(str(error).split())}): get it again") from error
    if (height, width) != (job.height, job.width):
        raise InputError(
            f"{job.source} is {width}x{height} pixels, its annotations are for {job.width}x{job.height}: get it again"
        )
    try:
        mask = image_mask(job.annotations, job.kinds, height, width)
    except InputError as error:
        raise InputError(f"{job.source}: {error}: get the annotations again") from None
    write_bytes(out / "Annotations" / f"{job.name}.xml", _xml(job, classes).encode())
    _place_image(job.source, out / "JPEGImages" / job.source.name, images)
    write_bytes(target, encode_mask(mask))


def _xml(job: ImageJob, classes: Sequence[str]) -> str:
    """VOC's annotation as far as image labels need it: the names of all objects; a crowd is a difficult one."""
    text = f"<annotation>\n  <filename>{job.source.name}</filename>\n"
    text += f"  <size><width>{job.width}</width><height>{job.height}</height><depth>3</depth></size>\n"
    for annotation, kind in zip(job.annotations, job.kinds, strict=True):
        name = escape(classes[kind - 1])
        text += f"  <object><name>{name}</name><difficult>{int(annotation.crowd)}</difficult></object>\n"
    return text + "</annotation>\n"


def _place_image(source: Path, target: Path, images: Images) -> None:
    """Link or copy one picture; a target that is there already stays."""
    if target.exists():
        return
    try:
        if images == "copy":
            with open(source, "rb") as file, whole_file(target) as copy:
                shutil.copyfileobj(file, copy)
        elif images == "symlink":
            target.symlink_to(source.resolve())
        else:
            os.link(source, target)
    except OSError as error:
        if images == "link" and error.errno in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise InputError(
                f"{target} cannot be a hard link to {source} ({error.strerror}): give --images symlink or copy"
            ) from error
        raise


def _spread(work: Callable[[ImageJob], None], jobs: list[ImageJob], processes: int) -> Iterable[None]:
    """`work` on all jobs in order, in this process or in others; the first error ends all."""
    if processes == 0:
        yield from map(work, jobs)
        return
    # Ctrl-C reaches all processes; this one alone answers it.
    with ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            yield from pool.map(work, jobs, chunksize=16)
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that draws masks was killed, perhaps for its memory: go on with fewer --processes"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _lists_of(sets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The lists that each set becomes. InputError for sets that become none, or the same ones."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sets:
        kind = next((kind for kind in LISTS if re.fullmatch(rf"{kind}\w*", name)), None)
        if kind is None:
            raise InputError(f"--sets {name}: a set begins with train or val; others have no public annotations")
        if LISTS[kind] in found.values():
            raise InputError(f"--sets {' '.join(sets)}: give one train set and one val set at most")
        found[name] = LISTS[kind]
    return found


def _check_classes(path: Path, names: list[str]) -> None:
    if not names or len(names) >= IGNORE or len(set(names)) < len(names) or not all(names):
        raise InputError(f"{path} has {len(names)} categories: 1 to {IGNORE - 1} of different names are expected")
    odd = next((name for name in names if not CLASS_NAME.fullmatch(name)), None)
    if odd is not None:
        raise InputError(f"{path} has the category {odd!r}: a name has letters, digits and spaces: correct it")


def _refuse_other(out: Path, marker: dict[str, Any]) -> None:
    """InputError when `out` holds anything but an earlier stop of the same conversion."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        found = read_json(out / MARKER)
    except (OSError, ValueError):
        raise InputError(f"{out} is not empty and holds no conversion of COCO: give a new folder") from None
    if found != marker:
        raise InputError(f"{out} holds the conversion of other annotation files: give a new folder or delete this one")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m cpn.coco",
        usage="python -m cpn.coco /data/coco /data/coco_voc [--sets train2014 val2014] [--images symlink]",
        description="Write MS COCO in VOC layout.",
    )
    made.add_argument("root", type=Path, help="folder with annotations/instances_SET.json and the images in SET/")
    made.add_argument("out", type=Path, help="the folder to make")
    made.add_argument("--sets", nargs="+", default=list(SETS), help="a train set, a val set or both (default: 2014's)")
    made.add_argument("--images", choices=get_args(Images), default="link", help="hard links (default), symlink, copy")
    made.add_argument(
        "--processes", type=int, default=min(8, os.cpu_count() or 1), help="how many draw masks (default: up to 8)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: convert, then say what was found and what to type next."""
    given = parser().parse_args(arguments)
    if given.processes < 0:
        raise InputError(f"--processes {given.processes}: give 0 (all in this process) or more")
    try:
        with shown_progress() as progress:
            read = convert(given.root, given.out, given.sets, given.images, given.processes, progress)
    except OSError as error:
        raise InputError(
            f"{error.filename or given.out} cannot be read or written ({error.strerror}): make room or give the right, "
            "and the same command goes on"
        ) from error
    for found in read:
        left = found.images - len(found.jobs)
        lists = " and ".join(_lists_of(given.sets)[found.name])
        print(f"{found.name}: {found.images} images, {len(found.jobs)} with annotations make {lists}; {left} left out")
    print(f"{len(read[0].classes)} classes")
    print(f"next: python -m cpn.prepare {given.out}")


if __name__ == "__main__":
    run_command(main)
