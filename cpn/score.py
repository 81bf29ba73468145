"""Scores a CAM network on a packed list, scale by scale: `python -m cpn.score --help` is the command."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.config import METHOD_VERSION, nearest, with_values
from cpn.config.next_command import search_command
from cpn.core.errors import InputError, run_command
from cpn.core.files import check_place, file_digest, whole_file, write_bytes, write_json
from cpn.core.progress import shown_progress
from cpn.core.run_files import COUNTS

if TYPE_CHECKING:  # torch, arrow and rich are imported where they are used, so that --help answers at once
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from cpn.config import Config
    from cpn.config.cam import CamConfig
    from cpn.core.progress import Progress
    from cpn.data.voc import Pack, Split

EXAMPLE = "python -m cpn.score model.safetensors --root /data/VOC2012"

SETTABLE = ("cam.scales", "cam.long_side", "cam.max_pixels", "cam.sizes", "cam.flip", "cam.map")
"""What has an effect here: beta is scanned, and no image is kept away from selection."""

NOTE = """\
beta is the background score on maps in [0, 1], chosen on these images; background, foreground (IoU), precision and
recall are at the first beta. t = beta / 2 is the threshold on the halved maps of the released code, whose grid is
t = 0.20 to 0.59."""

CRF_NOTE = """\
CRF: mean field on [(1 - max)^alpha, maps] with the crf section of the checkpoint; alpha = ln beta / ln(1 - beta), so
that before it the masks are those of the row above. beta is not chosen again behind it."""

TABLE1 = ("0.5", "1", "1.5", "2", "all")
PUBLISHED: dict[str, tuple[float, ...]] = {
    "cam_baseline": (41.15, 48.29, 49.51, 47.44, 47.84),
    "SEAM": (49.35, 51.57, 52.25, 49.79, 55.41),
    "SEAM with PRCM": (49.64, 52.15, 53.14, 50.55, 55.71),
    "CPN": (48.91, 54.51, 55.44, 54.01, 57.43),
}
"""Table 1 of the paper: mIoU (percent) of CAMs on VOC 2012 train, by the scales TABLE1. Method.md (l)."""
PUBLISHED_SPLIT: dict[str, tuple[float, float]] = {
    "cam_baseline": (77.19, 46.38),
    "SEAM": (82.33, 54.06),
    "CPN": (83.44, 56.13),
}
"""Table 3 of the paper: IoU of the background and mean IoU of the foreground, all scales."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command = argparse.ArgumentParser(
        prog="python -m cpn.score",
        usage=f"{EXAMPLE} [--list LIST] [--scales S ...] [--map MAP] [--crf] [--out FOLDER] [--json]",
        description="Score the CAMs of a trained network on a packed list with masks: one row per scale and one for "
        "all of them together, as in Table 1 of the paper, from one pass over the images.",
        epilog="beta is the background score on maps in [0, 1], t = beta / 2 the one on the halved maps of the "
        "released code, which tries t = 0.20 to 0.59 only. Both are chosen on the images they are reported for.",
    )
    command.add_argument(
        "model", type=Path, metavar="MODEL", help="a run's model.safetensors, or a converted checkpoint"
    )
    command.add_argument(
        "--backbone", metavar="NAME", help="your own backbone, where the checkpoint was trained with it"
    )
    command.add_argument(
        "--root", required=True, help="folder or URL of the data set that python -m cpn.prepare packed"
    )
    command.add_argument("--list", default="train", help="list with masks to score (default: train)")
    command.add_argument(
        "--scales", nargs="+", type=float, metavar="S", help="image scales (default: the checkpoint's cam.scales)"
    )
    command.add_argument(
        "--map", choices=("refined", "plain"), help="which map is scored (default: the checkpoint's cam.map)"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="sets", help="one of " + ", ".join(SETTABLE)
    )
    command.add_argument(
        "--crf", action="store_true", help="also score CAM + CRF: all scales at their best beta, one CRF an image"
    )
    command.add_argument("--per-class", action="store_true", help="also print the IoU of every class")
    command.add_argument("--paper", action="store_true", help="also print the published numbers, marked as such")
    command.add_argument("--json", action="store_true", help="print one line of JSON per row and nothing else")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep counts, score and curves; the same command goes on after a kill",
    )
    return command


