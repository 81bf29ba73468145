"""What one GPU has to hold and how fast it is: training steps of CPN, AffinityNet and DeepLab, fp32 and bf16.

    python -m benchmarks single_gpu --json --write docs/single_gpu.md

Each row trains one network of the preset `official` (ResNet38, 448 x 448, VOC's classes, the preset's batch) for some
steps with the product's own loop, losses, parameter groups and optimizer, on one random batch that lies on the device
already. Weights are random, so the learning rate is tiny: it changes no time and no memory. Not in it: reading and
augmenting images, which loader processes do meanwhile, and scoring CAMs after the epochs.

A step's time is the median between synchronised points after the warm-up. Peak memory is what torch's allocator held at
most, in GiB (CUDA's own context, about half a GiB, comes on top). The process is held to `--card-gib`, a little less
than a 24 GB card has: what does not fit there is reported as out of memory, whatever the card. Without a CUDA device
every row says "not measured". `--device cpu --small` runs the same code with the scene network: it shows that the
script works, and says nothing about a GPU.
"""

import argparse
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cpn.core.errors import InputError

PRECISIONS = ("fp32", "bf16")
WARM_UP = 3
NO_DEVICE = "not measured: no CUDA device"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where to run (%(default)s)")
    parser.add_argument("--small", action="store_true", help="the scene network and small images")
    parser.add_argument("--steps", type=int, default=10, help="timed steps a row (%(default)s)")
    parser.add_argument("--card-gib", type=float, default=23.0, help="memory of the card to fit (%(default)s GiB)")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the table as a page")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every row; prints a table as it goes."""
    import torch

    if options.steps < 1 or options.card_gib <= 0:
        raise InputError("--steps, --card-gib: give numbers above 0")
    if options.device == "cpu" and not options.small:
        raise InputError("--device cpu: a step at full size takes minutes there and says nothing; add --small")
    there = options.device == "cpu" or torch.cuda.is_available()
    device = torch.device(options.device)
    if there and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.card_gib * 2**30 / total))
    print("\n".join(HEAD), flush=True)
    rows = []
    for name in JOBS:
        for precision in PRECISIONS:
            row = {"network": name, "precision": precision}
            steps = min(options.steps, 2) if options.quick else options.steps
            row |= measure(name, precision, device, options.small, steps) if there else {"note": NO_DEVICE}
            rows.append(row)
            print(line(row), flush=True)
    where = device_words(device) if there else "no CUDA device"
    result = {
        "device": where,
        "measured": there and device.type == "cuda" and not options.small,
        "card_gib": options.card_gib,
        "torch": torch.__version__,
        "rows": rows,
    }
    if options.write:
        write_page(options.write, result, options.small)
        print(f"written: {options.write}")
    return result


def measure(
    name: str, precision: str, device: Any, small: bool, steps: int, compiled: str | None = None
) -> dict[str, Any]:
    """One row, or the note that the card is too small for it; leaves the card empty."""
    import torch

    try:
        row = train_steps(name, precision, device, small, steps, compiled)
    except torch.OutOfMemoryError:
        row = {"note": "out of memory"}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def train_steps(
    name: str, precision: str, device: Any, small: bool, steps: int, compiled: str | None = None
) -> dict[str, Any]:
    """Seconds a step, images per second, peak memory, and what that makes of an epoch and of a whole training, the
    first steps with the compiling in it; `compiled` is `train.compiled`, for CPN alone.
    """
    import torch

    from cpn.config import config_from
    from cpn.cost.step_time import time_steps
    from cpn.sources.voc_lists import VOC_COUNTS

    torch.manual_seed(0)
    values = {"preset": ["official", "scenes"] if small else "official", "train": {"compiled": compiled}}
    config = config_from(values, "single_gpu")
    job, images_in_all = JOBS[name](config, device)
    timing = time_steps(job, device, steps, warm_up=WARM_UP, bf16=precision == "bf16")
    images_per_s = job.batch_size / timing.seconds
    return {
        "batch": job.batch_size,
        "side": config.data.crop,
        "peak_gib": timing.peak_gib if device.type == "cuda" else None,
        "step_s": timing.seconds,
        "images_per_s": images_per_s,
        "epoch_minutes": VOC_COUNTS["trainaug"] / images_per_s / 60,
        "first_s": timing.first_s,
        "training_hours": (timing.first_s + images_in_all / images_per_s) / 3600,
    }


