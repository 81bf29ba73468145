"""Two Ray Train workers on two cores against one, one thread each: how much faster a trial's steps become.

    python -m benchmarks scaling --json
    python -m benchmarks scaling --estimate            on paper: up to 64 GPUs, from counted messages

The trials of benchmarks/sweeps/bare_trials.py, in turns in one Ray, with the product's training loop: batch 8 of
scenes, which the workers share. Ours is the seconds an image with two workers, other with one, each the median over
epochs after the first and over trials; 0.5 were perfect. `free_cores` is what others on the machine left at the start:
two workers want two. `equal`: both end at the same network, that is, the final weights of both sides (SGD, no dropout)
differ by less than a hundredth of the way that training moved them (`difference`); and data-parallel training reduced
just the bytes that are counted for it (`sent_bytes` a step).

The estimate is a bound with its assumptions named; docs/scale.md shows it. A step of N GPUs with their own batch each
takes T + max(c - o T, c / b): T is the step of one, counted operations over --tflops; the ring's time is
c = 2 (N - 1) / N G / B + 2 (N - 1) b L, of G bytes of gradients in b buckets, B bytes a second of the slowest link and
L seconds of latency; o is the backward pass's share of T, which hides c but for its last bucket (0 with --no-overlap).
"""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import Comparison, NotMeasuredError
from benchmarks.sweeps.command_tree import Line, ended, watched
from cpn.core.errors import InputError, WorkError

if TYPE_CHECKING:
    from cpn.config import Config

BATCH, CLOSE = 8, 0.01
SIZES = {"images": 240, "epochs": 5, "rounds": 2}
QUICK = {"images": 80, "epochs": 3, "rounds": 1}
BUCKET = 25 * 2**20
"""torch's `bucket_cap_mb`."""
BACKWARD = 2 / 3
"""Of a step's operations: two products for each of the forward pass."""
LINKS = {"Ethernet 10 Gbit/s": 1.25e9, "Ethernet 25 Gbit/s": 3.125e9, "InfiniBand 200 Gbit/s": 25e9}
"""Bytes a second that a machine's network card carries, by the card."""
LATENCY_S = 20e-6
GPUS = (2, 8, 64)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--estimate", action="store_true", help="the estimate on paper, and nothing is run")
    parser.add_argument("--tflops", type=float, default=30.0, help="what a GPU sustains (%(default)s, assumed)")
    parser.add_argument("--no-overlap", action="store_true", help="no message is hidden behind the backward pass")


def messages(config: "Config", classes: int) -> dict[str, int]:
    """Bytes of a network's float32 parameters that a step's gradients are reduced for, of those that it leaves out, and
    of the buffers that data-parallel training sends along with every forward pass.
    """
    import torch

    from cpn.models.network import build_network
    from cpn.training.cam_training import freeze_unused

    with torch.device("meta"):
        network = build_network(config.network, classes)
    freeze_unused(network, config)
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in network.parameters()]
    return {
        "gradient_bytes": sum(size for size, trained in sizes if trained),
        "frozen_bytes": sum(size for size, trained in sizes if not trained),
        "buffer_bytes": sum(b.numel() * b.element_size() for b in network.buffers()),
    }


def ring_seconds(gpus: int, size: float, bytes_per_s: float, latency_s: float = LATENCY_S) -> float:
    """Seconds of a ring all-reduce of `size` bytes over so many GPUs, bucket after bucket."""
    return 2 * (gpus - 1) / gpus * size / bytes_per_s + 2 * (gpus - 1) * buckets(size) * latency_s


def buckets(size: float) -> int:
    """Messages that `size` bytes of gradients are sent in."""
    return max(1, math.ceil(size / BUCKET))


def efficiency(step_s: float, ring_s: float, count: int, overlap: float) -> float:
    """Images a second for each GPU, as a share of what one does alone; see the formula above."""
    return step_s / (step_s + max(ring_s - overlap * step_s, ring_s / count))


