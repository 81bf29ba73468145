"""`--dry-run`: the plan of a sweep and its price, without data or Ray; where a device is there, by a measured step."""

import math
import os
import shlex
from collections.abc import Iterator
from typing import Any

import torch

from cpn.config import Config, to_dotted
from cpn.config.loss import untrained_words
from cpn.config.train import TrainConfig
from cpn.core.contents import is_code, own_modules
from cpn.core.errors import InputError
from cpn.cost.inference_memory import free_bytes
from cpn.cost.operations import step_operations
from cpn.cost.training_memory import GIB, step_bytes

from ..base.paths import check_apart_from_data, check_storage, storage
from ..base.terminal import Terminal, clock
from ..base.tracking_uri import check_store, sqlite_path
from ..cluster import measured_steps
from ..cluster.capacity import concurrency
from ..cluster.inputs import check_weights, look_at_data
from ..config.effects import effect_warnings
from ..config.own_code import check_named, own_backbones, trains_own_code
from ..config.space.domains import CurveDomain, domain_words
from ..config.sweep_spec import SweepSpec
from ..config.table_spec import row_values, shown_rows
from ..search.study import check_apart, check_study, study_url
from .data_size import class_count, size_words
from .estimate import START_SECONDS, Price, corner_configs, epoch_seconds, estimate, largest_step, on_gpu
from .owner_check import check_owner
from .reading_memory import reading_lines
from .simulated_searches import expectation

NOT_IN_IT = "reading and augmenting images is not in it"
RUN_CODE = "--dry-run --run-code imports it and counts"
NOTHING = "estimated from operation counts, nothing was measured"


def print_plan(spec: SweepSpec, command: str, on_cpu: bool = False, run_code: bool = False) -> None:
    """Print what would run, what it costs, and the command that starts it. `on_cpu`: measure there if on no GPU.

    The user's own code is imported with `run_code` alone; without it, what depends on it is not priced.
    Raises InputError, after the plan, when the largest corner of the search does not fit the card.
    """
    terminal = Terminal()
    config = spec.base_config
    lacks = trains_own_code(spec) and not run_code
    if lacks and on_cpu:
        raise InputError("--measure: the network is your own code; add --run-code, or leave --measure out")
    print_search(spec, terminal)
    for line in effect_warnings(spec):
        terminal.warn(line)
    where = config.data.root or (
        "synthetic scenes" if config.data.scenes else "no data set named yet: --set data.root=FOLDER"
    )
    terminal.say(
        f"data: {where}; lists {config.data.train} (training), {config.data.score} (scored), "
        f"{config.data.val} (validation)"
    )
    for line in what_it_runs(spec):
        terminal.say(line)
    if run_code or not is_code(config.network.backbone):
        check_weights(config, storage(spec.resources.storage), terminal.say)
    check_named(spec)
    check_places(spec)
    if (warning := check_store(spec.tracking.uri) or check_owner(spec)) is not None:
        terminal.say(f"warning: {warning}")
    look_at_data(config, spec.objective, terminal.say)
    if (words := untrained_words(config)) is not None:
        terminal.say(words)
    measured = None
    source = ""
    if lacks:
        price = estimate(spec, run_code=False)
    else:
        corner, largest = largest_step(spec)
        operations = step_operations(largest, class_count(largest))
        terminal.say(f"largest corner: {corner_words(corner, largest)}; {operations / 1e12:.3g} TFLOP a step")
        terminal.say(memory_words(largest, class_count(largest), spec.resources.workers))
        device = measured_steps.device_for(spec.resources, on_cpu)
        if device is not None:
            terminal.say(f"measuring a few steps of it on {device}, at most {measured_steps.LIMIT_S} s")
            measured = measured_steps.measured_step(largest, class_count(largest), device, spec.resources)
            terminal.say(measured_words(measured))
        for line in reading_lines(spec, room_to_read(spec, measured), run_code):
            terminal.say(line)
        rate, source = rate_of(spec, measured, device, operations)
        price = estimate(spec, rate)
    trials = str(price.trials) if price.trials is not None else "no fixed number of"
    later = "then crf, affinity, random_walk, deeplab, which are not priced"
    if spec.table is not None:
        different = len(dict.fromkeys(config for _, config in corner_configs(spec)))
        once = f"; rows of one configuration share them: {spec.table.seeds * different} are trained"
        terminal.say(
            f"runs: {trials}, {spec.table.seeds} of each row that is trained"
            + (once if spec.table.seeds * different < (price.trials or 0) else "")
            + (f"; {later}" if spec.table.reads_stages else "")
        )
    else:
        terminal.say(f"runs: {trials} trials, the reference first, then {price.confirm_runs} confirm runs; {later}")
    terminal.say(f"priced for {size_words(config)}")
    terminal.say(price_words(spec, price, source))
    if (expected := expectation(spec, price)) is not None:
        terminal.say(expected)
    if not lacks and (words := epoch_words(largest, epoch_seconds(spec, largest, rate))) is not None:
        terminal.say(words)
    parts = ", ".join(f"{name} {gigabytes(size)}" for name, size in price.disk.items() if size >= 0.0005)
    without = ", without networks and checkpoints" if lacks else ""
    terminal.say(f"disk: at most {gigabytes(price.disk_gb)} GB, uncompressed{without}: {parts}")
    if measured is not None and not measured.fits:
        raise InputError(
            f"search: its largest corner ({corner_words(corner, largest)}) does not fit in the memory of "
            f"{measured.device}{card_words(measured)}; lower data.crop or train.batch_size, or set train.precision=bf16"
        )
    terminal.say(f"nothing was started; next: {command}")


