"""The price of a sweep before it starts: how many runs, what they cost, and what they leave on the disk at most.

Hours are counted operations (cpn/cost/operations.py) by what the device sustains, which is assumed, or measured by a
few steps of the largest corner (platform/cluster/measured_steps.py). Every trial is priced as the search's most
expensive corner at full length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpn.config import Config, with_values
from cpn.config.cam import BETAS
from cpn.config.train import passes_of
from cpn.cost.operations import run_operations, step_operations, stored_bytes
from cpn.data.superpixels import levels_of, packed_bytes, reads_maps

from ..config.cost_extremes import COSTLY, MAPPED, extreme_config, extreme_values
from ..config.sweep_spec import SweepSpec
from ..config.table_spec import row_config, row_values, trained_rows
from ..search.confirm import CAM_BASELINE, LEAST_SEEDS, cam_baseline_values
from .data_size import class_count, list_length, picture

GPU_FLOPS = 30e12
"""Operations a second that an RTX 3090 sustains, as docs/method.md assumes (Cost)."""
CORE_FLOPS = 30e9
"""The same of one CPU core: the images per second that trials of search_spaces/quickstart.yaml report, times their
operations, were 27e9 with superpixels and 36e9 without patches. `--dry-run --measure` measures it."""
START_SECONDS = 12.0
"""Of a run through Ray, before the first line of ours and after the last: 10 to 14 s in the trials of
search_spaces/quickstart.yaml on two cores, the time of a trial less the `seconds` of its run. On the CPU with small
pictures this is a third of a run."""
PRESENT = 2
"""Classes present in an image, on the safe side: VOC and the scenes have about 1.5."""
KEPT = 2
"""Checkpoints that an unfinished training keeps; a third is being written."""
COPIES = 2
"""A finished network lies in its folder and among MLflow's artifacts."""
STATES = {"sgd": 1, "adamw": 2}
"""Numbers that the optimizer keeps for each weight."""


@dataclass(frozen=True)
class Price:
    """Runs and what they cost."""

    trials: int | None
    """Search trials, the reference among them; None without a limit."""
    confirm_runs: int
    hours_per_trial: float | None
    """Of the most expensive corner: GPU-hours, or where workers train on the CPU hours of a run. None where a network
    is the user's code, which was not to be run."""
    hours: float | None
    """The same of all runs at full length; pruning can only save. Says nothing about the stages after the CAM run."""
    money: float | None
    """`hours` at `budget.price_per_gpu_hour`; None without a price, or on the CPU."""
    disk: dict[str, float]
    """Gigabytes by what they hold."""

    @property
    def disk_gb(self) -> float:
        """Gigabytes in all."""
        return sum(self.disk.values())


def estimate(spec: SweepSpec, sustained: float | None = None, run_code: bool = True) -> Price:
    """Return the price of `spec` where a GPU, or a CPU core, sustains so many operations a second (None: as assumed).

    Without `run_code` nothing is said that a network has to be built for.
    """
    configs = [config for _, config in corner_configs(spec)]
    trials, (of_reference, of_best, of_plain) = spec.trial_limit, confirm_counts(spec)
    if not run_code:
        return Price(trials, confirm_runs(spec), None, None, None, disk(spec))
    rate = sustained or (GPU_FLOPS if on_gpu(spec) else CORE_FLOPS)
    most_expensive = max(configs, key=operations)
    base = spec.base_config
    plain = with_values(base, cam_baseline_values(spec), CAM_BASELINE)
    each, reference, cam_baseline = (run_hours(spec, config, rate) for config in (most_expensive, base, plain))
    again = of_reference * reference + of_best * each + of_plain * cam_baseline
    total = reference + (trials - 1) * each + again if trials is not None else None
    if spec.table is not None:
        hours = sum(run_hours(spec, config, rate) for config in dict.fromkeys(configs))
        total = spec.table.seeds * hours if trials else 0.0
    price = spec.budget.price_per_gpu_hour if on_gpu(spec) else None
    money = total * price if total is not None and price is not None else None
    return Price(trials, confirm_runs(spec), each, total, money, disk(spec, configs))


def on_gpu(spec: SweepSpec) -> bool:
    """Return whether trials train on GPUs."""
    return spec.resources.gpus_per_worker > 0


def corner_configs(spec: SweepSpec, names: Sequence[str] = COSTLY) -> list[tuple[dict[str, Any], Config]]:
    """Return every corner of the search in `names`, and the reference, which may lie outside; of a table its trained
    rows, or the base where there are none.
    """
    if spec.table is not None:
        rows = trained_rows(spec.table, spec.base_config)
        return [
            (row_values(spec.base, name, row, spec.name), row_config(spec.base, name, row, spec.name))
            for name, row in rows.items()
        ] or [({}, spec.base_config)]
    return [
        ({}, spec.base_config),
        *((corner, extreme_config(spec, corner)) for corner in extreme_values(spec, names) if corner),
    ]


