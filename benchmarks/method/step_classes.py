"""What a training step of CPN costs over three plain forward and backward passes of its backbone, by number of classes.

    python -m benchmarks step_classes --backbone efficientnet_lite0 --crop 257 --json

`ratio_6`, `ratio_21` and `ratio_81` for 6, 21 and 81 classes with background; goal: at most 1.2 each. A step is a whole
one: the complementary pair, one pass over 3B images, PCM and PRCM, all losses of preset official, the backward pass and
the optimizer. Beside it the backbone alone sees B images three times, and each time the mean of its top goes backward.
The images of a batch show 1, 2 and 3 classes in turn, whatever the number of classes. Both run in turns, one thread,
medians of CPU seconds. Weights are random.
"""

import argparse
from dataclasses import replace
from typing import Any

from benchmarks.comparison import take_turns

CLASSES = (6, 21, 81)
SHOWN = (1, 2, 3)
"""Classes of the images of a batch, in turn; an image of VOC 2012 shows 1.5 on average, one of COCO 2.9."""
GOAL = 1.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The topic's own options."""
    parser.add_argument("--backbone", default="efficientnet_lite0", help="as network.backbone (%(default)s)")
    parser.add_argument("--crop", type=int, default=257, help="side of the images in pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images of a step (%(default)s)")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all numbers of classes."""
    import torch

    torch.set_num_threads(1)
    ratios: dict[str, Any] = {}
    for classes in CLASSES:
        torch.manual_seed(0)
        step, plain = sides(classes, options.backbone, options.crop, options.batch)
        ours, other = take_turns(step, plain, 3 if options.quick else 9)
        ratios |= {f"ratio_{classes}": ours / other, f"step_{classes}": ours, f"plain_{classes}": other}
    worst = max(ratios[f"ratio_{classes}"] for classes in CLASSES)
    setting = {"backbone": options.backbone, "crop": options.crop, "batch": options.batch}
    return {**ratios, "worst": worst, "goal": GOAL, "reached": worst <= GOAL, "unit": "CPU s", **setting}


def sides(classes: int, backbone: str, crop: int, batch: int) -> tuple[Any, Any]:
    """A training step and three plain passes, ready to be called."""
    import torch

    from cpn.config import config_from
    from cpn.cost.step_time import cam_job
    from cpn.data.transforms import normalise

    values = {
        "preset": "official",
        "network": {"backbone": backbone},
        "data": {"crop": crop},
        "train": {"batch_size": batch},
    }
    job = cam_job(config_from(values, "the benchmark"), classes, torch.device("cpu"))
    network: Any = job.network.train()
    batch_of_classes = with_few_classes(job.batch, classes - 1)
    images = normalise(batch_of_classes.images, batch_of_classes.valid)

    def step() -> None:
        total = job.losses(batch_of_classes, 0.5)["total"]
        job.optimizer.zero_grad(set_to_none=True)
        total.backward()
        job.optimizer.step()

    def plain() -> None:
        job.optimizer.zero_grad(set_to_none=True)
        for _ in range(3):
            network.backbone(images)[2].mean().backward()

    return step, plain


def with_few_classes(batch: Any, classes: int) -> Any:
    """A batch whose images show `SHOWN` of `classes` each, and the number of classes that the loader would tell."""
    labels = shown_labels(len(batch.labels), classes)
    return replace(batch, labels=labels, most_classes=int(labels.sum(dim=1).max()))


def shown_labels(images: int, classes: int) -> Any:
    """Multi-hot (images, classes) of `SHOWN` classes each."""
    import torch

    labels = torch.zeros(images, classes)
    for at, row in enumerate(labels):
        row[torch.randperm(classes)[: SHOWN[at % len(SHOWN)]]] = 1
    return labels
