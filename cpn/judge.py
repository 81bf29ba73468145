"""Judges score maps or pseudo labels of any method on a packed list: `python -m cpn.judge --help` is the command."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError, run_command
from cpn.core.files import check_place, write_bytes, write_json
from cpn.core.progress import shown_progress

if TYPE_CHECKING:  # torch, arrow and rich are imported where they are used, so that --help answers at once
    from rich.table import Table

    from cpn.data.voc import Pack, Split
    from cpn.scoring.judgement_scores import GroupScores, JudgementScores, SizeScores
    from cpn.stages.judgement import Judged

EXAMPLE = "python -m cpn.judge FOLDER --root /data/VOC2012"

MAPS_NOTE = """\
all: beta, the background score, is chosen on the images it is reported for, as the literature does. hold-out: chosen on
the other images of the list (a hash of the ids splits them), so nothing here was fitted to it. t = beta / 2 is the
threshold on halved maps."""

LABELS_NOTE = """\
hold-out: the images that the platform keeps away from selection (a hash of the ids splits the list)."""

CRF_NOTE = """\
CRF: mean field on [(1 - max)^alpha, maps] with the default crf section; alpha = ln beta / ln(1 - beta), so that before
it the masks are those of the row above. A compared method has it too where it has score maps without a background."""

INTERVAL_NOTE = """\
Intervals: 95 %, from 1000 redraws of the images; beta is not chosen again in a redraw."""

END_NOTE = """\
The best beta lies at the end of the curve (0 to 1.2): scores should fill [0, 1] for the curve to say something."""

HALVED_NOTE = """\
No score lies above 0.5: if these maps are halved, as the released CPN code keeps them, give --halved folder."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    command_line = argparse.ArgumentParser(
        prog="python -m cpn.judge",
        usage=f"{EXAMPLE} [--list LIST] [--against OTHER] [--halved folder] [--crf] [--json] [--out DIR]",
        description="Judge score maps or pseudo labels of any method on a packed list with masks: mIoU with an "
        "interval, the whole curve over the background score, selection and hold-out images, and where the errors are.",
        epilog="ID.npz holds `classes` (K,), indices from 1, and `maps` (K, H, W), scores in [0, 1] at the image's "
        "size; ID.png the class of every pixel. docs/judge.md says how to write them.",
    )
    command_line.add_argument(
        "folder", type=Path, metavar="FOLDER", help="ID.npz or ID.png for every image of the list"
    )
    command_line.add_argument(
        "--root", required=True, help="folder or URL of the data set that python -m cpn.prepare packed"
    )
    command_line.add_argument("--list", default="train", help="list with masks (default: train)")
    command_line.add_argument(
        "--against", type=Path, metavar="FOLDER", help="another method's files: the paired difference"
    )
    command_line.add_argument(
        "--halved",
        action="append",
        choices=("folder", "against"),
        default=[],
        help="whose maps lie in [0, 0.5], as the released CPN code keeps them: doubled before all else",
    )
    command_line.add_argument(
        "--undecided",
        choices=("background",),
        help="take undecided pixels (255) of labels as background, as IRN's own evaluation does; else they are refused",
    )
    command_line.add_argument(
        "--crf", action="store_true", help="also score the masks behind the dense CRF, one an image and beta"
    )
    command_line.add_argument("--json", action="store_true", help="print one line of JSON and nothing else")
    command_line.add_argument("--out", type=Path, metavar="FOLDER", help="write judge.json, panel.png and curve.png")
    return command_line


def check_out(out: Path | None, folders: Sequence[Path | None]) -> None:
    """Raise InputError unless files can be written to `out`, which holds no method's files."""
    if out is None:
        return
    if any(folder is not None and folder.resolve() == out.resolve() for folder in folders):
        raise InputError(f"--out {out}: holds the files that are judged; give a folder of its own")
    check_place(out, "--out")


def open_list(root: str, name: str) -> tuple[Pack, Split]:
    """Open a list of a packed data set. InputError unless it holds images, and all of them have masks."""
    from cpn.data.voc import open_pack

    pack = open_pack(root, "--root")
    split = pack.split(name)
    if len(split) == 0:
        raise InputError(f"--list {name}: holds no image; name a list with images and masks")
    if not split.masked:
        raise InputError(f"--list {name}: has no masks, and nothing can be judged; name a list with masks")
    return pack, split


