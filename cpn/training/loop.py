"""The training loop of all networks: resumable, and stopped by a loss that is not finite."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cpn.config.train import OptimizerKind
from cpn.core.errors import InputError, WorkError
from cpn.data.batches import TensorBatch, batches_on
from cpn.data.loader import epoch_keys
from cpn.models.checkpoint import Progress, load_latest, save_checkpoint, to_stderr
from cpn.models.ranks import tensor_of_all
from cpn.training.epoch_state import EpochState, restore_generators
from cpn.training.optimizer import PolySchedule, build_optimizer
from cpn.training.saving import HeldSigterm, SaveTimer, Saving

CHECK_STEPS = 50
"""Steps between looks at the loss on a GPU, or on any other device that computes by itself."""

Batch = TypeVar("Batch")
Sample = TypeVar("Sample")
Sent = TypeVar("Sent", bound=TensorBatch)
Network = TypeVar("Network", bound=nn.Module)
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Generic[Batch]):
    """One training of any network: what is trained on what, for how long, and where it is resumed from."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: PolySchedule
    epochs: int
    steps_per_epoch: int
    batches: Callable[[int, int], Iterable[Batch]]
    """(epoch, first) -> the batches of an epoch from its batch `first` on. Order and augmentation depend on nothing but
    the epoch, so that a resumed training equals an uninterrupted one."""
    losses: Callable[[Batch, float], Mapping[str, Tensor]]
    """(batch, share of all steps done, in [0, 1)) -> scalar tensors, a `total` among them."""
    seed: int
    """Of dropout; an epoch has its own, made from it."""
    folder: Path | None = None
    """Where checkpoints are; None keeps none."""
    images_per_step: int = 1
    bf16: bool = False


class TrainingSettings(Protocol):
    """What the sections train, affinity, irn and deeplab have in common."""

    @property
    def batch_size(self) -> int:
        """Images per step."""
        ...

    @property
    def sgd_momentum(self) -> float:
        """Momentum of SGD."""
        ...

    @property
    def weight_decay(self) -> float:
        """Weight decay of groups that name none."""
        ...

    @property
    def poly_power(self) -> float:
        """Power of the polynomial schedule."""
        ...


