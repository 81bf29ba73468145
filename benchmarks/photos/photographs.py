"""What the preset photos reaches on a folder of photographs with masks, beside the goals; from nothing but the folder.

    python -m benchmarks photographs --data FOLDER
    python -m benchmarks photographs --data FOLDER --only cam controls --jobs 2

FOLDER is in VOC layout, lists train and val with masks, and is not written to. With seeds 0 to N - 1 it trains
cam_baseline, control_pair, and CPN without and with PRCM; reads control_pcm off cam_baseline's network with several
draws of the untrained refinement layers; and carries cam_baseline and the preset's CPN on to DeepLab. Everything is
kept in --keep: the same command goes on where it was stopped, and parts (--only) can be run one after the other.

mIoU is over the hold-out images of list train (the confirm images of the product's split) at the beta that the select
images chose; DeepLab's is over list val, without CRF. A goal is met or missed by its mean; `undecided` says that an
interval over seeds or over images holds 0 where the goal asks for one without.
"""

import argparse
import json
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from benchmarks.photos import goals as goals_of
from benchmarks.photos import runs
from benchmarks.photos.goals import Goal, Scored, goal
from benchmarks.photos.runs import Piece, Place
from cpn.core.errors import InputError

if TYPE_CHECKING:
    from cpn.data.voc import Pack

PARTS = ("cam", "controls", "stages")
LOAD = {
    "superpixels": 1.0,
    "cam_baseline": 2.0,
    "control_pair": 5.0,
    "cpn": 6.0,
    "cpn_prcm": 6.0,
    "init": 1.0,
    "stages": 20.0,
}
"""About how long a piece takes, next to the others: for the time that is left."""
QUICK = {"train": {"epochs": 1, "epoch_images": None}, "affinity": {"epochs": 1}, "deeplab": {"iterations": 2}}


def plan(parts: Sequence[str], seeds: int, inits: int, cpn: str) -> list[list[Piece]]:
    """List the pieces of the parts, in steps: those of one step are independent. `cpn` is the preset's own."""
    every = range(seeds)
    systems = []
    if "cam" in parts:
        systems += ["cam_baseline", "cpn", "cpn_prcm"]
    if "controls" in parts:
        systems += ["cam_baseline", "control_pair"]
    if "stages" in parts:
        systems += ["cam_baseline", cpn]
    trained = [Piece("run", system, seed) for seed in every for system in dict.fromkeys(systems)]
    inited = [Piece("init", "control_pcm", seed, init) for seed in every for init in range(inits)]
    staged = [Piece("stages", system, seed) for seed in every for system in ("cam_baseline", cpn)]
    steps = [[Piece("superpixels", "superpixels", 0)], trained]
    steps += [inited] if "controls" in parts else []
    return [*steps, staged] if "stages" in parts else steps


def is_done(piece: Piece, place: Place, pack: "Pack") -> bool:
    """Whether a piece has nothing left to do."""
    from cpn.scoring.finished_run import finished_run

    if piece.kind == "superpixels":
        return False  # looks for itself, and quickly
    if piece.kind == "init":
        return bool(runs.result_of(runs.init_folder(place, piece.seed, piece.init, pack)))
    run = runs.run_folder(place, piece.system, piece.seed, pack)
    if finished_run(run) is None:
        return False
    return piece.kind == "run" or "metrics" in runs.result_of(stages_of(piece, place, pack)["deeplab"])


def stages_of(piece: Piece, place: Place, pack: "Pack") -> dict[str, Path]:
    """The folders of the stages after a finished run."""
    run = runs.run_folder(place, piece.system, piece.seed, pack)
    return runs.stage_folders(place, piece.system, piece.seed, pack, runs.result_of(run)["metrics"]["beta"])


def carry_out(steps: Sequence[Sequence[Piece]], place: Place, jobs: int) -> None:
    """Do what is not done, `jobs` pieces at a time; says how far it is and about how long the rest takes."""
    from cpn.data.voc import open_pack

    pack = open_pack(place.data)
    missing = [[piece for piece in step if not is_done(piece, place, pack)] for step in steps]
    total = sum(load(piece) for step in missing for piece in step)
    began, done = time.monotonic(), 0.0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for step in missing:
        if jobs > 1 and len(step) > 1:
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
                ended = pool.map(partial(runs.carry_out, place=place), step)
                for piece in step:
                    next(ended)
                    done += load(piece)
                    print(progress(piece, done, total, began), flush=True)
        else:
            for piece in step:
                runs.carry_out(piece, place)
                done += load(piece)
                print(progress(piece, done, total, began), flush=True)


def load(piece: Piece) -> float:
    """About how long it takes, next to the others."""
    return LOAD[piece.system if piece.kind == "run" else piece.kind]


def progress(piece: Piece, done: float, total: float, began: float) -> str:
    """The line after a piece."""
    left = (time.monotonic() - began) / done * (total - done)
    return f"{100 * done / total:.0f} %  {piece} done  about {left / 60:.0f} min left"