def number(value: float | None, form: str = ".2f") -> str:
    """Return a number as a table's cell."""
    return "-" if value is None else format(value, form)


def bounded(value: float | None, pair: Sequence[float] | None, form: str = ".2f") -> str:
    """Return a number and its interval as a table's cell."""
    return number(value, form) if pair is None else f"{number(value, form)} [{pair[0]:{form}}, {pair[1]:{form}}]"


def title(scores: JudgementScores) -> str:
    """Describe in one line what was judged, and against what."""
    against = "" if scores.against is None else f", against {scores.against.folder}: {scores.against.kind}"
    undecided = "" if scores.undecided is None else f", undecided pixels as {scores.undecided}"
    return f"{scores.folder}: {scores.kind}{undecided}{against}; {scores.list}, {scores.images} images"


def set_table(scores: JudgementScores) -> Table:
    """Build the table of mIoU on all and hold-out images, percent, with the paired difference from the other method."""
    from rich.table import Table

    table = Table(title="mIoU, %", title_justify="left")
    table.add_column("set")
    against = scores.against is not None
    for head in ("images", "beta / t", "mIoU", *(("other", "difference") if against else ())):
        table.add_column(head, justify="right")
    for row in scores.sets:
        beta = "-" if row.beta is None else f"{row.beta:.2f} / {row.t:.2f}"
        cells = [row.set + ", CRF" * row.crf, str(row.images), beta, bounded(row.miou, row.interval)]
        if against:
            cells += [number(row.other), bounded(row.difference, row.difference_interval, "+.2f")]
        table.add_row(*cells)
    return table


def class_table(scores: JudgementScores) -> Table:
    """Build the table of every class's IoU, false positives and false negatives, which add up to 100 %."""
    from rich.table import Table

    table = Table(title="by class, % of predicted and true pixels together", title_justify="left")
    table.add_column("class")
    for head in ("IoU", "false positive", "false negative"):
        table.add_column(head, justify="right")
    for name, row in scores.classes.items():
        table.add_row(name, *(f"{share:.1f}" for share in (row.iou, row.false_positive, row.false_negative)))
    return table


def group_table(scores: JudgementScores) -> Table:
    """Build the table of regions (a class in an image) by their size and by the number of classes of their image."""
    from rich.table import Table

    table = Table(title="a region is one class in one image, %", title_justify="left")
    table.add_column("regions")
    for head in ("number", "mean IoU", "pixels found"):
        table.add_column(head, justify="right")
    named: list[tuple[str, SizeScores | GroupScores]] = [
        *((f"{row.size}: {row.low:.0f} to {row.high:.0f} % of the image", row) for row in scores.by_size),
        *((f"{row.classes} in the image, {row.images} images", row) for row in scores.by_classes),
    ]
    for name, row in named:
        table.add_row(name, str(row.regions), number(row.iou, ".1f"), number(row.recall, ".1f"))
    return table


def error_lines(scores: JudgementScores) -> list[str]:
    """Describe the kinds of error and the share near boundaries."""
    errors, boundary = scores.errors, scores.boundary
    return [
        f"wrong pixels: {sum(errors.values()):.2f} % of the labelled ones: background called object "
        f"{errors['false_positive']:.2f}, object called background {errors['false_negative']:.2f}, wrong class "
        f"{errors['wrong_class']:.2f}",
        f"within {boundary.pixels} pixels of a boundary of the truth {boundary.near:.1f} % of the pixels are "
        f"wrong, elsewhere {boundary.elsewhere:.1f} %; {boundary.share_of_errors:.0f} % of the wrong "
        "pixels lie there",
    ]


def notes(scores: JudgementScores) -> list[str]:
    """List the notes that explain the tables."""
    lines = [MAPS_NOTE if scores.curve is not None else LABELS_NOTE, INTERVAL_NOTE]
    if any(row.crf for row in scores.sets):
        lines.append(CRF_NOTE)
    if scores.curve is not None:
        if scores.sets[0].beta in (scores.curve["beta"][0], scores.curve["beta"][-1]):
            lines.append(END_NOTE)
        if scores.all_below_half:
            lines.append(HALVED_NOTE)
    return lines


