"""The systems of the paper side by side on synthetic scenes, and mIoU over S_N, K and p_h, over seeds and data sets.

    python -m benchmarks ladder --seeds 4 --data-seeds 2 --first-data-seed 20 --jobs 2 --write docs/scenes.md

Every run is trained and scored as a trial is, 5 to 20 CPU seconds; finished ones are kept in --out, so that the same
command goes on where it was stopped. `miou` is over all training scenes at the system's own best beta (the paper's
protocol); `plain` is the plain map of the same network, which tells training from refinement.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpn.core.errors import InputError

if TYPE_CHECKING:
    from cpn.config import Config
    from cpn.data.voc import Pack

RELEASED = {"normalise_refined": True, "amp_weight": 1.0}
"""What the preset scenes changes in the losses on refined maps, put back."""

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "cam_baseline": ("classification loss, plain map", {"preset": "cam_baseline"}),
    "control_pair": ("and the hidden pair classified, plain map", {"preset": "control_pair"}),
    "control_pcm": ("cam_baseline through an untrained PCM", {"preset": "control_pcm"}),
    "table2_row2": ("TCP and PCM", {"preset": "table2_row2"}),
    "table2_row3": ("and CPCR", {"preset": "table2_row3"}),
    "table2_row4": ("and OHEM; equals cpn_superpixel on scenes", {"preset": "table2_row4"}),
    "table2_row5": ("and PRCM, the released view", {"preset": "table2_row5"}),
    "row5_transposed": (
        "and PRCM, as printed",
        {"preset": "table2_row5", "network": {"prcm_transposed": True}},
    ),
    "row2_released": ("TCP and PCM, refined maps treated as released", {"preset": "table2_row2", "loss": RELEASED}),
    "row3_released": ("and CPCR, likewise", {"preset": "table2_row3", "loss": RELEASED}),
    "row4_released": ("and OHEM, likewise", {"preset": "table2_row4", "loss": RELEASED}),
    "cpn_grid": ("grid patches, K = 8, 16", {"preset": "cpn_grid"}),
    "seam": ("SEAM", {"preset": "seam"}),
    "seam_prcm": ("SEAM*, with PRCM", {"preset": "seam_prcm"}),
}
"""Name -> what it is, and the values laid over the presets official and scenes."""

CURVES: dict[str, dict[str, dict[str, Any]]] = {
    "S_N": {
        str(n): {"preset": "table2_row4", "patches": {"kind": "superpixel", "S_N": n}}
        for n in (5, 10, 20, 40, 80, 160, 640)
    },
    "K": {
        f"{k},{2 * k}": {"preset": "table2_row4", "patches": {"kind": "grid", "K": [k, 2 * k]}}
        for k in (2, 4, 8, 16, 32)
    },
    "p_h": {
        str(p): {"preset": "table2_row4", "patches": {"kind": "superpixel", "p_h": p, "draw": "bernoulli"}}
        for p in (0.1, 0.2, 0.3, 0.4, 0.5)
    },
}
"""Searched name -> point -> the values; all of them with CPN's losses, OHEM and PCM (table2_row4)."""

DEPARTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "amp": ("`loss.amp_weight` 1, as released", {"preset": "table2_row4", "loss": {"amp_weight": 1.0}}),
    "normalised": (
        "`loss.normalise_refined` true, as released",
        {"preset": "table2_row4", "loss": {"normalise_refined": True}},
    ),
    "no_ramp": ("`loss.ramp` 0, as released", {"preset": "table2_row4", "loss": {"ramp": 0.0}}),
    "plain_weight": (
        "no OHEM, `loss.w_cpcr` 5 in its place",
        {"preset": "table2_row3", "loss": {"w_cpcr": 5.0}},
    ),
}
"""Table2_row4 with one value put back to what preset official has, and with OHEM as the mere weight it nearly is."""

GROUP_HEADS = {"systems": "system", "departures": "table2_row4 with"}
BEGIN, END = "<!-- ladder: begin -->", "<!-- ladder: end -->"
Run = tuple[str, str, int, int]
"""Group (`systems`, `departures` or a curve's name), its member, data seed, training seed."""


def values_of(group: str, member: str, over: Mapping[str, Any]) -> dict[str, Any]:
    """The nested configuration of one run, without its seed."""
    from cpn.config import merge

    named = {"systems": SYSTEMS, "departures": DEPARTURES}
    own = named[group][member][1] if group in named else CURVES[group][member]
    return merge({**own, "preset": ["official", "scenes", own["preset"]]}, over)