def gathered(place: Place, seeds: int, inits: int, cpn: str) -> tuple[dict[str, Scored], list[dict[str, Any]]]:
    """Gather all finished results: counts by reading, and a row for each run.

    Readings are the systems on hold-out images, `walk` and `walk's cam` of the CPN that goes on, and `deeplab SYSTEM`.
    """
    from platform.search.confirm import confirm_counts

    from cpn.core.files import read_json
    from cpn.data.voc import open_pack

    pack = open_pack(place.data)
    counts: dict[str, dict[int, list[Any]]] = {}
    rows: list[dict[str, Any]] = []
    cam = runs.config_of(place, "cpn", 0).cam
    for seed in range(seeds):
        for system in runs.SYSTEMS:
            kind = "init" if system == "control_pcm" else "run"
            for init in range(inits if kind == "init" else 1):
                piece = Piece(kind, system, seed, init)
                if not is_done(piece, place, pack):
                    continue
                folder = runs.run_folder(place, system, seed, pack)
                folder = folder if kind == "run" else runs.init_folder(place, seed, init, pack)
                values = read_json(folder / runs.RESULT)["metrics"]
                of_images = confirm_counts(folder, values["beta"], cam)
                counts.setdefault(system, {}).setdefault(seed, []).append(of_images)
                row = {name: values[name] for name in ("miou", "miou_confirm", "beta")}
                row |= {"system": system, "seed": seed, "init": init, "cpu_minutes": runs.minutes_of(folder)}
                if kind == "run" and system in ("cam_baseline", cpn):
                    row |= later(
                        Piece("stages", system, seed), place, pack, counts, of_images if system == cpn else None
                    )
                rows.append(row)
    return {name: Scored(values) for name, values in counts.items()}, rows


def later(
    piece: Piece, place: Place, pack: "Pack", counts: dict[str, dict[int, list[Any]]], cam_counts: Any
) -> dict[str, Any]:
    """Metrics of the stages that are done, and their counts put to `counts`."""
    from cpn.scoring.counts import load_counts

    row: dict[str, Any] = {}
    minutes = []
    for stage, folder in stages_of(piece, place, pack).items():
        result = runs.result_of(folder)
        if "failed" in result:
            row["failed"] = f"{stage}: {result['failed']}"
        minutes.append(runs.minutes_of(folder))
        if "metrics" not in result:
            continue
        row |= {f"{stage}/{name}": value for name, value in result["metrics"].items() if "miou" in name}
        if stage == "random_walk" and cam_counts is not None:
            counts.setdefault("walk", {})[piece.seed] = [label_counts(folder, place, pack)]
            counts.setdefault("walk's cam", {})[piece.seed] = [cam_counts]
        if stage == "deeplab":
            _, of_val = load_counts(folder / runs.COUNTS)
            counts.setdefault(f"deeplab {piece.system}", {})[piece.seed] = [of_val[:, 0]]
    known = [value for value in minutes if value is not None]
    return {**row, "stages_cpu_minutes": sum(known)} if known else row


def label_counts(folder: Path, place: Place, pack: "Pack") -> Any:
    """Counts (N, 3, C) of the pseudo labels of the hold-out images."""
    import numpy as np

    from cpn.data.map_files import load_label
    from cpn.scoring.metrics import hard_counts
    from cpn.scoring.selection import select_and_confirm

    config = runs.config_of(place, "cpn", 0)
    scored = pack.split(config.data.score)
    _, confirm = select_and_confirm(scored.ids, config.cam)
    rows = []
    for index in confirm:
        truth = scored.mask(index)
        assert truth is not None  # `packed_folder` asked for masks
        rows.append(hard_counts(load_label(folder / f"{scored.ids[index]}.png"), truth, len(pack.classes) + 1))
    return np.stack(rows)


def goals(scores: dict[str, Scored], rows: Sequence[dict[str, Any]], cpn: str, superpixels: float | None) -> list[Goal]:
    """The goals in their order. `cpn` is the preset's own CPN, `superpixels` CPU minutes that its first run adds."""
    of = scores.get
    failed = [f"{row['system']} seed {row['seed']}, {row['failed']}" for row in rows if "failed" in row]
    minutes = [row["cpu_minutes"] for row in rows if row["system"] == cpn and row["cpu_minutes"] is not None]
    longest = max(minutes) + (superpixels or 0) if minutes else None
    return [
        goal("CPN over cam_baseline", 4, of(cpn), of("cam_baseline"), without_0=True),
        goal("CPN over control_pair", 1.5, of(cpn), of("control_pair"), without_0=True),
        goal("CPN over control_pcm", 1.5, of(cpn), of("control_pcm"), without_0=True),
        goal("PRCM", 0, of("cpn_prcm"), of("cpn")),
        goal("random walk over its CAM", 3, of("walk"), of("walk's cam")),
        Goal("DeepLab on val, CPN over cam_baseline", 5, None, why=failed[0])
        if failed
        else goal("DeepLab on val, CPN over cam_baseline", 5, of(f"deeplab {cpn}"), of("deeplab cam_baseline")),
        Goal("CPU minutes of a CPN run, the longest", 12, longest, at_most=True),
    ]


