"""Batches on their way to a device."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.pin_memory import pin_memory

from cpn.data.batches import TensorBatch, batches_on
from cpn.data.loader import Batch
from cpn.data.segmentation_samples import SegmentationBatch
from cpn.propagation.affinity import AffinityBatch


@dataclass(frozen=True)
class Pair(TensorBatch):
    one: Tensor
    other: Tensor | None = None


class Numbers(Dataset[int]):
    def __getitem__(self, key: tuple[int, int]) -> int:
        return 10 * key[0] + key[1]


def collate(numbers: list[int]) -> Pair:
    return Pair(torch.tensor(numbers))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_order_of_their_keys(workers: int) -> None:
    keys = [[(1, 2), (1, 0)], [(1, 1), (0, 3)], [(2, 2)]]
    found = list(batches_on(torch.device("cpu"), Numbers(), keys, workers, collate))
    assert [batch.one.tolist() for batch in found] == [[12, 10], [11, 3], [22]]


def test_every_tensor_goes_to_the_device_and_none_stays_none() -> None:
    moved = Pair(torch.ones(2)).to(torch.device("meta"))
    assert isinstance(moved, Pair) and moved.one.device.type == "meta" and moved.other is None
    assert Pair(torch.ones(2), torch.ones(1)).to(torch.device("meta")).other is not None


@pytest.mark.parametrize("kind", [Batch, AffinityBatch, SegmentationBatch])
def test_the_loader_locks_every_tensor_of_every_kind_of_batch(
    kind: type[TensorBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a GPU nothing can be page-locked; what torch asks of a batch is seen all the same.
    locked: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor, *_: locked.append(id(tensor)) or tensor)
    count = 5 if kind is Batch else 3
    tensors = [torch.ones(2) for _ in range(count)]
    batch = pin_memory(kind(*tensors))  # type: ignore[call-arg]
    assert isinstance(batch, kind) and locked == [id(tensor) for tensor in tensors]
