"""Batches on their way to the device: stacked by loader processes, page-locked for a GPU, and sent without waiting."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class TensorBatch:
    """What the dataclasses have in common that one training step reads: tensors, and what is known without them."""

    def to(self, device: torch.device) -> Self:
        """Move the batch to `device`. From page-locked memory to a GPU the copy runs beside what the GPU computes."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Copy the batch to page-locked memory. The name is DataLoader's: an object without it is left as it is."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, work: Callable[[Tensor], Tensor]) -> Self:
        held = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        changed = {name: work(value) for name, value in held.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]


Kind = TypeVar("Kind", bound=TensorBatch)


def batches_on(
    device: torch.device,
    samples: Dataset[Any],
    keys: Sequence[Sequence[tuple[int, int]]],
    workers: int,
    collate: Callable[[list[Any]], Kind],
) -> Iterator[Kind]:
    """Yield the batches of `keys`, of which `samples` understands each, made by `workers` processes (0: in this
    one).
    """
    loader = DataLoader(
        samples,
        batch_sampler=keys,  # type: ignore[arg-type]  # keys are (epoch, index)
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=ignore_sigterm,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield batch.to(device)


def ignore_sigterm(_: int) -> None:
    """Ignore SIGTERM, in a loader process. A batch system sends it to all processes at once, and the training saves its
    progress first; it takes its loaders with it, and one that is killed is noticed by them within seconds.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
