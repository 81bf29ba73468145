"""Writes masks and overlays of any images, by a trained CAM network or DeepLab.

    python -m cpn.predict sweeps/stages/deeplab-KEY/model.safetensors photos/ cat.jpg --out predictions

    OUT/masks/NAME.png      class indices as palette PNG in VOC colours, of the image's own size
    OUT/overlays/NAME.png   the image with the mask's colours over it
    OUT/overview.png        the first images, masks and overlays, with the classes' names
    OUT/predictions.json    checkpoint, settings, and the share of each class in each image; written last

A mask says in its header which image, checkpoint and settings it was made of: the same command again makes only what
is missing, a changed image or setting is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError, run_command, to_stderr
from cpn.core.files import check_file, check_place, digest, file_digest, write_bytes, write_json
from cpn.core.plain_file import file_there, folder_there, refuse_irregular
from cpn.core.progress import shown_progress
from cpn.sources.image_ids import OTHER_PICTURES, PICTURES

if TYPE_CHECKING:  # torch and so on are imported where they are used, so that --help answers at once
    import numpy as np
    from numpy.typing import NDArray

    from cpn.stages.predictor import Predictor

EXAMPLE = "python -m cpn.predict sweeps/stages/deeplab-KEY/model.safetensors photos/ --out predictions"
MADE_OF = "made_of"
"""Keyword in a mask's PNG: digest of image, checkpoint and settings."""
OVERVIEW_ROWS = 8
LIST = "?"
"""What `--labels` holds where no classes stand behind it."""


@dataclass(frozen=True)
class Item:
    """One image and where its results go."""

    picture: Path
    mask: Path
    overlay: Path


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.predict",
        usage=f"{EXAMPLE}\n       python -m cpn.predict sweeps/runs/KEY/model.safetensors cat.jpg --labels cat",
        description="Write masks and overlays of any JPEG or PNG images, by a trained CAM network or DeepLab. What "
        "is not given is as the checkpoint says.",
        epilog="A CAM network has to know which classes are in an image: --labels says so for all images given, "
        "otherwise its own classifier does. EXIF's orientation is ignored, as in training: the mask fits the stored "
        "pixels. The same command again makes only what is missing.",
    )
    command.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="model.safetensors of a run or of the stage deeplab; or SWEEP@champion, the promoted network of ./sweeps",
    )
    command.add_argument("pictures", type=Path, nargs="*", metavar="IMAGE", help="images, or folders of images")
    command.add_argument(
        "--out", type=Path, default=Path("predictions"), metavar="FOLDER", help="for the results (default: predictions)"
    )
    command.add_argument(
        "--labels",
        nargs="?",
        const=LIST,
        metavar="A,B",
        help="the classes in the images, for a CAM network; '' for none; with nothing behind it, it lists the classes "
        "that the network knows, and predicts nothing",
    )
    command.add_argument(
        "--threshold",
        type=float,
        default=None,
        metavar="P",
        help="without --labels: probability from which a class counts as present (default: 0.5)",
    )
    command.add_argument("--beta", type=float, help="a CAM network's background score (default: the run's best)")
    command.add_argument("--scales", nargs="+", type=float, metavar="S", help="image scales taken together")
    command.add_argument("--flip", action=argparse.BooleanOptionalAction, help="take the mirrored image as well")
    command.add_argument(
        "--crf", action=argparse.BooleanOptionalAction, help="the dense CRF (default: for DeepLab, not for CAMs)"
    )
    command.add_argument(
        "--long-side",
        type=int,
        metavar="PIXELS",
        help="show larger images at this size and enlarge their masks (default: data.long_side, the largest in "
        "training)",
    )
    command.add_argument(
        "--backbone", metavar="NAME", help="your own backbone, where the checkpoint was trained with it"
    )
    command.add_argument("--json", action="store_true", help="one line of JSON per image and nothing else")
    return command