def check_places(spec: SweepSpec) -> None:
    """Raise InputError, in the words of a start, where results or the study could not be written on this machine.

    Makes nothing; a bucket, which is asked by writing, and a database server are left to the start.
    """
    store, url = storage(spec.resources.storage), study_url(spec)
    if store.url is None:
        check_storage(store, "resources.storage")
    check_apart_from_data(store, spec.base_config.data.root, "resources.storage", spec.name)
    check_apart(url, spec.tracking.uri)
    if sqlite_path(url) is not None:
        check_study(url)


def print_search(spec: SweepSpec, terminal: Terminal) -> None:
    """Print the rows of a table, or the names that are searched, their domains and the reference's values."""
    config = spec.base_config
    if spec.table is not None:
        words = [(name, row.imported or dotted_words(row_values(spec.base, name, row, spec.name)))
                for name, row in shown_rows(spec.table, config).items()]  # fmt: skip
        terminal.table(f"table {spec.name}: {spec.table.title}", ["row", "differs from the base in"], words)
        return
    base = to_dotted(config)
    rows = [
        (
            name,
            "read off the curve of every trial" if isinstance(domain, CurveDomain) else domain_words(domain),
            str(base[name]),
        )
        for name, domain in spec.search.items()
    ]
    terminal.table(f"sweep {spec.name}: what is searched", ["name", "domain", "reference"], rows)


def what_it_runs(spec: SweepSpec) -> Iterator[str]:
    """Yield a line for each value that names code or a program, which the sweep runs as this user."""
    for name in own_backbones(spec):
        modules = own_modules(name)
        file = next((module.file for module in modules if module.name == name.partition(":")[0]), "no file found")
        more = f" and {len(modules) - 1} more of yours" if len(modules) > 1 else ""
        yield f"runs code: {name}, {file}{more}"
    if spec.notify.command is not None:
        try:
            program, *arguments = shlex.split(spec.notify.command)
        except ValueError:
            program, arguments = "a command that no shell can read", []
        s = "" if len(arguments) == 1 else "s"
        words = f" with {len(arguments)} argument{s}, not shown as a token may be among them" if arguments else ""
        yield f"runs a program: notify.command is {program}{words}"


def room_to_read(spec: SweepSpec, measured: measured_steps.Measured | None) -> tuple[float, str] | None:
    """Return the bytes that a worker has, and where: of the measured card, or of this machine where trials run on its
    CPU.
    """
    if on_gpu(spec):
        known = measured is not None and measured.card_gib is not None
        return (measured.card_gib * GIB, measured.device) if known else None  # type: ignore[operator,union-attr]
    return None if "RAY_ADDRESS" in os.environ else free_bytes(torch.device("cpu"))