def estimate(tflops: float, overlap: float) -> dict[str, Any]:
    """Weak scaling of the preset official on VOC, printed as a table; its constants and rows."""
    from cpn.config import config_from
    from cpn.cost.operations import step_operations
    from cpn.data.voc import VOC_CLASSES

    config = config_from({"preset": "official"}, "the benchmark")
    classes = len(VOC_CLASSES) + 1
    sent = messages(config, classes)
    operations = step_operations(config, classes)
    step_s, size = operations / (1e12 * tflops), sent["gradient_bytes"]
    print(
        f"ResNet38 CPN, batch {config.train.batch_size} a GPU: {size / 1e6:.1f} MB of gradients a step in "
        f"{buckets(size)} buckets; frozen and left out {sent['frozen_bytes'] / 1e6:.2f} MB; buffers "
        f"{sent['buffer_bytes'] / 1e6:.2f} MB\na step of one: {operations / 1e12:.2f} TFLOP, {step_s:.3f} s at "
        f"{tflops:g} TFLOP/s; {overlap:.0%} of it can hide messages\n"
    )
    print(f"| link between the GPUs | {' | '.join(f'{n} GPUs' for n in GPUS)} |\n|---|{'---|' * len(GPUS)}")
    rows = {}
    for name, rate in LINKS.items():
        rings = [ring_seconds(n, size, rate) for n in GPUS]
        rows[name] = [efficiency(step_s, ring, buckets(size), overlap) for ring in rings]
        cells = [f"{share:.0%} ({1000 * ring:.0f} ms)" for share, ring in zip(rows[name], rings, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")
    constants = {"step_tflop": operations / 1e12, "step_s": step_s, "buckets": buckets(size), "tflops": tflops}
    return {**sent, **constants, "gpus": list(GPUS), "efficiency": rows}


def settings(root: Path, epochs: int) -> dict[str, Any]:
    """The trials' configuration: what both sides can repeat to the last few bits."""
    return {
        "preset": ["official", "scenes"],
        "data": {"root": str(root), "train": "train", "score": "train", "val": "val"},
        "patches": {"kind": "grid"},
        "network": {"weights": None, "dropout": 0.0},
        "train": {"epochs": epochs, "batch_size": BATCH, "optimizer": "sgd", "lr": 0.01, "head_lr_factor": 10.0},
    }


def seconds_an_image(lines: Sequence[Line], uids: Sequence[int]) -> float:
    """Of the trials with these numbers: the median over them, each the median over its epochs after the first."""
    each = []
    for uid in uids:
        rates = [
            float(line.event["images_per_s"])
            for line in lines
            if line.event.get("uid") == uid and "images_per_s" in line.event
        ]
        each.append(1 / statistics.median(rates[1:]))
    return statistics.median(each)


def apart(one: Mapping[str, Any], other: Mapping[str, Any], start: Mapping[str, Any]) -> float:
    """How far two networks (name -> tensor) are from each other, over how far the first is from where both began."""

    def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
        return math.sqrt(sum(float((a[name].double() - b[name].double()).square().sum()) for name in start))

    return distance(one, other) / distance(one, start)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, or estimate."""
    if options.tflops <= 0:
        raise InputError("--tflops: give a number above 0")
    if options.estimate:
        if options.write:
            raise InputError("--write: takes a measured row; leave --estimate out")
        return estimate(options.tflops, 0.0 if options.no_overlap else BACKWARD)
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        raise NotMeasuredError(f"scaling: two workers need two cores, and this process has {cores}")
    free = max(0.0, cores - os.getloadavg()[0])
    sizes = QUICK if options.quick else SIZES
    with tempfile.TemporaryDirectory(prefix="cpn-scaling-") as place:
        return measure(Path(place), sizes, {"cores": cores, "free_cores": free})


def measure(root: Path, sizes: Mapping[str, int], more: dict[str, Any]) -> dict[str, Any]:
    """Trials of one worker and of two in turns."""
    from safetensors.torch import load_file

    from benchmarks.sweeps.bare_trials import first_network, method
    from cpn.config.data import ScenesConfig
    from cpn.sources.packing import prepare
    from cpn.sources.scenes import write_scenes

    write_scenes(root / "scenes", ScenesConfig(train=sizes["images"], val=4))
    classes = len(prepare(root / "scenes", ["train", "val"]).classes) + 1
    base, workers = settings(root / "scenes", sizes["epochs"]), [1, 2] * sizes["rounds"]
    trials = [{"values": {}, "workers": count} for count in workers]
    (root / "given.json").write_text(
        json.dumps({"base": base, "score": False, "folder": str(root), "trials": trials})
    )  # fmt: skip
    with watched([sys.executable, "-m", "benchmarks.sweeps.bare_trials", "given.json"], root) as tree:
        lines = tree.until(lambda printed: len(ended(printed)) == len(trials))
    if any(line.event.get("state") == "fail" for line in lines):
        raise WorkError(
            "scaling: a trial of the bare script failed; see what it says: python -m benchmarks.sweeps.bare_trials"
        )
    config = method(base, {})
    start, counted = first_network(config, classes, root).state_dict(), messages(config, classes)["gradient_bytes"]
    one, two = (load_file(root / f"{number}.safetensors") for number in (0, 1))
    steps = sizes["epochs"] * (sizes["images"] // BATCH)
    sent = [line.event["sent"] / steps for line in lines if line.event.get("uid") == 1 and "sent" in line.event]
    more |= {"difference": apart(two, one, start), "sent_bytes": sent[-1]}
    ours, other = (
        seconds_an_image(lines, [n for n, count in enumerate(workers) if count == wanted]) for wanted in (2, 1)
    )
    more |= {"ours_images_per_s": 1 / ours, "other_images_per_s": 1 / other}
    equal = more["difference"] < CLOSE and sent[-1] == counted
    return Comparison(ours, other, "s an image", equal, None, more).result()