def cam_settings(config: Config, options: argparse.Namespace) -> CamConfig:
    """Return the checkpoint's cam section with what the command line changes. Raises InputError naming the option."""

    values: dict[str, Any] = {}
    for text in options.sets:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}: give NAME=VALUE, for example --set cam.flip=false")
        if name not in SETTABLE:
            raise InputError(
                f"--set {name}: has no effect on a score{nearest(name, SETTABLE)}; there are {', '.join(SETTABLE)}"
            )
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    if options.scales is not None:
        values["cam.scales"] = options.scales
    if options.map is not None:
        values["cam.map"] = options.map
    changed = with_values(config, values, "--set" if options.sets else "--scales").cam
    refines = config.network.pcm or config.network.prcm
    if changed.map == "refined" != config.cam.map and not refines:
        raise InputError(
            f"--map refined: {options.model} has neither PCM nor PRCM, so nothing is refined; use --map plain"
        )
    return changed


def check_data(model: Path, classes: Sequence[str], pack: Pack, split: Split, report: Progress) -> None:
    """Before anything expensive: the classes are the checkpoint's, and every image has a mask. Raises InputError."""
    from cpn.data.voc import mask_of

    for place, (own, other) in enumerate(itertools.zip_longest(classes, pack.classes, fillvalue="missing"), 1):
        if own != other:
            raise InputError(
                f"{model}: its class {place} is {own}, in the data set {pack.root} it is {other}; "
                "give the data set it was trained on"
            )
    if len(split) == 0:
        raise InputError(f"--list {split.name}: holds no image; name a list with images and masks")
    for index in range(len(split)):
        mask_of(split, index)
        report("checking masks", index + 1, len(split))


def keep(
    folder: Path, settings: Mapping[str, Any], rows: list[dict[str, Any]], counts: NDArray[np.int64], cam: CamConfig
) -> None:
    """Write curves.png, counts.npz (the sums, (R, betas, 3, C)) and, last, score.json; each whole or absent."""
    import numpy as np

    from cpn.plots.curves import scale_curves
    from cpn.scoring.metrics import BETAS
    from cpn.scoring.scale_scores import curves

    lines = curves(counts, cam)
    image_set = f"{settings['list']}, {cam.map} map"
    write_bytes(folder / "curves.png", scale_curves(np.array(BETAS), lines, image_set))
    with whole_file(folder / COUNTS) as file:
        np.savez_compressed(file, rows=np.array(list(lines)), betas=np.array(BETAS), counts=counts)
    percent = {name: [100 * float(value) for value in line] for name, line in lines.items()}
    write_json(folder / "score.json", {**settings, "rows": rows, "curve": {"beta": list(BETAS), "miou": percent}})


def score_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Return one line per scale and one for all of them, percent."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    heads = ("scale", "mIoU", "beta / t", "mIoU, released grid", "beta / t", "background", "foreground")
    for head in (*heads, "precision", "recall"):
        table.add_column(head, justify="right")
    for row in rows:
        best, released = (
            f"{row['beta' + end]:.2f} / {row['t' + end]:.2f}" if "beta" + end in row else "-"
            for end in ("", "_released_grid")
        )
        rest = ("iou_background", "iou_foreground", "precision", "recall")
        numbers = [f"{row[name]:.2f}" if name in row else "-" for name in ("miou", "miou_released_grid", *rest)]
        table.add_row(row["scale"], numbers[0], best, numbers[1], released, *numbers[2:])
    return table


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """IoU of every class (percent) by scale, at each row's own beta."""
    from rich.table import Table

    table = Table(title="IoU by class, %, each column at its own beta", title_justify="left")
    table.add_column("class")
    for row in rows:
        table.add_column(row["scale"], justify="right")
    for name in rows[0]["iou"]:
        table.add_row(name, *(f"{row['iou'][name]:.1f}" for row in rows))
    return table


def published_rows() -> list[dict[str, Any]]:
    """Return the published numbers, one row per system and scale, marked `published`."""
    rows = []
    for system, values in PUBLISHED.items():
        for scale, value in zip(TABLE1, values, strict=True):
            row = {"published": True, "system": system, "scale": scale, "list": "VOC 2012 train", "miou": value}
            if scale == "all" and system in PUBLISHED_SPLIT:
                row["iou_background"], row["iou_foreground"] = PUBLISHED_SPLIT[system]
            rows.append(row)
    return rows


