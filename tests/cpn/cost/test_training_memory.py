"""The least memory of a training step: counted by hand for a small network, and what it grows with."""

import pytest
import torch
from torch import nn

from cpn.config import Config, config_from
from cpn.cost.training_memory import kept_bytes, step_bytes


def config(*presets: str, **train: object) -> Config:
    """A configuration at scene size."""
    return config_from({"preset": ["official", "scenes", *presets], "train": train}, "test")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_small_network_keeps_counted_by_hand(device: str) -> None:
    """The convolution keeps its input, relu its output, the sum nothing."""
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Flatten()).to(device)
    assert kept_bytes(network, 8) == 4 * (3 * 8 * 8 + 5 * 8 * 8)


def test_the_scene_network_keeps_the_same_without_numbers() -> None:
    from cpn.models.network import build_network

    network = build_network(config().network, 7).train()
    with torch.device("meta"):
        shapes = build_network(config().network, 7).train()
    assert kept_bytes(network, 64) == pytest.approx(kept_bytes(shapes, 64), rel=0.01)
    assert kept_bytes(shapes, 64) > 10 * 3 * 64 * 64


def test_what_it_grows_with() -> None:
    one, two = (step_bytes(config(batch_size=size), 7) for size in (8, 16))
    fixed = 2 * one - two  # type: ignore[operator]
    assert 0 < fixed < 0.1 * one  # type: ignore[operator]  # weights, gradients, states
    assert step_bytes(config(batch_size=16), 7, workers=2) == one
    half = step_bytes(config(batch_size=8, precision="bf16"), 7)
    assert half - fixed == pytest.approx((one - fixed) / 2)  # type: ignore[operator]
    adamw, sgd = (step_bytes(config(batch_size=8, optimizer=kind), 7) for kind in ("adamw", "sgd"))
    assert adamw > sgd  # type: ignore[operator]


def test_three_branches_keep_three_times_as_much() -> None:
    three = step_bytes(config(batch_size=8), 7)
    one = step_bytes(config("cam_baseline", batch_size=8), 7)
    assert three > 3 * one  # type: ignore[operator]
