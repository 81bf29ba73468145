from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cpn.training.optimizer import PolySchedule, build_optimizer, poly_factor, weights_and_biases

REFERENCE = Path(__file__).parents[2] / "reference" / "poly_lr.npz"


def test_fifteen_steps_of_the_released_optimizer() -> None:
    with np.load(REFERENCE, allow_pickle=False) as file:
        reference = {name: file[name] for name in file}
    start, max_steps = torch.tensor(reference["start"], dtype=torch.float32), int(reference["max_step"])
    parameters = [nn.Parameter(start.clone()) for _ in range(4)]
    groups = [
        {"params": [p], "lr": 0.01 * factor, "weight_decay": float(decay)}
        for p, factor, decay in zip(parameters, (1, 2, 10, 20), reference["weight_decay_of_groups"], strict=True)
    ]
    optimizer = build_optimizer(
        "sgd", groups, sgd_momentum=float(reference["momentum_of_groups"][0]), weight_decay=123.0
    )
    schedule = PolySchedule(optimizer, max_steps)
    for step, (rates, after) in enumerate(
        zip(reference["lr_used_at_step"], reference["params_after_step"], strict=True)
    ):
        assert schedule(step) == pytest.approx(rates[0], rel=1e-12)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(rates, rel=1e-12)
        optimizer.zero_grad()
        torch.stack([((p - 0.25) ** 2).sum() for p in parameters]).sum().backward()
        optimizer.step()
        ours = torch.stack([p.detach() for p in parameters]).numpy()
        np.testing.assert_allclose(ours, after, rtol=1e-6, atol=1e-7)
    assert reference["lr_used_at_step"][12:].tolist() == reference["lr_used_at_step"][11:14].tolist()  # frozen


def test_the_factor_by_hand() -> None:
    assert poly_factor(0, 10, 0.9) == 1
    assert poly_factor(5, 10, 2) == 0.25
    assert poly_factor(9, 10, 1) == pytest.approx(0.1)
    assert poly_factor(10, 10, 1) == poly_factor(10_000, 10, 1) == poly_factor(9, 10, 1)  # never zero, never complex


def test_the_schedule_depends_on_the_step_alone() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 1.0)]
    optimizer = build_optimizer("sgd", groups, sgd_momentum=0.0, weight_decay=0.0)
    schedule = PolySchedule(optimizer, 10, power=1.0)
    for step in (7, 0, 3):
        assert schedule(step) == pytest.approx(0.1 * (1 - step / 10))
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1 * (1 - step / 10), 1 - step / 10])


def test_kinds_and_their_settings() -> None:
    def groups() -> list[dict[str, object]]:
        return [
            {"params": [nn.Parameter(torch.ones(1))], "lr": 0.5},
            {"params": [nn.Parameter(torch.ones(1))], "lr": 0.1, "weight_decay": 0.0},
        ]

    sgd = build_optimizer("sgd", iter(groups()), sgd_momentum=0.3, weight_decay=0.02)
    assert isinstance(sgd, torch.optim.SGD)
    assert [(g["lr"], g["momentum"], g["weight_decay"]) for g in sgd.param_groups] == [(0.5, 0.3, 0.02), (0.1, 0.3, 0)]
    adamw = build_optimizer("adamw", groups(), sgd_momentum=0.3, weight_decay=0.02)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [(g["lr"], g["weight_decay"]) for g in adamw.param_groups] == [(0.5, 0.02), (0.1, 0)]


def test_weights_and_biases_are_apart_and_frozen_left_out() -> None:
    first, second = nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.Conv2d(3, 1, 1))
    second[1].weight.requires_grad_(False)
    weights, biases = weights_and_biases([first, second])
    assert [id(p) for p in weights] == [id(first.weight), id(second[0].weight)]
    assert [id(p) for p in biases] == [id(first.bias), id(second[1].bias)]