def published_table() -> Table:
    """Return the published numbers as a table of their own."""
    from rich.table import Table

    table = Table(title="published, not measured here: CAMs on VOC 2012 train, mIoU %", title_justify="left")
    table.add_column("system")
    for head in (*TABLE1, "background", "foreground"):
        table.add_column(head, justify="right")
    for system, values in PUBLISHED.items():
        parts = [f"{value:.2f}" for value in PUBLISHED_SPLIT.get(system, ())] or ["-", "-"]
        table.add_row(system, *(f"{value:.2f}" for value in values), *parts)
    return table


def next_command(options: argparse.Namespace, config: Config, cam: CamConfig) -> str:
    """Return what to type next: the plain map of the same network where the refined one was scored, else a
    sweep of it.
    """

    if cam.map == "plain" or not (config.network.pcm or config.network.prcm):
        return search_command(config, {"data.root": options.root})
    words = [str(options.model), "--root", options.root, "--list", options.list]
    if options.backbone is not None:
        words += ["--backbone", options.backbone]
    if options.scales is not None:
        words += ["--scales", *(f"{scale:g}" for scale in options.scales)]
    for text in options.sets:
        words += [] if text.startswith("cam.map=") else ["--set", text]
    words += ["--crf"] * options.crf
    return shlex.join(["python", "-m", "cpn.score", *words, "--map", "plain"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: see --help."""
    options = parser().parse_args(arguments)

    import torch
    from rich.console import Console

    from cpn.cost.inference_memory import check_cams, check_crf
    from cpn.data.voc import open_pack
    from cpn.run import load_run
    from cpn.scoring.scale_scores import claim, score_list, score_rows
    from cpn.scoring.shown_sizes import shown_smaller
    from cpn.stages.crf_score import crf_row, score_crf

    if options.out is not None:
        check_place(options.out, "--out")
    network, config, classes = load_run(options.model, options.backbone)
    cam = cam_settings(config, options)
    pack = open_pack(options.root, "--root")
    split = pack.split(options.list)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # With --json the rows have standard output to themselves.
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout), shown_progress() as report:
        check_data(options.model, classes, pack, split, report)
        check_cams(config.network, cam, len(classes) + 1, split, device)
        if options.crf:
            check_crf(split, range(len(split)))
        if (words := shown_smaller(cam, split)) is not None:
            print(words)
        settings = {
            "checkpoint": file_digest(options.model),
            "data": pack.fingerprint,
            "list": options.list,
            "scales": list(cam.scales),
            "flip": cam.flip,
            "map": cam.map,
            "method": METHOD_VERSION,
            # At the released sizes not named, so that a score begun before there were others goes on.
            **({} if cam.sizes == "released" else {"sizes": cam.sizes}),
            **({} if cam.long_side == config.cam.long_side else {"long_side": cam.long_side}),
            **({} if cam.max_pixels == config.cam.max_pixels else {"max_pixels": cam.max_pixels}),
        }
        if options.out is not None:
            claim(options.out, settings)
        counts = score_list(network.to(device), split, cam, len(classes) + 1, report, options.out)
        rows = score_rows(counts, cam, classes)
        if options.crf:
            beta = rows[-1]["beta"]
            hard = score_crf(network, split, cam, config.crf, beta, len(classes) + 1, report, options.out)
            rows.append(crf_row(rows[-1]["scale"], hard, beta, classes))
    if options.out is not None:
        keep(options.out, settings, rows, counts, cam)
    shown = {"published": False, "list": options.list, "images": len(split), "map": cam.map, "flip": cam.flip}
    if cam.sizes != "released":
        shown["sizes"] = cam.sizes
    following = f"next: {next_command(options, config, cam)}"
    if options.json:
        for row in rows:
            print(json.dumps(shown | {key: row[key] for key in row if key != "iou" or options.per_class}))
        for row in published_rows() if options.paper else ():
            print(json.dumps(row))
        print(following, file=sys.stderr)
        return 0
    # Without a terminal's width the table goes to files and logs, and may be wide.
    console = Console(width=None if sys.stdout.isatty() else 120)
    views = "plain and mirrored" if cam.flip else "not mirrored"
    title = f"pseudo labels from the {cam.map} map, {views}: {options.list}, {len(split)} images, %"
    console.print(score_table(rows, title))
    print(NOTE)
    if options.crf:
        print(CRF_NOTE)
    for table in [class_table(rows)] * options.per_class + [published_table()] * options.paper:
        console.print(table)
    if options.out is not None:
        print(f"wrote {options.out}/score.json, counts.npz and curves.png")
    print(following)
    return 0


if __name__ == "__main__":
    run_command(main)
