"""What of an epoch is done: its running sums and the random generators, as a checkpoint within it keeps them."""

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from cpn.models.checkpoint import EpochPart
from cpn.models.ranks import mean_of_all, rank_and_world, tensor_of_all

SUM = "sum."
"""Before the name of a loss: its sum over the steps so far, of each rank, (ranks,)."""
CPU_GENERATOR, GPU_GENERATOR = "generator.cpu", "generator.gpu"
"""States of torch's generators, which dropout draws from: rank 0's, for all ranks draw alike."""


class EpochState:
    """The steps of an epoch that are done, with what its report is made of."""

    def __init__(self, part: EpochPart | None, device: torch.device) -> None:
        """Begin, or go on from the `part` that an earlier attempt has done. The sums lie on `device`."""
        self.steps = part.steps if part else 0
        self.waited = part.waited if part else 0.0
        """Seconds in which the steps waited for data."""
        self.lr = part.lr if part else 0.0
        self.began = time.perf_counter()
        self._earlier = part.seconds if part else 0.0
        self._device = device
        self._sums = own_sums(part.tensors, device) if part else {}

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Count a step with these losses, scalars."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value.detach()
        self.steps += 1

    def seconds(self) -> float:
        """Return how long the steps took, those of earlier attempts among them."""
        return self._earlier + time.perf_counter() - self.began

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the steps and all ranks, as `loss_NAME`."""
        if not self._sums:
            return {}
        of_all = mean_of_all(torch.stack(list(self._sums.values()))).tolist()
        return {f"loss_{name}": value / max(1, self.steps) for name, value in zip(self._sums, of_all, strict=True)}

    def part(self) -> EpochPart:
        """Return what a checkpoint keeps of it. To be called by every rank: each has sums of its own."""
        tensors = {SUM + name: tensor_of_all(value) for name, value in self._sums.items()}
        tensors[CPU_GENERATOR] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors[GPU_GENERATOR] = torch.cuda.get_rng_state(self._device)
        return EpochPart(self.steps, self.seconds(), self.waited, self.lr, tensors)


def own_sums(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return this rank's sums by loss; where another number of ranks wrote them, their mean."""
    rank, world = rank_and_world()
    rows = {name.removeprefix(SUM): rows for name, rows in tensors.items() if name.startswith(SUM)}
    return {name: (row[rank] if len(row) == world else row.mean()).to(device) for name, row in rows.items()}


def restore_generators(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the generators back to where they were after the last step of a part."""
    torch.set_rng_state(tensors[CPU_GENERATOR])
    if device.type == "cuda" and GPU_GENERATOR in tensors:
        torch.cuda.set_rng_state(tensors[GPU_GENERATOR], device)