def one_run(run: Run, over: Mapping[str, Any], scenes: int, cache: Path, out: Path) -> dict[str, Any]:
    """Train and score one run, or read it when it is finished: mIoU in percent, beta, and CPU seconds."""
    from cpn.config import config_from, merge, run_key
    from cpn.sources.packing import prepare

    group, member, data_seed, seed = run
    pack = prepare(scenes_root(cache, scenes, data_seed))
    config = config_from(merge(values_of(group, member, over), {"train": {"seed": seed}}), "the ladder")
    result_file = out / f"{run_key(config, pack.fingerprint)}.json"
    return {
        "group": group,
        "member": member,
        "data_seed": data_seed,
        "seed": seed,
        **measured(config, pack, cache, result_file),
    }


def measured(config: "Config", pack: "Pack", cache: Path, result_file: Path) -> dict[str, Any]:
    """`miou` and `plain` in percent, `beta` and `cpu_seconds` of a run, trained unless `result_file` exists."""
    import torch

    from cpn.config.cam import CamConfig
    from cpn.core.files import read_json, write_json
    from cpn.core.run_files import MODEL
    from cpn.run import load_run, score
    from cpn.run import run as train_and_score
    from cpn.scoring.metrics import best_beta

    if result_file.exists():
        recorded: dict[str, Any] = read_json(result_file)
        return recorded
    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = train_and_score(
            config, pack, Path(folder), cache=cache, device=torch.device("cpu"), report=lambda entry: None
        )
        network, _, _ = load_run(Path(folder) / MODEL)
    plain: CamConfig = config.cam.model_copy(update={"map": "plain"})
    counts = score(network, pack.split(config.data.score), plain, len(pack.classes) + 1)
    row = {
        "miou": result.metrics["miou_train"],
        "beta": result.metrics["beta_train"],
        "plain": 100 * best_beta(counts)[1],
        "cpu_seconds": time.process_time() - began,
    }
    write_json(result_file, row)
    return row


def scenes_root(cache: Path, scenes: int, data_seed: int) -> Path:
    """The folder of one data set."""
    return cache / f"ladder-{scenes}-{data_seed}"


def make_inputs(cache: Path, scenes: int, data_seeds: Sequence[int]) -> None:
    """Write and pack the data sets and train the pretrained proxy, unless they are there."""
    from cpn.config.data import ScenesConfig
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes
    from cpn.training.pretrained_proxy import make_standin

    make_standin(cache, lambda entry: None)
    for data_seed in data_seeds:
        root = scenes_root(cache, scenes, data_seed)
        write_scenes(root, ScenesConfig(train=scenes, seed=data_seed))
        prepare(root)


def each_run(work: Callable[[Any], dict[str, Any]], runs: Sequence[Any], jobs: int) -> list[dict[str, Any]]:
    """Do `work` on each run, `jobs` at a time; return the rows in order and print progress. A row has `miou`."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    with ExitStack() as stack:
        results: Iterable[dict[str, Any]] = map(work, runs)
        if jobs > 1:
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            results = pool.map(work, runs)
        for run, row in zip(runs, results, strict=True):
            rows.append(row)
            left = (time.monotonic() - began) / len(rows) * (len(runs) - len(rows))
            name = " ".join(map(str, run))
            print(
                f"{len(rows)} of {len(runs)}  {name}: miou {row['miou']:.1f}  about {left / 60:.0f} min left",
                flush=True,
            )
    return rows


def spread(values: Sequence[float], sign: str = "") -> str:
    """`59.3 ± 2.6`: mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.1f} ± {deviation:.1f}"


