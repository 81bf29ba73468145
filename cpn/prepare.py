"""Check a data set in VOC 2012 layout and pack it: `python -m cpn.prepare /data/VOC2012`."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from cpn.config.next_command import yaml_value
from cpn.core import object_storage
from cpn.core.errors import run_command, to_stderr
from cpn.core.files import full_path
from cpn.core.plain_file import file_there
from cpn.core.progress import shown_progress
from cpn.data.packed_copy import publish
from cpn.data.voc import Pack, Split
from cpn.sources.packing import CHECK, LISTS, SCORED, prepare
from cpn.sources.voc_folder import UNLABELLED
from cpn.sources.voc_lists import has_list, is_for_training, list_path, list_warnings, sbd_folder, usual_name

FEW_IMAGES = 2000
"""Images to train on up to which the next command searches with the preset for photographs, made for a few hundred."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command_line = argparse.ArgumentParser(
        prog="python -m cpn.prepare",
        usage="python -m cpn.prepare /data/VOC2012 [--lists train trainaug val test] [--out FOLDER|URL]",
        description="Check a data set in VOC 2012 layout and pack it into Arrow files.",
    )
    command_line.add_argument(
        "root", type=Path, help="folder with JPEGImages, Annotations, SegmentationClass, ImageSets"
    )
    command_line.add_argument(
        "--lists", nargs="+", default=list(LISTS), help="lists to pack (default: train trainaug val)"
    )
    command_line.add_argument(
        "--out", help="where to put the folder `packed` (default: in the data set); s3://BUCKET/PREFIX: there as well"
    )
    return command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: check and pack, then say what was found and what to type next."""
    options = parser().parse_args(arguments)
    options.root = full_path(str(options.root), "ROOT") if str(options.root).startswith("~") else options.root
    url = options.out if options.out and object_storage.is_url(options.out) else None
    out = full_path(options.out, "--out") if options.out and url is None else None
    if url is not None:
        object_storage.check_url(url, "--out", write=True)
    worked = False
    with shown_progress() as progress:

        def report(what: str, done: int, total: int) -> None:
            nonlocal worked
            worked = True
            progress(what, done, total)

        pack = prepare(options.root, options.lists, out, report, say=to_stderr, renew=True)
        if url is not None:
            publish(pack, url, progress)
    if not worked:
        print("packed already, and no source has changed since: nothing to do")
    for name in pack.lists:
        print(_list_line(pack.split(name), options.root))
        for line in pack.notes(name):
            print(line)
    from cpn.cost.inference_memory import default_lines  # brings torch

    for line in (*default_lines(pack, _training_list(pack)), *pack.notes()):
        print(line)
    for warning in list_warnings(pack):
        print(f"warning: {warning}")
    print(f"{len(pack.classes)} classes, fingerprint {pack.fingerprint[:16]}, packed in {pack.root}/packed")
    if (Path(pack.root) / "packed" / CHECK).is_file():
        print(f"five images with their masks and labels, to be looked at: {pack.root}/packed/{CHECK}")
    if url is not None:
        print(f"put to {url}/packed")
    place = url or str(Path(pack.root).resolve())
    root = shlex.quote(place)
    if set(pack.lists) == {UNLABELLED}:
        print(f"next: python -m cpn.voc_submission MODEL --root {root} --out results.tgz")
        return
    if lacking := _lacking(pack, options.root):
        absent = [str(list_path(options.root, name)) for name in lacking if not has_list(options.root, name)]
        cure = f"; write {' and '.join(absent)}" if absent else ""
        print(f"note: a sweep also needs list {' and list '.join(lacking)}, which is not packed{cure}")
        words = ["python", "-m", "cpn.prepare", str(options.root), *(["--out", options.out] if options.out else [])]
        print(f"next: {shlex.join([*words, '--lists', *lacking])}")
        return
    extra = "" if "trainaug" in pack.lists else f" --set data.train={_training_list(pack)}"
    if bare := [name for name in SCORED if name in pack.lists and not pack.split(name).masked]:
        print(
            f"warning: {' and '.join(bare)}: no masks in {options.root}/SegmentationClass, so no mIoU: add them, or "
            "train and search by image-level labels alone (objective=mask_free)"
        )
        extra += " --set objective=mask_free" if "train" in bare else ""
    data = f"data.root={yaml_value(place)}"
    space = "photos" if len(pack.split(_training_list(pack))) <= FEW_IMAGES else "patch"
    print(f"next: python -m platform.sweep search_spaces/{space}.yaml --set {shlex.quote(data)}{extra}")


def _lacking(pack: Pack, root: Path) -> list[str]:
    """Return the lists that a sweep scores and evaluates and that are not packed, where they could be, or nothing is
    there to train on. Those of other names are given by data.score and data.val.
    """
    trains = any(map(is_for_training, pack.lists))
    wanted = [name for name in SCORED if name not in pack.lists]
    return [name for name in wanted if has_list(root, name) or (name == "train" and not trains)]


def _training_list(pack: Pack) -> str:
    """Return the list to train on: trainaug, where it is not there one of another usual name for it, else train."""
    return (
        "trainaug"
        if "trainaug" in pack.lists
        else next((name for name in pack.lists if usual_name(name) == "trainaug"), "train")
    )


def _list_line(split: Split, root: Path) -> str:
    """Describe a packed list in one line."""
    by_rule = split.name == "trainaug" and not file_there(list_path(root, split.name))
    origin = f", made by rule from {sbd_folder(root)} and list train, without list val" if by_rule else ""
    if not split.labelled:
        return f"{split.name}: {len(split)} images without labels, for prediction only"
    counts = split.labels.sum(1)
    empty = int((counts == 0).sum())
    note = f", {empty} without any class" if empty else ""
    return f"{split.name}: {len(split)} images, {counts.mean():.3f} classes per image{note}{origin}"


if __name__ == "__main__":
    run_command(main)