def find_pictures(paths: Sequence[Path], out: Path) -> list[Item]:
    """Return the images given by file, and those directly in the folders given, in order, each once.

    Raises InputError for what is not there, a folder without images, or two images of one name.
    """

    by_name: dict[str, Path] = {}
    for path in paths:
        inside = folder_there(path)
        if inside and path.resolve() == out.resolve():
            raise InputError(f"--out {out}: holds the images to predict; name another folder")
        pictures = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES) if inside else [path]
        if not pictures:
            raise InputError(f"{path}: holds no {', '.join(PICTURES)} image; give another folder, or files")
        for picture in pictures:
            if not file_there(picture):
                refuse_irregular(picture)
                if folder_there(picture):  # one in the folder that was given; a folder given itself is looked into
                    raise InputError(
                        f"{picture}: is a folder named like an image; move it away, or give images by name"
                    )
                raise InputError(f"{picture}: no such file or folder; give JPEG or PNG images")
            other = by_name.setdefault(picture.stem, picture)
            if other.resolve() != picture.resolve():
                raise InputError(f"{other} and {picture} would both become {picture.stem}.png; predict one at a time")
    return [Item(path, out / f"masks/{name}.png", out / f"overlays/{name}.png") for name, path in by_name.items()]


def left_out(paths: Sequence[Path]) -> str | None:
    """Name the images of other formats in the folders given, which are not predicted, in one line; None for none."""
    folders = [path for path in paths if path.is_dir()]
    others = sorted(p for folder in folders for p in folder.iterdir() if p.suffix.lower() in OTHER_PICTURES)
    if not others:
        return None
    return (
        f"{len(others)} images are neither JPEG nor PNG and left out (such as {others[0]}); convert them to have them"
    )


def made_of(path: Path) -> str | None:
    """Return what an existing mask was made of; None where there is none. InputError for a file that is not ours."""
    from PIL import Image

    if not path.exists():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            recorded = picture.info.get(MADE_OF)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: is no PNG of this command ({error}); name another --out") from error
    if not isinstance(recorded, str):
        raise InputError(f"{path}: was not made by this command and is not written over; name another --out")
    return recorded


def check_options(options: argparse.Namespace) -> None:
    """Raise InputError for a number out of its range."""
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise InputError(f"--threshold {options.threshold:g}: is a probability; give 0 to 1")
    if options.labels is not None and options.threshold is not None:
        raise InputError("--threshold: has no effect beside --labels, which says what is there; leave one out")
    if options.long_side is not None and options.long_side < 1:
        raise InputError(f"--long-side {options.long_side}: give a number of pixels, for example 768")


def open_model(options: argparse.Namespace) -> Predictor:
    """Return the network that the command line asks for. Raises InputError."""
    from cpn.stages.champion import checkpoint_of
    from cpn.stages.predictor import THRESHOLD, load

    named, options.checkpoint = options.checkpoint, checkpoint_of(options.checkpoint)
    if options.checkpoint != named:
        print(f"{named} is {options.checkpoint}", file=sys.stderr)
    model = load(
        options.checkpoint,
        backbone=options.backbone,
        scales=options.scales,
        flip=options.flip,
        crf=options.crf,
        beta=options.beta,
        threshold=THRESHOLD if options.threshold is None else options.threshold,
        long_side=options.long_side,
    )
    if model.kind == "deeplab" and (options.labels is not None or options.threshold is not None):
        option = "--labels" if options.labels is not None else "--threshold"
        raise InputError(f"{option}: {options.checkpoint} is a DeepLab, which needs no labels; leave it out")
    return model


