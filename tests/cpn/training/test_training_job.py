"""What a training is made of from its job; each network's own job is tested beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cpn.config.affinity import AffinityConfig
from cpn.core.errors import InputError
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
        groups=[{"params": list(network.parameters()), "lr": 0.1}], samples=Itself(), count=9,
        collate=lambda keys: Keys(torch.tensor(keys)), losses=losses, seed=3, workers=0, **more,
    )  # type: ignore[arg-type]  # fmt: skip


def test_an_epoch_passes_the_samples_as_often_as_asked() -> None:
    seen: list[list[Key]] = []
    history = fit(job(seen, epochs=2, passes=3), SILENT)
    assert [len(batch) for batch in seen] == [4] * 12 and [entry["epoch"] for entry in history] == [1, 2]
    drawn = [{index for draw, index in sum(seen, []) if draw == number} for number in range(6)]
    assert [len(indices) for indices in drawn] == [8] * 6, "two batches a pass, and one sample over"


def test_iterations_end_within_an_epoch() -> None:
    seen: list[list[Key]] = []
    history = fit(job(seen, iterations=5), SILENT)
    assert [draw for draw, *_ in (batch[0] for batch in seen)] == [0, 0, 1, 1, 2]
    assert [entry["lr"] for entry in history] == pytest.approx([0.1 * (1 - step / 6) for step in (1, 3, 4)])


def test_workers_share_each_batch() -> None:
    whole: list[list[Key]] = []
    shares: list[list[list[Key]]] = [[], []]
    fit(job(whole, epochs=1), SILENT)
    wrapped: list[nn.Module] = []
    for rank, seen in enumerate(shares):
        fit(job(seen, epochs=1), replace(SILENT, rank=rank, world=2, wrap=lambda m: wrapped.append(m) or m))
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [sorted(b) for b in whole]
    assert len(wrapped) == 2


@pytest.mark.parametrize(
    ("count", "world", "words"),
    [
        (3, 1, "affinity.batch_size: 4 is more than the 3 images; lower it"),
        (9, 3, "affinity.batch_size: 4 does not divide among 3 workers; set it to a multiple"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(count: int, world: int, words: str) -> None:
    with pytest.raises(InputError) as refused:
        fit(replace(job([], epochs=1), count=count), replace(SILENT, world=world))
    assert str(refused.value) == words
