"""What a training is made of from its job; each network's own job is tested beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cpn.config.affinity import AffinityConfig
from cpn.data.batches import TensorBatch
from cpn.training.loop import TrainingContext
from cpn.training.training_job import TrainingJob, fit

SETTINGS = AffinityConfig(batch_size=4, lr=0.1, poly_power=1.0)
SILENT = TrainingContext(device=torch.device("cpu"), report=lambda _: None)
Key = tuple[int, int]


@dataclass(frozen=True)
class Keys(TensorBatch):
    keys: Tensor


class Itself(Dataset[Key]):
    """Each sample is its own key."""

    def __getitem__(self, key: Key) -> Key:
        return key


def job(seen: list[list[Key]], **more: object) -> TrainingJob[Key, Keys]:
    network = nn.Linear(1, 1)

    def losses(module: nn.Module, batch: Keys, _: float) -> Mapping[str, Tensor]:
        seen.append([(int(epoch), int(index)) for epoch, index in batch.keys])
        return {"total": module(batch.keys[:, :1].float()).mean()}

    return TrainingJob(
        section="affinity", settings=SETTINGS, optimizer="sgd", network=network,
        groups=lambda: [{"params": list(network.parameters()), "lr": 0.1}], samples=Itself(), count=9,
        collate=lambda keys: Keys(torch.tensor(keys)), losses=losses, seed=3, workers=0, **more,
    )  # type: ignore[arg-type]  # fmt: skip


def test_workers_share_each_batch() -> None:
    whole: list[list[Key]] = []
    shares: list[list[list[Key]]] = [[], []]
    fit(job(whole, epochs=1), SILENT)
    wrapped: list[nn.Module] = []
    for rank, seen in enumerate(shares):
        fit(job(seen, epochs=1), replace(SILENT, rank=rank, world=2, wrap=lambda m: wrapped.append(m) or m))
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [sorted(b) for b in whole]
    assert len(wrapped) == 2
