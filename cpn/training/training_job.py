"""One training job for all networks: what a task brings of its own, and how a training is made of it."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cpn.config.affinity import AffinityConfig
from cpn.config.deeplab import DeepLabConfig
from cpn.config.irn import IrnConfig
from cpn.config.train import Compiled, OptimizerKind, TrainConfig
from cpn.core.errors import InputError
from cpn.data.batches import TensorBatch, batches_on
from cpn.data.loader import epoch_keys_of_passes
from cpn.training.kept_memory import kept_memory
from cpn.training.loop import Loop, TrainingContext, run_loop
from cpn.training.optimizer import PolySchedule, build_optimizer

Sample = TypeVar("Sample")
Batch = TypeVar("Batch", bound=TensorBatch)
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Generic[Sample, Batch]):
    """A network with what its task alone has: parameter groups, samples, losses, and the numbers of its section.

    Raises InputError, naming the `section`, where a batch holds more than there is.
    """

    section: str
    """Whose numbers the `settings` are, for messages."""
    settings: TrainConfig | AffinityConfig | IrnConfig | DeepLabConfig
    optimizer: OptimizerKind
    network: nn.Module
    groups: Callable[[], Sequence[dict[str, Any]]]
    """Lists parameter groups with their learning rates, when the network is where it trains: on some devices moving it
    there makes new parameters."""
    samples: Dataset[Sample]
    """By (epoch, index): everything random in one depends on (seed, epoch, index) and nothing else."""
    count: int
    """How many samples there are."""
    collate: Callable[[list[Sample]], Batch]
    losses: Callable[[nn.Module, Batch, float], Mapping[str, Tensor]]
    """(network, batch, share of all steps done, in [0, 1)) -> scalar tensors, a `total` among them."""
    seed: int
    workers: int
    """Processes that make the samples; 0: this one."""
    bf16: bool = False
    compiled: Compiled | None = None
    """The mode of torch.compile that the network's passes go through; None: as it is."""
    epochs: int = 0
    iterations: int | None = None
    """Steps in place of `epochs`, of which the last may be a part; the schedule ends one step later, as in the released
    code."""
    passes: int = 1
    """How often an epoch passes the samples."""
    counted: str = "images"
    """What there are `count` of, for messages."""

    def __post_init__(self) -> None:
        if self.count < (batch_size := self.settings.batch_size):
            raise InputError(
                f"{self.section}.batch_size: {batch_size} is more than the {self.count} {self.counted}; lower it"
            )


def fit(job: TrainingJob[Sample, Batch], context: TrainingContext) -> list[dict[str, float]]:
    """Train the job's network in place, resuming from the context's folder; returns what was reported (`run_loop`).

    Raises InputError when the batch does not divide among the workers.
    """
    settings, size, world = job.settings, job.settings.batch_size, context.world
    if size % world:
        raise InputError(
            f"{job.section}.batch_size: {size} does not divide among {world} workers; set it to a multiple"
        )
    placed(job.network, context.device, job.bf16)
    optimizer = build_optimizer(
        job.optimizer, job.groups(), sgd_momentum=settings.sgd_momentum, weight_decay=settings.weight_decay
    )
    network = context.wrap(job.network) if context.wrap else job.network
    called = compiled(network, job.compiled)
    steps = job.passes * (job.count // size)
    total = job.epochs * steps if job.iterations is None else job.iterations

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        keys = epoch_keys_of_passes(job.count, size, job.seed, epoch, job.passes, context.rank, world)
        return batches_on(context.device, job.samples, keys[first : total - epoch * steps], job.workers, job.collate)

    loop = Loop(
        network=network,
        optimizer=optimizer,
        schedule=PolySchedule(optimizer, total if job.iterations is None else total + 1, settings.poly_power),
        epochs=-(-total // steps),
        steps_per_epoch=steps,
        batches=batches,
        losses=lambda batch, progress: job.losses(called, batch, progress),
        seed=job.seed,
        images_per_step=size,
        bf16=job.bf16,
    )
    with kept_memory(context.device):
        return run_loop(loop, context)


def placed(network: Network, device: torch.device, bf16: bool) -> Network:
    """Move a network to where it trains: on a GPU under bf16 with channels last, as its convolutions compute then."""
    if device.type == "cuda" and bf16:
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return network.to(device)


COMPILERS = ("c++", "g++", "clang++")


def compiled(network: nn.Module, mode: Compiled | None) -> nn.Module:
    """Return the network by torch.compile, which shares its parameters and is compiled at its first pass; None: itself.

    Raises InputError where this machine has no C++ compiler.
    """
    if mode is None:
        return network
    if not any(map(shutil.which, COMPILERS)):
        raise InputError("train.compiled: there is no C++ compiler here; install g++, or drop the key")
    called: Any = torch.compile(network, mode=mode)
    return cast(nn.Module, called)