def cpn_job(config: Any, device: Any) -> tuple[Any, int]:
    """Three branches, Eq. 17: what a trial trains. A `cpn.cost.step_time.Job`, and the images of a whole training."""
    from cpn.cost.step_time import cam_job
    from cpn.data.voc import VOC_CLASSES
    from cpn.sources.voc_lists import VOC_COUNTS

    return cam_job(config, len(VOC_CLASSES) + 1, device), VOC_COUNTS["trainaug"] * config.train.epochs


def affinity_job(config: Any, device: Any) -> tuple[Any, int]:
    """AffinityNet, as `cpn.propagation.affinity.affinity_job` trains it."""
    import torch

    from cpn.cost.step_time import on_one_batch, random_images
    from cpn.data.voc import VOC_CLASSES
    from cpn.models.backbone import build_backbone
    from cpn.propagation import affinity as training
    from cpn.propagation.affinity import AffinityBatch, AffinityNet
    from cpn.sources.voc_lists import VOC_COUNTS

    settings, side = config.affinity, config.affinity.crop or config.data.crop
    network = AffinityNet(build_backbone(config.network.backbone), settings.widths).to(device)
    cells = -(-side // network.stride)
    images, valid = random_images(settings.batch_size, side)
    labels = torch.randint(0, len(VOC_CLASSES) + 1, (settings.batch_size, cells, cells), dtype=torch.uint8)
    batch = AffinityBatch(images.to(device), valid.to(device), labels.to(device))

    job = training.affinity_job(network, range(settings.batch_size), settings, config.data, seed=0)
    return on_one_batch(job, batch), VOC_COUNTS["trainaug"] * settings.epochs


def deeplab_job(config: Any, device: Any) -> tuple[Any, int]:
    """DeepLab, as `cpn.segmentation.deeplab.deeplab_job` trains it."""
    import torch

    from cpn.cost.step_time import on_one_batch, random_images
    from cpn.data.segmentation_samples import SegmentationBatch
    from cpn.data.voc import VOC_CLASSES
    from cpn.models.backbone import build_backbone
    from cpn.segmentation import deeplab as training
    from cpn.segmentation.deeplab import DeepLab

    settings, side, classes = config.deeplab, config.deeplab.crop or config.data.crop, len(VOC_CLASSES) + 1
    network = DeepLab(build_backbone(config.network.backbone), classes, settings).to(device)
    images, valid = random_images(settings.batch_size, side)
    labels = torch.randint(0, classes, (settings.batch_size, side, side), dtype=torch.uint8)
    batch = SegmentationBatch(images.to(device), valid.to(device), labels.to(device))

    job = training.deeplab_job(network, range(settings.batch_size), settings, config.data, seed=0)
    return on_one_batch(job, batch), (settings.iterations or 0) * settings.batch_size


JOBS: dict[str, Callable[[Any, Any], tuple[Any, int]]] = {
    "CPN": cpn_job,
    "AffinityNet": affinity_job,
    "DeepLab": deeplab_job,
}


def device_words(device: Any) -> str:
    """The device's name."""
    import torch

    if device.type == "cpu":
        return "cpu"
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


HEAD = (
    "| network | precision | batch | side | peak GiB | s a step | images/s | min an epoch of trainaug | h in all |",
    "|---|---|---|---|---|---|---|---|---|",
)


def line(row: Mapping[str, Any]) -> str:
    """A row of the table, or why there is none."""
    if "note" in row:
        return f"| {row['network']} | {row['precision']} | {row['note']} |" + " |" * 6
    peak = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
    return (
        f"| {row['network']} | {row['precision']} | {row['batch']} | {row['side']} | {peak} | {row['step_s']:.3f} "
        f"| {row['images_per_s']:.1f} | {row['epoch_minutes']:.1f} | {row['training_hours']:.2f} |"
    )


def write_page(path: Path, result: Mapping[str, Any], small: bool) -> None:
    """The table as a page, whole or absent."""
    from cpn.core.files import write_bytes

    words = [
        "# One GPU",
        "",
        "Written by `python -m benchmarks single_gpu --write docs/single_gpu.md`; what it does stands at the top of",
        f"`benchmarks/method/single_gpu.py`. Device: {result['device']}; torch {result['torch']}; memory held to",
        f"{result['card_gib']:g} GiB, so that what fits here fits a 24 GB card.",
        *(["**The small network of the scenes: these numbers say nothing about the method's cost.**"] if small else []),
        "",
        *HEAD,
        *(line(row) for row in result["rows"]),
        "",
        "`h in all`: 8 epochs of 10,582 images for CPN (the training of one trial) and AffinityNet, 20,000 steps for",
        "DeepLab. Loading and scoring images is not in it.",
        "",
    ]
    write_bytes(path, "\n".join(words).encode())