def list_job(
    section: str,
    network: nn.Module,
    groups: Iterable[dict[str, Any]],
    settings: TrainingSettings,
    optimizer: OptimizerKind,
    samples: Dataset[Sample],
    count: int,
    collate: Callable[[list[Sample]], Sent],
    losses: Callable[[Sent, float], Mapping[str, Tensor]],
    *,
    device: torch.device,
    seed: int,
    workers: int,
    epochs: int | None = None,
    iterations: int | None = None,
    folder: Path | None = None,
    bf16: bool = False,
) -> TrainingJob[Sent]:
    """Make the job of a network that is trained on `count` samples: AffinityNet, IRN or DeepLab.

    It lasts `epochs`, or `iterations` steps, of which the last epoch may be a part; the schedule of the latter ends one
    step later, as in the released code. Raises InputError, naming the `section`, where a batch holds more than there
    is.
    """
    if count < settings.batch_size:
        raise InputError(f"{section}.batch_size: {settings.batch_size} is more than the {count} images; lower it")
    steps = count // settings.batch_size
    total = iterations if iterations is not None else (epochs or 0) * steps
    built = build_optimizer(optimizer, groups, sgd_momentum=settings.sgd_momentum, weight_decay=settings.weight_decay)

    def batches(epoch: int, first: int) -> Iterator[Sent]:
        keys = epoch_keys(count, settings.batch_size, seed, epoch)[first : total - epoch * steps]
        return batches_on(device, samples, keys, workers, collate)

    return TrainingJob(
        network=network,
        optimizer=built,
        schedule=PolySchedule(built, total if iterations is None else total + 1, settings.poly_power),
        epochs=-(-total // steps),
        steps_per_epoch=steps,
        batches=batches,
        losses=losses,
        seed=seed,
        folder=folder,
        images_per_step=settings.batch_size,
        bf16=bf16,
    )


def fit(
    job: TrainingJob[Batch],
    report: Report,
    *,
    after_epoch: Callable[[int], Mapping[str, float]] | None = None,
    writes: bool = True,
    say: Callable[[str], None] = to_stderr,
    saving: Saving | None = None,
) -> list[dict[str, float]]:
    """Train until all epochs of the job are done, from the newest whole checkpoint on; return what was reported.

    After each epoch the means of all losses (over all workers that share the batches), the learning rate, images per
    second, the share of time spent waiting for data, `peak_memory_mib` (GPUs only) and whatever `after_epoch(epoch)`
    measures go to `report`, with the wall clock as `time`. Epochs that a checkpoint already holds are reported again
    first, so that a listener who was killed too misses none. Only the process with `writes` saves checkpoints. `say`
    gets a line about each damaged checkpoint.

    A checkpoint is written at the end of each epoch, and within one as `saving` says; SIGTERM waits until one is
    written. What was done since the last is done again, to the same last bit on a CPU.

    Raises WorkError when the total loss is not finite: on a CPU before the step is taken; on a GPU, where each look
    waits for the device, within `CHECK_STEPS` steps and before anything is saved, for what is not finite stays so.
    """
    network, optimizer, folder, saving = job.network, job.optimizer, job.folder, saving or Saving()
    device = next(network.parameters()).device
    target = network.module if isinstance(getattr(network, "module", None), nn.Module) else network
    assert isinstance(target, nn.Module)
    progress = (load_latest(folder, target, optimizer, say) if folder else None) or Progress(0, 0, [])
    history = list(progress.history)
    for past in history:
        report(past)
    step = progress.step
    total_steps = max(1, job.epochs * job.steps_per_epoch)
    held = HeldSigterm()
    timer = SaveTimer(saving, held)

    def save(reached: Progress) -> None:
        if folder is not None and writes:
            save_checkpoint(folder, target, optimizer, reached)
        timer.saved()

    for epoch in range(progress.epoch, job.epochs):
        # Dropout draws from the global generator: seeding it per epoch makes a checkpoint's epoch border exact.
        torch.manual_seed((job.seed * 1_000_003 + epoch) % 2**63)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        network.train()
        part = progress.part if epoch == progress.epoch else None
        total, looks_every = torch.zeros(()), steps_between_looks(device)
        state = EpochState(part, device)
        waiting = state.began
        with held if folder else nullcontext():
            for batch in job.batches(epoch, state.steps):
                state.waited += time.perf_counter() - waiting
                if part is not None:  # the loader's start has drawn from the generator, as it had when this was saved
                    restore_generators(part.tensors, device)
                    part = None
                state.lr = job.schedule(step)
                with torch.autocast(device.type, torch.bfloat16) if job.bf16 else nullcontext():
                    terms = job.losses(batch, step / total_steps)
                total = terms["total"]
                if step % looks_every == 0:
                    check_finite(total, epoch, step)
                optimizer.zero_grad(set_to_none=True)
                total.backward()
                optimizer.step()
                state.add(terms)
                step, waiting = step + 1, time.perf_counter()
                if folder is not None and timer.due():
                    check_finite(total, epoch, step)
                    save(Progress(epoch, step, history, state.part()))
                    if saving.saved is not None:
                        saving.saved()
                    if held.came:
                        held.release()
        check_finite(total, epoch, step)
        elapsed = state.seconds()
        entry: dict[str, float] = {"epoch": epoch + 1, "time": time.time(), "lr": state.lr, **state.means()}
        entry["images_per_s"] = job.images_per_step * state.steps / elapsed
        entry["data_wait_share"] = state.waited / elapsed
        if device.type == "cuda":
            entry["peak_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        if after_epoch is not None:
            network.eval()
            entry |= dict(after_epoch(epoch + 1))
        history.append(entry)
        save(Progress(epoch + 1, step, history))
        report(entry)
    return history


def steps_between_looks(device: torch.device) -> int:
    """How often the loss is looked at: on a CPU, where that costs nothing, at every step."""
    return 1 if device.type == "cpu" else CHECK_STEPS


def check_finite(total: Tensor, epoch: int, step: int) -> None:
    """Raise WorkError where the total loss, a scalar, is not finite; waits for the device.

    Each rank has the loss of its own images: all look together and all raise, for one that stopped alone would leave
    the others waiting for its gradients.
    """
    values = tensor_of_all(total).tolist()
    for rank, value in enumerate(values):
        if not math.isfinite(value):
            whose = f" of worker {rank}" if len(values) > 1 else ""
            raise WorkError(f"the loss{whose} is {value} at epoch {epoch + 1}, step {step}; lower train.lr")


def placed(network: Network, device: torch.device, bf16: bool) -> Network:
    """Move a network to where it trains: on a GPU under bf16 with channels last, as its convolutions compute then."""
    if device.type == "cuda" and bf16:
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return network.to(device)