def keep(
    out: Path, scores: JudgementScores, judged: Judged, split: Split, names: Sequence[str], other: Judged | None
) -> str:
    """Write panel.png, for score maps curve.png, and, last, judge.json; each whole or absent."""
    import numpy as np

    from cpn.plots.curves import beta_curve
    from cpn.scoring.metrics import BETAS
    from cpn.stages.judgement import panel

    write_bytes(out / "panel.png", panel(judged, split, names, other))
    written = ["panel.png"]
    if (beta := scores.sets[0].beta) is not None:
        others = None if other is None or other.curve is None else {"other": curve_of(other)}
        drawn = beta_curve(
            np.array(BETAS),
            curve_of(judged),
            beta,
            scores.list,
            f"mIoU of {scores.folder}",
            others,
        )
        write_bytes(out / "curve.png", drawn)
        written.append("curve.png")
    write_json(out / "judge.json", scores.to_json())
    page = f"python -m platform.report --judged {shlex.quote(str(out))}"
    return f"wrote {out}/judge.json, {' and '.join(written)}; as a page: {page}"


def curve_of(judged: Judged) -> Any:
    """Return mIoU in [0, 1] over BETAS of all images."""
    from cpn.scoring.metrics import miou

    assert judged.curve is not None
    return miou(judged.curve.sum(axis=0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: see --help."""
    options = parser().parse_args(arguments)

    from rich.console import Console

    from cpn.config import METHOD_VERSION
    from cpn.scoring.prediction_files import find_predictions

    check_out(options.out, (options.folder, options.against))
    pack, split = open_list(options.root, options.list)
    names = ["background", *pack.classes]
    folders = {"folder": options.folder, "against": options.against}
    files = {key: find_predictions(path, split.ids) for key, path in folders.items() if path is not None}
    for key in options.halved:
        if key not in files or not files[key].are_maps:
            raise InputError(f"--halved {key}: there are no score maps to double; leave it out")
    if options.undecided is not None:
        if all(one.are_maps for one in files.values()):
            raise InputError(
                f"--undecided {options.undecided}: there are no labels with undecided pixels; leave it out"
            )
        files = {key: one if one.are_maps else replace(one, undecided=options.undecided) for key, one in files.items()}
    if options.crf and not files["folder"].are_maps:
        raise InputError(f"--crf: {options.folder} holds labels, and the CRF runs on score maps; leave it out")
    from cpn.config.crf import CrfConfig
    from cpn.cost.inference_memory import check_crf
    from cpn.stages.judgement import (
        MAPS,
        judge,
        summary,
        with_crf,
    )  # loads torch: what is refused above is refused at once

    # With --json the line has standard output to itself.
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout), shown_progress() as report:
        judged = {key: judge(one, split, len(names), report, key in options.halved) for key, one in files.items()}
        if options.crf:
            check_crf(split, range(len(split)))
            for key in [key for key, one in judged.items() if key == "folder" or one.kind == MAPS]:
                judged[key] = with_crf(judged[key], split, CrfConfig(), report)
    other = judged.get("against")
    own = summary(judged["folder"], split, names, other)
    scores = own.model_copy(update={"data": pack.fingerprint, "method": METHOD_VERSION})
    wrote = None if options.out is None else keep(options.out, scores, judged["folder"], split, names, other)
    if options.json:
        print(json.dumps(scores.to_json()))
        return 0
    # Without a terminal's width the tables go to files and logs, and may be wide.
    console = Console(width=None if sys.stdout.isatty() else 120)
    print(title(scores))
    for table in (set_table(scores), class_table(scores), group_table(scores)):
        console.print(table)
    for line in (*error_lines(scores), *notes(scores)):
        console.print(" ".join(line.split()), highlight=False, markup=False)
    if wrote is not None:
        print(wrote)
    return 0


if __name__ == "__main__":
    run_command(main)
