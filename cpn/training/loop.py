"""The training loop, the same for the CAM network, AffinityNet and DeepLab: resumable, and stopped by a bad number."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from cpn.core.errors import WorkError
from cpn.models.checkpoint import Progress, load_latest, save_checkpoint, to_stderr
from cpn.training.optimizer import PolySchedule

CHECK_STEPS = 50
"""Steps between looks at the loss on a GPU."""

Batch = TypeVar("Batch")
Network = TypeVar("Network", bound=nn.Module)
Report = Callable[[dict[str, float]], None]


def fit(
    *,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: PolySchedule,
    epochs: int,
    steps_per_epoch: int,
    batches: Callable[[int], Iterable[Batch]],
    losses: Callable[[Batch, float], Mapping[str, Tensor]],
    report: Report,
    seed: int,
    folder: Path | None = None,
    images_per_step: int = 1,
    bf16: bool = False,
    after_epoch: Callable[[int], Mapping[str, float]] | None = None,
    writes: bool = True,
    say: Callable[[str], None] = to_stderr,
) -> list[dict[str, float]]:
    """Train for `epochs` epochs, going on from the newest whole checkpoint in `folder`; returns what was reported.

    `batches(epoch)` gives an epoch's batches (its order and augmentation may depend on nothing but the epoch, so that
    a resumed run equals an uninterrupted one). `losses(batch, progress)` returns scalar tensors with a `total`;
    `progress` is the share of all steps done, in [0, 1). After each epoch the means of all losses, the learning rate,
    images per second, the share of time spent waiting for data, `peak_memory_mib` (GPUs only) and whatever
    `after_epoch(epoch)` measures go to `report`, with the wall clock as `time`; epochs that a checkpoint already holds
    are reported again first, so that a listener who was killed too misses none. Only the process with `writes` saves
    checkpoints. `say` hears, in a line each, of checkpoints that are damaged and were passed over.

    The unit of resumption is the epoch: what was done of a broken-off one is done again, to the same last bit on a CPU.

    Raises WorkError when the total loss is not finite: on a CPU before the step is taken; on a GPU, where each look
    waits for the device, within `CHECK_STEPS` steps and before anything is saved, for what is not finite stays so.
    """
    device = next(network.parameters()).device
    target = network.module if isinstance(getattr(network, "module", None), nn.Module) else network
    assert isinstance(target, nn.Module)
    progress = (load_latest(folder, target, optimizer, say) if folder else None) or Progress(0, 0, [])
    history = list(progress.history)
    for past in history:
        report(past)
    step = progress.step
    total_steps = max(1, epochs * steps_per_epoch)
    for epoch in range(progress.epoch, epochs):
        # Dropout draws from the global generator: seeding it per epoch makes a checkpoint's epoch border exact.
        torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        network.train()
        sums: dict[str, Tensor] = {}
        lr, taken, waited, total = 0.0, 0, 0.0, torch.zeros(())
        looks_every = steps_between_looks(device)
        began = waiting = time.perf_counter()
        for batch in batches(epoch):
            waited += time.perf_counter() - waiting
            lr = schedule(step)
            with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                terms = losses(batch, step / total_steps)
            total = terms["total"]
            if step % looks_every == 0:
                check_finite(total, epoch, step)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value.detach()
            step, taken, waiting = step + 1, taken + 1, time.perf_counter()
        check_finite(total, epoch, step)
        elapsed = time.perf_counter() - began
        entry: dict[str, float] = {"epoch": epoch + 1, "time": time.time(), "lr": lr}
        entry |= {f"loss_{name}": value.item() / max(1, taken) for name, value in sums.items()}
        entry["images_per_s"] = images_per_step * taken / elapsed
        entry["data_wait_share"] = waited / elapsed
        if device.type == "cuda":
            entry["peak_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        if after_epoch is not None:
            network.eval()
            entry |= dict(after_epoch(epoch + 1))
        history.append(entry)
        if folder is not None and writes:
            save_checkpoint(folder, target, optimizer, Progress(epoch + 1, step, history))
        report(entry)
    return history


def steps_between_looks(device: torch.device) -> int:
    """How often the loss is looked at: on a CPU, where that costs nothing, at every step."""
    return CHECK_STEPS if device.type == "cuda" else 1


def check_finite(total: Tensor, epoch: int, step: int) -> None:
    """Raise WorkError where the total loss, a scalar, is not finite; waits for the device."""
    if not math.isfinite(value := total.item()):
        raise WorkError(f"the loss is {value} at epoch {epoch + 1}, step {step}; lower train.lr")


def placed(network: Network, device: torch.device, bf16: bool) -> Network:
    """Move a network to where it trains: on a GPU under bf16 with channels last, as its convolutions compute then."""
    if device.type == "cuda" and bf16:
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return network.to(device)
