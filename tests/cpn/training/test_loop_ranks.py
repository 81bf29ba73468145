"""The training loop of two real processes over gloo, one of which meets what the other does not."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cpn.core.errors import WorkError
from cpn.training import loop, saving
from cpn.training.loop import Loop, TrainingContext, run_loop
from cpn.training.optimizer import PolySchedule, build_optimizer
from cpn.training.saving import Saving
from tests.gloo import in_group

pytestmark = pytest.mark.timeout(600)  # processes that wait for each other, on a machine that has other work

STEPS, EPOCHS = 4, 2


@dataclass(frozen=True)
class Bad:
    """Whose loss is spoiled when, and what all say of it."""

    ranks: tuple[int, ...]
    step: int
    """Of all steps, from 0."""
    value: float
    words: str
    looks_every: int = 1
    saves: bool = False
    """A checkpoint is due after each step."""


CASES = {
    "the other's": Bad((1,), 1, math.nan, "the loss of worker 1 is nan at epoch 1, step 1; lower train.lr"),
    "rank 0's": Bad((0,), 6, math.inf, "the loss of worker 0 is inf at epoch 2, step 6; lower train.lr"),
    "both": Bad((0, 1), 0, -math.inf, "the loss of worker 0 is -inf at epoch 1, step 0; lower train.lr"),
    "in an epoch's last step": Bad((1,), 3, math.nan, "worker 1 is nan at epoch 1, step 4", looks_every=2),
    "between two looks": Bad((1,), 1, math.nan, "worker 0 is nan at epoch 1, step 3", looks_every=3),
    "before a checkpoint": Bad((1,), 1, math.nan, "worker 1 is nan at epoch 1, step 2", looks_every=4, saves=True),
    "neither's": Bad((), 0, math.nan, ""),
}
"""Between two looks the gradients of all are spoiled by the one, so that rank 0's own loss is too."""


def train(case: Bad, rank: int, world: int, folder: Path) -> str:
    """Train a small network on this rank's part of each batch; what the loop says of its loss."""
    torch.manual_seed(7)
    network = nn.Linear(4, 1)
    optimizer = build_optimizer(
        "sgd", [{"params": network.parameters(), "lr": 0.01}], sgd_momentum=0.9, weight_decay=0.0
    )
    wrapped = DistributedDataParallel(network)
    taken = 0

    def batches(epoch: int, first: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(epoch)
        return iter([torch.randn(4, 4, generator=generator)[rank::world] for _ in range(STEPS)][first:])

    def losses(batch: Tensor, progress: float) -> Mapping[str, Tensor]:
        nonlocal taken
        spoiled = case.value if taken == case.step and rank in case.ranks else 1.0
        taken += 1
        return {"total": wrapped(batch).square().mean() * spoiled}

    rounds = Loop(
        network=wrapped, optimizer=optimizer, schedule=PolySchedule(optimizer, EPOCHS * STEPS), epochs=EPOCHS,
        steps_per_epoch=STEPS, batches=batches, losses=losses, seed=0,
    )  # fmt: skip
    context = TrainingContext(
        device=torch.device("cpu"), report=lambda _: None, folder=folder, rank=rank, world=world,
        saving=Saving(minutes=1e-9) if case.saves else Saving(),
    )  # fmt: skip
    try:
        run_loop(rounds, context)
    except WorkError as stopped:
        return str(stopped)
    return ""


def every_case(rank: int, world: int, place: str) -> dict[str, Any]:
    """What this rank heard in each case, and the checkpoints that are left."""
    found = {}
    saving.DECIDE_S = 0.0  # after every step
    for name, case in CASES.items():
        loop.steps_between_looks = lambda device, case=case: case.looks_every  # type: ignore[assignment, misc]
        said = train(case, rank, world, Path(place, name))
        found[name] = {"said": said, "kept": sorted(path.name for path in Path(place, name).glob("epoch_*"))}
    return found


def test_a_loss_of_one_rank_that_is_no_number_stops_all(tmp_path: Path) -> None:
    first, other = in_group(2, every_case, str(tmp_path))
    for name, case in CASES.items():
        assert first[name]["said"] == other[name]["said"], name
        assert case.words in first[name]["said"] and bool(case.words) == bool(first[name]["said"]), name
        # `writes` is rank 0's; nothing was saved of what is no number.
        done = 0 if not case.ranks else case.step // STEPS
        whole = [f"epoch_{epoch:04d}" for epoch in range(1, done + 1)]
        assert case.saves or not case.ranks or first[name]["kept"] == whole, name
    assert first["before a checkpoint"]["kept"] == ["epoch_0000_step_000001"]