def paired(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[float]:
    """Differences of `miou` between runs of the same data and training seed."""
    by_seeds = {(row["data_seed"], row["seed"]): row["miou"] for row in others}
    keys = [(row["data_seed"], row["seed"]) for row in rows]
    return [row["miou"] - by_seeds[key] for row, key in zip(rows, keys, strict=True) if key in by_seeds]


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: the systems, then each curve, mean and standard deviation over all runs of a line."""

    def of(group: str, member: str) -> list[Mapping[str, Any]]:
        return [row for row in rows if row["group"] == group and row["member"] == member]

    lines: list[str] = []
    reference = of("systems", "cam_baseline")
    descriptions: dict[str, dict[str, str]] = {
        "systems": {name: what for name, (what, _) in SYSTEMS.items()},
        "departures": {name: what for name, (what, _) in DEPARTURES.items()},
        **{name: dict.fromkeys(points, "") for name, points in CURVES.items()},
    }
    for group, members in descriptions.items():
        if not any(row["group"] == group for row in rows):
            continue
        head = f"{GROUP_HEADS.get(group, group)} | what"
        lines += ["", f"| {head} | runs | miou | beta | its plain map | minus cam_baseline | CPU s |", "|---" * 8 + "|"]
        for member, what in members.items():
            own = of(group, member)
            if not own:
                continue
            gain = paired(own, reference)
            cells = [
                member,
                what,
                str(len(own)),
                spread([row["miou"] for row in own]),
                f"{statistics.mean(row['beta'] for row in own):.2f}",
                spread([row["plain"] for row in own]),
                spread(gain, "+") if gain else "-",
                f"{statistics.mean(row['cpu_seconds'] for row in own):.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).strip() + "\n"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The curves as one PNG: mean and standard deviation at each point, with cam_baseline's mean as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from cpn.core.files import whole_file

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, len(CURVES), sharey=True)
    reference = [row["miou"] for row in rows if row["group"] == "systems" and row["member"] == "cam_baseline"]
    for axis, (name, points) in zip(axes, CURVES.items(), strict=True):
        for key, label, style in (("miou", "refined map", "o-"), ("plain", "its plain map", "s--")):
            scores = [[row[key] for row in rows if (row["group"], row["member"]) == (name, point)] for point in points]
            measured_points = [(i, values) for i, values in enumerate(scores) if values]
            axis.errorbar(
                [i for i, _ in measured_points],
                [statistics.mean(values) for _, values in measured_points],
                [statistics.stdev(values) if len(values) > 1 else 0 for _, values in measured_points],
                fmt=style,
                capsize=3,
                label=label,
            )
        if reference:
            axis.axhline(statistics.mean(reference), color="black", linewidth=1, linestyle=":", label="cam_baseline")
        axis.set_xticks(range(len(points)), list(points))
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mIoU %, all training scenes")
    axes[0].legend()
    with whole_file(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def insert(page: Path, text: str) -> None:
    """Replace what stands between the two markers of `page`; InputError without them."""
    from cpn.core.files import write_bytes

    old = page.read_text(encoding="utf-8") if page.exists() else ""
    if BEGIN not in old or END not in old:
        raise InputError(f"{page}: lacks the lines {BEGIN} and {END}; write them where the tables shall stand")
    before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    write_bytes(page, f"{before}{BEGIN}\n{text}{END}{after}".encode())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    groups = ["systems", *CURVES, "departures"]
    parser.add_argument("--seeds", type=int, default=4, help="training seeds 0 .. N-1 on each data set (%(default)s)")
    parser.add_argument("--data-seeds", type=int, default=2, help="number of data sets (%(default)s)")
    parser.add_argument("--first-data-seed", type=int, default=20, help="seed of the first data set (%(default)s)")
    parser.add_argument("--scenes", type=int, default=150, help="training scenes (%(default)s)")
    parser.add_argument("--groups", nargs="+", choices=groups, default=groups, help="what to run (all)")
    parser.add_argument(
        "--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), help="of the systems (all)"
    )
    parser.add_argument("--over", default="{}", help='values laid over each, as JSON: \'{"loss": {"ramp": 0}}\'')
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/ladder"), help="finished runs (%(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("build/cache"), help="pretrained proxy and scenes (%(default)s)"
    )
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this page, a PNG beside it")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing, print the tables, and write them where --write says."""
    if min(options.seeds, options.data_seeds, options.jobs, options.scenes) < 1:
        raise InputError("--seeds, --data-seeds, --jobs and --scenes: give at least 1")
    try:
        over = json.loads(options.over)
    except ValueError:
        raise InputError(f"--over: {options.over!r} is not JSON") from None
    if options.quick:
        options.seeds, options.data_seeds, options.groups = 1, 1, ["systems"]
        options.systems = ["cam_baseline", "control_pcm", "table2_row4"]
    data_seeds = range(options.first_data_seed, options.first_data_seed + options.data_seeds)
    make_inputs(options.cache, options.scenes, data_seeds)
    members = {name: list(points) for name, points in CURVES.items()}
    members |= {"systems": options.systems, "departures": list(DEPARTURES)}
    runs: list[Run] = [
        (group, member, data_seed, seed)
        for seed in range(options.seeds)
        for data_seed in data_seeds
        for group in options.groups
        for member in members[group]
    ]
    work = partial(one_run, over=over, scenes=options.scenes, cache=options.cache, out=options.out)
    began = time.monotonic()
    rows = each_run(work, runs, options.jobs)
    text = tables(rows)
    print(text)
    if options.write:
        picture = options.write.with_name("ladder.png")
        draw(rows, picture)
        insert(options.write, f"{text}\n![mIoU over S_N, K and p_h]({picture.name})\n")
    means = {m: statistics.mean(r["miou"] for r in rows if r["member"] == m) for m in options.systems if rows}
    return {"runs": len(rows), "seconds": time.monotonic() - began, "rows": rows, "miou": means}
