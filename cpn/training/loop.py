"""The training loop of all networks: resumable, and stopped by a loss that is not finite."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from cpn.core.errors import WorkError
from cpn.models.checkpoint import Progress, load_latest, save_checkpoint, to_stderr
from cpn.models.ranks import tensor_of_all
from cpn.training.epoch_state import EpochState, restore_generators
from cpn.training.optimizer import PolySchedule
from cpn.training.saving import HeldSigterm, SaveTimer, Saving

CHECK_STEPS = 50
"""Steps between looks at the loss on a GPU, or on any other device that computes by itself."""

Batch = TypeVar("Batch")
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """Where a training runs, from where it resumes and who hears of it, whatever is trained."""

    device: torch.device
    report: Report
    folder: Path | None = None
    """Where checkpoints are; None keeps none."""
    saving: Saving | None = None
    """How progress is saved within an epoch; None: not at all, but of the CAM network by `train.checkpoint_minutes`."""
    after_epoch: Callable[[int], Mapping[str, float]] | None = None
    """Measures the network after each epoch; what it returns is reported too."""
    say: Callable[[str], None] = to_stderr
    """Gets a line about each damaged checkpoint."""
    rank: int = 0
    """Which of the `world` workers this is that share each batch; the first alone saves checkpoints."""
    world: int = 1
    wrap: Callable[[nn.Module], nn.Module] | None = None
    """Makes a data-parallel module of the network, for several workers."""


@dataclass(frozen=True, kw_only=True)
class Loop(Generic[Batch]):
    """What the training loop goes over: the batches of its epochs, and what each of them is trained with."""

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
    images_per_step: int = 1
    bf16: bool = False


def run_loop(loop: Loop[Batch], context: TrainingContext) -> list[dict[str, float]]:
    """Train until all epochs of the loop are done, from the newest whole checkpoint on; return what was reported.

    After each epoch the means of all losses (over all workers that share the batches), the learning rate, images per
    second, the share of time spent waiting for data, `peak_memory_mib` (GPUs only) and whatever `after_epoch(epoch)`
    measures go to `report`, with the wall clock as `time`. Epochs that a checkpoint already holds are reported again
    first, so that a listener who was killed too misses none.

    A checkpoint is written at the end of each epoch, and within one as `saving` says; SIGTERM waits until one is
    written. What was done since the last is done again, to the same last bit on a CPU.

    Raises WorkError when the total loss is not finite: on a CPU before the step is taken; on a GPU, where each look
    waits for the device, within `CHECK_STEPS` steps and before anything is saved, for what is not finite stays so.
    """
    network, optimizer, folder, saving = loop.network, loop.optimizer, context.folder, context.saving or Saving()
    device = next(network.parameters()).device
    target = network.module if isinstance(getattr(network, "module", None), nn.Module) else network
    assert isinstance(target, nn.Module)
    progress = (load_latest(folder, target, optimizer, context.say) if folder else None) or Progress(0, 0, [])
    history = list(progress.history)
    for past in history:
        context.report(past)
    step = progress.step
    total_steps = max(1, loop.epochs * loop.steps_per_epoch)
    held = HeldSigterm()
    timer = SaveTimer(saving, held)

    def save(reached: Progress) -> None:
        if folder is not None and context.rank == 0:
            save_checkpoint(folder, target, optimizer, reached)
        timer.saved()

    for epoch in range(progress.epoch, loop.epochs):
        # Dropout draws from the global generator: seeding it per epoch makes a checkpoint's epoch border exact.
        torch.manual_seed((loop.seed * 1_000_003 + epoch) % 2**63)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        network.train()
        part = progress.part if epoch == progress.epoch else None
        total, looks_every = torch.zeros(()), steps_between_looks(device)
        state = EpochState(part, device)
        waiting = state.began
        with held if folder else nullcontext():
            for batch in loop.batches(epoch, state.steps):
                state.waited += time.perf_counter() - waiting
                if part is not None:  # the loader's start has drawn from the generator, as it had when this was saved
                    restore_generators(part.tensors, device)
                    part = None
                state.lr = loop.schedule(step)
                with torch.autocast(device.type, torch.bfloat16) if loop.bf16 else nullcontext():
                    terms = loop.losses(batch, step / total_steps)
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
        entry["images_per_s"] = loop.images_per_step * state.steps / elapsed
        entry["data_wait_share"] = state.waited / elapsed
        if device.type == "cuda":
            entry["peak_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        if context.after_epoch is not None:
            network.eval()
            entry |= dict(context.after_epoch(epoch + 1))
        history.append(entry)
        save(Progress(epoch + 1, step, history))
        context.report(entry)
    return history


def steps_between_looks(device: torch.device) -> int:
    """Return how often the loss is looked at: on a CPU, where that costs nothing, at every step."""
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
