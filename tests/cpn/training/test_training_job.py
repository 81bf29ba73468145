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
from cpn.training import training_job
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


def test_a_compiled_network_trains_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Key]] = []
    modes: list[object] = []
    whole = torch.compile

    def compile_quickly(network: nn.Module, mode: str) -> object:
        modes.append(mode)
        return whole(network, backend="eager")  # the same graph, without the minutes of a C++ compiler

    monkeypatch.setattr(torch, "compile", compile_quickly)
    torch.manual_seed(0)
    plain = job(seen, epochs=2)
    torch.manual_seed(0)
    faster = job(seen, epochs=2, compiled="default")
    fit(plain, SILENT)
    assert modes == []
    fit(faster, SILENT)
    assert modes == ["default"] and list(faster.network.state_dict()) == ["weight", "bias"]
    for one, other in zip(plain.network.parameters(), faster.network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_without_a_compiler_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_job.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="train.compiled: there is no C\\+\\+ compiler here; install g\\+\\+"):
        fit(job([], epochs=1, compiled="default"), SILENT)
