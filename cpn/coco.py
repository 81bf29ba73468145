"""Writes MS COCO in VOC layout, so that `cpn.prepare` packs it like any other data set.

    python -m cpn.coco /data/coco /data/coco_voc

Read are annotations/instances_SET.json and the images in SET/ or images/SET/. The categories become classes 1, 2, ...
in the order of their ids (80 of them); the train set becomes lists `train` and `trainaug`, the val set `val`. Images
without any annotation are left out of all lists, as is usual for COCO in weakly supervised segmentation: the label
would be empty. A class that only a crowd shows counts as label (crowds are IGNORE in the mask), like VOC's difficult
objects. An object with a box alone counts as label too, and the box is IGNORE. The same command goes on after a stop.
"""

import argparse
import errno
import math
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args
from xml.sax.saxutils import escape

from PIL import Image

from cpn.core.errors import InputError, WorkError, run_command
from cpn.core.files import DamagedFile, file_digest, read_json, whole_file, write_bytes, write_json
from cpn.core.plain_file import file_there, folder_there, refuse_irregular
from cpn.core.progress import Progress, shown_progress, silent
from cpn.data.voc import IGNORE, encode_mask
from cpn.sources.coco_file import GET_COCO, CocoSet, ImageJob, named, read_set
from cpn.sources.coco_masks import image_mask
from cpn.sources.image_ids import CONVERTIBLE, format_of
from cpn.sources.voc_folder import is_turned

SETS = ("train2014", "val2014")
LISTS = {"train": ("train", "trainaug"), "val": ("val",)}
"""Lists that a set becomes, by what its name begins with."""

CHUNK = 16
"""Images that a process is given at a time."""
MOST_PROCESSES_A_CORE = 8

MARKER = "coco.json"
"""Says of which annotation files the folder is made."""

Images = Literal["link", "symlink", "copy"]


def convert(
    root: Path,
    out: Path,
    sets: Sequence[str] = SETS,
    images: Images = "link",
    processes: int = 0,
    report: Progress = silent,
    masks: bool = True,
) -> list[CocoSet]:
    """Write the sets of COCO at `root` to `out` in VOC layout; returns what was read. Resumes itself.

    `images` says how pictures get there: hard links, symbolic links, or copies. With `processes` 0 all is done in this
    one; without `masks` labels and pictures are all that is written. InputError in one line for anything missing, cut
    off or contradictory.
    """
    by_list = _lists_of(sets)
    files = {name: root / "annotations" / f"instances_{name}.json" for name in sets}
    for path in files.values():
        refuse_irregular(path)
        if not file_there(path):
            raise InputError(f"{path} is missing: {GET_COCO}")
    marker: dict[str, Any] = {"sets": {name: file_digest(path) for name, path in files.items()}}
    if not masks:
        marker["masks"] = False
    _refuse_other(out, marker)
    read = named([read_set(path, name, image_folder(root, name), masks) for name, path in files.items()])
    if len({coco_set.classes for coco_set in read}) != 1:
        raise InputError(f"{files[sets[1]]} has other categories than {files[sets[0]]}: use sets of one data set")
    for part in ("JPEGImages", "Annotations", *(["SegmentationClass"] if masks else []), "ImageSets/Segmentation"):
        (out / part).mkdir(parents=True, exist_ok=True)
    write_json(out / MARKER, marker)
    for coco_set in read:
        work = partial(convert_image, out=out, classes=coco_set.classes, images=images, masks=masks)
        for done, _ in enumerate(_spread(work, coco_set.jobs, processes), start=1):
            report(f"writing {coco_set.name}", done, len(coco_set.jobs))
    write_bytes(out / "classes.txt", ("\n".join(read[0].classes) + "\n").encode())
    for coco_set in read:
        for name in by_list[coco_set.name]:
            ids = "\n".join(job.name for job in coco_set.jobs) + "\n"
            write_bytes(out / "ImageSets" / "Segmentation" / f"{name}.txt", ids.encode())
    return read


def image_folder(root: Path, name: str) -> Path:
    """Return where the images of a set lie. InputError if nowhere."""
    for folder in (root / name, root / "images" / name):
        if folder_there(folder):
            return folder
    raise InputError(f"{root / name}: no such folder, nor {root / 'images' / name}: {GET_COCO}")


def convert_image(job: ImageJob, out: Path, classes: Sequence[str], images: Images, masks: bool = True) -> None:
    """Write annotation, picture and mask of one image. InputError names the picture.

    The mask, or without one the picture, comes last: where it is there, all are whole and nothing is done.
    """
    target = out / "SegmentationClass" / f"{job.name}.png"
    place = out / "JPEGImages" / f"{job.name}{job.source.suffix}"
    if (target if masks else place).exists():
        return
    _check_picture(job)
    try:
        mask = image_mask(job.annotations, job.kinds, job.height, job.width) if masks else None
    except InputError as error:
        raise InputError(f"{job.source}: {error}: get the annotations again") from None
    write_bytes(out / "Annotations" / f"{job.name}.xml", _xml(job, classes).encode())
    _place_image(job.source, place, images)
    if mask is not None:
        write_bytes(target, encode_mask(mask))


