"""How CPU time and memory grow with the work: 1x, 4x and 16x images, and reports of 1x, 10x and 100x trials.

    python -m benchmarks growth --json
    python -m benchmarks growth --only report          one part

Each part is a function of the product on a whole list, in a process of its own with one thread: `prepare` checks and
packs a data set, `loader` gives an epoch's batches (superpixels made before), `cam` writes the maps, `curve` counts all
betas of one pass and keeps them as a trial's end does, `walk` writes pseudo labels; on scenes of 64 x 64 pixels.
`report` reads a sweep's study and writes the page and the tables; its trials are made up, and no run's manifest lies
beside them.

The exponent is the least-squares slope of log CPU seconds over log size: 1 is linear. Ours is the largest of all parts,
the other side is 1, so the ratio is the exponent. A fixed cost hides growth, so `steepest_end` is the largest slope
between the two largest sizes alone. PART_mib is how much more the process held at most with the largest size than with
the smallest; `flat` names the parts where that is under FLAT_MIB. `equal`: every part left as many results as it was
given images or trials.
"""

import argparse
import math
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import Comparison
from cpn.core.errors import InputError

if TYPE_CHECKING:
    from cpn.data.voc import Pack
    from cpn.stages.inputs import Inputs

TARGET = 1.1
FLAT_MIB = 2
"""What allocators and caches take or leave; the pixels of the 240 scenes between the sizes alone would be 2.8."""
IMAGES, QUICK_IMAGES = (16, 64, 256), (4, 16, 64)
TRIALS, QUICK_TRIALS = (100, 1_000, 10_000), (30, 100, 300)
BATCH = 4
ROUNDS, ENOUGH_S = 3, 5.0
"""A size is measured so often, or until so many CPU seconds are spent on it."""
DRAWN = 100
"""Trials that are drawn for a made-up sweep; the others are copies of them."""
SEARCH: dict[str, Any] = {
    "patches.kind": {"choice": ["superpixel", "grid"]},
    "patches.S_N": {"int": [5, 300], "log": True, "when": {"patches.kind": "superpixel"}},
    "patches.K": {"choice": [[4, 8], [8, 16], [16, 32]], "when": {"patches.kind": "grid"}},
    "patches.p_h": {"float": [0.1, 0.5]},
    "loss.w_tcp": {"float": [0.1, 10], "log": True},
    "cam.beta": {"curve": True},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--only", choices=list(PARTS), metavar="PART", help=f"one of {', '.join(PARTS)}")


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size, by least squares: b in seconds = a size^b."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    middle_x, middle_y = statistics.fmean(x), statistics.fmean(y)
    across = sum((at - middle_x) ** 2 for at in x)
    return sum((at - middle_x) * (up - middle_y) for at, up in zip(x, y, strict=True)) / across


def peak_mib() -> float:
    """The most that this process has held so far. Not getrusage's, which starts at what its parent held."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def scenes(folder: Path, count: int) -> "Pack":
    """`count` scenes in folder/images<count>, packed; the same call again opens them."""
    from cpn.config.data import ScenesConfig
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes

    write_scenes(folder / f"images{count}", ScenesConfig(train=count, val=1))
    return prepare(folder / f"images{count}", ["train"], scored=["train"])


def inputs(folder: Path, count: int) -> "Inputs":
    """Build a stage's inputs: the scenes, and networks with random weights that `lay_out` wrote."""
    import torch

    from cpn.config import config_from
    from cpn.stages.inputs import Inputs

    values = {"preset": ["official", "scenes"], "network": {"weights": None}, "data": {"train": "train"}}
    folders = {"cam": folder / f"maps{count}", "affinity": folder / "affinity"}
    return Inputs(
        folder / "model.safetensors", config_from(values, "the benchmark"), scenes(folder, count), folder / "cache",
        torch.device("cpu"), folders,
    )  # fmt: skip


def lay_out(folder: Path, sizes: Sequence[int]) -> None:
    """Make what the parts on images read: scenes, superpixels, maps at random, networks with random weights."""
    import numpy as np
    import torch

    from cpn.data.map_files import present_classes, save_maps
    from cpn.data.superpixels import maps_for
    from cpn.models.backbone import build_backbone
    from cpn.models.checkpoint import save_model
    from cpn.models.network import build_network
    from cpn.propagation.affinity import AffinityNet
    from cpn.stages.inputs import stage_metadata

    rng = np.random.default_rng(0)
    for size in sizes:
        stage_inputs = inputs(folder, size)
        maps_for(stage_inputs.config, stage_inputs.split, stage_inputs.cache)
        for index, name in enumerate(stage_inputs.split.ids):
            present = present_classes(stage_inputs.split.labels[index])
            shape = (len(present), *stage_inputs.split.image(index).shape[:2])
            save_maps(stage_inputs.folders["cam"] / f"{name}.npz", rng.random(shape, np.float32), present)
    torch.manual_seed(0)
    network = build_network(stage_inputs.config.network, stage_inputs.classes)
    save_model(stage_inputs.model, network, {"kind": "cam", "beta": 0.5, **stage_metadata(stage_inputs)})
    affinity = AffinityNet(build_backbone(stage_inputs.config.network.backbone), stage_inputs.config.affinity.widths)
    save_model(
        stage_inputs.folders["affinity"] / "model.safetensors",
        affinity,
        {"kind": "affinity", **stage_metadata(stage_inputs)},
    )


def make_sweep(folder: Path, trials: int) -> None:
    """A sweep `made` with so many ended trials in folder/sweeps<trials>: a study and a clock, as a real one leaves."""
    from platform.base.paths import storage
    from platform.base.yaml_files import dump_yaml
    from platform.config.space import domains
    from platform.config.space.unit_cube import from_unit
    from platform.config.sweep_spec import SweepSpec
    from platform.search import distributions
    from platform.search.study import State, open_study, study_url

    import numpy as np
    import optuna

    from cpn.core.files import write_json

    store = storage(str(folder / f"sweeps{trials}"))
    base = {"preset": ["official", "scenes"], "patches": {"draw": "bernoulli"}, "train": {"epochs": 4}}
    sections = {"budget": {"trials": trials}, "tracking": {"study": f"sqlite:///{store.study}"}}
    resources = {"gpus_per_worker": 0, "storage": str(store.root)}
    spec = SweepSpec.model_validate(
        {"name": "made", "base": base, "search": SEARCH, "resources": resources, **sections}
    )
    paths = store.sweep("made")
    paths.root.mkdir(parents=True)
    paths.lock.touch()
    dump_yaml(paths.spec, spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    study = open_study(spec, study_url(spec), "growth")
    reference = study.ask()
    assert reference is not None
    study.tell(reference.uid, State.COMPLETE, 40.0, attrs={"beta": 0.44, "run_key": "0"})
    search, rng = domains.drawn(spec.search), np.random.default_rng(0)
    drawn = []
    for number in range(1, min(trials, DRAWN)):
        values: dict[str, Any] = {}
        for name in domains.ordered(search):
            if domains.active(name, search, values):
                values[name] = from_unit(search[name], float(rng.random()))
        stored, miou = distributions.told_params(search, values), 40 + float(rng.normal(0, 4))
        pruned = number % 3 == 0  # after two of four epochs
        drawn.append(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
                value=miou,
                params={name: value for name, (value, _) in stored.items()},
                distributions={name: distribution for name, (_, distribution) in stored.items()},
                intermediate_values={epoch: miou - 8 + 2 * epoch for epoch in range(1, 3 if pruned else 5)},
                user_attrs={"result": {"beta": 0.44, "seconds": 30.0, "run_key": str(number), "miou_confirm": miou}},
            )
        )
    optuna.load_study(study_name="made", storage=study_url(spec)).add_trials(drawn)
    study.close()
    multiply(store.study, trials)
    write_json(paths.clock, {"seconds": 30.0 * trials, "trials": {f"made-{n:04d}": 30.0 for n in range(trials)}})


def multiply(database: Path, trials: int) -> None:
    """Copy the trials after the first, again and again, until a database with one study has `trials`.

    Through Optuna ten thousand take minutes.
    """
    with sqlite3.connect(database) as connection:
        trials_present = connection.execute("SELECT count(*) FROM trials").fetchone()[0]
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in sorted(names, key=lambda name: name != "trials"):
            columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
            if "trial_id" not in columns:
                continue
            copied_columns = columns if table == "trials" else columns[1:]  # the first is the row's own key
            copied = ", ".join(
                f"{name} + :shift" if name in ("trial_id", "number") else name for name in copied_columns
            )
            for shift in range(trials_present - 1, trials - 1, trials_present - 1):
                connection.execute(
                    f'INSERT INTO "{table}" ({", ".join(copied_columns)}) SELECT {copied} FROM "{table}" '
                    "WHERE trial_id BETWEEN 2 AND :there AND trial_id + :shift <= :trials",
                    {"shift": shift, "there": trials_present, "trials": trials},
                )
    connection.close()


def do_prepare(folder: Path, count: int, out: Path) -> int:
    """Check and pack."""
    from cpn.sources.packing import prepare

    return len(prepare(folder / f"images{count}", ["train"], out, scored=["train"]).split("train"))


def do_loader(folder: Path, count: int, out: Path) -> int:
    """An epoch's batches, in this process."""
    from cpn.data.loader import TrainingSamples, epoch_keys, load_batches
    from cpn.data.superpixels import maps_for

    stage_inputs = inputs(folder, count)
    maps = maps_for(stage_inputs.config, stage_inputs.split, stage_inputs.cache)
    samples = TrainingSamples(stage_inputs.split, stage_inputs.config.data, stage_inputs.config.patches, 0, maps)
    return sum(
        len(batch.images) for batch in load_batches(samples, epoch_keys(count, BATCH, 0, 0), 0, stage_inputs.device)
    )


def do_cam(folder: Path, count: int, out: Path) -> int:
    """The stage cam."""
    from cpn.stages.pipeline import make_cams

    make_cams(inputs(folder, count), range(count), out)
    return len(list(out.glob("*.npz")))


def do_curve(folder: Path, count: int, out: Path) -> int:
    """Measure what the end of a trial does: write the counts of each image at every beta, of one pass."""
    from cpn.run import load_run, score_by_scale
    from cpn.scoring.counts import load_ids

    stage_inputs = inputs(folder, count)
    network, config, _ = load_run(stage_inputs.model)
    quick = config.cam.model_copy(update={"scales": (1.0,), "flip": False})
    score_by_scale(network, stage_inputs.split, quick, stage_inputs.classes, out / "counts.npz")
    return len(load_ids(out / "counts.npz"))


def do_walk(folder: Path, count: int, out: Path) -> int:
    """The stage random_walk."""
    from cpn.stages.pipeline import make_pseudo_labels

    make_pseudo_labels(inputs(folder, count), range(count), out)
    return len(list(out.glob("*.png")))


def do_report(folder: Path, count: int, out: Path) -> int:
    """Read the sweep, write its page and its tables."""
    from platform.base.paths import storage
    from platform.reports.html.page import write_report
    from platform.reports.snapshot import read_sweep

    write_report(read_sweep(storage(str(folder / f"sweeps{count}")), "made"), out)
    return sum(line.startswith("| ") for line in (out / "leaderboard.md").read_text().splitlines()) - 1  # the head


PARTS: dict[str, Callable[[Path, int, Path], int]] = {
    "prepare": do_prepare, "loader": do_loader, "cam": do_cam, "curve": do_curve, "walk": do_walk, "report": do_report,
}  # fmt: skip
"""Part -> work on what lies in a folder, so many images or trials, writing to another; how many results it left."""


def measure(part: str, folder: Path, sizes: Sequence[int]) -> list[tuple[int, float, float]]:
    """For each size: results, median CPU seconds, the most MiB that this process (the part's own) held till then."""
    import torch

    torch.set_num_threads(1)

    def once(size: int) -> tuple[int, float]:
        out = Path(tempfile.mkdtemp(dir=folder))
        began = time.process_time()
        return PARTS[part](folder, size, out), time.process_time() - began

    once(sizes[0])  # imports, and fills caches
    measurements = []
    for size in sizes:
        done, seconds = once(size)
        spent = [seconds]
        while len(spent) < ROUNDS and sum(spent) < ENOUGH_S:
            spent.append(once(size)[1])
        measurements.append((done, statistics.median(spent), peak_mib()))
    return measurements


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every part, or one."""
    if options.only and options.write:
        raise InputError("--write: a row has all parts; leave --only out")
    wanted = [options.only] if options.only else list(PARTS)
    images, trials = (QUICK_IMAGES, QUICK_TRIALS) if options.quick else (IMAGES, TRIALS)
    measured: dict[str, list[tuple[int, float, float]]] = {}
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        if wanted != ["report"]:
            lay_out(folder, images)
        if "report" in wanted:
            for count in trials:
                make_sweep(folder, count)
        for part in wanted:
            sizes = trials if part == "report" else images
            with ProcessPoolExecutor(1, get_context("spawn")) as own:
                measured[part] = own.submit(measure, part, folder, sizes).result()
            print(line(part, sizes, measured[part]), flush=True)
    return summary(measured, {part: trials if part == "report" else images for part in wanted})


def line(part: str, sizes: Sequence[int], measurements: Sequence[tuple[int, float, float]]) -> str:
    """A part's measurements for people."""
    each = [
        f"{size:,}: {seconds:.3g} s, {mib:.0f} MiB" for size, (_, seconds, mib) in zip(sizes, measurements, strict=True)
    ]
    return f"{part}: {'; '.join(each)}; exponent {exponent(sizes, [seconds for _, seconds, _ in measurements]):.2f}"


def summary(
    measured: dict[str, list[tuple[int, float, float]]], sizes: dict[str, Sequence[int]]
) -> dict[str, Any]:  # fmt: skip
    """The largest exponent against a linear one, and every part's."""
    slopes, ends, memory, whole = {}, [], {}, True
    for part, measurements in measured.items():
        seconds = [spent for _, spent, _ in measurements]
        slopes[part] = exponent(sizes[part], seconds)
        ends.append(exponent(sizes[part][-2:], seconds[-2:]))
        memory[f"{part}_mib"] = measurements[-1][2] - measurements[0][2]
        whole = whole and [done for done, _, _ in measurements] == list(sizes[part])
    flat = [name.removesuffix("_mib") for name, mib in memory.items() if mib < FLAT_MIB]
    more = {**slopes, "steepest_end": max(ends), **memory, "flat": " ".join(flat) or "none"}
    return Comparison(max(slopes.values()), 1.0, "exponent of CPU time over size", whole, TARGET, more).result()