def runs_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a line for each run."""
    columns = {
        "miou": "select",
        "miou_confirm": "hold-out",
        "random_walk/miou_confirm": "walk",
        "deeplab/miou_val": "DeepLab, val",
        "deeplab/miou_val_crf": "and CRF",
        "cpu_minutes": "CPU min",
        "stages_cpu_minutes": "stages",
    }
    lines = [f"| run | beta | {' | '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    for row in rows:
        name = f"{row['system']} seed {row['seed']}" + (
            f" init {row['init']}" if row["system"] == "control_pcm" else ""
        )
        cells = ["-" if row.get(key) is None else f"{row[key]:.1f}" for key in columns]
        lines.append(f"| {name} | {row['beta']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def next_line(options: argparse.Namespace, parts: Sequence[str], reached: Sequence[Goal], place: Place) -> str:
    """Suggest the next step: the parts that are missing, why a difference was missed, or a search on the same data."""
    words = ["--data", str(options.data)]
    for name in ("seeds", "inits", "keep", "over", "jobs"):
        if getattr(options, name) != DEFAULTS[name]:
            words += [f"--{name}", str(getattr(options, name))]
    left = [part for part in PARTS if part not in parts]
    if left and any(line.verdict == "not run" for line in reached):
        return f"python -m benchmarks photographs {shlex.join(words)} --only {' '.join(left)}"
    if any(line.verdict == "missed" for line in reached[:4]):
        return f"python -m benchmarks refinement_losses --data {shlex.quote(str(options.data))}"
    sets = ["--set", "preset=photos", "--set", f"data.root={place.data}", "--set", f"data.train={place.train}"]
    return f"python -m platform.sweep search_spaces/patch.yaml {shlex.join(sets)} --dry-run"


@contextmanager
def alone(keep: Path) -> Iterator[None]:
    """Hold the folder; InputError where another command holds it."""
    try:
        held = FileLock(keep / ".lock", blocking=False).acquire()
    except Timeout:
        raise InputError(f"--keep {keep}: another command works there; wait for it, or give another folder") from None
    with held:
        yield


DEFAULTS = {"seeds": 3, "inits": 5, "keep": Path("build/photographs"), "over": "{}", "jobs": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="data set in VOC layout; is only read"
    )
    parser.add_argument("--seeds", type=int, default=DEFAULTS["seeds"], help="training seeds 0 .. N-1 (%(default)s)")
    parser.add_argument(
        "--inits", type=int, default=DEFAULTS["inits"], help="draws of the untrained refinement a seed (%(default)s)"
    )
    parser.add_argument(
        "--keep", type=Path, default=DEFAULTS["keep"], metavar="DIR", help="everything that is made (%(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)} (all)"
    )
    parser.add_argument(
        "--over",
        default=DEFAULTS["over"],
        help='values laid over every configuration, as JSON: \'{"train": {"epochs": 2}}\'',
    )
    parser.add_argument("--jobs", type=int, default=DEFAULTS["jobs"], help="pieces at a time (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing and print the goals beside what was reached."""
    from cpn.config import merge

    if min(options.seeds, options.inits, options.jobs) < 1:
        raise InputError("--seeds, --inits and --jobs: give at least 1")
    over = over_of(options.over)
    if options.quick:
        options.seeds, options.inits, over = 1, 1, merge(QUICK, over)
    with alone(options.keep):
        data, train = runs.packed_folder(options.data, options.keep)
        place = Place(options.keep.resolve(), data, train, over)
        cpn = runs.preset_system(place)
        carry_out(plan(options.only, options.seeds, options.inits, cpn), place, options.jobs)
        scores, rows = gathered(place, options.seeds, options.inits, cpn)
        reached = goals(scores, rows, cpn, runs.minutes_of(place.cache))
    with_prcm = "with" if cpn == "cpn_prcm" else "without"
    print(f"\n{runs_table(rows)}\n\n{goals_of.table(reached)}\n")
    print(f"CPN is the preset's, {with_prcm} PRCM; {options.seeds} seeds, {options.inits} inits of control_pcm")
    print(f"next: {next_line(options, options.only, reached, place)}", flush=True)
    verdicts = [line.verdict for line in reached]
    return {
        **{name.replace(" ", "_"): verdicts.count(name) for name in ("met", "missed", "undecided", "not run")},
        "cpn": cpn,
        "goals": [line.row() for line in reached],
        "runs": rows,
    }


def over_of(text: str) -> dict[str, Any]:
    """The values of --over."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError(f'--over: {text!r} is no JSON object; give one such as \'{{"train": {{"epochs": 2}}}}\'')
    return values
