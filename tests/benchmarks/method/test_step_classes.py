"""The step is measured against the passes of its own backbone, with few classes shown whatever their number."""

import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.method.step_classes import CLASSES, shown_labels, sides, with_few_classes
from cpn.data.loader import Batch


def test_each_number_of_classes_has_its_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--backbone", "scene", "--crop", "32", "--batch", "2", "--quick", "--json"]
    assert command.main(["step_classes", *arguments]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    ratios = [found[f"ratio_{classes}"] for classes in CLASSES]
    assert found["worst"] == max(ratios) and min(ratios) > 0 and found["reached"] == (max(ratios) <= found["goal"])
    for classes in CLASSES:
        assert found[f"ratio_{classes}"] == pytest.approx(found[f"step_{classes}"] / found[f"plain_{classes}"])


def test_a_step_trains_the_head_and_a_plain_pass_the_backbone() -> None:
    step, plain = sides(6, "scene", 32, 2)
    network = next(cell.cell_contents for cell in plain.__closure__ if hasattr(cell.cell_contents, "backbone"))
    plain()
    assert network.fc8.weight.grad is None
    assert all(p.grad is not None for p in network.backbone.parameters() if p.requires_grad)
    step()
    assert network.fc8.weight.grad is not None and network.f9.weight.grad is not None


def test_images_show_one_to_three_classes_in_turn() -> None:
    assert shown_labels(5, 80).sum(dim=1).tolist() == [1, 2, 3, 1, 2]


def test_maps_are_made_for_the_classes_that_are_shown() -> None:
    image = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    hidden = torch.zeros(4, 8, 8, dtype=torch.bool)
    many = Batch(image, ~hidden, hidden, torch.ones(4), torch.ones(4, 80), None, most_classes=80)
    few = with_few_classes(many, 80)
    assert few.labels.sum(dim=1).tolist() == [1, 2, 3, 1] and few.most_classes == 3