def _check_picture(job: ImageJob) -> None:
    """InputError unless the picture is JPEG or PNG, whatever its name says, and of the size of its annotations."""
    refuse_irregular(job.source)
    try:
        with Image.open(job.source, formats=("JPEG", "PNG")) as picture:
            (width, height), turned = picture.size, is_turned(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        with open(job.source, "rb") as file:
            kind = format_of(file.read(512))
        if kind not in (None, "JPEG", "PNG"):
            cure = "convert it to JPEG or PNG" if kind in CONVERTIBLE else "get it again"
            raise InputError(f"{job.source} is no picture that is read ({kind} by its content): {cure}") from error
        raise InputError(f"{job.source} is no picture ({' '.join(str(error).split())}): get it again") from error
    if (height, width) != (job.height, job.width):
        cure = "get it again"
        if turned and (width, height) == (job.height, job.width):
            cure = "its EXIF turns it, and masks belong to the pixels as they are stored: save the picture turned"
        raise InputError(
            f"{job.source} is {width}x{height} pixels, its annotations are for {job.width}x{job.height}: {cure}"
        )


def _xml(job: ImageJob, classes: Sequence[str]) -> str:
    """VOC's annotation as far as image labels need it: the names of all objects; a crowd is a difficult one."""
    text = f"<annotation>\n  <filename>{escape(job.name + job.source.suffix)}</filename>\n"
    text += f"  <size><width>{job.width}</width><height>{job.height}</height><depth>3</depth></size>\n"
    for annotation, kind in zip(job.annotations, job.kinds, strict=True):
        if kind == IGNORE:
            continue
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
    needed = min(processes, math.ceil(len(jobs) / CHUNK))  # all that are asked for are started, work or not
    # Ctrl-C reaches all processes; this one alone answers it.
    with ProcessPoolExecutor(
        max(1, needed), get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        try:
            yield from pool.map(work, jobs, chunksize=CHUNK)
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that draws masks was killed, perhaps for its memory: go on with fewer --processes"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _lists_of(sets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the lists that each set becomes. InputError for sets that become none, or the same ones."""
    lists: dict[str, tuple[str, ...]] = {}
    for name in sets:
        kind = next((kind for kind in LISTS if re.fullmatch(rf"{kind}\w*", name)), None)
        if kind is None:
            raise InputError(f"--sets {name}: a set begins with train or val; others have no public annotations")
        if LISTS[kind] in lists.values():
            raise InputError(f"--sets {' '.join(sets)}: give one train set and one val set at most")
        lists[name] = LISTS[kind]
    return lists


def _refuse_other(out: Path, marker: dict[str, Any]) -> None:
    """InputError when `out` holds anything but an earlier stop of the same conversion."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        earlier = read_json(out / MARKER, f"delete {out}, and all is converted again, or give a new folder")
    except DamagedFile:
        raise
    except (OSError, ValueError):
        raise InputError(f"{out} is not empty and holds no conversion of COCO: give a new folder") from None
    if earlier != marker:
        raise InputError(f"{out} holds the conversion of other annotation files: give a new folder or delete this one")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.coco",
        usage="python -m cpn.coco /data/coco /data/coco_voc [--sets train2014 val2014] [--images symlink] [--no-masks]",
        description="Write MS COCO in VOC layout.",
    )
    command.add_argument("root", type=Path, help="folder with annotations/instances_SET.json and the images in SET/")
    command.add_argument("out", type=Path, help="the folder to make")
    command.add_argument(
        "--sets", nargs="+", default=list(SETS), help="a train set, a val set or both (default: 2014's)"
    )
    command.add_argument("--no-masks", action="store_true", help="labels and images alone, for objective=mask_free")
    command.add_argument(
        "--images", choices=get_args(Images), default="link", help="hard links (default), symlink, copy"
    )
    command.add_argument(
        "--processes", type=int, default=min(8, os.cpu_count() or 1), help="how many draw masks (default: up to 8)"
    )
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: convert, then say what was found and what to type next."""
    options = parser().parse_args(arguments)
    if options.processes < 0:
        raise InputError(f"--processes {options.processes}: give 0 (all in this process) or more")
    cores = os.cpu_count() or 1
    if options.processes > MOST_PROCESSES_A_CORE * cores:
        raise InputError(
            f"--processes {options.processes}: this machine has {cores} cores; give {MOST_PROCESSES_A_CORE * cores} at "
            "most, or leave it out"
        )
    try:
        with shown_progress() as progress:
            read = convert(
                options.root,
                options.out,
                options.sets,
                options.images,
                options.processes,
                progress,
                not options.no_masks,
            )
    except OSError as error:
        raise InputError(
            f"{error.filename or options.out} cannot be read or written ({error.strerror}): make room or give the "
            "right, and the same command goes on"
        ) from error
    for coco_set in read:
        left = coco_set.images - len(coco_set.jobs)
        lists = " and ".join(_lists_of(options.sets)[coco_set.name])
        count = len(coco_set.jobs)
        print(f"{coco_set.name}: {coco_set.images} images, {count} with annotations make {lists}; {left} left out")
        for line in coco_set.notes:
            print(line)
    print(f"{len(read[0].classes)} classes")
    print(f"next: python -m cpn.prepare {shlex.quote(str(options.out))}")


if __name__ == "__main__":
    run_command(main)