def rate_of(
    spec: SweepSpec, measured: measured_steps.Measured | None, device: str | None, operations: float
) -> tuple[float | None, str]:
    """Return the operations a second of one worker, None as assumed, and where that comes from in words.

    A step on the CPU says nothing about the GPU that a sweep trains on.
    """
    if measured is None or measured.step_s is None or on_gpu(spec) != (device == "cuda"):
        assumed = "one RTX 3090 at 30 TFLOP/s" if on_gpu(spec) else "a core at 30 GFLOP/s"
        return (
            None,
            f"{NOTHING}{' of a GPU' if measured is not None and measured.step_s is not None else ''} ({assumed})",
        )
    return operations / spec.resources.workers / measured.step_s, f"by the step measured on {measured.device}"


def dotted_words(values: dict[str, Any]) -> str:
    """`loss.w_cpcr=0 network.prcm=False`, or that nothing differs."""
    return " ".join(f"{name}={value}" for name, value in values.items()) or "nothing"


def corner_words(corner: dict[str, Any], config: Config) -> str:
    """Return a corner in words: what is searched of it, and what most decides its size."""
    base = to_dotted(config)
    shown = ("network.backbone", "train.objective", "data.crop", "train.batch_size")
    return ", ".join(f"{name}={base[name]}" for name in dict.fromkeys([*shown, *corner]))


def memory_words(config: Config, classes: int, workers: int) -> str:
    """Return the bound on a step's memory."""
    least = step_bytes(config, classes, workers)
    if least is None:
        return "memory: not counted, the backbone does not run without numbers"
    return f"memory: each worker holds at least {least / GIB:.1f} GiB for it, counted from shapes, not measured"


def measured_words(measured: measured_steps.Measured) -> str:
    """Return what the measurement said."""
    if measured.step_s is None:
        return f"measured: nothing, {measured.problem}"
    peak = f"peak memory {measured.peak_gib:.2f} GiB{card_words(measured)}"
    return f"measured: {measured.step_s:.3f} s a step on {measured.device}, {peak}"


def card_words(measured: measured_steps.Measured) -> str:
    """Return what a worker may hold of the card."""
    return f", where a worker has {measured.card_gib:.1f}" if measured.card_gib is not None else ""


def price_words(spec: SweepSpec, price: Price, source: str) -> str:
    """Return hours and money in a line."""
    if price.hours_per_trial is None:
        return f"price: not counted, nor memory: the network is your own code; {RUN_CODE}"
    if not on_gpu(spec):
        return f"price, {source}: {cpu_words(spec, price, price.hours_per_trial)}"
    total = f", {price.hours:.1f} in all{unpruned(spec)}" if price.hours is not None else ""
    total += f" for {price.money:.2f} at {spec.budget.price_per_gpu_hour:g} an hour" if price.money is not None else ""
    return f"price, {source}: about {price.hours_per_trial:.2f} GPU-hours a run{total}; {NOT_IN_IT}"


def cpu_words(spec: SweepSpec, price: Price, each: float) -> str:
    """Wall-clock times on this machine, or of the runs alone where a cluster's size is not known; `each` is a run's
    hours.
    """
    words = f"about {clock(3600 * each)} a run, {START_SECONDS:g} s of it Ray's start and end"
    if price.hours is not None:
        words += f"; {clock(3600 * price.hours)} of runs in all{unpruned(spec)}"
        if "RAY_ADDRESS" not in os.environ:
            at_once = concurrency(spec.resources, [{"CPU": float(os.cpu_count() or 1)}])
            words += f", about {clock(3600 * price.hours / at_once)} of wall-clock time with {at_once} at a time"
    return f"{words}; {NOT_IN_IT}"


def epoch_words(config: Config, seconds: float) -> str | None:
    """Return what an interruption costs where epochs of so many seconds are long: more than `train.checkpoint_minutes`,
    or where that is null than its default.
    """
    minutes = config.train.checkpoint_minutes
    limit: float = TrainConfig().checkpoint_minutes or math.inf if minutes is None else minutes
    if seconds <= 60 * limit:
        return None
    long = f"epochs of the largest corner take about {clock(round(seconds))}"
    if minutes is None:
        return f"{long}: an interrupted one is done again from its start, as train.checkpoint_minutes is null"
    return f"{long}: progress is saved every {minutes:g} minutes (train.checkpoint_minutes)"


def unpruned(spec: SweepSpec) -> str:
    """Return words for a search, whose runs cost at most what is said; a table's runs all go to their end."""
    return " without pruning" if spec.table is None else ""


def gigabytes(size: float) -> str:
    """GB in words: scenes take a few hundredths, VOC hundreds."""
    return f"{size:.1f}" if size >= 1 else f"{size:.3f}"
