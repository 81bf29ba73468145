"""The device of tests/card.py: what it raises, what it counts, and whose numbers it has."""

import pytest
import torch
from torch import nn

from tests.card import CARD, Card, WrongPlace


@pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "shapes"])
def test_tensors_of_two_places_do_not_meet(numbers: bool) -> None:
    with Card(numbers):
        there, here = torch.ones(2, 3, device=CARD), torch.ones(2, 3)
        for work in (lambda: there + here, lambda: torch.where(here > 0, there, there), lambda: there[here > 0]):
            with pytest.raises((WrongPlace, RuntimeError, NotImplementedError), match=r"cpu|card|device|meta"):
                work()
        assert (there * torch.tensor(2.0)).device == CARD, "a single number goes along"


@pytest.mark.parametrize("numbers", [True, False], ids=["numbers", "shapes"])
def test_what_waits_is_counted(numbers: bool) -> None:
    with Card(numbers) as card:
        there = torch.ones(2).to(CARD)
        assert dict(card.waits) == {"send": 1}
        torch.ones(2).to(CARD, non_blocking=True)
        there.copy_(torch.zeros(2), non_blocking=True)
        (there + 1).sum()
        assert dict(card.waits) == {"send": 1}
        there.copy_(torch.ones(2))
        assert there.sum().item() == (2 if numbers else 1)
        assert bool(there[0] > 0) and int(there[0]) == 1
        there.cpu()
        torch.ones(2).copy_(there)
        assert dict(card.waits) == {"send": 2, "item": 3, "fetch": 2}


def test_a_card_has_the_cpus_numbers() -> None:
    def work(device: torch.device) -> torch.Tensor:
        torch.manual_seed(1)
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 2, 1))
        layers.to(device)
        optimizer = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.9)
        image = torch.arange(3 * 36.0).reshape(1, 3, 6, 6).to(device) / 100
        image[:, 1] += torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], device=device)
        for _ in range(3):
            optimizer.zero_grad()
            layers(image).square().mean().backward()
            optimizer.step()
        return torch.cat([parameter.flatten() for parameter in layers.parameters()]).detach().cpu()

    with Card():
        found = work(CARD)
    torch.testing.assert_close(found, work(torch.device("cpu")))


def test_what_was_made_elsewhere_has_no_numbers() -> None:
    there = torch.ones(2, device=CARD)
    with Card(), pytest.raises(WrongPlace, match="outside of this mode"):
        there.sum().item()
