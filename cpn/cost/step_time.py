"""How long a training step takes and how much memory it holds: one random batch, many times, by the training loop.

Weights are random, so the learning rate is tiny: it changes no time and no memory. Not in it: reading and augmenting
images, which loader processes do meanwhile, and scoring CAMs after the epochs.
"""

import itertools
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpn.config import Config
from cpn.data.loader import Batch
from cpn.models.network import build_network
from cpn.training.cam_training import freeze_unused, objective
from cpn.training.loop import Loop, TrainingContext, run_loop
from cpn.training.optimizer import PolySchedule, build_optimizer, parameter_groups
from cpn.training.training_job import TrainingJob, compiled, placed

TINY = 1e-8
"""Learning rate under random weights."""

Given = TypeVar("Given")


@dataclass(frozen=True)
class Job:
    """A network that is trained on one batch, which lies on the device already."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[[Any, float], Mapping[str, Tensor]]
    batch: Any
    batch_size: int


@dataclass(frozen=True)
class StepTime:
    """What was measured."""

    seconds: float
    """Median of the timed steps."""
    peak_gib: float
    """GiB that torch's allocator held at most (CUDA's own context, about half a GiB, comes on top); on the CPU what the
    whole process held at most."""
    first_s: float
    """Of the steps before those that were timed, together: compiling is in it."""


def time_steps(job: Job, device: torch.device, steps: int, *, warm_up: int, bf16: bool) -> StepTime:
    """Train `warm_up` + `steps` steps and time the last `steps`; torch.OutOfMemoryError passes through."""
    stamps: list[float] = []
    loop = Loop(
        network=job.network,
        optimizer=job.optimizer,
        schedule=PolySchedule(job.optimizer, warm_up + steps),
        epochs=1,
        steps_per_epoch=warm_up + steps,
        batches=lambda epoch, first: repeated(job.batch, warm_up + steps, device, stamps),
        losses=job.losses,
        seed=0,
        images_per_step=job.batch_size,
        bf16=bf16,
    )
    run_loop(loop, TrainingContext(device=device, report=lambda entry: None))
    seconds = statistics.median(b - a for a, b in itertools.pairwise(stamps[warm_up:]))
    if device.type == "cuda":
        return StepTime(seconds, torch.cuda.max_memory_reserved(device) / 2**30, stamps[warm_up] - stamps[0])
    return StepTime(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, stamps[warm_up] - stamps[0])


def repeated(batch: Given, steps: int, device: torch.device, stamps: list[float]) -> Iterator[Given]:
    """`batch` for every step; before each and after the last the device is idle and the time is noted."""
    for step in range(steps + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        stamps.append(time.perf_counter())
        if step < steps:
            yield batch


def cam_job(config: Config, classes: int, device: torch.device) -> Job:
    """Return the CAM network under the objective of `config`, as a trial trains it; `classes` is C, with background."""
    settings, side = config.train, config.data.crop
    network = placed(build_network(config.network, classes), device, settings.precision == "bf16")
    freeze_unused(network, config)
    images, valid = random_images(settings.batch_size, side)
    # Halves of cells: the kind of patch is the loader's matter, and the device's work does not depend on it.
    cells = torch.rand(settings.batch_size, 1, 8, 8) < 0.5
    hidden = functional.interpolate(cells.float(), (side, side)).bool()[:, 0]
    labels = (torch.rand(settings.batch_size, classes - 1) < 0.1).float()
    labels[:, 0] = 1
    most = int(labels.sum(dim=1).max())
    batch = Batch(images, valid, hidden, 1 - hidden.float().mean((1, 2)), labels, None, most).to(device)
    groups = parameter_groups(network, TINY, settings.head_lr_factor, settings.weight_decay)
    optimizer = build_optimizer(
        settings.optimizer, groups, sgd_momentum=settings.sgd_momentum, weight_decay=settings.weight_decay
    )
    called = compiled(network, settings.compiled)
    return Job(
        network,
        optimizer,
        lambda step_batch, progress: objective(called, step_batch, progress, config.loss, settings.objective),
        batch,
        settings.batch_size,
    )


def on_one_batch(training: TrainingJob[Any, Any], batch: Any) -> Job:
    """Take the groups and losses of a training for one batch, at the rate `TINY`."""
    settings, groups = training.settings, [{**group, "lr": TINY} for group in training.groups()]
    optimizer = build_optimizer(
        training.optimizer, groups, sgd_momentum=settings.sgd_momentum, weight_decay=settings.weight_decay
    )
    return Job(training.network, optimizer, partial(training.losses, training.network), batch, settings.batch_size)


def random_images(count: int, side: int) -> tuple[Tensor, Tensor]:
    """uint8 (B, side, side, 3), and which pixels are an image's: all."""
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8), torch.ones(count, side, side).bool()