def settings_of(model: Predictor, options: argparse.Namespace, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what a mask depends on beside its image."""

    own = {"beta": model.beta, "labels": labels, "threshold": None if labels is not None else model.threshold}
    return {
        "checkpoint": file_digest(options.checkpoint),
        "kind": model.kind,
        "scales": list(model.scales),
        "flip": model.flip,
        "crf": model.crf,
        "long_side": model.long_side,
        **(own if model.kind == "cam" else {}),
    }


def make(model: Predictor, item: Item, settings: dict[str, Any], labels: Sequence[str] | None) -> dict[str, Any]:
    """Write mask and overlay of one image, unless they are there; returns its line of predictions.json."""
    import numpy as np

    from cpn.data.voc import decode_mask, encode_mask
    from cpn.plots.curves import overlay, picture_png
    from cpn.stages.predictor import as_image

    image = as_image(item.picture)
    source = digest([file_digest(item.picture), settings])
    if made_of(item.mask) == source:
        mask: NDArray[np.uint8] = decode_mask(item.mask.read_bytes())
    else:
        item.overlay.unlink(missing_ok=True)  # it is of another mask
        mask = model(image, labels)
        write_bytes(item.mask, encode_mask(mask, {MADE_OF: source}))
    if not item.overlay.exists():
        write_bytes(item.overlay, picture_png(overlay(image, mask)))
    names = ("background", *model.classes)
    values, pixels = np.unique(mask, return_counts=True)
    shares = {names[value]: round(count / mask.size, 4) for value, count in zip(values, pixels.tolist(), strict=True)}
    return {
        "picture": str(item.picture),
        "mask": str(item.mask),
        "overlay": str(item.overlay),
        "shares": shares,
        "shown_smaller": max(mask.shape) > model.long_side,
    }


def overview(items: Sequence[Item], classes: Sequence[str]) -> bytes:
    """Return the first images with masks, overlays and a legend, as PNG."""
    from cpn.data.voc import decode_mask
    from cpn.plots.curves import overlay
    from cpn.plots.panel import PanelRow, cam_panel
    from cpn.stages.predictor import as_image

    rows = []
    for item in items[:OVERVIEW_ROWS]:
        image, mask = as_image(item.picture), decode_mask(item.mask.read_bytes())
        rows.append(PanelRow(item.picture.stem, image, None, {"mask": mask, "overlay": overlay(image, mask)}))
    return cam_panel(rows, ["background", *classes])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: see --help."""
    options = parser().parse_args(arguments)
    check_options(options)
    if options.labels == LIST:
        options.labels = None
        print("\n".join(open_model(options).classes))
        return 0
    if not options.pictures:
        raise InputError("IMAGE: is missing; give JPEG or PNG images, or folders of them")
    labels = None if options.labels is None else [name.strip() for name in options.labels.split(",") if name.strip()]

    for folder in (options.out, options.out / "masks", options.out / "overlays"):
        check_place(folder, "--out")
    for name in ("overview.png", "predictions.json"):
        check_file(options.out / name, "--out")
    items = find_pictures(options.pictures, options.out)
    for item in items:
        made_of(item.mask)
    if (others := left_out(options.pictures)) is not None:
        to_stderr(others)
    model = open_model(options)
    for name in labels or []:
        model.index(name)
    settings = settings_of(model, options, labels)
    rows = []
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout), shown_progress() as report:
        for place, item in enumerate(items):
            rows.append(make(model, item, settings, labels))
            report("predicting", place + 1, len(items))
    write_bytes(options.out / "overview.png", overview(items, model.classes))
    write_json(options.out / "predictions.json", {"settings": settings, "pictures": rows})
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    if model.kind == "cam" and labels is None:
        empty = sum(set(row["shares"]) == {"background"} for row in rows)
        print(f"classes are those that the network's classifier gives {model.threshold:g} or more; {empty} images "
              "have none, all of them background; --labels says it better, --threshold lowers it")  # fmt: skip
    smaller = sum(row["shown_smaller"] for row in rows)
    if smaller:
        print(f"{smaller} images are larger than {model.long_side} pixels: shown at that size, masks enlarged; "
              "--long-side changes it")  # fmt: skip
    print(f"{len(rows)} masks in {options.out}/masks, overlays in {options.out}/overlays, classes by image in "
          f"{options.out}/predictions.json\nnext: look at {options.out}/overview.png")  # fmt: skip
    return 0


if __name__ == "__main__":
    run_command(main)
