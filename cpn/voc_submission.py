"""Predicts a list of VOC 2012 with a trained DeepLab and packs the masks as the VOC evaluation server takes them.

    python -m cpn.voc_submission model.safetensors --root /data/VOC2012 --out results.tgz
    python -m cpn.voc_submission --check results.tgz --root /data/VOC2012

The archive holds results/VOC2012/Segmentation/comp5_test_cls/ID.png: palette PNGs in VOC colours, values 0 to 20, of
the size of their image. Its bytes depend on the masks alone. Masks that are made are kept in OUT.parts until the
archive is written, so that the same command goes on after a stop.
"""

import argparse
import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from cpn.core.errors import InputError, run_command
from cpn.core.files import file_digest, read_json, whole_file, write_json
from cpn.core.progress import Progress, shown_progress, silent
from cpn.data.image_memory import DEEPLAB_CURE, image_of
from cpn.data.voc import VOC_CLASSES, Split, open_pack, palette

if TYPE_CHECKING:
    from cpn.config.deeplab import DeepLabConfig
    from cpn.segmentation.deeplab import DeepLab

Competition = Literal["comp5", "comp6"]
"""comp5: trained on VOC's own data alone. comp6: on any other data as well."""

PARTS = "parts.json"
"""Says of which model, images and settings the masks in a folder of parts are."""


LARGEST = 2**26
"""Bytes of a mask: one that says more would fill the memory before it is found out."""


def archive_folder(competition: Competition, list_name: str) -> str:
    """Return the folder of the masks in the archive; for list `test` the one that the server looks for."""
    return f"results/VOC2012/Segmentation/{competition}_{list_name}_cls"


def predict_list(
    network: "DeepLab", split: Split, config: "DeepLabConfig", crf: bool, folder: Path, report: Progress = silent
) -> None:
    """Write the mask of every image of `split` to `folder`/ID.png; a file that is there is whole and not made again.

    Each pixel gets the class of the highest probability, or with `crf` what the CRF of `config` makes of it. The
    network must be in eval mode.
    """
    from cpn.data.map_files import save_label
    from cpn.segmentation.deeplab import predict_label

    for index, image_id in enumerate(split.ids):
        target = folder / f"{image_id}.png"
        if not target.exists():
            with image_of(split, index, DEEPLAB_CURE):
                save_label(target, predict_label(network, split.image(index), config, crf))
        report("predicting", index + 1, len(split))


def write_archive(masks: Path, ids: Sequence[str], folder: str, out: Path) -> None:
    """Pack `masks`/ID.png of all `ids` as `folder`/ID.png into the .tgz `out`, whole or absent.

    The same masks give the same bytes: names are sorted, and no time, user or file name is kept.
    """
    with (
        whole_file(out) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for image_id in sorted(ids):
            data = (masks / f"{image_id}.png").read_bytes()
            member = tarfile.TarInfo(f"{folder}/{image_id}.png")
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))


def check_archive(path: Path, split: Split, classes: int, report: Progress = silent) -> Competition:
    """Check that an archive holds just the masks of `split`, in `classes` values; returns its competition.

    InputError in one line for what the server would refuse or score wrongly: a file that is cut off, a missing, unknown
    or doubled name, a mask of another size, mode or palette, a value that is no class.
    """
    folders: dict[str, Competition] = {archive_folder(name, split.name): name for name in get_args(Competition)}
    positions = {image_id: index for index, image_id in enumerate(split.ids)}
    seen: set[str] = set()
    competition: Competition | None = None
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=packed, mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                folder, _, name = member.name.rpartition("/")
                image_id = name.removesuffix(".png")
                if folder not in folders or not name.endswith(".png") or not member.isfile():
                    raise InputError(f"{path} holds {member.name}: only ID.png files in {' or '.join(folders)} belong")
                if competition not in (None, folders[folder]):
                    raise InputError(f"{path} holds masks of two competitions: send each in an archive of its own")
                competition = folders[folder]
                if image_id not in positions or image_id in seen:
                    why = "twice" if image_id in seen else f"but list {split.name} has no such image"
                    raise InputError(f"{path} holds {member.name}, {why}: write the archive again")
                seen.add(image_id)
                if member.size > LARGEST:
                    raise InputError(f"{path} holds {member.name} of {member.size} bytes: write the archive again")
                content = archive.extractfile(member)
                assert content is not None
                height, width = split.image(positions[image_id]).shape[:2]
                _check_mask(f"{path}: {member.name}", content.read(), (height, width), classes)
                report("checking", len(seen), len(split))
            while packed.read(1 << 20):  # the checksum comes after what tarfile reads
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} is no whole .tgz ({' '.join(str(error).split())}): write the archive again"
        ) from error
    missing = [image_id for image_id in split.ids if image_id not in seen]
    if missing or competition is None:
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(split)} masks of list {split.name}, such as {missing[0]}: "
            "write the archive again"
        )
    return competition