def largest_step(spec: SweepSpec) -> tuple[dict[str, Any], Config]:
    """Return the corner whose training step computes most; among equals float32, then the larger optimizer."""

    def size(corner: tuple[dict[str, Any], Config]) -> tuple[float, bool, int]:
        train = corner[1].train
        return step_operations(corner[1], class_count(corner[1])), train.precision == "fp32", STATES[train.optimizer]

    return max(corner_configs(spec), key=size)


def confirm_runs(spec: SweepSpec) -> int:
    """Return runs after the search: top k, the reference and cam_baseline, each with its fresh seeds."""
    return sum(confirm_counts(spec))


def confirm_counts(spec: SweepSpec) -> tuple[int, int, int]:
    """Confirm runs, at most, of the reference, of the best others, and of cam_baseline. Of a race the reference has a
    quarter at least, or all that it needs.
    """
    confirm, limit = spec.confirm, spec.trial_limit
    if spec.table is not None:
        return 0, 0, 0
    if not confirm.top_k:
        return 0, 0, 1
    compared = confirm.top_k if limit is None else min(confirm.top_k, limit - 1)
    if confirm.raced and compared:
        runs = confirm.race_runs(compared)
        of_reference = min(runs, max(LEAST_SEEDS - 1, runs // 4))
        return of_reference, runs - of_reference, confirm.seeds_each
    return confirm.seeds_of_reference, confirm.seeds_each * compared, confirm.seeds_each


def run_hours(spec: SweepSpec, config: Config, rate: float) -> float:
    """GPU-hours of one full-length run, or hours of one on the CPU, at `rate` operations a second and worker.

    Workers share a batch: on GPUs the product stays the same, on the CPU the run gets shorter. Ray's start counts with
    all the GPUs that wait for it.
    """
    held, workers = spec.resources.workers * spec.resources.gpus_per_worker, spec.resources.workers
    seconds = operations(config) / rate
    return (seconds + held * START_SECONDS if held else seconds / workers + START_SECONDS) / 3600


def epoch_seconds(spec: SweepSpec, config: Config, rate: float | None = None) -> float:
    """Return the seconds of one epoch's steps, at `rate` operations a second and worker (None: as assumed)."""
    trained, batch = list_length(config, config.data.train), config.train.batch_size
    steps = passes_of(config.train, trained) * (trained // batch)
    rate = rate or (GPU_FLOPS if on_gpu(spec) else CORE_FLOPS)
    return steps * step_operations(config, class_count(config)) / rate / spec.resources.workers


def operations(config: Config) -> float:
    """Return counted operations of one full-length run."""
    height, width = picture(config)
    trained, scored = (list_length(config, name) for name in (config.data.train, config.data.score))
    return run_operations(config, class_count(config), trained=trained, scored=scored, height=height, width=width)


def disk(spec: SweepSpec, configs: Sequence[Config] = ()) -> dict[str, float]:
    """Gigabytes by what they hold, at most: but for superpixels nothing is taken to compress. Data and pictures are
    not in it, nor networks and checkpoints where no `configs` of networks are given.

    networks      every finished run's, and AffinityNet and DeepLab, each about a backbone; with MLflow's copies
    checkpoints   weights and optimizer: `KEPT` of every trial that pruning may stop, which keeps them; of one that is
                  running, with the one that is being written; of AffinityNet and DeepLab
    counts        per image, beta and class what mIoU is computed from, int32, of every run
    maps          stage cam: float16 maps of the present classes of the training list
    crf           uint8 scores at both background exponents, background among them; one uint8 label with IRN
    labels        one uint8 label of every image
    superpixels   maps of the training list at every level that a value of the search can need; all sweeps share them
    """
    base = spec.base_config
    classes, (height, width) = class_count(base), picture(base)
    trained, scored = (list_length(base, name) for name in (base.data.train, base.data.score))
    weights = max((stored_bytes(config.network, classes) for config in configs), default=0)
    states = max((STATES[config.train.optimizer] for config in configs), default=0)
    later = [STATES[kind or "adamw"] for kind in (base.affinity.optimizer, base.deeplab.optimizer)]
    trials = spec.trial_limit or 0
    runs = trials + confirm_runs(spec)
    stopped = trials - 1 if spec.pruning.kind != "none" and trials and spec.table is None else 0
    pixels = trained * height * width
    sizes = {
        "networks": weights * COPIES * (runs + len(later)),
        "checkpoints": weights * ((KEPT * stopped + KEPT + 1) * (1 + states) + KEPT * sum(1 + s for s in later)),
        "counts": 4 * runs * scored * len(BETAS) * 3 * classes,
        "maps": 2 * PRESENT * pixels,
        "crf": pixels * (1 if base.random_walk.kind == "irn" else 2 * (PRESENT + 1)),
        "labels": pixels,
        "superpixels": trained * sum(packed_bytes(level, height, width) for level in superpixel_levels(spec)),
    }
    return {name: size / 1e9 for name, size in sizes.items()}


def superpixel_levels(spec: SweepSpec) -> range:
    """Levels of superpixel maps that runs can need: from 0, which costs little, to the highest of any corner's."""
    configs = [config for _, config in corner_configs(spec, MAPPED)]
    needed = [level for config in configs if reads_maps(config) for level in levels_of(config.patches, config.data)]
    return range(max(needed) + 1) if needed else range(0)
