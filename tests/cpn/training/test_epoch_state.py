import pytest
import torch

from cpn.training import epoch_state
from cpn.training.epoch_state import EpochState, own_sums, restore_generators

CPU = torch.device("cpu")


def test_a_part_gives_back_sums_and_generators_to_the_last_bit() -> None:
    whole, first = EpochState(None, CPU), EpochState(None, CPU)
    values = torch.rand(7, generator=torch.Generator().manual_seed(1))
    for value in values:
        whole.add({"total": value, "cls": value / 3})
    for value in values[:4]:
        first.add({"total": value, "cls": value / 3})
    first.lr, first.waited = 0.25, 3.5
    torch.manual_seed(5)
    torch.rand(3)
    part = first.part()
    expected = torch.rand(4)
    second = EpochState(part, CPU)
    assert (second.steps, second.lr, second.waited) == (4, 0.25, 3.5) and second.seconds() >= part.seconds
    torch.manual_seed(6)
    restore_generators(part.tensors, CPU)
    assert torch.equal(torch.rand(4), expected)
    for value in values[4:]:
        second.add({"total": value, "cls": value / 3})
    assert second.means() == whole.means() and second.means().keys() == {"loss_total", "loss_cls"}


def test_an_epoch_without_steps_has_no_means() -> None:
    assert EpochState(None, CPU).means() == {}


def test_each_rank_takes_its_own_sums_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"sum.total": torch.tensor([1.0, 5.0]), "generator.cpu": torch.get_rng_state()}
    for place, expected in (((1, 2), 5.0), ((0, 2), 1.0), ((0, 1), 3.0), ((2, 3), 3.0)):
        monkeypatch.setattr(epoch_state, "rank_and_world", lambda place=place: place)
        assert own_sums(tensors, CPU) == {"total": torch.tensor(expected)}, "another number of ranks: their mean"