def _check_mask(where: str, data: bytes, shape: tuple[int, int], classes: int) -> None:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            picture.load()
            mode, values, colours = picture.mode, np.array(picture), picture.getpalette()
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise InputError(
            f"{where} is no whole PNG ({' '.join(str(error).split())}): write the archive again"
        ) from error
    if mode != "P" or colours is None:
        raise InputError(f"{where} is of mode {mode}: the server takes palette PNGs (P)")
    if values.shape != shape:
        size = f"{values.shape[1]}x{values.shape[0]}"
        raise InputError(f"{where} is {size}, its image {shape[1]}x{shape[0]} pixels: predict at the image's own size")
    if values.max() >= classes:
        raise InputError(f"{where} holds {values.max()}: classes are 0 to {classes - 1}, and nothing may be left open")
    if colours[: 3 * classes] != palette()[:classes].ravel().tolist():
        raise InputError(f"{where} is not in the colours of VOC: write the archive again")


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command_line = argparse.ArgumentParser(
        prog="python -m cpn.voc_submission",
        usage="python -m cpn.voc_submission MODEL --root /data/VOC2012 --out results.tgz [--competition comp6]"
        "\n       python -m cpn.voc_submission --check results.tgz --root /data/VOC2012",
        description="Predict VOC 2012's test list with a trained DeepLab and pack the masks for the evaluation server.",
    )
    command_line.add_argument("model", type=Path, nargs="?", help="model.safetensors of the stage deeplab")
    command_line.add_argument(
        "--backbone", metavar="NAME", help="your own backbone, where the checkpoint was trained with it"
    )
    command_line.add_argument("--root", required=True, help="folder or URL of VOC 2012, packed with --lists test")
    command_line.add_argument("--list", default="test", help="the list to predict (default: test)")
    command_line.add_argument(
        "--out", type=Path, default=Path("results.tgz"), help="the archive (default: results.tgz)"
    )
    command_line.add_argument(
        "--competition",
        choices=get_args(Competition),
        default="comp5",
        help="comp5 (default): trained on VOC's own data alone; comp6: on other data as well",
    )
    command_line.add_argument(
        "--crf", action=argparse.BooleanOptionalAction, default=True, help="the CRF of deeplab.crf (default: with it)"
    )
    command_line.add_argument(
        "--folder", action="store_true", help="leave the folder of PNGs, OUT.parts, beside the archive"
    )
    command_line.add_argument("--check", type=Path, metavar="ARCHIVE", help="only check an archive against the list")
    return command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: predict, pack and check; or check alone."""
    options = parser().parse_args(arguments)
    if options.check is None and options.model is None:
        raise InputError("MODEL is missing: give model.safetensors of the stage deeplab, or --check ARCHIVE")
    pack = open_pack(options.root, "--root")
    split, classes = pack.split(options.list), len(pack.classes) + 1
    if pack.classes != VOC_CLASSES:
        raise InputError(f"{options.root} has classes of its own: the server knows the 20 classes of VOC 2012 only")
    if options.check is not None:
        with shown_progress() as progress:
            competition = check_archive(options.check, split, classes, progress)
        print(f"{options.check}: {len(split)} masks of list {split.name} for {competition}, nothing wrong")
        print("next: send it to the VOC evaluation server")
        return
    _refuse_out(options.out)
    import torch

    from cpn.cost.inference_memory import check_deeplab
    from cpn.scoring.shown_sizes import shown_smaller
    from cpn.stages.pipeline import load_deeplab

    network, config, names = load_deeplab(options.model, options.backbone)
    if names != VOC_CLASSES:
        raise InputError(f"{options.model} was trained on other classes: the server knows the 20 of VOC 2012 only")
    parts = options.out.with_name(f"{options.out.name}.parts")
    folder = archive_folder(options.competition, split.name)
    origin = {"model": file_digest(options.model), "images": split.digest, "crf": options.crf}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_deeplab(config.network.backbone, config.deeplab, classes, split, device, options.crf)
    if (words := shown_smaller(config.deeplab, split)) is not None:
        print(words)
    network.to(device).eval()
    try:
        _claim_parts(parts, origin)
        with shown_progress() as progress:
            predict_list(network, split, config.deeplab, options.crf, parts / folder, progress)
            write_archive(parts / folder, split.ids, folder, options.out)
            check_archive(options.out, split, classes, progress)
    except OSError as error:
        raise InputError(
            f"{error.filename or options.out} cannot be written ({error.strerror}): make room or give the right, and "
            "the same command goes on"
        ) from error
    if options.folder:
        print(f"masks: {parts / folder}")
    else:
        shutil.rmtree(parts)
    print(f"{options.out}: {len(split)} masks of list {split.name} {'with' if options.crf else 'without'} CRF, checked")
    print(f"next: send it to the VOC evaluation server as {options.competition}, segmentation")


def _refuse_out(out: Path) -> None:
    """Say before the hours of prediction what would go wrong after them."""
    if not out.name.endswith((".tgz", ".tar.gz")):
        raise InputError(f"--out {out}: the server takes a .tgz or .tar.gz: name it so")
    if out.exists():
        raise InputError(f"--out {out} is there already: check it with --check, delete it, or name another")
    existing = next(path for path in out.absolute().parents if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"--out {out}: {existing} may not be written: name another folder")


def _claim_parts(parts: Path, origin: dict[str, Any]) -> None:
    """Begin a folder of parts, or go on with it. InputError when its masks are of another model, list or setting."""
    if not parts.exists():
        write_json(parts / PARTS, origin)
        return
    try:
        recorded = read_json(parts / PARTS)
    except (OSError, ValueError):
        recorded = None
    if recorded != origin:
        differing = [key for key in origin if not isinstance(recorded, dict) or recorded.get(key) != origin[key]]
        raise InputError(f"{parts} holds masks of another {', '.join(differing)}: delete it, or name another --out")


if __name__ == "__main__":
    run_command(main)
